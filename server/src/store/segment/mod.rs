//! Segments: immutable files that hold one tenant's profiles, to be read in small pieces.
//!
//! A segment is written once and whole, and answers the same questions as a part of the head. Every piece of it has a
//! checksum that is looked at whenever the piece is read. `docs/storage.md` has the bytes.

mod block;
mod check;
mod columns;
mod filter;
mod footer;
mod index;
mod packed;
mod read;
mod stacks;
mod tables;
mod write;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::check::{Flaw, check};
pub(super) use self::read::Segment;
pub(super) use self::write::{Recipe, write};
use super::codec::{CodecError, Input, labels, put, put_labels, put_text, put_types, types};
use super::source::SeriesEntry;
use crate::model::{Loss, Profile, Symbols, TenantId, TimeRange};

#[cfg(test)]
mod tests;

/// Version of the files that are written. Those of all earlier ones are read.
pub(super) const VERSION: u32 = 2;
/// The first version that has filters in front of its index.
const FILTERS_SINCE: u32 = 2;

/// Whether files of this version are read.
pub(super) fn is_readable(version: u32) -> bool {
    (1..=VERSION).contains(&version)
}

/// Whether segments can hold these profiles. What they cannot is refused before it is kept anywhere.
pub(super) fn can_hold(profiles: &[Profile]) -> bool {
    let mut known: Option<&Arc<Symbols>> = None;
    profiles.iter().all(|profile| {
        let same = known.is_some_and(|known| Arc::ptr_eq(known, &profile.symbols));
        known = Some(&profile.symbols);
        let fits = same || profile.symbols.stacks.iter().all(|stack| stack.len() <= stacks::MAX_DEPTH);
        fits && block::can_hold(profile.rows(), profile.values.len())
    })
}

/// What the manifest says about a segment: all that is needed to decide whether to open it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentMeta {
    /// The object's name.
    pub(super) name: String,
    /// Version of its format.
    pub(super) version: u32,
    /// Whose profiles it holds.
    #[serde(with = "tenant")]
    pub(super) tenant: TenantId,
    /// Its size.
    pub(super) bytes: u64,
    /// The size of its footer, which lies at its end with the trailer.
    pub(super) footer_bytes: u64,
    /// How often its profiles were merged.
    pub(super) level: u32,
    /// When it was written, in Unix milliseconds.
    pub(super) created_ms: i64,
    /// When its first profile began, in Unix milliseconds.
    pub(super) start_ms: i64,
    /// When its last profile ended, in Unix milliseconds.
    pub(super) end_ms: i64,
    /// How many profiles it holds.
    pub(super) profiles: u64,
    /// How many rows of samples.
    pub(super) rows: u64,
    /// How many distinct spans with samples.
    pub(super) spans: u64,
    /// Bytes of its symbol tables.
    pub(super) symbol_bytes: u64,
    /// Bytes of its span index.
    pub(super) index_bytes: u64,
}

impl SegmentMeta {
    /// The time that its profiles cover.
    pub(super) fn range(&self) -> TimeRange {
        TimeRange { start_ms: self.start_ms, end_ms: self.end_ms }
    }
}

/// A tenant's id as text.
mod tenant {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::TenantId;

    pub(super) fn serialize<S: Serializer>(tenant: &TenantId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(tenant.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TenantId, D::Error> {
        TenantId::new(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// The series of a segment, by their numbers.
#[derive(Debug, Default)]
struct SeriesTable {
    series: Vec<SeriesEntry>,
    /// Names of spans of each, as numbers of strings, sorted.
    span_names: Vec<Vec<u32>>,
}

impl SeriesTable {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.series.len() as u64);
        for (series, names) in self.series.iter().zip(&self.span_names) {
            put_labels(&mut out, &series.labels);
            put_types(&mut out, &series.types);
            put(&mut out, columns::zigzag(series.range.start_ms));
            put(&mut out, series.range.end_ms.wrapping_sub(series.range.start_ms) as u64);
            put(&mut out, names.len() as u64);
            names.iter().for_each(|name| put(&mut out, u64::from(*name)));
        }
        out
    }

    fn decode(bytes: &[u8], strings: usize) -> Result<Self, CodecError> {
        let mut input = Input(bytes);
        let mut table = Self::default();
        for id in 0..input.count()? {
            let (labels, types) = (labels(&mut input)?, types(&mut input)?);
            let range = range(&mut input)?;
            table.series.push(SeriesEntry { id: id as u32, labels, types: types.into(), range });
            table.span_names.push(input.list(|input| input.below(strings))?);
        }
        at_end(&input).map(|()| table)
    }

    fn bytes(&self) -> usize {
        let of_series = |series: &SeriesEntry| {
            series.labels.heap_bytes() + size_of::<SeriesEntry>() + series.types.len() * 160
        };
        self.series.iter().map(of_series).sum::<usize>()
            + self.span_names.iter().map(|names| size_of_val(&**names) + 24).sum::<usize>()
    }
}

/// What senders lost, by series and time of the profile that told it.
type Losses = Vec<(u32, TimeRange, Vec<Loss>)>;

fn encode_losses(losses: &Losses) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, losses.len() as u64);
    for (series, range, losses) in losses {
        put(&mut out, u64::from(*series));
        put(&mut out, columns::zigzag(range.start_ms));
        put(&mut out, range.end_ms.wrapping_sub(range.start_ms) as u64);
        put(&mut out, losses.len() as u64);
        for loss in losses {
            put_text(&mut out, &loss.cause);
            put(&mut out, loss.samples);
        }
    }
    out
}

fn decode_losses(bytes: &[u8], series: usize) -> Result<Losses, CodecError> {
    let mut input = Input(bytes);
    let losses = input.list(|input| {
        let series = input.below(series)?;
        let range = range(input)?;
        let losses =
            input.list(|input| Ok(Loss { cause: input.text()?.into(), samples: input.number()? }))?;
        Ok((series, range, losses))
    })?;
    at_end(&input).map(|()| losses)
}

fn range(input: &mut Input<'_>) -> Result<TimeRange, CodecError> {
    let start_ms = columns::unzigzag(input.number()?);
    let end_ms = start_ms.wrapping_add(input.number()? as i64);
    TimeRange::new(start_ms, end_ms).ok_or(CodecError("time that ends before it begins"))
}

fn at_end(input: &Input<'_>) -> Result<(), CodecError> {
    if input.0.is_empty() { Ok(()) } else { Err(CodecError("bytes after the end")) }
}

/// Where a piece of a segment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Piece {
    offset: u64,
    /// Bytes in the file.
    stored: u32,
    /// Bytes once inflated; the same if it is stored as it is.
    raw: u32,
    /// CRC-32 of the bytes in the file.
    sum: u32,
}

impl Piece {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.stored)
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod unpacked;
