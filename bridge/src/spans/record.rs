//! What is known of a live span: plain numbers, so that a signal handler can copy them.

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
    let mut digits = [0; 16];
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&eight_digits((value >> 32) as u32));
    low.copy_from_slice(&eight_digits(value as u32));
    digits
}

/// All eight at once, one in each byte of a word.
fn eight_digits(value: u32) -> [u8; 8] {
    const EVERY_BYTE: u64 = 0x0101_0101_0101_0101;
    let value = u64::from(value);
    let value = (value | (value << 16)) & 0x0000_ffff_0000_ffff;
    let value = (value | (value << 8)) & 0x00ff_00ff_00ff_00ff;
    let value = (value | (value << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // From 10 on, adding 6 carries into the upper half of the byte.
    let letters = ((value + 6 * EVERY_BYTE) >> 4) & EVERY_BYTE;
    (value + u64::from(b'0') * EVERY_BYTE + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// A label set's number. Of a number that was given out, the set may be gone: then its name is `other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LabelSetId(pub(crate) u32);

impl LabelSetId {
    /// The empty set: nothing was recorded.
    pub(crate) const NONE: Self = Self(0);
    /// A set there was no room for.
    pub(crate) const OTHER: Self = Self(1);
    /// The first number that is given out.
    pub(super) const FIRST: u32 = 2;
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
    /// What samples taken in it say in words: by the scope of names, of the span itself or of its local root.
    pub(crate) labels: LabelSetId,
    /// What is said of the local root.
    pub(crate) root_labels: LabelSetId,
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
