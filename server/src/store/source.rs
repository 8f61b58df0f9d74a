//! What a query reads: the parts of the store behind one interface.
//!
//! A part of the head and a segment on disk answer the same questions. Numbers (of series, span entries, stack traces,
//! strings) mean something only within the source that gave them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::StoreError;
use crate::model::{Labels, ProfileType, SpanId, SpanRef, StringTable, TimeRange, TraceId, interval};

/// A series and the columns that its profiles have.
#[derive(Debug, Clone)]
pub(crate) struct SeriesEntry {
    /// Its number.
    pub(crate) id: u32,
    /// Its labels.
    pub(crate) labels: Labels,
    /// What each column measures.
    pub(crate) types: Arc<[ProfileType]>,
    /// The time that its profiles cover.
    pub(crate) range: TimeRange,
}

/// One profile's columns, immutable.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The series it belongs to.
    pub(crate) series: u32,
    /// When it began, in Unix nanoseconds.
    pub(crate) start_nanos: i64,
    /// How long it lasted, in nanoseconds.
    pub(crate) duration_nanos: i64,
    /// The sampling period, 0 when not known.
    pub(crate) period: i64,
    /// Rows of the same span, one run after another.
    pub(crate) runs: Box<[SpanRun]>,
    /// Number of each row's stack trace.
    pub(crate) stacks: Box<[u32]>,
    /// Values, column after column.
    pub(crate) values: Box<[i64]>,
    /// The sum of each column.
    pub(crate) totals: Box<[i64]>,
}

impl Chunk {
    /// The values of one column.
    pub(crate) fn column(&self, index: usize) -> &[i64] {
        &self.values[index * self.stacks.len()..][..self.stacks.len()]
    }

    /// The rows of a run.
    pub(crate) fn rows(&self, run: usize) -> Range<usize> {
        let start = if run == 0 { 0 } else { self.runs[run - 1].end as usize };
        start..self.runs[run].end as usize
    }

    /// The time it covers.
    pub(crate) fn interval(&self) -> TimeRange {
        interval(self.start_nanos, self.duration_nanos)
    }
}

/// Rows of a chunk that were taken while one span was active, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanRun {
    /// The span's name, a number of a string.
    pub(crate) name: u32,
    /// One past its last row.
    pub(crate) end: u32,
}

/// A span that samples of one series were taken in. A span that changed threads may have entries in several series.
#[derive(Debug, Clone)]
pub(crate) struct SpanEntry {
    /// Its number.
    pub(crate) id: u32,
    /// The span. Its names are numbers of strings.
    pub(crate) span: SpanRef,
    /// The series.
    pub(crate) series: u32,
    /// Samples taken in it.
    pub(crate) samples: u64,
    /// CPU time of those, in nanoseconds.
    pub(crate) cpu_nanos: i64,
    /// The time that the profiles with those samples cover.
    pub(crate) range: TimeRange,
}

/// Which span entries to visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanLookup {
    /// Those of this span.
    Span(SpanId),
    /// Those of this trace.
    Trace(TraceId),
    /// Those whose parent is this span.
    Children(SpanId),
    /// Those whose local root is this span.
    LocalRoot(SpanId),
}

/// Rows found through the span index.
#[derive(Debug, Clone)]
pub(crate) struct FoundRun {
    /// Where they are.
    pub(crate) chunk: Arc<Chunk>,
    /// Which run of that chunk.
    pub(crate) run: usize,
}

/// A readable part of the store, of one tenant.
pub(crate) trait Source: Send + Sync {
    /// The time that its profiles cover, none if it is empty.
    fn bounds(&self) -> Option<TimeRange>;

    /// How many profiles it holds.
    fn profiles(&self) -> u64;

    /// Its series: those with these numbers, or all.
    fn series(&self, among: Option<&[u32]>) -> Result<Vec<SeriesEntry>, StoreError>;

    /// Chunks of the `wanted` series (sorted numbers) that overlap `range`, oldest arrival first.
    fn chunks(&self, wanted: &[u32], range: Option<TimeRange>) -> Result<Vec<Arc<Chunk>>, StoreError>;

    /// Visits span entries, in time proportional to their number.
    fn spans(&self, lookup: SpanLookup, visit: &mut dyn FnMut(&SpanEntry)) -> Result<(), StoreError>;

    /// Visits all span entries.
    fn all_spans(&self, visit: &mut dyn FnMut(&SpanEntry)) -> Result<(), StoreError>;

    /// The rows of these span entries, in time proportional to the number of runs.
    fn runs(&self, entries: &[u32]) -> Result<Vec<FoundRun>, StoreError>;

    /// How many distinct spans it holds.
    fn span_count(&self) -> u64;

    /// The distinct names of spans in a series, as numbers of strings; 0 is never among them.
    fn span_names(&self, series: u32) -> Result<Vec<u32>, StoreError>;

    /// The text of a span's name.
    fn string(&self, index: u32) -> Result<String, StoreError>;

    /// Visits the frames of stack traces in the order given: the position in `stacks`, then names from the root to the
    /// leaf, inlined functions as frames of their own.
    fn frames(
        &self,
        stacks: &[u32],
        names: &mut FrameNames,
        visit: &mut dyn FnMut(usize, &[u32]),
    ) -> Result<(), StoreError>;
}

/// Names of frames, numbered alike for all the sources of one query.
#[derive(Debug, Default)]
pub(crate) struct FrameNames {
    names: StringTable,
    index: HashTable<u32>,
    hasher: RandomState,
    of_source: HashMap<u64, u32, RandomState>,
}

impl FrameNames {
    /// Forgets the keys of the source before; the names stay.
    pub(crate) fn begin_source(&mut self) {
        self.of_source.clear();
    }

    /// The number of the name that the current source knows by `key`; `text` is asked once for each key.
    pub(crate) fn of_key<'a>(&mut self, key: u64, text: impl FnOnce() -> Cow<'a, str>) -> u32 {
        if let Some(&number) = self.of_source.get(&key) {
            return number;
        }
        let number = self.of_text(&text());
        self.of_source.insert(key, number);
        number
    }

    /// The number of this name.
    pub(crate) fn of_text(&mut self, text: &str) -> u32 {
        let Self { names, index, hasher, .. } = self;
        let hash = hasher.hash_one(text);
        if let Some(&number) = index.find(hash, |&number| names.get(number) == text) {
            return number;
        }
        let number = names.push(text);
        index.insert_unique(hash, number, |&number| hasher.hash_one(names.get(number)));
        number
    }

    /// The name with this number.
    pub(crate) fn get(&self, number: u32) -> &str {
        self.names.get(number)
    }
}
