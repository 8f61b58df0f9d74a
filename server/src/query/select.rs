//! Finding the rows that a question is about.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::names::FrameNames;
use super::stacks::{StackFilter, StackMatcher};
use super::{Engine, QueryError, SpanFilter};
use crate::cancel;
use crate::model::{ProfileId, ProfileType, SpanId, SpanRef, Symbols, TimeRange};
use crate::selector::LabelSelector;
use crate::store::{Chunk, FoundRun, SampleCounts, SeriesEntry, Source, SpanEntry, SpanLookup, StoreError};

/// Which samples a question is about.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Their values of this type.
    pub kind: ProfileType,
    /// Those of series, and under span names, that pass it.
    pub selector: LabelSelector,
    /// Those of profiles that overlap it; none for all.
    pub range: Option<TimeRange>,
    /// Those of these spans.
    pub spans: SpanFilter,
    /// Those of these profiles; empty for all.
    pub profiles: HashSet<ProfileId>,
    /// Those with these stack traces.
    pub stacks: StackFilter,
}

impl Selection {
    /// Everything there is of this type.
    pub fn of(kind: ProfileType) -> Self {
        Self {
            kind,
            selector: LabelSelector::default(),
            range: None,
            spans: SpanFilter::default(),
            profiles: HashSet::new(),
            stacks: StackFilter::default(),
        }
    }

    /// Whether a profile is among those asked for.
    pub(super) fn takes(&self, chunk: &Chunk) -> bool {
        (self.profiles.is_empty() || self.profiles.contains(&chunk.id))
            && self.range.is_none_or(|range| range.overlaps(&chunk.interval()))
    }
}

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
    let mut taken: HashSet<(usize, u32), RandomState> = HashSet::default();
    let mut take = |source: usize, entry: &SpanEntry| {
        if taken.insert((source, entry.id)) {
            found[source].push(entry.clone());
        }
    };
    let traces: Vec<SpanLookup> = filter.trace_ids.iter().copied().map(SpanLookup::Trace).collect();
    for (at, source) in sources.iter().enumerate() {
        source.find(&traces, &mut |_, entry| take(at, entry))?;
    }
    let spans: Vec<(usize, SpanId)> = filter.span_ids.iter().map(|id| (0, *id)).collect();
    each_entry(sources, &spans, filter.roll_up, &mut |_, source, entry| {
        take(source, entry);
        true
    })?;
    Ok(found)
}

/// Visits the entries of spans, with `roll_up` those of their descendants as well: the span's number, the source's, and the
/// entry. An entry may be visited more than once. Spans with the same number are one. Ends soon once `visit` says no.
pub(super) fn each_entry(
    sources: &[Arc<dyn Source>],
    spans: &[(usize, SpanId)],
    roll_up: bool,
    visit: &mut dyn FnMut(usize, usize, &SpanEntry) -> bool,
) -> Result<(), StoreError> {
    let mut go_on = true;
    let mut seen: HashSet<(usize, SpanId), RandomState> = HashSet::default();
    let mut pending: Vec<(usize, SpanId)> = spans.iter().copied().filter(|span| seen.insert(*span)).collect();
    while !pending.is_empty() {
        let lookup = |&(_, id): &(usize, SpanId)| match roll_up {
            true => SpanLookup::Family(id),
            false => SpanLookup::Span(id),
        };
        let lookups: Vec<SpanLookup> = pending.iter().map(lookup).collect();
        let mut children = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            source.find(&lookups, &mut |number, entry| {
                if !go_on {
                    return;
                }
                let (span, id) = pending[number];
                let SpanRef { span_id, parent, local_root, .. } = entry.span;
                // A local root with a parent has it in another process, whose work is not this span's.
                let child = span_id.filter(|_| roll_up && parent == Some(id) && local_root != span_id);
                if !roll_up || [span_id, local_root].contains(&Some(id)) || child.is_some() {
                    go_on = visit(span, at, entry);
                }
                children.extend(child.filter(|child| seen.insert((span, *child))).map(|child| (span, child)));
            })?;
            if !go_on {
                return Ok(());
            }
        }
        pending = children;
    }
    Ok(())
}

/// A stack trace of one source and what it stands for.
pub(super) struct FoundStack<'a> {
    /// Which source it is of.
    pub(super) source: usize,
    /// The tables of that source.
    pub(super) symbols: &'a Symbols,
    /// What is kept of its locations, the leaf first.
    pub(super) locations: &'a [u32],
    /// Names of the frames at those, the root first.
    pub(super) frames: &'a [u32],
    /// The sum of its values.
    pub(super) value: i64,
    /// Samples that it was seen in.
    pub(super) samples: u64,
}

/// What the profiles say that samples were found in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Covered {
    /// From the beginning of the first to the end of the last, in Unix nanoseconds.
    pub(super) nanos: Option<(i64, i64)>,
    /// The sampling period that they have in common; 0 if they have none.
    pub(super) period: i64,
}

impl Covered {
    fn add(&mut self, chunk: &Chunk) {
        let end = chunk.start_nanos.saturating_add(chunk.duration_nanos);
        match self.nanos {
            None => *self = Self { nanos: Some((chunk.start_nanos, end)), period: chunk.period },
            Some((first, last)) => {
                self.nanos = Some((first.min(chunk.start_nanos), last.max(end)));
                if self.period != chunk.period {
                    self.period = 0;
                }
            }
        }
    }
}

