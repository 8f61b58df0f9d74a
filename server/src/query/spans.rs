//! Spans: what is known of one, which burned the most, and why an answer about one is empty.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::select::{WantedNames, WantedSeries, entries, series_of};
use super::{Engine, QueryError, SpanFilter};
use crate::model::{Labels, ProfileType, SpanId, TimeRange, TraceId};
use crate::selector::LabelSelector;
use crate::store::{SampleCounts, SpanEntry, SpanLookup};

/// What is known of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSummary {
    /// Its id.
    pub span_id: SpanId,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its parent.
    pub parent: Option<SpanId>,
    /// The first span of its trace in its process.
    pub local_root: Option<SpanId>,
    /// Its name: from its own samples, or where it has none from those that it is the local root of.
    pub name: Option<String>,
    /// Labels of a series that its samples are in.
    pub labels: Labels,
    /// The time that the profiles with its samples cover.
    pub range: TimeRange,
    /// Totals of it and its descendants, by profile type.
    pub types: Vec<TypeTotal>,
    /// Samples in it and its descendants.
    pub samples: u64,
    /// CPU time of it and its descendants, in nanoseconds.
    pub cpu_nanos: i64,
    /// Samples in itself.
    pub own_samples: u64,
    /// CPU time of itself, in nanoseconds.
    pub own_cpu_nanos: i64,
}

/// The total of one profile type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeTotal {
    /// The type.
    pub kind: ProfileType,
    /// The sum of its values, in its unit.
    pub total: i64,
    /// Samples that it rests on.
    pub samples: u64,
}

/// Narrows a list of spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanListFilter {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those of this trace.
    pub trace_id: Option<TraceId>,
}

/// A span in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanListItem {
    /// Its id.
    pub span_id: SpanId,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: Option<String>,
    /// Samples in itself.
    pub samples: u64,
    /// CPU time of itself, in nanoseconds.
    pub cpu_nanos: i64,
    /// The time that the profiles with its samples cover.
    pub range: TimeRange,
}

/// Why there are no samples for a filter of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyReason {
    /// No sample was ever taken in these spans, or it is no longer kept.
    UnknownSpan,
    /// They have samples, but none of this profile type.
    NoSamplesOfType,
    /// They have samples of the type, but in series or under span names that the label selector excludes.
    SelectorMismatch,
    /// They have such samples, but in profiles outside the time asked for.
    OutsideWindow,
}

impl EmptyReason {
    /// The reason's name for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSpan => "unknown_span",
            Self::NoSamplesOfType => "no_samples_of_type",
            Self::SelectorMismatch => "selector_mismatch",
            Self::OutsideWindow => "outside_window",
        }
    }
}

impl Engine {
    /// What is known of a span, none if neither it nor a descendant has samples.
    pub fn span(&self, id: SpanId) -> Result<Option<SpanSummary>, QueryError> {
        let sources = self.sources();
        let mut summary: Option<SpanSummary> = None;
        let mut name_as_root = None;
        for (source, entries) in sources.iter().zip(entries(&sources, &SpanFilter::spans([id]))?) {
            let series: HashMap<u32, _> =
                source.series(Some(&series_of(&entries)))?.into_iter().map(|s| (s.id, s)).collect();
            for entry in &entries {
                let Some(series) = series.get(&entry.series) else { continue };
                let own = entry.span.span_id == Some(id);
                let summary = summary.get_or_insert_with(|| SpanSummary {
                    span_id: id,
                    trace_id: None,
                    parent: None,
                    local_root: None,
                    name: None,
                    labels: series.labels.clone(),
                    range: entry.range,
                    types: Vec::new(),
                    samples: 0,
                    cpu_nanos: 0,
                    own_samples: 0,
                    own_cpu_nanos: 0,
                });
                summary.range = summary.range.union(entry.range);
                summary.samples = summary.samples.saturating_add(entry.samples);
                summary.cpu_nanos = summary.cpu_nanos.saturating_add(entry.cpu_nanos);
                summary.trace_id = summary.trace_id.or(entry.span.trace_id);
                if entry.span.local_root == Some(id) || own {
                    summary.local_root = summary.local_root.or(entry.span.local_root);
                }
                let root_name = entry.span.local_root_name;
                if entry.span.local_root == Some(id) && root_name != 0 && name_as_root.is_none() {
                    name_as_root = Some(source.string(root_name)?);
                }
                if own {
                    if summary.own_samples == 0 {
                        summary.labels = series.labels.clone();
                    }
                    summary.own_samples = summary.own_samples.saturating_add(entry.samples);
                    summary.own_cpu_nanos = summary.own_cpu_nanos.saturating_add(entry.cpu_nanos);
                    summary.parent = summary.parent.or(entry.span.parent);
                    if summary.name.is_none() && entry.span.name != 0 {
                        summary.name = Some(source.string(entry.span.name)?);
                    }
                }
            }
            let numbers: Vec<u32> = entries.iter().map(|entry| entry.id).collect();
            for found in source.runs(&numbers)? {
                let (Some(series), Some(summary)) = (series.get(&found.chunk.series), &mut summary) else {
                    continue;
                };
                let counts = SampleCounts::new(&series.types, found.chunk.period);
                for (column, kind) in series.types.iter().enumerate() {
                    add_type(summary, kind, &found, column, &counts);
                }
            }
        }
        if let Some(summary) = &mut summary {
            summary.name = summary.name.take().or(name_as_root);
            summary.types.retain(|t| t.total > 0);
            summary.types.sort_by_key(|t| t.kind.to_string());
        }
        Ok(summary)
    }

