//! Finding the rows that a question is about, and merging them into a flame graph.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::flame::StackTree;
use super::{Engine, FlameGraph, QueryError, SpanFilter};
use crate::model::{ProfileType, SpanId, TimeRange};
use crate::selector::LabelSelector;
use crate::store::{
    Chunk, FoundRun, FrameNames, SampleCounts, SeriesEntry, Source, SpanEntry, SpanLookup, StoreError,
};

/// Series of one source that pass a selector, with the column of the wanted type.
pub(super) struct WantedSeries {
    /// Sorted by number.
    series: Vec<(u32, usize, SeriesEntry)>,
}

impl WantedSeries {
    pub(super) fn of(
        source: &dyn Source,
        among: Option<&[u32]>,
        kind: &ProfileType,
        selector: &LabelSelector,
        range: Option<TimeRange>,
    ) -> Result<Self, StoreError> {
        let mut series = Vec::new();
        for entry in source.series(among)? {
            let Some(column) = entry.types.iter().position(|t| t == kind) else { continue };
            if range.is_none_or(|range| range.overlaps(&entry.range))
                && selector.matches_series(&entry.labels, kind)
            {
                series.push((entry.id, column, entry));
            }
        }
        series.sort_unstable_by_key(|(id, ..)| *id);
        Ok(Self { series })
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.series.iter().map(|(id, ..)| *id).collect()
    }

    /// The wanted column of this series' chunks and the series itself; none if the series is not wanted.
    pub(super) fn get(&self, series: u32) -> Option<(usize, &SeriesEntry)> {
        let at = self.series.binary_search_by_key(&series, |(id, ..)| *id).ok()?;
        let (_, column, entry) = &self.series[at];
        Some((*column, entry))
    }
}

/// Which span names of one source pass a selector; each is asked once.
pub(super) struct WantedNames<'a> {
    source: &'a dyn Source,
    selector: &'a LabelSelector,
    known: HashMap<u32, bool, RandomState>,
}

impl<'a> WantedNames<'a> {
    pub(super) fn new(source: &'a dyn Source, selector: &'a LabelSelector) -> Self {
        Self { source, selector, known: HashMap::default() }
    }

    pub(super) fn pass(&mut self, name: u32) -> Result<bool, StoreError> {
        if !self.selector.selects_span_names() {
            return Ok(true);
        }
        if let Some(&passes) = self.known.get(&name) {
            return Ok(passes);
        }
        let passes = self.selector.matches_span_name(&self.source.string(name)?);
        self.known.insert(name, passes);
        Ok(passes)
    }
}

/// Span entries that a filter selects, source by source.
pub(super) fn entries(
    sources: &[Arc<dyn Source>],
    filter: &SpanFilter,
) -> Result<Vec<Vec<SpanEntry>>, StoreError> {
    let mut found: Vec<Vec<SpanEntry>> = sources.iter().map(|_| Vec::new()).collect();
    let mut taken: Vec<HashSet<u32, RandomState>> = sources.iter().map(|_| HashSet::default()).collect();
    let mut take = |at: usize, entry: &SpanEntry| {
        if taken[at].insert(entry.id) {
            found[at].push(entry.clone());
        }
    };
    for &trace in &filter.trace_ids {
        for (at, source) in sources.iter().enumerate() {
            source.spans(SpanLookup::Trace(trace), &mut |entry| take(at, entry))?;
        }
    }
    let mut seen: HashSet<SpanId, RandomState> = filter.span_ids.iter().copied().collect();
    let mut pending: VecDeque<SpanId> = seen.iter().copied().collect();
    while let Some(id) = pending.pop_front() {
        for (at, source) in sources.iter().enumerate() {
            source.spans(SpanLookup::Span(id), &mut |entry| take(at, entry))?;
            if !filter.roll_up {
                continue;
            }
            source.spans(SpanLookup::LocalRoot(id), &mut |entry| take(at, entry))?;
            source.spans(SpanLookup::Children(id), &mut |entry| {
                // A local root with a parent has it in another process, whose work is not this span's.
                let Some(child) = entry.span.span_id else { return };
                if entry.span.local_root != Some(child) {
                    take(at, entry);
                    if seen.insert(child) {
                        pending.push_back(child);
                    }
                }
            })?;
        }
    }
    Ok(found)
}

/// Value and samples by stack trace of one source.
#[derive(Default)]
struct Sums {
    by_stack: HashMap<u32, (i64, u64), RandomState>,
}

