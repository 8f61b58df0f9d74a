//! Live spans: what the sampler may know about a span while it runs.
//!
//! The span processor writes the [`table`], the signal handler reads it. Nothing in there locks, and nothing is
//! ever freed, so a reader that interrupts a writer on the same thread still finds whole records or none. What is said
//! of spans in words is kept beside it, in [`label_sets`] under locks: the handler sees only numbers of that.

mod keys;
mod label_sets;
mod record;
mod table;

pub(crate) use keys::{LabelKey, MAX_LABEL_KEYS, Source, label_values};
pub(crate) use label_sets::{LabelPair, LabelSets, cut};
pub(crate) use record::{LabelSetId, SpanId, SpanRecord, TraceId};
pub(crate) use table::{SpanKey, SpanTable, SpanWords};
