//! Which spans spent most CPU time under a function.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::list::{self, SpanCursor, SpanListFilter, SpanListItem, SpanOrder};
use super::{Engine, Names, QueryError};
use crate::cancel;
use crate::model::{ProfileType, SpanId};
use crate::query::names::FrameNames;
use crate::query::stacks::{StackFilter, StackMatcher};
use crate::store::{NO_SPAN, SampleCounts, SeriesEntry, Source};

/// Stack traces and span entries that are asked for at a time.
const AT_ONCE: usize = 4096;
/// Spans that one answer is chosen from at most.
const MAX_SPANS: usize = 2_000_000;

/// A span with CPU time under a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanUnder {
    /// The span; its total is its CPU time under the function, in nanoseconds.
    pub item: SpanListItem,
    /// Samples under the function.
    pub samples: u64,
}

/// What the entries of one span add up to.
struct Sum {
    item: SpanListItem,
    samples: u64,
}

impl Engine {
    /// At most `limit` spans with samples of CPU time under this function in profiles that overlap the filter's time, those with
    /// most of it first. The filter's order and type do not count.
    pub fn spans_under(
        &self,
        function: &str,
        filter: &SpanListFilter,
        limit: usize,
    ) -> Result<Vec<SpanUnder>, QueryError> {
        let stacks = StackFilter { include: vec![function.to_owned()], ..StackFilter::default() };
        let mut names = FrameNames::default();
        let mut matcher = StackMatcher::new(&stacks, &mut names);
        let mut spans: HashMap<SpanId, Sum, RandomState> = HashMap::default();
        let sources = self.sources();
        for source in &sources {
            let range = filter.range;
            if source.bounds().is_none_or(|bounds| range.is_some_and(|range| !range.overlaps(&bounds))) {
                continue;
            }
            names.begin_source();
            add_source(source.as_ref(), filter, &mut matcher, &mut names, &mut spans)?;
            if spans.len() > MAX_SPANS {
                return Err(QueryError::TooMuch {
                    what: "spans",
                    max: MAX_SPANS,
                    fix: "ask for a shorter time, a service or a name",
                });
            }
        }
        let place = |sum: &Sum| {
            let cursor: SpanCursor = sum.item.cursor(SpanOrder::Function);
            SpanCursor { samples: sum.samples, ..cursor }.key()
        };
        let after = filter.after.map(SpanCursor::key);
        let mut sums: Vec<Sum> =
            spans.into_values().filter(|sum| after.is_none_or(|after| place(sum) > after)).collect();
        sums.sort_unstable_by_key(place);
        sums.truncate(limit);
        let ids: Vec<SpanId> = sums.iter().map(|sum| sum.item.span_id).collect();
        // All that the spans did then, not only what was under the function.
        let whole = SpanListFilter { kind: None, name: None, ..filter.clone() };
        let (whole, _) = list::sums(&sources, &whole, Some(&ids), ids.len())?;
        let whole = sums.into_iter().map(|sum| {
            let all = whole.get(&sum.item.span_id).map_or(&sum.item, |all| &all.item);
            let SpanListItem { samples, cpu_nanos, range, .. } = *all;
            SpanUnder { item: SpanListItem { samples, cpu_nanos, range, ..sum.item }, samples: sum.samples }
        });
        Ok(whole.collect())
    }
}

fn add_source(
    source: &dyn Source,
    filter: &SpanListFilter,
    matcher: &mut StackMatcher<'_>,
    frame_names: &mut FrameNames,
    spans: &mut HashMap<SpanId, Sum, RandomState>,
) -> Result<(), QueryError> {
    let wanted = |series: &SeriesEntry| {
        let column = series.types.iter().position(ProfileType::is_cpu_time)?;
        let is_of = filter.service.as_ref().is_none_or(|service| series.labels.service() == service);
        is_of.then(|| (series.id, (column, series.clone())))
    };
    let series: HashMap<u32, (usize, SeriesEntry), RandomState> =
        source.series(None)?.iter().filter_map(wanted).collect();
    let mut numbers: Vec<u32> = series.keys().copied().collect();
    numbers.sort_unstable();
    let chunks = source.chunks(&numbers, filter.range)?;
    let mut stacks: HashSet<u32, RandomState> = HashSet::default();
    for chunk in &chunks {
        cancel::check()?;
        for (at, _) in chunk.runs.iter().enumerate().filter(|(_, run)| run.entry != NO_SPAN) {
            stacks.extend(&chunk.stacks[chunk.rows(at)]);
        }
    }
    let mut stacks: Vec<u32> = stacks.into_iter().collect();
    stacks.sort_unstable();
    let mut under: HashSet<u32, RandomState> = HashSet::default();
    let mut frames = Vec::new();
    for stacks in stacks.chunks(AT_ONCE) {
        cancel::check()?;
        source.stacks(stacks, &mut |number, symbols, locations| {
            frames.clear();
            frame_names.of_stack(symbols, locations, &mut frames);
            if matcher.pass(&frames, frame_names) {
                under.insert(stacks[number]);
            }
        })?;
    }
    let mut names = Names::new(source);
    let mut sums: HashMap<u32, (i64, u64), RandomState> = HashMap::default();
    for chunk in &chunks {
        cancel::check()?;
        let Some((column, of)) = series.get(&chunk.series) else { continue };
        let counts = SampleCounts::new(&of.types, chunk.period);
        let values = chunk.column(*column);
        for (at, run) in chunk.runs.iter().enumerate().filter(|(_, run)| run.entry != NO_SPAN) {
            if let Some(name) = &filter.name
                && names.get(run.name)?.unwrap_or_default() != name
            {
                continue;
            }
            for row in chunk.rows(at).filter(|&row| values[row] > 0 && under.contains(&chunk.stacks[row])) {
                let (nanos, samples) = sums.entry(run.entry).or_default();
                *nanos = nanos.saturating_add(values[row]);
                *samples = samples.saturating_add(counts.of(|of| chunk.column(of)[row]));
            }
        }
    }
    let mut entries: Vec<u32> = sums.keys().copied().collect();
    entries.sort_unstable();
    for numbers in entries.chunks(AT_ONCE) {
        cancel::check()?;
        for entry in source.entries(numbers)? {
            let (Some(span_id), Some(&(nanos, samples))) = (entry.span.span_id, sums.get(&entry.id)) else {
                continue;
            };
            if filter.trace_id.is_some_and(|trace| entry.span.trace_id != Some(trace)) {
                continue;
            }
            let sum = match spans.entry(span_id) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => {
                    let service = series.get(&entry.series).map_or("", |(_, of)| of.labels.service());
                    let item = SpanListItem {
                        span_id,
                        trace_id: entry.span.trace_id,
                        service: service.to_owned(),
                        name: names.get(entry.span.name)?.map(str::to_owned),
                        samples: 0,
                        cpu_nanos: 0,
                        total: 0,
                        range: entry.range,
                    };
                    new.insert(Sum { item, samples: 0 })
                }
            };
            sum.item.total = sum.item.total.saturating_add(nanos);
            sum.item.trace_id = sum.item.trace_id.or(entry.span.trace_id);
            sum.samples = sum.samples.saturating_add(samples);
        }
    }
    Ok(())
}