impl Sums {
    fn add(&mut self, chunk: &Chunk, column: usize, counts: &SampleCounts, rows: std::ops::Range<usize>) {
        let values = chunk.column(column);
        for row in rows {
            if values[row] > 0 {
                let (sum, samples) = self.by_stack.entry(chunk.stacks[row]).or_default();
                *sum = sum.saturating_add(values[row]);
                *samples = samples.saturating_add(counts.of(|t| chunk.column(t)[row]));
            }
        }
    }
}

impl Engine {
    /// The merged stack traces of all samples of type `kind` whose series pass `selector`, whose profiles overlap `range`
    /// and whose spans pass `filter`; with `call_site`, only of stack traces that begin with these functions, the root
    /// first. See [`FlameGraph`] for the form and `max_nodes` (0 for all). No samples give one bar of zero.
    pub fn flamegraph(
        &self,
        kind: &ProfileType,
        selector: &LabelSelector,
        range: Option<TimeRange>,
        filter: &SpanFilter,
        call_site: &[String],
        max_nodes: usize,
    ) -> Result<FlameGraph, QueryError> {
        let sources = self.sources();
        let mut entries = if filter.is_empty() { Vec::new() } else { entries(&sources, filter)? };
        let mut names = FrameNames::default();
        let call_site: Vec<u32> = call_site.iter().map(|name| names.of_text(name)).collect();
        let mut tree = StackTree::new();
        let mut samples = 0u64;
        for (at, source) in sources.iter().enumerate() {
            let source = source.as_ref();
            let sums = if filter.is_empty() {
                all_rows(source, kind, selector, range)?
            } else {
                found_rows(source, kind, selector, range, std::mem::take(&mut entries[at]))?
            };
            let (stacks, values): (Vec<u32>, Vec<(i64, u64)>) = sums.by_stack.into_iter().unzip();
            source.frames(&stacks, &mut names, &mut |at, frames| {
                if frames.starts_with(&call_site) {
                    let (value, of_stack) = values[at];
                    tree.add(frames, value);
                    samples = of_stack.saturating_add(samples);
                }
            })?;
        }
        Ok(FlameGraph { samples, ..tree.flame_graph(&names, max_nodes) })
    }
}

fn all_rows(
    source: &dyn Source,
    kind: &ProfileType,
    selector: &LabelSelector,
    range: Option<TimeRange>,
) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    let outside = source.bounds().is_none_or(|bounds| range.is_some_and(|range| !range.overlaps(&bounds)));
    if outside {
        return Ok(sums);
    }
    let wanted = WantedSeries::of(source, None, kind, selector, range)?;
    let mut names = WantedNames::new(source, selector);
    for chunk in source.chunks(&wanted.numbers(), range)? {
        let Some((column, series)) = wanted.get(chunk.series) else { continue };
        let counts = SampleCounts::new(&series.types, chunk.period);
        for run in 0..chunk.runs.len() {
            if names.pass(chunk.runs[run].name)? {
                sums.add(&chunk, column, &counts, chunk.rows(run));
            }
        }
    }
    Ok(sums)
}

fn found_rows(
    source: &dyn Source,
    kind: &ProfileType,
    selector: &LabelSelector,
    range: Option<TimeRange>,
    entries: Vec<SpanEntry>,
) -> Result<Sums, StoreError> {
    let mut sums = Sums::default();
    if entries.is_empty() {
        return Ok(sums);
    }
    let wanted = WantedSeries::of(source, Some(&series_of(&entries)), kind, selector, range)?;
    let mut names = WantedNames::new(source, selector);
    let mut numbers = Vec::new();
    for entry in &entries {
        if wanted.get(entry.series).is_some() && names.pass(entry.span.name)? {
            numbers.push(entry.id);
        }
    }
    for FoundRun { chunk, run } in source.runs(&numbers)? {
        let Some((column, series)) = wanted.get(chunk.series) else { continue };
        if range.is_none_or(|range| range.overlaps(&chunk.interval())) {
            sums.add(&chunk, column, &SampleCounts::new(&series.types, chunk.period), chunk.rows(run));
        }
    }
    Ok(sums)
}

/// The series of these span entries, sorted.
pub(super) fn series_of(entries: &[SpanEntry]) -> Vec<u32> {
    let mut series: Vec<u32> = entries.iter().map(|entry| entry.series).collect();
    series.sort_unstable();
    series.dedup();
    series
}
