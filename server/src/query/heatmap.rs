//! How many profiles or spans of which size there were over time.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::points::{Exemplar, Grain, Groups, Part, TimeQuery};
use super::{Engine, QueryError};

/// Ranges that values are counted in.
const BUCKETS: usize = 20;

/// The heatmap of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// The group's labels that are not empty, in the order asked for.
    pub labels: Vec<(String, String)>,
    /// One for each step in which there is something.
    pub slots: Vec<HeatmapSlot>,
}

/// One step of a heatmap.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapSlot {
    /// The end of its step, in Unix milliseconds.
    pub at_ms: i64,
    /// Where each range of values begins, the same in all slots of an answer: as many of equal width from the smallest
    /// value to the largest, or one if those are the same.
    pub starts: Vec<f64>,
    /// How many values lie in each range.
    pub counts: Vec<u32>,
    /// The largest of each range in which there are any, if asked for.
    pub exemplars: Vec<Exemplar>,
}

/// Ranges of equal width.
struct Ranges {
    smallest: i64,
    width: f64,
    starts: Vec<f64>,
}

impl Ranges {
    fn new(smallest: i64, largest: i64) -> Self {
        let span = largest as f64 - smallest as f64;
        let count = if span > 0.0 { BUCKETS } else { 1 };
        let width = span / count as f64;
        Self { smallest, width, starts: (0..count).map(|at| smallest as f64 + at as f64 * width).collect() }
    }

    fn of(&self, value: i64) -> usize {
        if self.width <= 0.0 {
            return 0;
        }
        let at = (value as f64 - self.smallest as f64) / self.width;
        (at as usize).min(self.starts.len() - 1)
    }
}

impl Engine {
    /// Counts the profiles, or the spans with all samples they have within a step, by step and by value; the group with the
    /// largest sum first.
    pub fn heatmap(
        &self,
        query: &TimeQuery<'_>,
        grain: Grain,
        exemplars: bool,
    ) -> Result<Vec<Heatmap>, QueryError> {
        query.check()?;
        let mut groups = Groups::default();
        let mut parts: Vec<Part> = Vec::new();
        match grain {
            Grain::Profile => self.visit_parts(query, grain, &mut groups, |part| parts.push(part))?,
            Grain::Span => parts = self.span_parts(query, &mut groups)?,
        }
        let mut sums: HashMap<usize, i64, RandomState> = HashMap::default();
        for part in &parts {
            let sum = sums.entry(part.group).or_default();
            *sum = sum.saturating_add(part.value);
        }
        let wanted = groups.largest(&sums, query.limit);
        if wanted.len() < sums.len() {
            let wanted: HashSet<usize, RandomState> = wanted.iter().copied().collect();
            sums.retain(|group, _| wanted.contains(group));
            parts.retain(|part| sums.contains_key(&part.group));
        }
        let values = || parts.iter().map(|part| part.value);
        let (Some(smallest), Some(largest)) = (values().min(), values().max()) else { return Ok(Vec::new()) };
        let ranges = Ranges::new(smallest, largest);

        let mut slots: HashMap<usize, BTreeMap<i64, Vec<Cell>>, RandomState> = HashMap::default();
        for part in parts {
            let cells = slots.entry(part.group).or_default().entry(part.at_ms);
            let cells = cells.or_insert_with(|| ranges.starts.iter().map(|_| Cell::default()).collect());
            cells[ranges.of(part.value)].add(part, exemplars);
        }
        let slot = |(at_ms, cells): (i64, Vec<Cell>)| HeatmapSlot {
            at_ms,
            starts: ranges.starts.clone(),
            counts: cells.iter().map(|cell| cell.count).collect(),
            exemplars: cells
                .into_iter()
                .filter_map(|cell| cell.largest)
                .map(|part| part.exemplar(query.group_by))
                .collect(),
        };
        let heatmap = |group| Heatmap {
            labels: groups.labels(group, query.group_by),
            slots: slots.remove(&group).unwrap_or_default().into_iter().map(slot).collect(),
        };
        Ok(wanted.into_iter().map(heatmap).collect())
    }
}

#[derive(Default)]
struct Cell {
    count: u32,
    largest: Option<Part>,
}

impl Cell {
    fn add(&mut self, part: Part, exemplars: bool) {
        self.count = self.count.saturating_add(1);
        if exemplars && self.largest.as_ref().is_none_or(|largest| part.before(largest)) {
            self.largest = Some(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_range() {
        let ranges = Ranges::new(0, 100);
        assert_eq!(ranges.starts.len(), BUCKETS);
        assert_eq!((ranges.starts[0], ranges.starts[19]), (0.0, 95.0));
        for (value, range) in [(0, 0), (4, 0), (5, 1), (94, 18), (95, 19), (100, 19)] {
            assert_eq!(ranges.of(value), range, "{value}");
        }
        let one = Ranges::new(7, 7);
        assert_eq!((one.starts.as_slice(), one.of(7)), (&[7.0][..], 0));
        let all = Ranges::new(i64::MIN, i64::MAX);
        assert_eq!((all.of(i64::MIN), all.of(i64::MAX)), (0, BUCKETS - 1));
    }
}
