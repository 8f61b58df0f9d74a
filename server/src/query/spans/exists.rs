//! Whether spans have samples, for many at once.

use super::{Engine, QueryError, SpanFilter};
use crate::model::SpanId;

/// The most span entries that one question visits: many ids of spans with many descendants would take a worker for long.
const MAX_VISITS: usize = 4_000_000;

/// What there is of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanTotals {
    /// Its samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub cpu_nanos: i64,
}

impl Engine {
    /// How many samples a filter selects; 0 as well where it is empty.
    pub fn samples(&self, filter: &SpanFilter) -> Result<u64, QueryError> {
        let entries = self.seen(&self.sources(), filter)?;
        Ok(entries.iter().flatten().fold(0, |sum, entry| sum.saturating_add(entry.samples)))
    }

    /// What there is of each of these spans, none where there is nothing; with `roll_up` their descendants included as [`SpanFilter::roll_up`] does.
    ///
    /// # Errors
    /// Beside those of the store, [`QueryError::TooMuch`] when the spans have millions of descendants.
    pub fn span_totals(&self, ids: &[SpanId], roll_up: bool) -> Result<Vec<Option<SpanTotals>>, QueryError> {
        let sources = self.sources();
        let mut visits = 0;
        let totals = ids.iter().map(|&id| {
            let filter = SpanFilter { roll_up, ..SpanFilter::spans([id]) };
            let mut totals: Option<SpanTotals> = None;
            for entry in self.seen(&sources, &filter)?.iter().flatten() {
                visits += 1;
                let totals = totals.get_or_insert(SpanTotals { samples: 0, cpu_nanos: 0 });
                totals.samples = totals.samples.saturating_add(entry.samples);
                totals.cpu_nanos = totals.cpu_nanos.saturating_add(entry.cpu_nanos);
            }
            if visits > MAX_VISITS {
                return Err(QueryError::TooMuch {
                    what: "span entries to visit",
                    max: MAX_VISITS,
                    fix: "ask for fewer spans at a time",
                });
            }
            Ok(totals)
        });
        totals.collect()
    }
}
