//! What is known of one trace.

use super::tree::{SpanTree, TreeSpan};
use super::{Engine, Part, QueryError, SpanFilter, TypeTotal, TypeTotals, services, widened};
use crate::model::{TimeRange, TraceId};

/// What is known of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// Its id.
    pub trace_id: TraceId,
    /// The services that its samples are of, sorted.
    pub services: Vec<String>,
    /// The time that the profiles with its samples cover.
    pub range: TimeRange,
    /// Totals by profile type.
    pub types: Vec<TypeTotal>,
    /// Its samples.
    pub samples: u64,
    /// Its CPU time, in nanoseconds.
    pub cpu_nanos: i64,
    /// Its spans with samples, and those that are known as their parents: from the roots down, each followed by those
    /// below it, the heaviest first.
    pub spans: Vec<TreeSpan>,
}

impl Engine {
    /// What is known of a trace, none if no sample names it.
    pub fn trace(&self, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
        let sources = self.sources();
        let mut parts = Part::all(self, &sources, &SpanFilter::traces([id]))?;
        let mut types = TypeTotals::default();
        let mut tree = SpanTree::default();
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
        let series = parts.iter().flat_map(|part| part.series.values());
        Ok(range.map(|range| TraceSummary {
            trace_id: id,
            services: services(series.map(|series| series.labels.service())),
            range,
            types: types.finish(),
            samples,
            cpu_nanos,
            spans: tree.finish(),
        }))
    }
}
