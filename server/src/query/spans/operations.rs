//! What operations cost: CPU time by service and span name, and what ran in no span.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{Engine, Names, QueryError};
use crate::cancel;
use crate::model::{ProfileType, SpanId, TimeRange, TraceId};
use crate::query::SpanFilter;
use crate::store::{NO_SPAN, SampleCounts, SeriesEntry};

/// Spans that are told apart at most, to count them.
const MAX_SPANS: usize = 5_000_000;
/// Span entries that are asked for at a time.
const ENTRIES_AT_ONCE: usize = 4096;

/// What one operation of a service cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationCpu {
    /// The service.
    pub service: String,
    /// The span name; none for what ran in no span.
    pub name: Option<String>,
    /// Samples.
    pub samples: u64,
    /// CPU time, in nanoseconds.
    pub cpu_nanos: i64,
    /// Distinct spans with samples.
    pub spans: u64,
}

#[derive(Default)]
struct Sum {
    samples: u64,
    cpu_nanos: i64,
    spans: HashSet<SpanId, RandomState>,
}

/// The same within one source, with numbers of span entries.
#[derive(Default)]
struct Found {
    samples: u64,
    cpu_nanos: i64,
    entries: HashSet<u32, RandomState>,
}

impl Engine {
    /// The CPU time of each operation in profiles that overlap this time, of one service or of all, the heaviest first. Spans
    /// without a name are one operation, whose name is empty.
    pub fn operations(
        &self,
        service: Option<&str>,
        range: Option<TimeRange>,
    ) -> Result<Vec<OperationCpu>, QueryError> {
        let mut sums: BTreeMap<(String, Option<String>), Sum> = BTreeMap::new();
        let mut told_apart = 0;
        for source in self.sources() {
            let source = source.as_ref();
            if source.bounds().is_none_or(|bounds| range.is_some_and(|range| !range.overlaps(&bounds))) {
                continue;
            }
            let wanted = |series: &SeriesEntry| {
                let column = series.types.iter().position(ProfileType::is_cpu_time)?;
                let is_of = service.is_none_or(|service| series.labels.service() == service);
                is_of.then(|| (series.id, (column, series.clone())))
            };
            let series: HashMap<u32, (usize, SeriesEntry), RandomState> =
                source.series(None)?.iter().filter_map(wanted).collect();
            let mut numbers: Vec<u32> = series.keys().copied().collect();
            numbers.sort_unstable();
            // By numbers of the source first: of series, name and whether there is a span.
            let mut found: HashMap<(u32, Option<u32>), Found, RandomState> = HashMap::default();
            for chunk in source.chunks(&numbers, range)? {
                cancel::check()?;
                let Some((column, of)) = series.get(&chunk.series) else { continue };
                let counts = SampleCounts::new(&of.types, chunk.period);
                for (at, run) in chunk.runs.iter().enumerate() {
                    let name = (run.entry != NO_SPAN || run.name != 0).then_some(run.name);
                    let sum = found.entry((chunk.series, name)).or_default();
                    for row in chunk.rows(at) {
                        let value = chunk.column(*column)[row];
                        if value > 0 {
                            sum.samples = sum.samples.saturating_add(counts.of(|of| chunk.column(of)[row]));
                            sum.cpu_nanos = sum.cpu_nanos.saturating_add(value);
                            if run.entry != NO_SPAN {
                                sum.entries.insert(run.entry);
                            }
                        }
                    }
                }
            }
            let mut names = Names::new(source);
            for ((of, name), Found { samples, cpu_nanos, entries }) in found {
                let name = match name {
                    None => None,
                    Some(number) => Some(names.get(number)?.unwrap_or_default().to_owned()),
                };
                let service = series.get(&of).map_or("", |(_, series)| series.labels.service());
                let sum = sums.entry((service.to_owned(), name)).or_default();
                sum.samples = sum.samples.saturating_add(samples);
                sum.cpu_nanos = sum.cpu_nanos.saturating_add(cpu_nanos);
                let entries: Vec<u32> = entries.into_iter().collect();
                let before = sum.spans.len();
                for entries in entries.chunks(ENTRIES_AT_ONCE) {
                    cancel::check()?;
                    sum.spans.extend(source.entries(entries)?.iter().filter_map(|entry| entry.span.span_id));
                }
                told_apart += sum.spans.len() - before;
                if told_apart > MAX_SPANS {
                    return Err(QueryError::TooMuch {
                        what: "spans",
                        max: MAX_SPANS,
                        fix: "ask for a shorter time, or for one service",
                    });
                }
            }
        }
        let mut operations: Vec<OperationCpu> = sums
            .into_iter()
            .map(|((service, name), sum)| OperationCpu {
                service,
                name,
                samples: sum.samples,
                cpu_nanos: sum.cpu_nanos,
                spans: sum.spans.len() as u64,
            })
            .filter(|operation| operation.cpu_nanos > 0)
            .collect();
        // Equals stay in the order of their names.
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.cpu_nanos));
        Ok(operations)
    }

    /// Samples and CPU time of each of these traces that has any.
    pub fn trace_totals(&self, traces: &[TraceId]) -> Result<HashMap<TraceId, (u64, i64)>, QueryError> {
        let sources = self.sources();
        let mut totals: HashMap<TraceId, (u64, i64)> = HashMap::new();
        for entry in self.seen(&sources, &SpanFilter::traces(traces.iter().copied()))?.iter().flatten() {
            let Some(trace) = entry.span.trace_id else { continue };
            let (samples, cpu_nanos) = totals.entry(trace).or_default();
            *samples = samples.saturating_add(entry.samples);
            *cpu_nanos = cpu_nanos.saturating_add(entry.cpu_nanos);
        }
        Ok(totals)
    }
}
