//! Why an answer is empty: which check the samples did not pass, and what would have let them through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Engine, Names, QueryError, SpanFilter, TypeTotal, TypeTotals, entries, series_of, widened};
use crate::model::{Loss, ProfileType, TimeRange, label};
use crate::selector::{LabelSelector, Matcher};
use crate::store::{FoundRun, SampleCounts, SeriesEntry};

/// The most values that a matcher's finding lists.
const MAX_VALUES: usize = 20;
/// The most rows of samples that one question judges: enough for about a second.
const MAX_ROWS: usize = 50_000_000;

/// Why there are no samples for a filter of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EmptyReason {
    /// No sample was ever taken in these spans, or it is no longer kept.
    UnknownSpan,
    /// They have samples, but none of this profile type.
    NoSamplesOfType,
    /// They have samples of the type, but in series or under span names that the label selector excludes.
    SelectorMismatch,
    /// They have such samples, but in profiles outside the time asked for.
    OutsideWindow,
}

impl EmptyReason {
    /// The reason's name for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSpan => "unknown_span",
            Self::NoSamplesOfType => "no_samples_of_type",
            Self::SelectorMismatch => "selector_mismatch",
            Self::OutsideWindow => "outside_window",
        }
    }
}

/// A question whose answer is to be explained.
#[derive(Debug, Clone)]
pub struct ExplainQuery {
    /// Of which spans or traces; empty, of everything.
    pub filter: SpanFilter,
    /// Of which type; none, of any.
    pub kind: Option<ProfileType>,
    /// Of which series and span names.
    pub selector: LabelSelector,
    /// Of which time.
    pub range: Option<TimeRange>,
}

/// How samples fared with a question, check after check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Samples left after each check.
    pub stages: Stages,
    /// What types there are among all that was found, with their totals.
    pub types: Vec<TypeTotal>,
    /// What each matcher of the selector did to the samples of the type.
    pub matchers: Vec<MatcherFinding>,
    /// The time that the profiles with samples of the type cover that pass the selector.
    pub window: Option<TimeRange>,
    /// What senders say that they lost, in profiles that the selector and the time let through.
    pub losses: Vec<Loss>,
}

/// Samples left after each check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stages {
    /// In the spans asked for.
    pub found: u64,
    /// And of the type.
    pub of_type: u64,
    /// And in series and under names that the selector lets through.
    pub selected: u64,
    /// And in profiles that overlap the time.
    pub in_window: u64,
}

/// What one matcher did to the samples that it was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatcherFinding {
    /// The matcher as it was read.
    pub matcher: String,
    /// Samples that pass it.
    pub samples: u64,
    /// Values of its label in the samples that do not pass, sorted, 20 at most; the empty one is no label at all.
    pub others: Vec<String>,
}

impl Explanation {
    /// The first check that nothing passed; none if something passed them all.
    pub fn reason(&self) -> Option<EmptyReason> {
        self.stages.reason()
    }
}

impl Stages {
    fn reason(self) -> Option<EmptyReason> {
        let Self { found, of_type, selected, in_window } = self;
        let checks = [
            (found, EmptyReason::UnknownSpan),
            (of_type, EmptyReason::NoSamplesOfType),
            (selected, EmptyReason::SelectorMismatch),
            (in_window, EmptyReason::OutsideWindow),
        ];
        checks.into_iter().find(|(samples, _)| *samples == 0).map(|(_, reason)| reason)
    }
}

/// Judges rows of samples one after another.
struct Judge<'a> {
    query: &'a ExplainQuery,
    matchers: Vec<(&'a Matcher, u64, BTreeSet<String>)>,
    types: TypeTotals,
    stages: Stages,
    window: Option<TimeRange>,
    /// Rows seen.
    rows: usize,
}

impl<'a> Judge<'a> {
    fn new(query: &'a ExplainQuery) -> Self {
        let matchers = query.selector.matchers().map(|matcher| (matcher, 0, BTreeSet::new())).collect();
        Self {
            query,
            matchers,
            types: TypeTotals::default(),
            stages: Stages::default(),
            window: None,
            rows: 0,
        }
    }

    fn judge(&mut self, series: &SeriesEntry, found: &FoundRun, span_name: &str) -> Result<(), QueryError> {
        let chunk = &found.chunk;
        self.rows += chunk.rows(found.run).len();
        if self.rows > MAX_ROWS {
            let fix = "name a span or a trace, which are found without reading the others";
            return Err(QueryError::TooMuch { what: "samples to look at", max: MAX_ROWS, fix });
        }
        self.types.add(&series.types, found);
        let counts = SampleCounts::new(&series.types, chunk.period);
        let add = |sum: &mut u64, samples: u64| *sum = sum.saturating_add(samples);
        let of_type = |kind: &ProfileType| self.query.kind.as_ref().is_none_or(|wanted| wanted == kind);
        let columns: Vec<usize> = (0..series.types.len()).filter(|&t| of_type(&series.types[t])).collect();
        let mut samples = 0;
        for row in chunk.rows(found.run) {
            let of_row = counts.of(|t| chunk.column(t)[row]).max(1);
            add(&mut self.stages.found, of_row);
            if columns.iter().any(|&column| chunk.column(column)[row] > 0) {
                add(&mut samples, of_row);
            }
        }
        // Synthetic labels follow from the type; of several any will do.
        let Some(kind) = columns.first().filter(|_| samples > 0).map(|&column| &series.types[column]) else {
            return Ok(());
        };
        add(&mut self.stages.of_type, samples);
        let mut passes = true;
        for (matcher, passed, others) in &mut self.matchers {
            let value = if matcher.is_span_name() {
                span_name.into()
            } else {
                label(&series.labels, kind, &matcher.name).unwrap_or_default()
            };
            if matcher.matches(&value) {
                add(passed, samples);
            } else {
                passes = false;
                if others.len() < MAX_VALUES && !others.contains(&*value) {
                    others.insert(value.into_owned());
                }
            }
        }
        if !passes {
            return Ok(());
        }
        add(&mut self.stages.selected, samples);
        let interval = chunk.interval();
        self.window = widened(self.window, interval);
        if self.query.range.is_none_or(|range| range.overlaps(&interval)) {
            add(&mut self.stages.in_window, samples);
        }
        Ok(())
    }

