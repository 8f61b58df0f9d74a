//! Whether spans have samples, for many at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use super::{Engine, QueryError, SpanFilter};
use crate::cancel;
use crate::model::SpanId;
use crate::query::parts::in_parts;
use crate::query::select::each_entry;
use crate::store::Source;

/// The most span entries that one question visits: many ids of spans with many descendants would take a worker for long.
const MAX_VISITS: usize = 4_000_000;
/// Spans that are looked for together, between asking whether anybody still waits.
const AT_ONCE: usize = 1024;

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
        let visits = AtomicUsize::new(0);
        in_parts(ids, |ids| self.totals_of(&sources, ids, roll_up, &visits))
    }

    fn totals_of(
        &self,
        sources: &[Arc<dyn Source>],
        ids: &[SpanId],
        roll_up: bool,
        visits: &AtomicUsize,
    ) -> Result<Vec<Option<SpanTotals>>, QueryError> {
        let mut totals = vec![None; ids.len()];
        let mut taken: HashSet<(usize, usize, u32), RandomState> = HashSet::default();
        let ids: Vec<(usize, SpanId)> = ids.iter().copied().enumerate().collect();
        for some in ids.chunks(AT_ONCE) {
            cancel::check()?;
            taken.clear();
            let mut too_many = false;
            each_entry(sources, some, roll_up, &mut |number, source, entry| {
                too_many = visits.fetch_add(1, Ordering::Relaxed) >= MAX_VISITS;
                if too_many {
                    return false;
                }
                if self.since_ms.is_some_and(|since_ms| entry.range.end_ms < since_ms)
                    || !taken.insert((number, source, entry.id))
                {
                    return true;
                }
                let totals = totals[number].get_or_insert(SpanTotals { samples: 0, cpu_nanos: 0 });
                totals.samples = totals.samples.saturating_add(entry.samples);
                totals.cpu_nanos = totals.cpu_nanos.saturating_add(entry.cpu_nanos);
                true
            })?;
            if too_many {
                return Err(QueryError::TooMuch {
                    what: "span entries to visit",
                    max: MAX_VISITS,
                    fix: "ask for fewer spans at a time",
                });
            }
        }
        Ok(totals)
    }
}
