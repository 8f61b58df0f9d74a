//! How long the spans of operations lasted: percentiles of each, and their spread over time.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::TraceStore;
use super::error::TraceError;
use super::slice::Row;
use super::span::SpanStatus;
use crate::model::{TenantId, TimeRange};

/// Steps for each doubling of a duration: percentiles are right to a hundredth.
const STEPS: u32 = 64;

/// How long the spans of an operation lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationDurations {
    /// Its service.
    pub service: String,
    /// Its name; none for all those of a tenant beyond the 10,000 that are told apart, whose service is not known either.
    pub name: Option<String>,
    /// Its spans.
    pub count: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Durations that a half, 95 and 99 of a hundred were not longer than, in nanoseconds, to a hundredth.
    pub percentiles: [u64; 3],
    /// The longest, in nanoseconds.
    pub longest: u64,
    /// All together, in nanoseconds.
    pub total: u64,
}

/// Spans counted by when they began and how long they lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The time that the columns divide, in Unix milliseconds.
    pub range: TimeRange,
    /// Where the rows begin, in nanoseconds, and where the last one ends: one more than there are rows.
    pub edges: Vec<u64>,
    /// Spans of each column, row by row from the shortest.
    pub columns: Vec<Vec<u64>>,
    /// All spans.
    pub count: u64,
}

/// What to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadQuery {
    /// The service.
    pub service: String,
    /// The span name.
    pub name: String,
    /// When they began: the time that the columns divide.
    pub range: TimeRange,
    /// What is seen of it.
    pub seen: TimeRange,
    /// Into how many columns and rows.
    pub columns: usize,
    /// See there.
    pub rows: usize,
}

/// Durations in steps that grow with them.
#[derive(Default)]
struct Steps {
    counts: BTreeMap<u32, u64>,
    count: u64,
    errors: u64,
    longest: u64,
    total: u64,
}

impl Steps {
    fn add(&mut self, row: &Row) {
        let nanos = row.facts.duration_nanos;
        *self.counts.entry(step(nanos)).or_default() += 1;
        self.count += 1;
        self.errors += u64::from(row.facts.status == SpanStatus::Error);
        self.longest = self.longest.max(nanos);
        self.total = self.total.saturating_add(nanos);
    }

    /// The duration that this share of them, in hundredths, was not longer than.
    fn percentile(&self, hundredths: u64) -> u64 {
        let rank = (self.count * hundredths).div_ceil(100).max(1);
        let mut seen = 0;
        for (&step, &count) in &self.counts {
            seen += count;
            if seen >= rank {
                return middle(step).min(self.longest);
            }
        }
        self.longest
    }
}

/// The step of a duration: below [`STEPS`] each has its own.
fn step(nanos: u64) -> u32 {
    let bits = 64 - nanos.leading_zeros();
    match bits.checked_sub(STEPS.ilog2() + 1) {
        None | Some(0) => nanos as u32,
        Some(shift) => shift * STEPS + (nanos >> shift) as u32,
    }
}

/// The middle of a step.
fn middle(step: u32) -> u64 {
    if step < 2 * STEPS {
        return u64::from(step);
    }
    let shift = step / STEPS - 1;
    let first = u64::from(step - shift * STEPS) << shift;
    first + (1 << shift) / 2
}

