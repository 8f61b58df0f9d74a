//! What a query reads: the parts of the store behind one interface.
//!
//! A part of the head and a segment on disk answer the same questions. Numbers (of series, span entries, stack traces,
//! strings) mean something only within the source that gave them.

use std::ops::Range;
use std::sync::Arc;

use super::StoreError;
use super::head::SampleCounts;
use crate::model::{
    Labels, Loss, ProfileId, ProfileType, SpanId, SpanRef, Symbols, TimeRange, TraceId, interval,
};

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
    /// The profile's id.
    pub(crate) id: ProfileId,
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

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.runs)
            + size_of_val(&*self.stacks)
            + size_of_val(&*self.values)
            + size_of_val(&*self.totals)
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
    /// The span's entry, [`NO_SPAN`] for samples that know of none.
    pub(crate) entry: u32,
    /// One past its last row.
    pub(crate) end: u32,
}

/// In place of a span entry's number where samples know of no span.
pub(crate) const NO_SPAN: u32 = u32::MAX;

/// A span that samples of one series were taken in. A span may have several entries, of several series or of one.
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

impl SpanEntry {
    /// Adds rows of a profile of its series.
    pub(crate) fn add(
        &mut self,
        interval: TimeRange,
        types: &[ProfileType],
        counts: &SampleCounts,
        rows: Range<usize>,
        value: impl Fn(usize, usize) -> i64,
    ) {
        let samples = rows.clone().map(|row| counts.of(|column| value(column, row)));
        self.samples = samples.fold(self.samples, u64::saturating_add);
        if let Some(column) = types.iter().position(ProfileType::is_cpu_time) {
            self.cpu_nanos = rows.map(|row| value(column, row)).fold(self.cpu_nanos, i64::saturating_add);
        }
        self.range = self.range.union(interval);
    }
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
    /// Those of this span, of its children, and those whose local root it is, each once.
    Family(SpanId),
}

impl SpanLookup {
    /// Whether it is about this span.
    pub(crate) fn finds(self, span: &SpanRef) -> bool {
        match self {
            Self::Span(id) => span.span_id == Some(id),
            Self::Trace(id) => span.trace_id == Some(id),
            Self::Children(id) => span.parent == Some(id),
            Self::LocalRoot(id) => span.local_root == Some(id),
            Self::Family(id) => [span.span_id, span.parent, span.local_root].contains(&Some(id)),
        }
    }
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

    /// Chunks of the `wanted` series (sorted numbers) that overlap `range`, in an order of the source.
    fn chunks(&self, wanted: &[u32], range: Option<TimeRange>) -> Result<Vec<Arc<Chunk>>, StoreError>;

    /// Visits all chunks of one series, those that began first before the others, holding few at a time.
    fn chunks_of(&self, series: u32, visit: &mut dyn FnMut(&Arc<Chunk>)) -> Result<(), StoreError>;

    /// Visits the span entries that each of these look-ups is about, with the number of the look-up, in time proportional
    /// to how many they are.
    fn find(
        &self,
        lookups: &[SpanLookup],
        visit: &mut dyn FnMut(usize, &SpanEntry),
    ) -> Result<(), StoreError>;

    /// Visits the span entries that one look-up is about.
    fn spans(&self, lookup: SpanLookup, visit: &mut dyn FnMut(&SpanEntry)) -> Result<(), StoreError> {
        self.find(&[lookup], &mut |_, entry| visit(entry))
    }

    /// Visits all span entries but for some that nobody asked for: those of other series than the `wanted` (sorted numbers), and
    /// those without a profile in `range`.
    fn all_spans(
        &self,
        wanted: Option<&[u32]>,
        range: Option<TimeRange>,
        visit: &mut dyn FnMut(&SpanEntry),
    ) -> Result<(), StoreError>;

    /// These span entries, in the order given.
    fn entries(&self, numbers: &[u32]) -> Result<Vec<SpanEntry>, StoreError>;

    /// The rows of these span entries, in time proportional to the number of runs.
    fn runs(&self, entries: &[u32]) -> Result<Vec<FoundRun>, StoreError>;

    /// How many distinct spans it holds.
    fn span_count(&self) -> u64;

    /// The distinct names of spans in a series, as numbers of strings; 0 is never among them.
    fn span_names(&self, series: u32) -> Result<Vec<u32>, StoreError>;

    /// The text of a span's name.
    fn string(&self, index: u32) -> Result<String, StoreError>;

    /// How many stack traces there are; their numbers begin with 0.
    fn stack_count(&self) -> Result<u32, StoreError>;

    /// Visits stack traces in the order given: the position in `stacks`, the tables that the trace refers to, and its
    /// locations, the leaf first. A location's number means the same in every call of one source.
    fn stacks(
        &self,
        stacks: &[u32],
        visit: &mut dyn FnMut(usize, &Symbols, &[u32]),
    ) -> Result<(), StoreError>;

    /// Visits what senders lost: the series and the time of the profile that told it, in time proportional to their
    /// number.
    fn losses(&self, visit: &mut dyn FnMut(u32, TimeRange, &[Loss])) -> Result<(), StoreError>;

    /// Bytes that its symbol tables take.
    fn symbol_bytes(&self) -> u64;

    /// Bytes that its span index takes.
    fn index_bytes(&self) -> u64;
}
