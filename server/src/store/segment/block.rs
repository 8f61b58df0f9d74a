//! A block of profiles: some profiles whole, with the spans that their samples were taken in.
//!
//! A block stands alone but for the segment's tables: a span that has samples in several blocks has an entry in each. So
//! one block answers for a span what lies in it, and segments are written and merged block by block.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::super::codec::{CodecError, put};
use super::super::head::SampleCounts;
use super::super::source::{Chunk, NO_SPAN, SeriesEntry, SpanEntry, SpanLookup, SpanRun};
use super::SegmentMeta;
use super::columns::{put_column, zigzag};
use super::packed::{Packed, TOO_FEW, WITHOUT_SAMPLES};
use crate::model::{ProfileId, SpanId, SpanRef, TimeRange, TraceId};

type Result<T> = std::result::Result<T, CodecError>;

/// A block is closed once it has so many rows; one profile may have more.
const ROWS: usize = 2048;
/// More rows or values than this is no block that was ever written.
pub(super) const MOST: usize = 1 << 26;
const NO_TIME: TimeRange = TimeRange { start_ms: 0, end_ms: 0 };

/// Low bits of ids that an entry names.
type Ids = [u32; 4];
/// Entries that are looked through at a time.
const BATCH: usize = 16;

/// A block in the making.
#[derive(Default)]
pub(super) struct BlockBuilder {
    chunks: Vec<Chunk>,
    spans: Vec<(SpanRef, u32)>,
    numbers: HashMap<(SpanRef, u32), u32, RandomState>,
    rows: usize,
}

impl BlockBuilder {
    /// Adds a profile. Its runs are said with their spans, whose names are numbers of this segment's strings, as its
    /// stack traces and its series are.
    pub(super) fn add(&mut self, mut chunk: Chunk, spans: Vec<Option<SpanRef>>) {
        for (run, span) in chunk.runs.iter_mut().zip(spans) {
            run.entry = match span {
                None => NO_SPAN,
                Some(span) => {
                    let key = (span, chunk.series);
                    *self.numbers.entry(key).or_insert_with_key(|key| {
                        self.spans.push(key.clone());
                        self.spans.len() as u32 - 1
                    })
                }
            };
        }
        self.rows += chunk.stacks.len();
        self.chunks.push(chunk);
    }

    /// Whether it has its size.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= ROWS
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Its profiles.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Its spans, each with its series.
    pub(super) fn spans(&self) -> &[(SpanRef, u32)] {
        &self.spans
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { chunks, spans, .. } = self;
        let mut out = Vec::new();
        let runs: usize = chunks.iter().map(|chunk| chunk.runs.len()).sum();
        for count in [chunks.len(), spans.len(), runs, self.rows] {
            put(&mut out, count as u64);
        }
        chunks.iter().for_each(|chunk| out.extend_from_slice(&chunk.id.to_bytes()));
        let column = |out: &mut Vec<u8>, value: &dyn Fn(&Chunk) -> u64| {
            put_column(out, &chunks.iter().map(value).collect::<Vec<_>>());
        };
        column(&mut out, &|chunk| u64::from(chunk.series));
        column(&mut out, &|chunk| zigzag(chunk.start_nanos));
        column(&mut out, &|chunk| chunk.duration_nanos as u64);
        column(&mut out, &|chunk| chunk.period as u64);
        column(&mut out, &|chunk| chunk.runs.len() as u64);
        column(&mut out, &|chunk| chunk.stacks.len() as u64);

        let mut ids = Distinct::default();
        let mut traces = Distinct::default();
        let id = |ids: &mut Distinct<u64>, id: Option<SpanId>| ids.number(id.map(SpanId::get));
        let of_spans: Vec<[u64; 6]> = spans
            .iter()
            .map(|(span, _)| {
                [
                    id(&mut ids, span.span_id),
                    id(&mut ids, span.parent),
                    id(&mut ids, span.local_root),
                    traces.number(span.trace_id.map(TraceId::get)),
                    u64::from(span.name),
                    u64::from(span.local_root_name),
                ]
            })
            .collect();
        put(&mut out, ids.values.len() as u64);
        ids.values.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        put(&mut out, traces.values.len() as u64);
        traces.values.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        for column in 0..6 {
            put_column(&mut out, &of_spans.iter().map(|of_span| of_span[column]).collect::<Vec<_>>());
        }

        let runs = || chunks.iter().flat_map(|chunk| chunk.runs.iter());
        put_column(&mut out, &runs().map(|run| u64::from(run.entry.wrapping_add(1))).collect::<Vec<_>>());
        let lengths = chunks.iter().flat_map(|chunk| (0..chunk.runs.len()).map(|run| chunk.rows(run).len()));
        put_column(&mut out, &lengths.map(|length| length as u64).collect::<Vec<_>>());
        let stacks = chunks.iter().flat_map(|chunk| chunk.stacks.iter().map(|stack| u64::from(*stack)));
        put_column(&mut out, &stacks.collect::<Vec<_>>());
        let types = chunks.iter().map(|chunk| chunk.totals.len()).max().unwrap_or(0);
        for at in 0..types {
            let of_type = chunks.iter().filter(|chunk| at < chunk.totals.len());
            let values = of_type.flat_map(|chunk| chunk.column(at).iter().map(|value| *value as u64));
            put_column(&mut out, &values.collect::<Vec<_>>());
        }
        out
    }
}

