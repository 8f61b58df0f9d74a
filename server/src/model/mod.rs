//! The one model of a profile: every ingest format becomes these types before anything else sees it.
//!
//! Pure data with its invariants. No input format, no storage and no query may appear here.

mod ids;
mod labels;
mod profile;
mod profile_type;
mod series;
mod symbols;
mod tables;
mod time;

pub use ids::{IdError, ProfileId, ProfileIdError, SpanId, TenantId, TenantIdError, TraceId};
pub use labels::Labels;
pub(crate) use labels::same_name;
pub(crate) use profile::interval;
pub use profile::{Loss, Profile, SpanRef};
pub use profile_type::{ProfileType, ProfileTypeError};
pub use series::{SPAN_NAME, SYNTHETIC_LABELS, label};
pub(crate) use symbols::Numbers;
pub use symbols::{Function, Line, Location, Mapping, Symbols, SymbolsBuilder};
pub(crate) use tables::{HashIndex, INDEXED_BYTES};
pub use tables::{ListTable, StringTable};
pub use time::TimeRange;
