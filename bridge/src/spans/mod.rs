//! Live spans: what the sampler may know about a span while it runs.
//!
//! The span processor writes, the signal handler reads. Nothing here locks, and nothing is ever freed, so a
//! reader that interrupts a writer on the same thread still finds whole records or none.

mod names;
mod table;

pub(crate) use names::{NameId, Names};
pub(crate) use table::{SpanKey, SpanTable, SpanWords};

/// A span id as its 8 bytes read big-endian, so that its lower-case hex is the W3C form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SpanId(pub(crate) u64);

/// A trace id as its 16 bytes read big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TraceId(pub(crate) u128);

impl SpanId {
    /// The 16 lower-case hexadecimal characters that W3C and Grafana know it by.
    pub(crate) fn hex(self) -> [u8; 16] {
        hex(self.0)
    }
}

impl TraceId {
    /// The 32 lower-case hexadecimal characters that W3C and Grafana know it by.
    pub(crate) fn hex(self) -> [u8; 32] {
        let mut digits = [0; 32];
        let (high, low) = digits.split_at_mut(16);
        high.copy_from_slice(&hex((self.0 >> 64) as u64));
        low.copy_from_slice(&hex(self.0 as u64));
        digits
    }
}

/// Written out rather than formatted: every span pays for it.
fn hex(value: u64) -> [u8; 16] {
    std::array::from_fn(|place| b"0123456789abcdef"[(value >> (60 - 4 * place)) as usize & 15])
}

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_read_as_open_telemetry_writes_them(span in any::<u64>(), trace in any::<u128>()) {
            let expected = opentelemetry::trace::SpanId::from(span).to_string();
            prop_assert_eq!(SpanId(span).hex().to_vec(), expected.into_bytes());
            let expected = opentelemetry::trace::TraceId::from(trace).to_string();
            prop_assert_eq!(TraceId(trace).hex().to_vec(), expected.into_bytes());
        }
    }
}