/// Distinct ids with numbers from 1; 0 is "none".
struct Distinct<T> {
    values: Vec<T>,
    numbers: HashMap<T, u64, RandomState>,
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::default() }
    }
}

impl<T: Copy + Eq + std::hash::Hash> Distinct<T> {
    fn number(&mut self, id: Option<T>) -> u64 {
        id.map_or(0, |id| {
            *self.numbers.entry(id).or_insert_with(|| {
                self.values.push(id);
                self.values.len() as u64
            })
        })
    }
}

/// What a block may hold at most: columns of numbers that are all the same take no bytes, so their length is no bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) profiles: usize,
    pub(super) rows: usize,
}

/// Whether a block can hold a profile of so many rows and values.
pub(super) fn can_hold(rows: usize, values: usize) -> bool {
    rows.max(values) <= MOST - ROWS
}

impl Most {
    /// No block holds more than the whole segment, of which the manifest tells.
    pub(super) fn of(meta: &SegmentMeta) -> Self {
        let most = |count: u64| usize::try_from(count).map_or(MOST, |count| count.min(MOST));
        Self { profiles: most(meta.profiles), rows: most(meta.rows) }
    }
}

/// A block as queries read it.
#[derive(Debug)]
pub(super) struct Block {
    /// Its profiles. The numbers of their runs' entries are those of the segment.
    pub(super) chunks: Vec<Arc<Chunk>>,
    /// Its span entries, numbered on from the block's first.
    pub(super) entries: Vec<SpanEntry>,
    /// The low bits of each entry's span, parent, local root and trace, 0 for none: a look-up reads these alone.
    ids: Vec<Ids>,
    /// Entry within the block, chunk and run of each run that has a span, sorted.
    runs: Vec<(u32, u32, u32)>,
}

impl Block {
    /// Chunk and run of the rows of an entry, numbered within the block.
    pub(super) fn runs_of(&self, entry: u32) -> impl Iterator<Item = (&Arc<Chunk>, usize)> {
        let start = self.runs.partition_point(|(of, ..)| *of < entry);
        let of_entry = self.runs[start..].iter().take_while(move |(of, ..)| *of == entry);
        of_entry.map(|&(_, chunk, run)| (&self.chunks[chunk as usize], run as usize))
    }

