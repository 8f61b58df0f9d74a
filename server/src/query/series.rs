//! Which profile types, labels and series there are, and totals over time.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::select::{WantedNames, WantedSeries};
use super::{Engine, QueryError};
use crate::model::{ProfileType, SPAN_NAME, SYNTHETIC_LABELS, TimeRange, label, same_name};
use crate::selector::LabelSelector;
use crate::store::{Chunk, SeriesEntry, Source};

/// Asks for totals over time.
#[derive(Debug, Clone)]
pub struct SeriesQuery<'a> {
    /// What to add up.
    pub kind: &'a ProfileType,
    /// Of which series and span names.
    pub selector: &'a LabelSelector,
    /// The first point lies at its start, the last at or before its end.
    pub range: TimeRange,
    /// Distance of the points in milliseconds, at least 1.
    pub step_ms: i64,
    /// One answer for each set of values of these labels; `span_name` is one of them.
    pub group_by: &'a [String],
    /// Only so many answers, the largest; 0 for all.
    pub limit: usize,
}

/// Totals over time of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeSeries {
    /// The group's labels that are not empty, in the order asked for.
    pub labels: Vec<(String, String)>,
    /// Time in Unix milliseconds and the sum of all profiles that began in the step up to it, where there are any.
    pub points: Vec<(i64, i64)>,
}

impl Engine {
    /// The types of profiles that overlap `range`, sorted by their ids.
    pub fn profile_types(&self, range: Option<TimeRange>) -> Result<Vec<ProfileType>, QueryError> {
        let mut types = BTreeMap::new();
        self.visit_series(&LabelSelector::default(), range, |_, _, kind| {
            types.entry(kind.to_string()).or_insert_with(|| kind.clone());
            Ok(())
        })?;
        Ok(types.into_values().collect())
    }

    /// Names of labels, the synthetic ones and `span_name` included, of series that pass `selector`, sorted.
    pub fn label_names(
        &self,
        selector: &LabelSelector,
        range: Option<TimeRange>,
    ) -> Result<Vec<String>, QueryError> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        self.visit_series(selector, range, |source, series, _| {
            if names.is_empty() {
                names.extend(SYNTHETIC_LABELS.map(str::to_owned));
            }
            for (name, _) in series.labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
            if !names.contains(SPAN_NAME) && !source.span_names(series.id)?.is_empty() {
                names.insert(SPAN_NAME.to_owned());
            }
            Ok(())
        })?;
        Ok(names.into_iter().collect())
    }

    /// Values of the label `name` in series that pass `selector`, sorted.
    pub fn label_values(
        &self,
        name: &str,
        selector: &LabelSelector,
        range: Option<TimeRange>,
    ) -> Result<Vec<String>, QueryError> {
        let mut values: BTreeSet<String> = BTreeSet::new();
        let span_names = same_name(name, SPAN_NAME);
        self.visit_series(selector, range, |source, series, kind| {
            if span_names {
                for number in source.span_names(series.id)? {
                    let value = source.string(number)?;
                    if selector.matches_span_name(&value) {
                        values.insert(value);
                    }
                }
            } else if let Some(value) = label(&series.labels, kind, name).filter(|value| !value.is_empty())
                && !values.contains(&*value)
            {
                values.insert(value.into_owned());
            }
            Ok(())
        })?;
        Ok(values.into_iter().collect())
    }

    /// The distinct label sets of series that pass `selector`, cut down to `label_names` (none: all labels), sorted.
    /// Profiles with several types are as many series.
    pub fn series(
        &self,
        label_names: &[String],
        selector: &LabelSelector,
        range: Option<TimeRange>,
    ) -> Result<Vec<Vec<(String, String)>>, QueryError> {
        let mut sets = BTreeSet::new();
        self.visit_series(selector, range, |_, series, kind| {
            let mut set: Vec<(String, String)> = if label_names.is_empty() {
                let own = series.labels.iter().map(|(name, _)| name);
                let value = |name: &str| label(&series.labels, kind, name).unwrap_or_default().into_owned();
                own.chain(SYNTHETIC_LABELS).map(|name| (name.to_owned(), value(name))).collect()
            } else {
                let value =
                    |name: &String| Some((name.clone(), label(&series.labels, kind, name)?.into_owned()));
                label_names.iter().filter_map(value).collect()
            };
            set.sort_unstable();
            set.dedup();
            if !set.is_empty() {
                sets.insert(set);
            }
            Ok(())
        })?;
        Ok(sets.into_iter().collect())
    }

    /// Visits every series that passes `selector` (span names aside) with each of its types.
    fn visit_series(
        &self,
        selector: &LabelSelector,
        range: Option<TimeRange>,
        mut visit: impl FnMut(&dyn Source, &SeriesEntry, &ProfileType) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        for source in self.sources() {
            for series in source.series(None)? {
                if range.is_some_and(|range| !range.overlaps(&series.range)) {
                    continue;
                }
                for kind in series.types.iter().filter(|kind| selector.matches_series(&series.labels, kind)) {
                    visit(source.as_ref(), &series, kind)?;
                }
            }
        }
        Ok(())
    }

    /// Totals over time, the group with the largest sum first. A profile counts where it began: a point at `t` is the sum
    /// of those that began in `(t - step, t]`.
    pub fn select_series(&self, query: &SeriesQuery<'_>) -> Result<Vec<TimeSeries>, QueryError> {
        let &SeriesQuery { range, step_ms, .. } = query;
        if step_ms < 1 {
            return Err(QueryError::Step { step_ms });
        }
        // Profiles that began within the step before the first point belong to it.
        let reach = TimeRange { start_ms: range.start_ms.saturating_sub(step_ms), ..range };
        let mut groups: HashMap<Vec<String>, BTreeMap<i64, i64>, RandomState> = HashMap::default();
        for source in self.sources() {
            let source = source.as_ref();
            let wanted = WantedSeries::of(source, None, query.kind, query.selector, Some(reach))?;
            let mut names = WantedNames::new(source, query.selector);
            for chunk in source.chunks(&wanted.numbers(), Some(reach))? {
                let Some((column, series)) = wanted.get(chunk.series) else { continue };
                let Some(at) = bucket(chunk.start_nanos, range, step_ms) else { continue };
                for (group, sum) in groups_of(source, query, series, &chunk, column, &mut names)? {
                    let total = groups.entry(group).or_default().entry(at).or_default();
                    *total = total.saturating_add(sum);
                }
            }
        }
        let total = |points: &BTreeMap<i64, i64>| points.values().fold(0i64, |sum, &v| sum.saturating_add(v));
        let mut groups: Vec<_> =
            groups.into_iter().map(|(group, points)| (total(&points), group, points)).collect();
        groups.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        if query.limit > 0 {
            groups.truncate(query.limit);
        }
        let named = |group: Vec<String>| {
            let pairs = query.group_by.iter().cloned().zip(group);
            pairs.filter(|(_, value)| !value.is_empty()).collect()
        };
        Ok(groups
            .into_iter()
            .map(|(_, group, points)| TimeSeries {
                labels: named(group),
                points: points.into_iter().collect(),
            })
            .collect())
    }
}

