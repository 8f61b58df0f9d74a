//! What a question would read.

use super::{Engine, QueryError};
use crate::model::TimeRange;
use crate::selector::LabelSelector;

/// What lies in a selection, to be read for an answer about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Analysis {
    /// Parts of the store that have some of it.
    pub parts: u64,
    /// Series, one for each profile type.
    pub series: u64,
    /// Profiles.
    pub profiles: u64,
    /// Rows of samples: a stack trace, a span, and its values.
    pub samples: u64,
    /// Bytes that those profiles take.
    pub profile_bytes: u64,
    /// Bytes of the symbol tables that they refer to, with whatever else is in those.
    pub symbol_bytes: u64,
    /// Bytes of the span indexes beside them.
    pub index_bytes: u64,
}

impl Engine {
    /// What there is in series that pass `selector` and profiles that overlap `range`.
    pub fn analyze(
        &self,
        selector: &LabelSelector,
        range: Option<TimeRange>,
    ) -> Result<Analysis, QueryError> {
        let mut found = Analysis::default();
        for source in self.sources() {
            let source = source.as_ref();
            let mut numbers = Vec::new();
            for series in source.series(None)? {
                let wanted = series.types.iter().filter(|kind| selector.matches_series(&series.labels, kind));
                let types = wanted.count() as u64;
                if types > 0 && range.is_none_or(|range| range.overlaps(&series.range)) {
                    found.series += types;
                    numbers.push(series.id);
                }
            }
            numbers.sort_unstable();
            let chunks = source.chunks(&numbers, range)?;
            if chunks.is_empty() {
                continue;
            }
            found.parts += 1;
            found.profiles += chunks.len() as u64;
            found.samples += chunks.iter().map(|chunk| chunk.stacks.len() as u64).sum::<u64>();
            found.profile_bytes += chunks.iter().map(|chunk| chunk.bytes() as u64).sum::<u64>();
            found.symbol_bytes += source.symbol_bytes();
            found.index_bytes += source.index_bytes();
        }
        Ok(found)
    }
}
