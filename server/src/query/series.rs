//! Totals over time.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::points::{Exemplar, Grain, Groups, Part, TimeQuery, check_cells};
use super::{Engine, QueryError};

/// How the profiles of a step become one point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggregation {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean.
    Average,
}

/// Totals over time of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeSeries {
    /// The group's labels that are not empty, in the order asked for.
    pub labels: Vec<(String, String)>,
    /// One point for each step in which profiles of the group began.
    pub points: Vec<Point>,
}

/// One point of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The end of its step, in Unix milliseconds.
    pub at_ms: i64,
    /// The sum or mean of the profiles that began in the step.
    pub value: f64,
    /// The largest of them, if asked for.
    pub exemplar: Option<Exemplar>,
}

#[derive(Default)]
struct Cell {
    sum: i64,
    profiles: u64,
    largest: Option<Part>,
}

impl Cell {
    fn keep(&mut self, part: Part) {
        if self.largest.as_ref().is_none_or(|largest| part.before(largest)) {
            self.largest = Some(part);
        }
    }
}

impl Engine {
    /// Totals over time, the group with the largest sum first, each point with the largest profile or span in it if
    /// `exemplars` says so.
    pub fn select_series(
        &self,
        query: &TimeQuery<'_>,
        aggregation: Aggregation,
        exemplars: Option<Grain>,
    ) -> Result<Vec<TimeSeries>, QueryError> {
        query.check()?;
        let mut groups = Groups::default();
        let mut cells: HashMap<usize, BTreeMap<i64, Cell>, RandomState> = HashMap::default();
        let mut count = 0;
        self.visit_parts(query, Grain::Profile, &mut groups, |part| {
            let cell = cells.entry(part.group).or_default().entry(part.at_ms).or_insert_with(|| {
                count += 1;
                Cell::default()
            });
            cell.sum = cell.sum.saturating_add(part.value);
            cell.profiles += 1;
            if exemplars == Some(Grain::Profile) {
                cell.keep(part);
            }
            check_cells(count)
        })?;
        if exemplars == Some(Grain::Span) {
            for part in self.span_parts(query, &mut groups)? {
                // A profile that came meanwhile is in the spans alone: it waits for the next question.
                let cell = cells.get_mut(&part.group).and_then(|cells| cells.get_mut(&part.at_ms));
                if let Some(cell) = cell {
                    cell.keep(part);
                }
            }
        }
        let sum =
            |cells: &BTreeMap<i64, Cell>| cells.values().fold(0i64, |sum, cell| sum.saturating_add(cell.sum));
        let sums = cells.iter().map(|(group, cells)| (*group, sum(cells))).collect();
        let point = |(at_ms, cell): (i64, Cell)| Point {
            at_ms,
            value: match aggregation {
                Aggregation::Sum => cell.sum as f64,
                Aggregation::Average => cell.sum as f64 / cell.profiles as f64,
            },
            exemplar: cell.largest.map(|part| part.exemplar(query.group_by)),
        };
        let series = groups.largest(&sums, query.limit).into_iter().map(|group| TimeSeries {
            labels: groups.labels(group, query.group_by),
            points: cells.remove(&group).unwrap_or_default().into_iter().map(point).collect(),
        });
        Ok(series.collect())
    }
}
