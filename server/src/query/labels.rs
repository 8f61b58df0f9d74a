//! Which profile types, labels and series there are.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, QueryError};
use crate::model::{ProfileType, SPAN_NAME, SYNTHETIC_LABELS, TimeRange, label, same_name};
use crate::selector::LabelSelector;
use crate::store::{SeriesEntry, Source};

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
}
