//! What is known of one trace.

use super::tree::{KnownSpan, SpanTree, TreeSpan};
use super::{Engine, Part, QueryError, SpanFilter, TypeTotal, TypeTotals, services, widened};
use crate::model::{TimeRange, TraceId};

/// What is known of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// Its id.
    pub trace_id: TraceId,
    /// The services that its samples are of, sorted.
    pub services: Vec<String>,
    /// The time that the profiles with its samples cover, or where there are none its spans.
    pub range: TimeRange,
    /// Totals by profile type.
    pub types: Vec<TypeTotal>,
    /// Its samples.
    pub samples: u64,
    /// Its CPU time, in nanoseconds.
    pub cpu_nanos: i64,
    /// Its spans with samples, those that are known as their parents, and those that say so themselves: from the roots down,
    /// each followed by those below it, those first that began first where that is known, then the heaviest.
    pub spans: Vec<TreeSpan>,
}

impl Engine {
    /// What is known of a trace, none if no sample names it.
    pub fn trace(&self, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
        self.trace_with(id, &[])
    }

    /// What is known of a trace together with what its spans say of themselves, none if there is neither.
    pub fn trace_with(&self, id: TraceId, known: &[KnownSpan]) -> Result<Option<TraceSummary>, QueryError> {
        let sources = self.sources();
        let mut parts = Part::all(self, &sources, &SpanFilter::traces([id]))?;
        let mut types = TypeTotals::default();
        let mut tree = SpanTree::default();
        known.iter().for_each(|span| tree.add_known(span));
        let mut range = None;
        let (mut samples, mut cpu_nanos) = (0u64, 0i64);
        for part in &mut parts {
            for entry in &part.entries {
                range = widened(range, entry.range);
                samples = samples.saturating_add(entry.samples);
                cpu_nanos = cpu_nanos.saturating_add(entry.cpu_nanos);
            }
            part.add_types(&mut types)?;
            part.add_to(&mut tree)?;
        }
        let of_spans = known.iter().map(|span| TimeRange {
            start_ms: span.nanos.0 / 1_000_000,
            end_ms: span.nanos.1.max(span.nanos.0) / 1_000_000,
        });
        let range = range.or_else(|| of_spans.reduce(TimeRange::union));
        let series = parts.iter().flat_map(|part| part.series.values());
        let of_series = series.map(|series| series.labels.service());
        Ok(range.map(|range| TraceSummary {
            trace_id: id,
            services: services(of_series.chain(known.iter().map(|span| span.service.as_str()))),
            range,
            types: types.finish(),
            samples,
            cpu_nanos,
            spans: tree.finish(),
        }))
    }
}