/// Value and samples by stack trace of one source.
/// Stack traces visited before asking whether anybody still waits.
const STACKS_AT_ONCE: usize = 1024;

#[derive(Default)]
struct Sums {
    by_stack: HashMap<u32, (i64, u64), RandomState>,
    covered: Covered,
}

impl Sums {
    fn add(&mut self, chunk: &Chunk, column: usize, counts: &SampleCounts, rows: std::ops::Range<usize>) {
        let values = chunk.column(column);
        let mut found = false;
        for row in rows {
            if values[row] > 0 {
                found = true;
                let (sum, samples) = self.by_stack.entry(chunk.stacks[row]).or_default();
                *sum = sum.saturating_add(values[row]);
                *samples = samples.saturating_add(counts.of(|t| chunk.column(t)[row]));
            }
        }
        if found {
            self.covered.add(chunk);
        }
    }
}

impl Engine {
    /// Visits every stack trace of a selection, source by source. Names of frames get their numbers in `names`.
    pub(super) fn visit_stacks(
        &self,
        selection: &Selection,
        names: &mut FrameNames,
        mut visit: impl FnMut(FoundStack<'_>) -> Result<(), QueryError>,
    ) -> Result<Covered, QueryError> {
        let sources = self.sources();
        let spans = &selection.spans;
        let mut entries = if spans.is_empty() { Vec::new() } else { entries(&sources, spans)? };
        let mut matcher = StackMatcher::new(&selection.stacks, names);
        let mut covered = Covered::default();
        let mut frames = Vec::new();
        for (at, source) in sources.iter().enumerate() {
            let source = source.as_ref();
            let mut sums = Sums { covered, ..Sums::default() };
            if spans.is_empty() {
                all_rows(source, selection, &mut sums)?;
            } else {
                found_rows(source, selection, std::mem::take(&mut entries[at]), &mut sums)?;
            }
            covered = sums.covered;
            let mut sums: Vec<(u32, (i64, u64))> = sums.by_stack.into_iter().collect();
            // In the order of the tables, whatever the order of the map was.
            sums.sort_unstable_by_key(|(stack, _)| *stack);
            let (stacks, values): (Vec<u32>, Vec<(i64, u64)>) = sums.into_iter().unzip();
            names.begin_source();
            for (stacks, values) in stacks.chunks(STACKS_AT_ONCE).zip(values.chunks(STACKS_AT_ONCE)) {
                cancel::check()?;
                let mut visited = Ok(());
                source.stacks(stacks, &mut |number, symbols, locations| {
                    if visited.is_err() {
                        return;
                    }
                    frames.clear();
                    names.of_stack(symbols, locations, &mut frames);
                    if !matcher.pass(&frames, names) {
                        return;
                    }
                    let kept = selection.stacks.kept(locations);
                    if kept.len() < locations.len() {
                        frames.clear();
                        names.of_stack(symbols, kept, &mut frames);
                    }
                    let (value, samples) = values[number];
                    let locations = kept;
                    let frames = &frames;
                    visited = visit(FoundStack { source: at, symbols, locations, frames, value, samples });
                })?;
                visited?;
            }
        }
        Ok(covered)
    }
}

fn all_rows(source: &dyn Source, selection: &Selection, sums: &mut Sums) -> Result<(), QueryError> {
    let Selection { kind, selector, range, .. } = selection;
    let outside = source.bounds().is_none_or(|bounds| range.is_some_and(|range| !range.overlaps(&bounds)));
    if outside {
        return Ok(());
    }
    let wanted = WantedSeries::of(source, None, kind, selector, *range)?;
    let mut names = WantedNames::new(source, selector);
    for chunk in source.chunks(&wanted.numbers(), *range)? {
        cancel::check()?;
        let Some((column, series)) = wanted.get(chunk.series).filter(|_| selection.takes(&chunk)) else {
            continue;
        };
        let counts = SampleCounts::new(&series.types, chunk.period);
        for run in 0..chunk.runs.len() {
            if names.pass(chunk.runs[run].name)? {
                sums.add(&chunk, column, &counts, chunk.rows(run));
            }
        }
    }
    Ok(())
}

fn found_rows(
    source: &dyn Source,
    selection: &Selection,
    entries: Vec<SpanEntry>,
    sums: &mut Sums,
) -> Result<(), QueryError> {
    if entries.is_empty() {
        return Ok(());
    }
    let Selection { kind, selector, range, .. } = selection;
    let wanted = WantedSeries::of(source, Some(&series_of(&entries)), kind, selector, *range)?;
    let mut names = WantedNames::new(source, selector);
    let mut numbers = Vec::new();
    for entry in &entries {
        if wanted.get(entry.series).is_some() && names.pass(entry.span.name)? {
            numbers.push(entry.id);
        }
    }
    for FoundRun { chunk, run } in source.runs(&numbers)? {
        cancel::check()?;
        let Some((column, series)) = wanted.get(chunk.series).filter(|_| selection.takes(&chunk)) else {
            continue;
        };
        sums.add(&chunk, column, &SampleCounts::new(&series.types, chunk.period), chunk.rows(run));
    }
    Ok(())
}

/// The series of these span entries, sorted.
pub(super) fn series_of(entries: &[SpanEntry]) -> Vec<u32> {
    let mut series: Vec<u32> = entries.iter().map(|entry| entry.series).collect();
    series.sort_unstable();
    series.dedup();
    series
}
