//! Bytes become a pprof message, within limits. What the message says is not judged here.
//!
//! Samples are most of a pprof and alike, so each is read when its turn comes, into the same room.

use std::cell::Cell;
use std::io::Read;

use buffa::encoding::{Tag, WireType, check_wire_type, count_varints, skip_field_depth};
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
    let mut bytes = Vec::with_capacity(raw.len().saturating_mul(4).min(most));
    // One byte more than allowed tells the bomb without blowing it up.
    MultiGzDecoder::new(&raw[..])
        .take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| IngestError::invalid(field, format!("is not complete gzip: {error}")))?;
    // What is refused below has cost its decompression too.
    budget.count(bytes.len());
    budget.take(bytes.len())?;
    if bytes.len() > max { Err(over(bytes.len())) } else { Ok(bytes.into()) }
}

/// The number of the field that holds the samples.
const SAMPLE: u32 = 2;

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
    /// Its labels, undecoded.
    pub(super) labels: Vec<&'a [u8]>,
}

impl<'a> Sample<'a> {
    /// Reads a sample in place of the one before.
    pub(super) fn read(&mut self, bytes: &'a [u8], limits: &Limits) -> Result<(), IngestError> {
        self.packed_ids = &[];
        self.location_ids.clear();
        self.values.clear();
        self.labels.clear();
        self.fields(bytes).map_err(|error| refusal(&error, limits))
    }

    /// Unpacks the ids of the locations.
    pub(super) fn unpack(&mut self, limits: &Limits) -> Result<(), IngestError> {
        self.unpack_ids().map_err(|error| refusal(&error, limits))
    }

    fn unpack_ids(&mut self) -> Result<(), DecodeError> {
        let packed = std::mem::take(&mut self.packed_ids);
        extend_packed_uint64(packed, &mut self.location_ids, count_varints(packed))
    }

    fn fields(&mut self, mut rest: &'a [u8]) -> Result<(), DecodeError> {
        while !rest.is_empty() {
            let tag = Tag::decode(&mut rest)?;
            match (tag.field_number(), tag.wire_type()) {
                (1, WireType::Varint) => {
                    self.unpack_ids()?;
                    self.location_ids.push(decode_uint64(&mut rest)?);
                }
                (1, _) => {
                    self.unpack_ids()?;
                    self.packed_ids = packed(tag, &mut rest)?;
                    if !self.location_ids.is_empty() {
                        self.unpack_ids()?;
                    }
                }
                (2, WireType::Varint) => self.values.push(decode_int64(&mut rest)?),
                (2, _) => {
                    let packed = packed(tag, &mut rest)?;
                    extend_packed_int64(packed, &mut self.values, count_varints(packed))?;
                }
                (3, _) => self.labels.push(packed(tag, &mut rest)?),
                _ => skip_field_depth(tag, &mut rest, RECURSION_LIMIT)?,
            }
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
