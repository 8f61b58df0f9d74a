//! The bridge's sources of this name, as far as a model needs them.

#[path = "../../bridge/src/spans/record.rs"]
mod record;
#[path = "../../bridge/src/spans/table.rs"]
mod table;

pub(crate) use record::{LabelSetId, SpanId, SpanRecord, TraceId};
pub(crate) use table::{SpanKey, SpanTable};
