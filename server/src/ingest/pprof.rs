//! Bytes become a pprof message, within limits. What the message says is not judged here.
//!
//! Samples are most of a pprof and alike, so each is read when its turn comes, into the same room.

use std::cell::Cell;
use std::io::{self, Read};

use buffa::encoding::{Tag, WireType, check_wire_type, skip_field_depth};
use buffa::types::{borrow_bytes, decode_int64, decode_uint64, extend_packed_int64, extend_packed_uint64};
use buffa::{DecodeContext, DecodeError, MessageView, RECURSION_LIMIT};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use spanflame_wire::google::v1::__buffa::view::{LabelView, ProfileView};

use super::{Budget, IngestError, Limits};

const FIELD: &str = "raw_profile";
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The profile's bytes, decompressed if they are gzipped.
pub(super) fn decompress(raw: Bytes, limits: &Limits, budget: &mut Budget) -> Result<Bytes, IngestError> {
    if raw.is_empty() {
        return Err(IngestError::invalid(FIELD, "is empty: send a pprof profile, gzipped or not"));
    }
    gunzip(FIELD, raw, limits, budget)
}

/// The bytes of a field that holds a profile of any format, decompressed if they are gzipped.
pub(super) fn gunzip(
    field: &str,
    raw: Bytes,
    limits: &Limits,
    budget: &mut Budget,
) -> Result<Bytes, IngestError> {
    let max = limits.max_profile_bytes;
    let over = |got| IngestError::over(field, "max_profile_bytes", max, got);
    if !raw.starts_with(&GZIP_MAGIC) {
        // It is in memory already, as a part of the request.
        budget.count(raw.len());
        return if raw.len() > max { Err(over(raw.len())) } else { Ok(raw) };
    }
    let most = max.min(budget.left());
    let bytes = inflate(&raw, most)
        .map_err(|error| IngestError::invalid(field, format!("is not complete gzip: {error}")))?;
    // What is refused below has cost its decompression too.
    budget.count(bytes.len());
    budget.take(bytes.len())?;
    if bytes.len() > max { Err(over(bytes.len())) } else { Ok(bytes.into()) }
}

/// Deflating makes nothing smaller by more than about this.
const MOST_DEFLATED: usize = 1040;

/// What gzip holds, but no more than one byte above `most`, which tells the bomb without blowing it up.
fn inflate(gzip: &[u8], most: usize) -> io::Result<Vec<u8>> {
    // Its last four bytes say how much it holds, if it is one piece and true: then it is inflated in one go, with no
    // copies of what back references may still ask for.
    let told = gzip.last_chunk().map_or(0, |told| u32::from_le_bytes(*told) as usize);
    let mut bytes = vec![0; told.min(gzip.len().saturating_mul(MOST_DEFLATED)).min(most)];
    let mut gzip = MultiGzDecoder::new(gzip).take(most as u64 + 1);
    let mut filled = 0;
    while filled < bytes.len() {
        match gzip.read(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    gzip.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The number of the field that holds the samples.
const SAMPLE: u32 = 2;
/// The number of the field of a sample that holds a label.
const LABEL: u32 = 3;

/// A message, borrowing from its bytes.
pub(super) struct Pprof<'a> {
    /// All of it but the samples.
    pub(super) tables: ProfileView<'a>,
    /// The samples, undecoded.
    pub(super) samples: Vec<&'a [u8]>,
}

/// The message in these bytes.
pub(super) fn decode<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Pprof<'a>, IngestError> {
    let (unknown, memory) =
        (Cell::new(buffa::DEFAULT_UNKNOWN_FIELD_LIMIT), Cell::new(limits.max_decoded_bytes));
    let context = DecodeContext::new(RECURSION_LIMIT, &unknown).with_element_memory(&memory);
    if bytes.len() > limits.max_profile_bytes {
        return Err(refusal(&DecodeError::MessageTooLarge, limits));
    }
    read(bytes, context).map_err(|error| refusal(&error, limits))
}

fn read<'a>(mut rest: &'a [u8], context: DecodeContext<'_>) -> Result<Pprof<'a>, DecodeError> {
    let mut pprof = Pprof { tables: ProfileView::default(), samples: Vec::new() };
    while !rest.is_empty() {
        let field = rest;
        let tag = Tag::decode(&mut rest)?;
        if tag.field_number() == SAMPLE {
            check_wire_type(tag, WireType::LengthDelimited)?;
            context.register_element_memory(size_of::<&[u8]>())?;
            pprof.samples.push(borrow_bytes(&mut rest)?);
        } else {
            rest = pprof.tables.merge_view_field(tag, rest, field, context)?;
        }
    }
    Ok(pprof)
}

fn refusal(error: &DecodeError, limits: &Limits) -> IngestError {
    match error {
        DecodeError::ElementMemoryLimitExceeded => {
            // How much it would have been is not known: decoding stopped.
            let max = limits.max_decoded_bytes;
            IngestError::over(FIELD, "max_decoded_bytes", max, max.saturating_add(1))
        }
        DecodeError::InvalidUtf8 => IngestError::invalid(
            "raw_profile: string_table",
            "a string is not valid UTF-8: encode all strings so",
        ),
        error => IngestError::invalid(FIELD, format!("is no pprof profile, or a damaged one: {error}")),
    }
}

/// Room for one sample at a time.
#[derive(Default)]
pub(super) struct Sample<'a> {
    /// Ids of the locations of its stack trace, the leaf first, if they came in one piece and are not unpacked yet.
    pub(super) packed_ids: &'a [u8],
    /// Those ids once they are unpacked.
    pub(super) location_ids: Vec<u64>,
    /// Its values.
    pub(super) values: Vec<i64>,
    /// The sample from its first label on, where that was not read yet: as a rule its labels and nothing else.
    pub(super) tail: &'a [u8],
    /// Its labels, undecoded, once the tail was read.
    pub(super) labels: Vec<&'a [u8]>,
    /// Whether there was anything but labels in the tail.
    pub(super) mixed: bool,
}