/// The point that a profile with this beginning adds to, if there is one.
fn bucket(start_nanos: i64, range: TimeRange, step_ms: i64) -> Option<i64> {
    let began = start_nanos.div_euclid(1_000_000);
    let distance = began.checked_sub(range.start_ms)?;
    if distance <= -step_ms {
        return None;
    }
    let steps = distance.div_euclid(step_ms) + i64::from(distance.rem_euclid(step_ms) > 0);
    let at = range.start_ms.checked_add(steps.checked_mul(step_ms)?)?;
    (at <= range.end_ms).then_some(at)
}

/// The sums of one chunk by group.
fn groups_of(
    source: &dyn Source,
    query: &SeriesQuery<'_>,
    series: &SeriesEntry,
    chunk: &Chunk,
    column: usize,
    names: &mut WantedNames<'_>,
) -> Result<Vec<(Vec<String>, i64)>, QueryError> {
    let group = |span_name: &str| -> Vec<String> {
        let value = |name: &String| {
            if same_name(name, SPAN_NAME) {
                span_name.to_owned()
            } else {
                label(&series.labels, query.kind, name).unwrap_or_default().into_owned()
            }
        };
        query.group_by.iter().map(value).collect()
    };
    let by_name = query.group_by.iter().any(|name| same_name(name, SPAN_NAME));
    if !by_name && !query.selector.selects_span_names() {
        let total = chunk.totals[column];
        return Ok(if total > 0 { vec![(group(""), total)] } else { Vec::new() });
    }
    let mut sums: BTreeMap<u32, i64> = BTreeMap::new();
    for (at, run) in chunk.runs.iter().enumerate() {
        if names.pass(run.name)? {
            let sum = sums.entry(if by_name { run.name } else { 0 }).or_default();
            *sum = chunk.column(column)[chunk.rows(at)].iter().fold(*sum, |sum, &v| sum.saturating_add(v));
        }
    }
    sums.retain(|_, sum| *sum > 0);
    sums.into_iter().map(|(name, sum)| Ok((group(&source.string(name)?), sum))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_their_points() {
        let range = TimeRange { start_ms: 100, end_ms: 145 };
        let at = |ms: i64| bucket(ms * 1_000_000 + 999, range, 10);
        assert_eq!(at(90), None);
        assert_eq!(at(91), Some(100));
        assert_eq!(at(100), Some(100));
        assert_eq!(at(101), Some(110));
        assert_eq!(at(140), Some(140));
        assert_eq!(at(141), None, "the last point is at 140");
        assert_eq!(bucket(i64::MIN, range, 10), None);
        assert_eq!(bucket(i64::MAX, TimeRange { start_ms: i64::MIN, end_ms: i64::MAX }, 1), None);
    }
}
