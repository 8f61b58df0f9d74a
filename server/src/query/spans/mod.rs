//! Spans: what is known of one or of a trace, which burned the most, and why an answer about one is empty.
//!
//! Everything but the list costs what it finds, not what is stored.

mod exists;
mod explain;
mod list;
mod operations;
mod summary;
mod trace;
mod tree;
mod under;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use self::exists::SpanTotals;
pub use self::explain::{EmptyReason, ExplainQuery, Explanation, MatcherFinding, Stages};
pub use self::list::{SpanCursor, SpanListFilter, SpanListItem, SpanOrder};
pub use self::operations::OperationCpu;
pub use self::summary::{SpanSeries, SpanSummary};
pub use self::trace::TraceSummary;
pub use self::tree::{KnownSpan, TreeSpan};
pub use self::under::SpanUnder;
use super::select::{entries, series_of};
use super::{Engine, QueryError, SpanFilter};
use crate::model::{ProfileType, TimeRange};
use crate::store::{FoundRun, SampleCounts, SeriesEntry, Source, SpanEntry, StoreError};

#[cfg(test)]
mod tests;

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

/// What one source has for a filter of spans.
struct Part<'a> {
    source: &'a dyn Source,
    entries: Vec<SpanEntry>,
    series: HashMap<u32, SeriesEntry, RandomState>,
    names: Names<'a>,
}

impl<'a> Part<'a> {
    /// The parts of all sources, as far as the engine sees them.
    fn all(
        engine: &Engine,
        sources: &'a [Arc<dyn Source>],
        filter: &SpanFilter,
    ) -> Result<Vec<Self>, QueryError> {
        let parts = sources.iter().zip(engine.seen(sources, filter)?).map(|(source, entries)| {
            let source = source.as_ref();
            let series = source.series(Some(&series_of(&entries)))?;
            let series = series.into_iter().map(|series| (series.id, series)).collect();
            Ok(Self { source, entries, series, names: Names::new(source) })
        });
        parts.collect()
    }

    /// Adds up the values of its entries' rows.
    fn add_types(&self, types: &mut TypeTotals) -> Result<(), StoreError> {
        let numbers: Vec<u32> = self.entries.iter().map(|entry| entry.id).collect();
        for found in self.source.runs(&numbers)? {
            if let Some(series) = self.series.get(&found.chunk.series) {
                types.add(&series.types, &found);
            }
        }
        Ok(())
    }
}

impl Engine {
    /// The entries that a filter selects and the engine sees, source by source.
    fn seen(
        &self,
        sources: &[Arc<dyn Source>],
        filter: &SpanFilter,
    ) -> Result<Vec<Vec<SpanEntry>>, StoreError> {
        let mut found = entries(sources, filter)?;
        if let Some(since_ms) = self.since_ms {
            found.iter_mut().for_each(|entries| entries.retain(|entry| entry.range.end_ms >= since_ms));
        }
        Ok(found)
    }
}

/// Strings of one source; each is asked once.
struct Names<'a> {
    source: &'a dyn Source,
    known: HashMap<u32, String, RandomState>,
}

impl<'a> Names<'a> {
    fn new(source: &'a dyn Source) -> Self {
        Self { source, known: HashMap::default() }
    }

    /// The text of a name, none for number 0.
    fn get(&mut self, number: u32) -> Result<Option<&str>, StoreError> {
        if number == 0 {
            return Ok(None);
        }
        if !self.known.contains_key(&number) {
            self.known.insert(number, self.source.string(number)?);
        }
        Ok(self.known.get(&number).map(String::as_str))
    }
}

/// Totals by profile type.
#[derive(Default)]
struct TypeTotals(Vec<TypeTotal>);

impl TypeTotals {
    fn add(&mut self, kinds: &[ProfileType], found: &FoundRun) {
        let counts = SampleCounts::new(kinds, found.chunk.period);
        for (column, kind) in kinds.iter().enumerate() {
            let (total, samples) = run_total(found, column, &counts);
            match self.0.iter_mut().find(|sum| sum.kind == *kind) {
                Some(sum) => {
                    sum.total = sum.total.saturating_add(total);
                    sum.samples = sum.samples.saturating_add(samples);
                }
                None => self.0.push(TypeTotal { kind: kind.clone(), total, samples }),
            }
        }
    }

    /// Those that are not zero, sorted by their ids.
    fn finish(mut self) -> Vec<TypeTotal> {
        self.0.retain(|sum| sum.total > 0);
        self.0.sort_by_cached_key(|sum| sum.kind.to_string());
        self.0
    }
}

/// The sum of one column's values in a run, and the samples that it rests on.
fn run_total(found: &FoundRun, column: usize, counts: &SampleCounts) -> (i64, u64) {
    let (mut total, mut samples) = (0i64, 0u64);
    for row in found.chunk.rows(found.run) {
        let value = found.chunk.column(column)[row];
        if value > 0 {
            total = total.saturating_add(value);
            samples = samples.saturating_add(counts.of(|t| found.chunk.column(t)[row]));
        }
    }
    (total, samples)
}

/// The range that holds all of these.
fn widened(range: Option<TimeRange>, by: TimeRange) -> Option<TimeRange> {
    Some(range.map_or(by, |range| range.union(by)))
}

/// The names of these services, each once, sorted.
fn services<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    names.into_iter().map(str::to_owned).collect()
}
