//! How many profiles or spans of which size there were over time.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::points::{Exemplar, Grain, Groups, Part, TimeQuery, check_cells};
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
        let mut sums: HashMap<usize, i64, RandomState> = HashMap::default();
        let mut bounds: HashMap<usize, (i64, i64), RandomState> = HashMap::default();
        let mut measure = |part: &Part| {
            let sum = sums.entry(part.group).or_default();
            *sum = sum.saturating_add(part.value);
            let (smallest, largest) = bounds.entry(part.group).or_insert((part.value, part.value));
            (*smallest, *largest) = ((*smallest).min(part.value), (*largest).max(part.value));
        };
        // Profiles are visited twice rather than kept: there may be any number of them. Spans must be added up before either.
        let mut spans = Vec::new();
        match grain {
            Grain::Profile => self.visit_parts(query, grain, &mut groups, |part| {
                measure(&part);
                Ok(())
            })?,
            Grain::Span => {
                spans = self.span_parts(query, &mut groups)?;
                spans.iter().for_each(measure);
            }
        }
        let wanted = groups.largest(&sums, query.limit);
        let of_wanted = wanted.iter().map(|group| bounds[group]);
        let all = of_wanted.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let Some((smallest, largest)) = all else { return Ok(Vec::new()) };
        let ranges = Ranges::new(smallest, largest);
        let chosen: HashSet<usize, RandomState> = wanted.iter().copied().collect();

        let mut cells = Cells::default();
        let mut count = |part: Part| {
            // Profiles that came meanwhile may be of other groups: they wait for the next question.
            if chosen.contains(&part.group) { cells.add(part, &ranges, exemplars) } else { Ok(()) }
        };
        match grain {
            Grain::Profile => self.visit_parts(query, grain, &mut groups, count)?,
            Grain::Span => spans.into_iter().try_for_each(&mut count)?,
        }
        let slot = |(at_ms, cells): (i64, BTreeMap<usize, Cell>)| {
            let mut slot = HeatmapSlot {
                at_ms,
                starts: ranges.starts.clone(),
                counts: vec![0; ranges.starts.len()],
                exemplars: Vec::new(),
            };
            for (range, cell) in cells {
                slot.counts[range] = cell.count;
                slot.exemplars.extend(cell.largest.map(|part| part.exemplar(query.group_by)));
            }
            slot
        };
        let mut slots = cells.slots;
        let heatmap = |group| Heatmap {
            labels: groups.labels(group, query.group_by),
            slots: slots.remove(&group).unwrap_or_default().into_iter().map(slot).collect(),
        };
        Ok(wanted.into_iter().map(heatmap).collect())
    }
}

/// The cells of a heatmap in which there is something: by group, step and range of values.
#[derive(Default)]
struct Cells {
    slots: HashMap<usize, BTreeMap<i64, BTreeMap<usize, Cell>>, RandomState>,
    count: usize,
}

impl Cells {
    fn add(&mut self, part: Part, ranges: &Ranges, exemplars: bool) -> Result<(), QueryError> {
        let steps = self.slots.entry(part.group).or_default();
        let cell = steps.entry(part.at_ms).or_insert_with(|| {
            // An answer tells of every range of a step in which there is anything.
            self.count += ranges.starts.len();
            BTreeMap::new()
        });
        cell.entry(ranges.of(part.value)).or_default().add(part, exemplars);
        check_cells(self.count)
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