impl<'a> Sample<'a> {
    /// Reads a sample up to its first label in place of the one before.
    pub(super) fn read(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<(), IngestError> {
        self.packed_ids = &[];
        self.location_ids.clear();
        self.values.clear();
        self.labels.clear();
        self.mixed = false;
        self.tail = bytes;
        // An id or a value takes a byte at least and becomes a number, a label two and becomes a reference.
        let read = match bytes.len().saturating_mul(size_of::<u64>()) {
            most if most > limits.max_decoded_bytes => Err(DecodeError::ElementMemoryLimitExceeded),
            _ => self.head(),
        };
        read.map_err(|error| refusal(&error, limits))
    }

    /// Reads what [`Self::read`] left.
    pub(super) fn read_tail(&mut self, limits: &Limits) -> Result<(), IngestError> {
        self.labels_and_others().map_err(|error| refusal(&error, limits))
    }

    /// Unpacks the ids of the locations.
    pub(super) fn unpack(&mut self, limits: &Limits) -> Result<(), IngestError> {
        self.unpack_ids().map_err(|error| refusal(&error, limits))
    }

    fn unpack_ids(&mut self) -> Result<(), DecodeError> {
        let packed = std::mem::take(&mut self.packed_ids);
        // No id takes less than a byte, and there is room already from samples before.
        extend_packed_uint64(packed, &mut self.location_ids, packed.len())
    }

    fn head(&mut self) -> Result<(), DecodeError> {
        let mut rest = self.tail;
        while !rest.is_empty() {
            self.tail = rest;
            let tag = Tag::decode(&mut rest)?;
            if tag.field_number() == LABEL {
                return Ok(());
            }
            self.field(tag, &mut rest)?;
        }
        self.tail = &[];
        Ok(())
    }

    fn labels_and_others(&mut self) -> Result<(), DecodeError> {
        let mut rest = std::mem::take(&mut self.tail);
        while !rest.is_empty() {
            let tag = Tag::decode(&mut rest)?;
            if tag.field_number() == LABEL {
                self.labels.push(packed(tag, &mut rest)?);
            } else {
                self.mixed = true;
                self.field(tag, &mut rest)?;
            }
        }
        Ok(())
    }

    /// Reads a field that is no label.
    fn field(&mut self, tag: Tag, rest: &mut &'a [u8]) -> Result<(), DecodeError> {
        match (tag.field_number(), tag.wire_type()) {
            (1, WireType::Varint) => {
                self.unpack_ids()?;
                self.location_ids.push(decode_uint64(rest)?);
            }
            (1, _) => {
                self.unpack_ids()?;
                self.packed_ids = packed(tag, rest)?;
                if !self.location_ids.is_empty() {
                    self.unpack_ids()?;
                }
            }
            (2, WireType::Varint) => self.values.push(decode_int64(rest)?),
            (2, _) => {
                let packed = packed(tag, rest)?;
                extend_packed_int64(packed, &mut self.values, packed.len())?;
            }
            _ => skip_field_depth(tag, rest, RECURSION_LIMIT)?,
        }
        Ok(())
    }
}

fn packed<'a>(tag: Tag, rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    check_wire_type(tag, WireType::LengthDelimited)?;
    borrow_bytes(rest)
}