    fn finish(self, losses: Vec<Loss>) -> Explanation {
        let finding = |(matcher, samples, others): (&Matcher, u64, BTreeSet<String>)| MatcherFinding {
            matcher: matcher.to_string(),
            samples,
            others: others.into_iter().collect(),
        };
        Explanation {
            stages: self.stages,
            types: self.types.finish(),
            matchers: self.matchers.into_iter().map(finding).collect(),
            window: self.window,
            losses,
        }
    }
}

impl Engine {
    /// How samples fare with a question. Without spans to look up it reads all that there is.
    ///
    /// # Errors
    /// Beside those of the store, [`QueryError::TooMuch`] when that is tens of millions of samples.
    pub fn explain(&self, query: &ExplainQuery) -> Result<Explanation, QueryError> {
        Ok(self.judged(query)?.finish(self.losses(query)?))
    }

    /// All samples that a question may be about, judged.
    fn judged<'a>(&self, query: &'a ExplainQuery) -> Result<Judge<'a>, QueryError> {
        let sources = self.sources();
        let mut judge = Judge::new(query);
        let found = if query.filter.is_empty() { None } else { Some(entries(&sources, &query.filter)?) };
        for (at, source) in sources.iter().enumerate() {
            let source = source.as_ref();
            let among = found.as_ref().map(|found| series_of(&found[at]));
            let series: BTreeMap<u32, SeriesEntry> =
                source.series(among.as_deref())?.into_iter().map(|series| (series.id, series)).collect();
            let mut names = Names::new(source);
            let mut judge_run = |found: &FoundRun| -> Result<(), QueryError> {
                let Some(series) = series.get(&found.chunk.series) else { return Ok(()) };
                let name = names.get(found.chunk.runs[found.run].name)?.unwrap_or_default();
                judge.judge(series, found, name)
            };
            match &found {
                Some(found) => {
                    let numbers: Vec<u32> = found[at].iter().map(|entry| entry.id).collect();
                    source.runs(&numbers)?.iter().try_for_each(judge_run)?;
                }
                None => {
                    let numbers: Vec<u32> = series.keys().copied().collect();
                    for chunk in source.chunks(&numbers, None)? {
                        for run in 0..chunk.runs.len() {
                            judge_run(&FoundRun { chunk: Arc::clone(&chunk), run })?;
                        }
                    }
                }
            }
        }
        Ok(judge)
    }

    /// What senders say that they lost, of series that the selector lets through, in profiles that overlap the time: by
    /// cause, the most first.
    fn losses(&self, query: &ExplainQuery) -> Result<Vec<Loss>, QueryError> {
        let mut sums: BTreeMap<Box<str>, u64> = BTreeMap::new();
        for source in self.sources() {
            let passes = |series: &SeriesEntry| {
                series.types.iter().any(|kind| query.selector.matches_series(&series.labels, kind))
            };
            let series: BTreeSet<u32> =
                source.series(None)?.iter().filter(|series| passes(series)).map(|series| series.id).collect();
            source.losses(&mut |of_series, range, losses| {
                let seen = query.range.is_none_or(|wanted| wanted.overlaps(&range));
                for loss in losses.iter().filter(|_| seen && series.contains(&of_series)) {
                    let sum = sums.entry(loss.cause.clone()).or_default();
                    *sum = sum.saturating_add(loss.samples);
                }
            })?;
        }
        let mut losses: Vec<Loss> =
            sums.into_iter().map(|(cause, samples)| Loss { cause, samples }).collect();
        losses.sort_by_key(|loss| std::cmp::Reverse(loss.samples));
        Ok(losses)
    }

    /// Why [`Engine::merge`] has nothing for these spans; none if it has something, or the filter is empty.
    pub fn why_empty(
        &self,
        kind: &ProfileType,
        selector: &LabelSelector,
        range: Option<TimeRange>,
        filter: &SpanFilter,
    ) -> Result<Option<EmptyReason>, QueryError> {
        if filter.is_empty() {
            return Ok(None);
        }
        let query = ExplainQuery {
            filter: filter.clone(),
            kind: Some(kind.clone()),
            selector: selector.clone(),
            range,
        };
        Ok(self.judged(&query)?.stages.reason())
    }
}