    /// The entries that a look-up is about.
    pub(super) fn find(&self, lookup: SpanLookup) -> impl Iterator<Item = &SpanEntry> {
        let id = match lookup {
            SpanLookup::Span(id)
            | SpanLookup::Children(id)
            | SpanLookup::LocalRoot(id)
            | SpanLookup::Family(id) => id.get() as u32,
            SpanLookup::Trace(id) => id.get() as u32,
        };
        // No branch within a batch, so that several ids are compared at a time.
        let is_named = move |ids: &[Ids]| ids.as_flattened().iter().fold(false, |is, of| is | (*of == id));
        let batches = self.entries.chunks(BATCH).zip(self.ids.chunks(BATCH));
        let near = batches.filter(move |(_, ids)| is_named(ids)).flat_map(|(entries, _)| entries);
        near.filter(move |entry| lookup.finds(&entry.span))
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes() + 24).sum::<usize>()
            + size_of_val(&*self.entries)
            + size_of_val(&*self.ids)
            + size_of_val(&*self.runs)
    }

    /// Reads what [`BlockBuilder::encode`] wrote. Its entries get numbers from `first_entry` on; `series` are the
    /// segment's, `strings` and `stacks` how many it has of those, `most` what it may hold.
    pub(super) fn decode(
        bytes: &[u8],
        first_entry: u32,
        series: &[SeriesEntry],
        strings: usize,
        stacks: usize,
        most: Most,
    ) -> Result<Self> {
        let packed = Packed::find_columns(bytes, series, most)?;
        let numbered = u32::try_from(packed.spans).ok().and_then(|spans| first_entry.checked_add(spans));
        numbered.ok_or(CodecError("more entries than numbers"))?;
        let entry = |span| SpanEntry { id: 0, span, series: 0, samples: 0, cpu_nanos: 0, range: NO_TIME };
        let entries: Vec<SpanEntry> = packed.all_spans(strings)?.into_iter().map(entry).collect();
        let run_entries = packed.run_entries.below(packed.spans + 1)?;
        let run_lengths = packed.run_lengths.below(packed.rows + 1)?;
        let row_stacks = packed.row_stacks.below(stacks)?;
        let values = packed.values.iter().map(|column| column.values().map(Vec::into_iter));
        let mut values: Vec<std::vec::IntoIter<u64>> = values.collect::<Result<_>>()?;

        let of_entry = |entry: &SpanEntry| {
            let SpanRef { span_id, parent, local_root, trace_id, .. } = entry.span;
            let low = |id: Option<SpanId>| id.map_or(0, |id| id.get() as u32);
            [low(span_id), low(parent), low(local_root), trace_id.map_or(0, |id| id.get() as u32)]
        };
        let ids = entries.iter().map(of_entry).collect();
        let chunks = Vec::with_capacity(packed.profiles.len());
        let mut block = Self { chunks, entries, ids, runs: Vec::with_capacity(run_entries.len()) };
        let (mut next_run, mut next_row) = (0, 0);
        for (profile, head) in packed.profiles.iter().enumerate() {
            let (count, rows) = (head.runs as usize, head.rows as usize);
            let types = series[head.series as usize].types.len();
            let mut end = 0u32;
            let mut of_chunk = Vec::with_capacity(count);
            for run in next_run..next_run + count {
                let (&entry, &length) = run_entries.get(run).zip(run_lengths.get(run)).ok_or(TOO_FEW)?;
                end = end.checked_add(length).ok_or(TOO_FEW)?;
                let name = match entry.checked_sub(1) {
                    Some(local) => {
                        block.runs.push((local, profile as u32, of_chunk.len() as u32));
                        block.entries[local as usize].span.name
                    }
                    None => 0,
                };
                let entry = entry.checked_sub(1).map_or(NO_SPAN, |local| first_entry + local);
                of_chunk.push(SpanRun { name, entry, end });
            }
            next_run += count;
            if end as usize != rows {
                return Err(CodecError("runs do not fill their profile"));
            }
            let stacks = row_stacks.get(next_row..next_row + rows).ok_or(TOO_FEW)?;
            next_row += rows;
            let mut of_types = Vec::with_capacity(rows * types);
            let mut totals = Vec::with_capacity(types);
            for column in values.iter_mut().take(types) {
                let start = of_types.len();
                of_types.extend(column.take(rows).map(|value| value as i64));
                totals.push(of_types[start..].iter().fold(0i64, |sum, value| sum.saturating_add(*value)));
            }
            let chunk = Chunk {
                id: ProfileId::from_bytes(head.id),
                series: head.series,
                start_nanos: head.start_nanos,
                duration_nanos: head.duration_nanos,
                period: head.period,
                runs: of_chunk.into(),
                stacks: stacks.into(),
                values: of_types.into(),
                totals: totals.into(),
            };
            block.chunks.push(Arc::new(chunk));
        }
        block.runs.sort_unstable();
        block.add_up(first_entry, series)?;
        Ok(block)
    }

    /// Tells each entry its series, time and sums, which all follow from its runs.
    fn add_up(&mut self, first_entry: u32, series: &[SeriesEntry]) -> Result<()> {
        let Self { chunks, entries, runs, .. } = self;
        let mut at = 0;
        for (local, entry) in entries.iter_mut().enumerate() {
            let mut first = true;
            while let Some(&(_, chunk, run)) = runs.get(at).filter(|(of, ..)| *of as usize == local) {
                at += 1;
                let chunk = &chunks[chunk as usize];
                let types = &series[chunk.series as usize].types;
                let counts = SampleCounts::new(types, chunk.period);
                if first {
                    (entry.series, entry.range) = (chunk.series, chunk.interval());
                }
                first = false;
                let value = |column: usize, row: usize| chunk.column(column)[row];
                entry.add(chunk.interval(), types, &counts, chunk.rows(run as usize), value);
            }
            if first {
                return Err(WITHOUT_SAMPLES);
            }
            entry.id = first_entry + local as u32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Labels, ProfileType};

    fn series(columns: usize) -> SeriesEntry {
        let kind: ProfileType = crate::testing::CPU.parse().unwrap();
        let range = TimeRange { start_ms: 0, end_ms: 9 };
        let labels = Labels::default();
        SeriesEntry { id: 0, labels, types: vec![kind; columns].into(), range }
    }

    /// Profiles of two series that differ in their number of types, with some spans.
    fn encoded() -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for number in 0..5u64 {
            let columns = 1 + number as usize % 2;
            let run = |end| SpanRun { name: 0, entry: NO_SPAN, end };
            let span = SpanRef {
                span_id: SpanId::new(number / 2 + 1),
                trace_id: TraceId::new(9),
                name: 2,
                parent: SpanId::new(1),
                ..SpanRef::default()
            };
            let chunk = Chunk {
                id: ProfileId::derived(u128::from(number)),
                series: number as u32 % 2,
                start_nanos: number as i64 * -7,
                duration_nanos: 5,
                period: 3,
                runs: vec![run(1), run(3)].into(),
                stacks: vec![0, 3, 2].into(),
                values: (0..3 * columns as i64).map(|value| value * 1000).collect(),
                totals: vec![0; columns].into(),
            };
            builder.add(chunk, vec![None, Some(span)]);
        }
        builder.encode()
    }

    const MOST_HERE: Most = Most { profiles: 5, rows: 15 };

    fn decode(bytes: &[u8]) -> Result<Block> {
        Block::decode(bytes, 10, &[series(1), series(2)], 3, 4, MOST_HERE)
    }

    #[test]
    fn what_is_written_is_read() {
        let block = decode(&encoded()).unwrap();
        assert_eq!((block.chunks.len(), block.entries.len()), (5, 5));
        let last = &block.chunks[4];
        assert_eq!(
            (last.start_nanos, last.stacks.to_vec(), last.totals.to_vec()),
            (-28, vec![0, 3, 2], vec![3000])
        );
        assert_eq!(block.chunks[1].column(1), [3000, 4000, 5000]);
        assert_eq!((last.runs[0].entry, last.runs[1].entry, last.runs[1].name), (NO_SPAN, 14, 2));
        assert_eq!((block.entries[4].id, block.entries[4].cpu_nanos, block.entries[4].series), (14, 3000, 0));
        assert_eq!(block.runs_of(4).map(|(_, run)| run).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn no_prefix_is_read_as_the_whole() {
        let whole = encoded();
        assert!((0..whole.len()).all(|end| decode(&whole[..end]).is_err()));
        assert!(Block::decode(&whole, u32::MAX - 2, &[series(1), series(2)], 3, 4, MOST_HERE).is_err());
        assert!(Block::decode(&whole, 10, &[series(1)], 3, 4, MOST_HERE).is_err(), "no such series");
        assert!(
            Block::decode(&whole, 10, &[series(1), series(2)], 2, 4, MOST_HERE).is_err(),
            "no such string"
        );
        assert!(
            Block::decode(&whole, 10, &[series(1), series(2)], 3, 3, MOST_HERE).is_err(),
            "no such stack trace"
        );
        for most in [Most { profiles: 4, ..MOST_HERE }, Most { rows: 14, ..MOST_HERE }] {
            let block = Block::decode(&whole, 10, &[series(1), series(2)], 3, 4, most);
            assert!(block.is_err(), "more than the whole segment has");
        }
    }

    proptest! {
        #[test]
        fn no_change_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = encoded();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(block) = decode(&bytes) {
                // What passes as a block can be used as one.
                for chunk in &block.chunks {
                    let rows: usize = (0..chunk.runs.len()).map(|run| chunk.rows(run).len()).sum();
                    assert_eq!((rows, chunk.values.len()), (chunk.stacks.len(), rows * chunk.totals.len()));
                }
            }
        }
    }
}
