//! Ids of spans and traces as messages have them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The id in these bytes, of which it has so many; 0 for none at all.
///
/// JSON of OpenTelemetry has ids in hexadecimal, JSON of protobuf bytes in base64. Both have been read as base64 here:
/// hexadecimal gave half as many bytes again, and is had back by undoing that. A true id never has that length.
pub(super) fn id(bytes: &[u8], want: usize) -> Option<u128> {
    if bytes.len() == want || bytes.is_empty() {
        return Some(bytes.iter().fold(0, |id, byte| id << 8 | u128::from(*byte)));
    }
    if bytes.len() != want / 2 * 3 {
        return None;
    }
    let text = STANDARD.encode(bytes);
    if text.bytes().all(|b| b.is_ascii_hexdigit()) { u128::from_str_radix(&text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bytes_or_hexadecimal_that_was_taken_for_base64() {
        let span: u128 = 0x00f0_67aa_0ba9_02b7;
        assert_eq!(id(&(span as u64).to_be_bytes(), 8), Some(span));
        assert_eq!(id(&STANDARD.decode("00f067aa0ba902b7").unwrap(), 8), Some(span));
        assert_eq!(id(&STANDARD.decode("00F067AA0BA902B7").unwrap(), 8), Some(span));
        let trace: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
        assert_eq!(id(&trace.to_be_bytes(), 16), Some(trace));
        assert_eq!(id(&STANDARD.decode("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(), 16), Some(trace));
        assert_eq!(id(&[], 8), Some(0));
        assert_eq!(id(&[0; 8], 8), Some(0));
        for bad in [&[1][..], &[0; 7], &[0; 9], &[0xff; 12], &[0; 16]] {
            assert_eq!(id(bad, 8), None, "{bad:?}");
        }
    }
}
