//! What single profiles and spans add to a query over time: the ground on which series and heatmaps stand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::names::FrameNames;
use super::select::{WantedNames, WantedSeries};
use super::stacks::{StackFilter, StackMatcher};
use super::{Engine, QueryError};
use crate::cancel;
use crate::model::{Labels, ProfileId, ProfileType, SPAN_NAME, SpanId, TimeRange, TraceId, label, same_name};
use crate::selector::LabelSelector;
use crate::store::{Chunk, NO_SPAN, SeriesEntry, Source, SpanEntry, StoreError};

/// The most groups that one question may meet, whatever number of them it wants: the largest are known only in the end.
const MAX_GROUPS: usize = 50_000;
/// The most cells, one for each group and point (and in a heatmap each range of values) with anything in it.
const MAX_CELLS: usize = 500_000;
/// The most spans, counted anew at every point, whose samples one question adds up.
const MAX_SPANS: usize = 1_000_000;

/// Asks for values over time.
#[derive(Debug, Clone, Copy)]
pub struct TimeQuery<'a> {
    /// What to add up.
    pub kind: &'a ProfileType,
    /// Of which series and span names.
    pub selector: &'a LabelSelector,
    /// Of which stack traces.
    pub stacks: &'a StackFilter,
    /// The first point lies at its start, the last at or before its end.
    pub range: TimeRange,
    /// Distance of the points in milliseconds, at least 1.
    pub step_ms: i64,
    /// One answer for each set of values of these labels; `span_name` is one of them.
    pub group_by: &'a [String],
    /// Only so many answers, the largest; 0 for all.
    pub limit: usize,
}

/// Whether a point stands for a profile or for a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// A whole profile.
    Profile,
    /// All samples that one span has within a step.
    Span,
}

/// A profile or a span that stands for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// When its profile began, in Unix milliseconds.
    pub at_ms: i64,
    /// Its value.
    pub value: i64,
    /// The profile, unless it is a span.
    pub profile_id: Option<ProfileId>,
    /// The span, unless it is a profile.
    pub span_id: Option<SpanId>,
    /// The span's trace.
    pub trace_id: Option<TraceId>,
    /// Labels of its series that the answer is not grouped by, and the span's name.
    pub labels: Vec<(String, String)>,
}

/// What one profile or one span adds to a point.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Number of its group.
    pub(super) group: usize,
    /// Where the point lies.
    pub(super) at_ms: i64,
    /// How much it is.
    pub(super) value: i64,
    /// When the profile began, in Unix nanoseconds.
    start_nanos: i64,
    profile_id: ProfileId,
    labels: Labels,
    span: Option<PartSpan>,
}

#[derive(Debug, Clone)]
struct PartSpan {
    id: SpanId,
    trace_id: Option<TraceId>,
    name: Option<Arc<str>>,
}

impl Part {
    /// Whether it stands better for both than the other does.
    pub(super) fn before(&self, other: &Self) -> bool {
        let rank = |part: &Self| {
            let id = part.span.as_ref().map(|span| span.id);
            (std::cmp::Reverse(part.value), part.start_nanos, id, part.profile_id)
        };
        rank(self) < rank(other)
    }