    /// The spans with samples, those with the most CPU time of their own first.
    pub fn spans(&self, filter: &SpanListFilter, limit: usize) -> Result<Vec<SpanListItem>, QueryError> {
        let sources = self.sources();
        let services: Vec<HashMap<u32, String>> = sources
            .iter()
            .map(|source| {
                let named = source.series(None)?.into_iter().map(|s| (s.id, s.labels.service().to_owned()));
                Ok(named.filter(|(_, name)| filter.service.as_ref().is_none_or(|s| s == name)).collect())
            })
            .collect::<Result<_, QueryError>>()?;
        // By span first: one may have entries in several series and sources, which only together tell its rank.
        let mut spans: HashMap<SpanId, (usize, SpanEntry), RandomState> = HashMap::default();
        for (at, source) in sources.iter().enumerate() {
            let mut add = |entry: &SpanEntry| {
                let Some(id) = entry.span.span_id else { return };
                if !services[at].contains_key(&entry.series) {
                    return;
                }
                let join = |(first, sum): &mut (usize, SpanEntry)| {
                    sum.samples = sum.samples.saturating_add(entry.samples);
                    sum.cpu_nanos = sum.cpu_nanos.saturating_add(entry.cpu_nanos);
                    sum.range = sum.range.union(entry.range);
                    sum.span.trace_id = sum.span.trace_id.or(entry.span.trace_id);
                    if sum.span.name == 0 {
                        // Names are numbers of their source.
                        (*first, sum.span.name, sum.series) = (at, entry.span.name, entry.series);
                    }
                };
                spans.entry(id).and_modify(join).or_insert_with(|| (at, entry.clone()));
            };
            match filter.trace_id {
                Some(trace) => source.spans(SpanLookup::Trace(trace), &mut add)?,
                None => source.all_spans(&mut add)?,
            }
        }
        let mut spans: Vec<(SpanId, (usize, SpanEntry))> = spans.into_iter().collect();
        spans.sort_unstable_by_key(|(id, (_, sum))| (std::cmp::Reverse((sum.cpu_nanos, sum.samples)), *id));
        spans.truncate(limit);
        spans
            .into_iter()
            .map(|(span_id, (at, sum))| {
                let name = if sum.span.name == 0 { None } else { Some(sources[at].string(sum.span.name)?) };
                Ok(SpanListItem {
                    span_id,
                    trace_id: sum.span.trace_id,
                    service: services[at].get(&sum.series).cloned().unwrap_or_default(),
                    name,
                    samples: sum.samples,
                    cpu_nanos: sum.cpu_nanos,
                    range: sum.range,
                })
            })
            .collect()
    }

    /// Why [`Engine::merge`] has nothing for these spans; none if it has something, or the filter is empty.
    pub fn why_empty(
        &self,
        kind: &ProfileType,
        selector: &LabelSelector,
        range: Option<TimeRange>,
        filter: &SpanFilter,
    ) -> Result<Option<EmptyReason>, QueryError> {
        if filter.is_empty() {
            return Ok(None);
        }
        let sources = self.sources();
        let mut reason = EmptyReason::UnknownSpan;
        let everything = LabelSelector::default();
        for (source, entries) in sources.iter().zip(entries(&sources, filter)?) {
            if entries.is_empty() {
                continue;
            }
            reason = furthest(reason, EmptyReason::NoSamplesOfType);
            let of_entries = series_of(&entries);
            let of_type = WantedSeries::of(source.as_ref(), Some(&of_entries), kind, &everything, None)?;
            let selected = WantedSeries::of(source.as_ref(), Some(&of_entries), kind, selector, None)?;
            let mut names = WantedNames::new(source.as_ref(), selector);
            let numbers: Vec<u32> = entries.iter().map(|entry| entry.id).collect();
            for found in source.runs(&numbers)? {
                let Some((column, _)) = of_type.get(found.chunk.series) else { continue };
                if found.chunk.column(column)[found.chunk.rows(found.run)].iter().all(|&value| value == 0) {
                    continue;
                }
                reason = furthest(reason, EmptyReason::SelectorMismatch);
                if selected.get(found.chunk.series).is_some()
                    && names.pass(found.chunk.runs[found.run].name)?
                {
                    reason = furthest(reason, EmptyReason::OutsideWindow);
                    if range.is_none_or(|range| range.overlaps(&found.chunk.interval())) {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(reason))
    }
}

/// Of two reasons the one that was reached after passing more checks.
fn furthest(a: EmptyReason, b: EmptyReason) -> EmptyReason {
    if (a as u8) < b as u8 { b } else { a }
}

fn add_type(
    summary: &mut SpanSummary,
    kind: &ProfileType,
    found: &crate::store::FoundRun,
    column: usize,
    counts: &SampleCounts,
) {
    let (mut total, mut samples) = (0i64, 0u64);
    for row in found.chunk.rows(found.run) {
        let value = found.chunk.column(column)[row];
        if value > 0 {
            total = total.saturating_add(value);
            samples = samples.saturating_add(counts.of(|t| found.chunk.column(t)[row]));
        }
    }
    match summary.types.iter_mut().find(|t| t.kind == *kind) {
        Some(sum) => {
            sum.total = sum.total.saturating_add(total);
            sum.samples = sum.samples.saturating_add(samples);
        }
        None => summary.types.push(TypeTotal { kind: kind.clone(), total, samples }),
    }
}