/// A label of a sample.
pub(super) fn label<'a>(bytes: &'a [u8], limits: &Limits) -> Result<LabelView<'a>, IngestError> {
    LabelView::decode_view(bytes).map_err(|error| refusal(&error, limits))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use buffa::encoding::encode_varint;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A field of a sample.
    #[derive(Debug, Clone)]
    enum Field {
        Id(u64),
        Ids(Vec<u64>),
        Value(i64),
        Values(Vec<i64>),
        Label(Vec<u8>),
        Unknown(u64),
    }

    impl Field {
        fn any() -> impl Strategy<Value = Self> {
            prop_oneof![
                any::<u64>().prop_map(Self::Id),
                prop::collection::vec(0..300u64, 0..4).prop_map(Self::Ids),
                any::<i64>().prop_map(Self::Value),
                prop::collection::vec(any::<i64>(), 0..4).prop_map(Self::Values),
                prop::collection::vec(any::<u8>(), 0..9).prop_map(Self::Label),
                any::<u64>().prop_map(Self::Unknown),
            ]
        }

        fn put(&self, out: &mut Vec<u8>) {
            let mut number = |field, value| {
                Tag::new(field, WireType::Varint).encode(out);
                encode_varint(value, out);
            };
            let (field, bytes) = match self {
                Self::Id(id) => return number(1, *id),
                Self::Value(value) => return number(2, *value as u64),
                Self::Unknown(value) => return number(9, *value),
                Self::Ids(ids) => (1, varints(ids.iter().copied())),
                Self::Values(values) => (2, varints(values.iter().map(|value| *value as u64))),
                Self::Label(bytes) => (LABEL, bytes.clone()),
            };
            Tag::new(field, WireType::LengthDelimited).encode(out);
            encode_varint(bytes.len() as u64, out);
            out.extend_from_slice(&bytes);
        }
    }

    fn varints(values: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut out = Vec::new();
        values.for_each(|value| encode_varint(value, &mut out));
        out
    }

    #[test]
    fn a_sample_that_would_grow_beyond_its_limit_is_refused_before_it_does() {
        let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
        let ids = |count: usize| {
            let mut bytes = Vec::new();
            Field::Ids(vec![1; count]).put(&mut bytes);
            bytes
        };
        let mut sample = Sample::default();
        let (small, large) = (ids(1 << 16), ids(1 << 18));
        sample.read(&small, &limits).unwrap();
        let error = sample.read(&large, &limits).unwrap_err().to_string();
        assert!(error.contains("max_decoded_bytes"), "{error}");
        assert_eq!(sample.location_ids.capacity(), 0);
    }

    proptest! {
        #[test]
        fn gzip_of_any_pieces_is_inflated(
            pieces in prop::collection::vec(prop::collection::vec(0..4u8, 0..5000), 1..4),
            most in 0..20_000usize,
            told in any::<u32>(),
        ) {
            let mut plain = pieces.concat();
            let mut zipped: Vec<u8> = pieces.iter().flat_map(|piece| gzip(piece)).collect();
            let all = plain.len();
            plain.truncate(most + 1);
            prop_assert_eq!(inflate(&zipped, most).unwrap(), plain);
            // What it says of its size is not believed.
            let end = zipped.len() - 4;
            zipped[end..].copy_from_slice(&told.to_le_bytes());
            let size = pieces.last().map_or(0, Vec::len) as u32;
            prop_assert_eq!(inflate(&zipped, all).is_ok(), told == size);
        }

        #[test]
        fn a_sample_is_read_in_whatever_order_its_fields_are(fields in prop::collection::vec(Field::any(), 0..9)) {
            let (mut ids, mut values, mut labels) = (Vec::new(), Vec::new(), Vec::new());
            let (mut bytes, mut tail, mut mixed) = (Vec::new(), Vec::new(), false);
            for field in &fields {
                field.put(&mut bytes);
                match field {
                    Field::Id(id) => ids.push(*id),
                    Field::Ids(some) => ids.extend(some),
                    Field::Value(value) => values.push(*value),
                    Field::Values(some) => values.extend(some),
                    Field::Label(label) => labels.push(label.as_slice()),
                    Field::Unknown(_) => {}
                }
                if !labels.is_empty() {
                    field.put(&mut tail);
                    mixed |= !matches!(field, Field::Label(_));
                }
            }
            let limits = Limits::default();
            let mut sample = Sample::default();
            // Nothing is left of the sample before.
            sample.read(&[0x08, 0x07, 0x10, 0x07, 0x1a, 0x00, 0x10, 0x07], &limits).unwrap();
            sample.read_tail(&limits).unwrap();
            sample.read(&bytes, &limits).unwrap();
            prop_assert_eq!(sample.tail, &tail);
            sample.read_tail(&limits).unwrap();
            sample.unpack(&limits).unwrap();
            prop_assert_eq!((&sample.location_ids, &sample.values), (&ids, &values));
            prop_assert_eq!((&sample.labels, sample.mixed), (&labels, mixed));
        }
    }
}
