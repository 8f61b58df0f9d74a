//! The bytes of a log file: a header, then records with checksums. `docs/storage.md` has the layout.
//!
//! Only bytes here, no files.

use std::ops::Range;

/// Version of the files that are written. Earlier ones, from 1, are read.
pub(in crate::store) const VERSION: u32 = 2;
/// Bytes of the header of a file.
pub(in crate::store) const HEADER_BYTES: usize = 32;
/// Bytes in front of a record's payload.
pub(super) const RECORD_HEADER_BYTES: usize = 12;

const MAGIC: [u8; 8] = *b"SPANFLOG";
/// Begins a record. Its first byte is in no UTF-8 text, so the marker is in no string of a payload.
const MARKER: [u8; 4] = [0xf5, b'R', b'E', b'C'];

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The header of the file with this number, made at this time.
pub(in crate::store) fn header(sequence: u64, created_ms: i64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&sequence.to_le_bytes());
    header[20..28].copy_from_slice(&created_ms.to_le_bytes());
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The version in a file's header, none if the header is not whole.
pub(in crate::store) fn version(file: &[u8]) -> Option<u32> {
    let header = file.get(..HEADER_BYTES)?;
    let whole = header[..8] == MAGIC && u32_at(header, 28)? == crc32fast::hash(&header[..28]);
    if whole { u32_at(header, 8) } else { None }
}

/// When a file was begun in Unix milliseconds, none if its header is not whole.
pub(super) fn begun_ms(file: &[u8]) -> Option<i64> {
    version(file)?;
    Some(i64::from_le_bytes(file.get(20..28)?.try_into().ok()?))
}

/// The checksum covers where the record lies, so that one that ended up elsewhere is not taken for it.
fn checksum(sequence: u64, offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Appends a record to `out`, whose first byte will lie at `base` in the file with this number.
///
/// # Panics
/// When the payload is 4 GiB or larger; the store refuses such before.
pub(in crate::store) fn put_record(out: &mut Vec<u8>, sequence: u64, base: u64, payload: &[u8]) {
    let offset = base + out.len() as u64;
    let length = u32::try_from(payload.len()).expect("the store bounds payloads");
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(sequence, offset, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Where the payload of the record at `at` lies, if there is a whole one.
fn record(file: &[u8], sequence: u64, at: usize) -> Option<Range<usize>> {
    if file.get(at..at + 4)? != MARKER {
        return None;
    }
    let start = at + RECORD_HEADER_BYTES;
    let range = start..start.checked_add(u32_at(file, at + 4)? as usize)?;
    let payload = file.get(range.clone())?;
    (u32_at(file, at + 8)? == checksum(sequence, at as u64, payload)).then_some(range)
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Contents {
    /// Payloads of whole records, in order.
    pub(in crate::store) payloads: Vec<Range<usize>>,
    /// Bytes that are no records but lie in front of one: something happened to what was written.
    pub(in crate::store) damaged: Vec<Range<usize>>,
    /// The end of the last whole record. What lies behind it was never written to its end.
    pub(in crate::store) end: usize,
}

/// Finds the whole records of the file with this number. Behind damage it goes on at the next record.
pub(in crate::store) fn contents(file: &[u8], sequence: u64) -> Contents {
    let mut contents = Contents { end: HEADER_BYTES.min(file.len()), ..Contents::default() };
    let header_is_whole = version(file).is_some();
    if !header_is_whole {
        contents.end = 0;
    }
    let mut at = HEADER_BYTES;
    while at < file.len() {
        if let Some(payload) = record(file, sequence, at) {
            if contents.end < at {
                contents.damaged.push(contents.end..at);
            }
            at = payload.end;
            contents.end = at;
            contents.payloads.push(payload);
        } else {
            let next = file[at + 1..].windows(MARKER.len()).position(|window| window == MARKER);
            at = next.map_or(file.len(), |distance| at + 1 + distance);
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = header(7, 0).to_vec();
        payloads.iter().for_each(|payload| put_record(&mut bytes, 7, 0, payload));
        bytes
    }

    fn payloads<'a>(file: &'a [u8], contents: &Contents) -> Vec<&'a [u8]> {
        contents.payloads.iter().map(|range| &file[range.clone()]).collect()
    }

    #[test]
    fn records_are_found_again() {
        let file = file(&[b"one", b"", b"three"]);
        let contents = contents(&file, 7);
        assert_eq!(payloads(&file, &contents), [&b"one"[..], b"", b"three"]);
        assert!(contents.damaged.is_empty());
        assert_eq!(contents.end, file.len());
        assert_eq!(version(&file), Some(VERSION));
    }

    #[test]
    fn every_torn_tail_keeps_what_is_before_it() {
        let whole = file(&[b"one", b"two"]);
        let first = file(&[b"one"]).len();
        for end in 0..whole.len() {
            let contents = contents(&whole[..end], 7);
            let expected = if end < HEADER_BYTES {
                0
            } else if end < first {
                HEADER_BYTES
            } else {
                first
            };
            assert_eq!(contents.end, expected, "{end}");
            assert!(contents.damaged.is_empty());
            assert_eq!(contents.payloads.len(), usize::from(end >= first));
        }
    }

    #[test]
    fn every_flipped_bit_costs_one_record_and_is_seen() {
        let payload: &[&[u8]] = &[b"one", b"two", b"three"];
        let whole = file(payload);
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let contents = contents(&flipped, 7);
                let found = payloads(&flipped, &contents);
                assert!(found.iter().all(|found| payload.contains(found)), "{at}");
                let lost = usize::from(at >= HEADER_BYTES);
                assert_eq!(found.len(), 3 - lost, "{at}");
                assert!(!contents.damaged.is_empty() || contents.end < flipped.len(), "{at}");
            }
        }
    }

    #[test]
    fn a_record_of_another_place_or_file_is_none() {
        let mut moved = file(&[b"one"]);
        moved.splice(HEADER_BYTES..HEADER_BYTES, [0; 5]);
        assert!(contents(&moved, 7).payloads.is_empty());
        assert!(contents(&file(&[b"one"]), 8).payloads.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(prop::sample::select(vec![0xf5, b'R', b'E', b'C', 0, 1, 200]), 0..300)) {
            let mut file = header(1, 0).to_vec();
            file.extend(&bytes);
            contents(&file, 1);
            contents(&bytes, 1);
        }

        #[test]
        fn two_damages_cost_only_what_they_hit(first in 0..3usize, second in 0..3usize, byte in any::<prop::sample::Index>()) {
            let parts: [&[u8]; 3] = [b"0123456789", b"abcdefghij", b"ABCDEFGHIJ"];
            let mut bytes = file(&parts);
            let at = |record: usize| HEADER_BYTES + record * 22 + byte.index(22);
            bytes[at(first)] ^= 0x55;
            bytes[at(second)] ^= 0xaa;
            let contents = contents(&bytes, 7);
            let kept: Vec<&[u8]> = parts.into_iter().enumerate().filter(|(n, _)| *n != first && *n != second).map(|(_, part)| part).collect();
            prop_assert_eq!(payloads(&bytes, &contents), kept);
        }
    }
}