    /// It as an exemplar of an answer that is grouped by these labels.
    pub(super) fn exemplar(&self, group_by: &[String]) -> Exemplar {
        let grouped = |name: &str| group_by.iter().any(|by| same_name(by, name));
        let mut labels: Vec<(String, String)> = self
            .labels
            .iter()
            .filter(|(name, _)| !grouped(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let span = self.span.as_ref();
        if let Some(name) = span.and_then(|span| span.name.as_ref()).filter(|_| !grouped(SPAN_NAME)) {
            labels.push((SPAN_NAME.to_owned(), name.to_string()));
        }
        Exemplar {
            at_ms: self.start_nanos.div_euclid(1_000_000),
            value: self.value,
            profile_id: if span.is_none() { Some(self.profile_id) } else { None },
            span_id: span.map(|span| span.id),
            trace_id: span.and_then(|span| span.trace_id),
            labels,
        }
    }
}

/// The groups that were met, by the values of the labels that group.
#[derive(Default)]
pub(super) struct Groups {
    numbers: HashMap<Vec<String>, usize, RandomState>,
    values: Vec<Vec<String>>,
}

impl Groups {
    fn number(&mut self, values: Vec<String>) -> Result<usize, QueryError> {
        if let Some(&number) = self.numbers.get(&values) {
            return Ok(number);
        }
        let number = self.values.len();
        if number == MAX_GROUPS {
            let fix = "group by labels of fewer values, or select fewer series";
            return Err(QueryError::TooMuch { what: "groups", max: MAX_GROUPS, fix });
        }
        self.values.push(values.clone());
        self.numbers.insert(values, number);
        Ok(number)
    }

    /// The numbers of the groups with the largest of these sums, in order; 0 for all of them.
    pub(super) fn largest(&self, sums: &HashMap<usize, i64, RandomState>, limit: usize) -> Vec<usize> {
        let mut groups: Vec<usize> = sums.keys().copied().collect();
        groups.sort_unstable_by(|a, b| {
            sums[b].cmp(&sums[a]).then_with(|| self.values[*a].cmp(&self.values[*b]))
        });
        if limit > 0 {
            groups.truncate(limit);
        }
        groups
    }

    /// A group's labels that are not empty, in the order asked for.
    pub(super) fn labels(&self, group: usize, group_by: &[String]) -> Vec<(String, String)> {
        let pairs = group_by.iter().cloned().zip(self.values[group].iter().cloned());
        pairs.filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// Checks the number of cells that a question fills.
pub(super) fn check_cells(cells: usize) -> Result<(), QueryError> {
    if cells <= MAX_CELLS {
        return Ok(());
    }
    let fix = "ask for a longer step, a shorter time or fewer groups";
    Err(QueryError::TooMuch { what: "points with anything at them", max: MAX_CELLS, fix })
}

impl TimeQuery<'_> {
    /// Whether points lie apart.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        if self.step_ms < 1 { Err(QueryError::Step { step_ms: self.step_ms }) } else { Ok(()) }
    }

    fn grouped_by_name(&self) -> bool {
        self.group_by.iter().any(|name| same_name(name, SPAN_NAME))
    }

    fn values(&self, series: &SeriesEntry, span_name: &str) -> Vec<String> {
        let value = |name: &String| {
            if same_name(name, SPAN_NAME) {
                span_name.to_owned()
            } else {
                label(&series.labels, self.kind, name).unwrap_or_default().into_owned()
            }
        };
        self.group_by.iter().map(value).collect()
    }
}

impl Engine {
    /// Visits what every profile, or every span within every profile, adds to which point. A profile counts where it
    /// began: a point at `t` is of those that began in `(t - step, t]`, the first also of those that began before and
    /// reach into the range.
    pub(super) fn visit_parts(
        &self,
        query: &TimeQuery<'_>,
        grain: Grain,
        groups: &mut Groups,
        mut visit: impl FnMut(Part) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let &TimeQuery { range, step_ms, .. } = query;
        // Profiles that began within the step before the first point belong to it.
        let reach = TimeRange { start_ms: range.start_ms.saturating_sub(step_ms), ..range };
        let mut names = FrameNames::default();
        let mut matcher = StackMatcher::new(query.stacks, &mut names);
        for source in self.sources() {
            let source = source.as_ref();
            let wanted = WantedSeries::of(source, None, query.kind, query.selector, Some(reach))?;
            let mut chunks = source.chunks(&wanted.numbers(), Some(reach))?;
            chunks.retain(|chunk| bucket(chunk, range, step_ms).is_some());
            let passing = if query.stacks.selects() {
                Some(passing(source, &chunks, &mut matcher, &mut names)?)
            } else {
                None
            };
            let spans = if grain == Grain::Span { spans(source, &chunks)? } else { HashMap::default() };
            let mut of_source = OfSource {
                source,
                query,
                names: WantedNames::new(source, query.selector),
                passing,
                groups,
                known: HashMap::default(),
            };
            for chunk in &chunks {
                cancel::check()?;
                let (Some((column, series)), Some(at_ms)) =
                    (wanted.get(chunk.series), bucket(chunk, range, step_ms))
                else {
                    continue;
                };
                let part = |group: usize, value: i64, span: Option<PartSpan>| Part {
                    group,
                    at_ms,
                    value,
                    start_nanos: chunk.start_nanos,
                    profile_id: chunk.id,
                    labels: series.labels.clone(),
                    span,
                };
                match grain {
                    Grain::Profile => {
                        for (group, value) in of_source.sums(series, chunk, column)? {
                            visit(part(group, value, None))?;
                        }
                    }
                    Grain::Span => {
                        for run in 0..chunk.runs.len() {
                            let Some(span) = spans.get(&chunk.runs[run].entry) else { continue };
                            let value = of_source.sum(chunk, column, run)?;
                            if value > 0 {
                                let group = of_source.group(series, chunk.runs[run].name)?;
                                visit(part(group, value, Some(span.clone())))?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Like [`visit_parts`](Self::visit_parts) for spans, those of one span at one point added up.
    pub(super) fn span_parts(
        &self,
        query: &TimeQuery<'_>,
        groups: &mut Groups,
    ) -> Result<Vec<Part>, QueryError> {
        let mut parts: HashMap<(usize, i64, Option<SpanId>), Part, RandomState> = HashMap::default();
        self.visit_parts(query, Grain::Span, groups, |part| {
            let key = (part.group, part.at_ms, part.span.as_ref().map(|span| span.id));
            match parts.get_mut(&key) {
                Some(sum) => {
                    // It stays with the profile that it began in.
                    let value = sum.value.saturating_add(part.value);
                    if part.start_nanos < sum.start_nanos {
                        *sum = part;
                    }
                    sum.value = value;
                }
                None => {
                    if parts.len() == MAX_SPANS {
                        let fix = "ask for a shorter time, or select fewer series";
                        return Err(QueryError::TooMuch { what: "spans", max: MAX_SPANS, fix });
                    }
                    parts.insert(key, part);
                }
            }
            Ok(())
        })?;
        Ok(parts.into_values().collect())
    }
}

/// One source at work.
struct OfSource<'a> {
    source: &'a dyn Source,
    query: &'a TimeQuery<'a>,
    names: WantedNames<'a>,
    /// Stack traces that pass, none for all of them.
    passing: Option<HashSet<u32, RandomState>>,
    groups: &'a mut Groups,
    /// Groups by series and span name.
    known: HashMap<(u32, u32), usize, RandomState>,
}

impl OfSource<'_> {
    fn group(&mut self, series: &SeriesEntry, name: u32) -> Result<usize, QueryError> {
        let name = if self.query.grouped_by_name() { name } else { 0 };
        if let Some(&group) = self.known.get(&(series.id, name)) {
            return Ok(group);
        }
        let span_name = if name == 0 { String::new() } else { self.source.string(name)? };
        let group = self.groups.number(self.query.values(series, &span_name))?;
        self.known.insert((series.id, name), group);
        Ok(group)
    }

    /// The sum of one run, 0 if its name does not pass.
    fn sum(&mut self, chunk: &Chunk, column: usize, run: usize) -> Result<i64, StoreError> {
        if !self.names.pass(chunk.runs[run].name)? {
            return Ok(0);
        }
        let values = chunk.column(column);
        let wanted =
            |row: &usize| self.passing.as_ref().is_none_or(|passing| passing.contains(&chunk.stacks[*row]));
        Ok(chunk.rows(run).filter(wanted).fold(0i64, |sum, row| sum.saturating_add(values[row])))
    }

    /// The sums of one profile by group, those that are not 0.
    fn sums(
        &mut self,
        series: &SeriesEntry,
        chunk: &Chunk,
        column: usize,
    ) -> Result<Vec<(usize, i64)>, QueryError> {
        let by_name = self.query.grouped_by_name();
        let mut sums: BTreeMap<u32, i64> = BTreeMap::new();
        if !by_name && !self.query.selector.selects_span_names() && self.passing.is_none() {
            sums.insert(0, chunk.totals[column]);
        } else {
            for run in 0..chunk.runs.len() {
                let value = self.sum(chunk, column, run)?;
                let sum = sums.entry(if by_name { chunk.runs[run].name } else { 0 }).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        sums.retain(|_, sum| *sum > 0);
        sums.into_iter().map(|(name, sum)| Ok((self.group(series, name)?, sum))).collect()
    }
}

/// Which of the stack traces in these chunks pass.
fn passing(
    source: &dyn Source,
    chunks: &[Arc<Chunk>],
    matcher: &mut StackMatcher<'_>,
    names: &mut FrameNames,
) -> Result<HashSet<u32, RandomState>, StoreError> {
    let distinct: HashSet<u32, RandomState> =
        chunks.iter().flat_map(|chunk| chunk.stacks.iter().copied()).collect();
    // Neighbours lie side by side in a segment.
    let mut stacks: Vec<u32> = distinct.into_iter().collect();
    stacks.sort_unstable();
    let mut passing = HashSet::default();
    let mut frames = Vec::new();
    names.begin_source();
    source.stacks(&stacks, &mut |at, symbols, locations| {
        frames.clear();
        names.of_stack(symbols, locations, &mut frames);
        if matcher.pass(&frames, names) {
            passing.insert(stacks[at]);
        }
    })?;
    Ok(passing)
}

/// The spans of these chunks by the numbers of their entries.
fn spans(
    source: &dyn Source,
    chunks: &[Arc<Chunk>],
) -> Result<HashMap<u32, PartSpan, RandomState>, StoreError> {
    let runs = chunks.iter().flat_map(|chunk| chunk.runs.iter().map(|run| run.entry));
    let distinct: HashSet<u32, RandomState> = runs.filter(|&entry| entry != NO_SPAN).collect();
    let mut numbers: Vec<u32> = distinct.into_iter().collect();
    numbers.sort_unstable();
    let mut texts: HashMap<u32, Arc<str>, RandomState> = HashMap::default();
    let mut spans = HashMap::default();
    for SpanEntry { id: number, span, .. } in source.entries(&numbers)? {
        let Some(id) = span.span_id else { continue };
        let name = match span.name {
            0 => None,
            name => Some(match texts.get(&name) {
                Some(text) => Arc::clone(text),
                None => {
                    let text: Arc<str> = source.string(name)?.into();
                    texts.insert(name, Arc::clone(&text));
                    text
                }
            }),
        };
        spans.insert(number, PartSpan { id, trace_id: span.trace_id, name });
    }
    Ok(spans)
}

/// The point that a profile adds to, if there is one.
fn bucket(chunk: &Chunk, range: TimeRange, step_ms: i64) -> Option<i64> {
    let reaches_in = range.overlaps(&chunk.interval());
    point(chunk.start_nanos.div_euclid(1_000_000), reaches_in, range, step_ms)
}

/// The point that what began then adds to, if there is one. What began before all points adds to the first if it reaches
/// into the range: it is in a merge of that range too.
fn point(began_ms: i64, reaches_in: bool, range: TimeRange, step_ms: i64) -> Option<i64> {
    let distance = began_ms.checked_sub(range.start_ms)?;
    if distance <= -step_ms {
        return reaches_in.then_some(range.start_ms);
    }
    let steps = distance.div_euclid(step_ms) + i64::from(distance.rem_euclid(step_ms) > 0);
    let at = range.start_ms.checked_add(steps.checked_mul(step_ms)?)?;
    (at <= range.end_ms).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_their_points() {
        let range = TimeRange { start_ms: 100, end_ms: 145 };
        let at = |ms: i64| point(ms, false, range, 10);
        assert_eq!(at(90), None);
        assert_eq!(point(90, true, range, 10), Some(100));
        assert_eq!(at(91), Some(100));
        assert_eq!(at(100), Some(100));
        assert_eq!(at(101), Some(110));
        assert_eq!(at(140), Some(140));
        assert_eq!(at(141), None, "the last point is at 140");
        assert_eq!(point(i64::MIN, true, range, 10), None);
        assert_eq!(point(i64::MAX, true, TimeRange { start_ms: i64::MIN, end_ms: i64::MAX }, 1), None);
    }
}