impl TraceStore {
    /// The operations of these tenants whose spans began within this time, of one service or of all, those with most time in
    /// their spans first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn operations(
        &self,
        tenants: &[TenantId],
        service: Option<&str>,
        range: Option<TimeRange>,
    ) -> Result<Vec<OperationDurations>, TraceError> {
        let mut found: HashMap<(String, Option<String>), Steps, RandomState> = HashMap::default();
        self.visit(tenants, range, service, None, |service, name, row| {
            // Names are few and rows many, but a look-up needs an owned name all the same.
            let key = (service.to_owned(), name.map(str::to_owned));
            found.entry(key).or_default().add(row);
        })?;
        let mut operations: Vec<OperationDurations> = found
            .into_iter()
            .map(|((service, name), steps)| OperationDurations {
                service,
                name,
                count: steps.count,
                errors: steps.errors,
                percentiles: [50, 95, 99].map(|hundredths| steps.percentile(hundredths)),
                longest: steps.longest,
                total: steps.total,
            })
            .collect();
        operations.sort_by(|a, b| (b.total, &a.service, &a.name).cmp(&(a.total, &b.service, &b.name)));
        Ok(operations)
    }

    /// The spans of an operation by when they began and how long they lasted; rows grow by the same factor, from the shortest
    /// to the longest.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn spread(&self, tenants: &[TenantId], query: &SpreadQuery) -> Result<Spread, TraceError> {
        let SpreadQuery { service, name, range, seen, columns, rows } = query;
        let (columns, rows) = ((*columns).max(1), (*rows).max(1));
        let length =
            u64::try_from(range.end_ms.saturating_sub(range.start_ms)).unwrap_or(0).saturating_add(1);
        let mut counts: Vec<BTreeMap<u32, u64>> = vec![BTreeMap::new(); columns];
        let (mut shortest, mut longest, mut count) = (u64::MAX, 0, 0);
        self.visit(tenants, Some(*seen), Some(service), Some(name), |_, _, row| {
            let at_ms = i64::try_from(row.start_nanos / 1_000_000).unwrap_or(i64::MAX);
            let into = u64::try_from(at_ms.saturating_sub(range.start_ms)).unwrap_or(0);
            let column = (u128::from(into) * columns as u128 / u128::from(length)) as usize;
            *counts[column.min(columns - 1)].entry(step(row.facts.duration_nanos)).or_default() += 1;
            shortest = shortest.min(row.facts.duration_nanos);
            longest = longest.max(row.facts.duration_nanos);
            count += 1;
        })?;
        let (low, high) = (shortest.min(longest).max(1), longest.saturating_add(1).max(2));
        let factor = (high as f64 / low as f64).ln() / rows as f64;
        let edge = |row: usize| (low as f64 * (factor * row as f64).exp()).round() as u64;
        let edges: Vec<u64> = (0..=rows).map(edge).collect();
        let row_of = |nanos: u64| edges.partition_point(|edge| *edge <= nanos).clamp(1, rows) - 1;
        let columns = counts.into_iter().map(|of_column| {
            let mut column = vec![0; rows];
            for (step, count) in of_column {
                column[row_of(middle(step))] += count;
            }
            column
        });
        let columns = columns.collect();
        Ok(Spread { range: *range, edges, columns, count })
    }

    /// Visits the spans that began within this time, with service and name. Of those that have neither in the index it is not
    /// known whether they are asked for: they are visited when all are.
    fn visit(
        &self,
        tenants: &[TenantId],
        range: Option<TimeRange>,
        service: Option<&str>,
        name: Option<&str>,
        mut visit: impl FnMut(&str, Option<&str>, &Row),
    ) -> Result<(), TraceError> {
        for tenant in tenants {
            let window = self.shared.window(tenant, range);
            for (slice, first, last) in self.shared.holding(tenant, window) {
                let Some(facts) = slice.facts(tenant) else { continue };
                self.shared.look(&slice, || {
                    let reading = slice.read()?;
                    for operation in reading.operations(facts)? {
                        let wanted = service
                            .is_none_or(|service| !operation.rest && service == operation.service)
                            && name.is_none_or(|name| !operation.rest && name == operation.name);
                        if !wanted {
                            continue;
                        }
                        let name = (!operation.rest).then_some(operation.name.as_str());
                        reading.starts(operation.number, first, last, |row| {
                            visit(&operation.service, name, &row);
                            Ok(true)
                        })?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_are_in_order_and_near(a in any::<u64>(), b in any::<u64>()) {
            prop_assert!(a > b || step(a) <= step(b));
            let near = middle(step(a));
            prop_assert!(near.abs_diff(a) <= a / 100, "{a} {near}");
        }
    }

    #[test]
    fn small_durations_are_exact() {
        for nanos in 0..u64::from(2 * STEPS) {
            assert_eq!(middle(step(nanos)), nanos);
        }
    }
}
