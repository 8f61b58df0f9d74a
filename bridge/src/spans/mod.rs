//! Live spans: what the sampler may know about a span while it runs.
//!
//! The span processor writes, the signal handler reads. Nothing here locks, and nothing is ever freed, so a
//! reader that interrupts a writer on the same thread still finds whole records or none.

mod names;
mod table;

pub(crate) use names::{NameId, Names};
pub(crate) use table::{SpanKey, SpanTable};

/// A span id as its 8 bytes read big-endian, so that its lower-case hex is the W3C form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpanId(pub(crate) u64);

/// A trace id as its 16 bytes read big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TraceId(pub(crate) u128);

/// What every sample taken inside a span is stamped with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SpanRecord {
    /// The span that was active: the innermost one.
    pub(crate) span_id: SpanId,
    /// Its parent, or zero when it has none in this process.
    pub(crate) parent: SpanId,
    /// The outermost ancestor in this process; the span itself when it has no local parent.
    pub(crate) local_root: SpanId,
    /// The trace.
    pub(crate) trace_id: TraceId,
    /// The span's name.
    pub(crate) name: NameId,
    /// The local root's name.
    pub(crate) root_name: NameId,
    /// Whether this very span carries `pyroscope.profile.id`. If not, its samples belong to the local root.
    pub(crate) tagged: bool,
}
