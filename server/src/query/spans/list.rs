//! Which spans there are, sorted and page by page.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Engine, Names, QueryError, run_total};
use crate::cancel;
use crate::model::{ProfileType, SpanId, TimeRange, TraceId};
use crate::store::{FoundRun, SampleCounts, SeriesEntry, Source, SpanEntry, SpanLookup, StoreError};

/// The most spans that are sorted: each takes memory until all are known.
const MAX_SPANS: usize = 2_000_000;
/// Span entries whose values are asked for, between asking whether anybody still waits.
const AT_ONCE: usize = 4096;

/// Narrows and sorts a list of spans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanListFilter {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those of this trace.
    pub trace_id: Option<TraceId>,
    /// Only those of this name.
    pub name: Option<String>,
    /// Only those with values of this type, which are then added up.
    pub kind: Option<ProfileType>,
    /// Only those of which a profile overlaps this time. What is told of them is of such profiles alone.
    pub range: Option<TimeRange>,
    /// What comes first.
    pub order: SpanOrder,
    /// Only those behind this one.
    pub after: Option<SpanCursor>,
}

/// What comes first in a list of spans; equals are sorted by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanOrder {
    /// The most CPU time.
    #[default]
    Cpu,
    /// The most samples.
    Samples,
    /// The largest total of the type asked for.
    Total,
    /// The latest profile.
    Newest,
    /// The most CPU time under a function, which is the total then.
    Function,
}

/// A place in a sorted list. It stays where it is when spans come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanCursor {
    /// What the list is sorted by first, of the span at that place.
    pub rank: i64,
    /// Its samples, by which equals of that rank are sorted.
    pub samples: u64,
    /// Its id.
    pub span_id: SpanId,
}

/// A span in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanListItem {
    /// Its id.
    pub span_id: SpanId,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: Option<String>,
    /// Samples in itself.
    pub samples: u64,
    /// CPU time of itself, in nanoseconds.
    pub cpu_nanos: i64,
    /// The sum of its values of the type asked for, 0 if none was.
    pub total: i64,
    /// The time that the profiles with its samples cover.
    pub range: TimeRange,
}

impl SpanListItem {
    /// Its place in a list of this order.
    pub fn cursor(&self, order: SpanOrder) -> SpanCursor {
        let rank = match order {
            SpanOrder::Cpu => self.cpu_nanos,
            SpanOrder::Samples => i64::try_from(self.samples).unwrap_or(i64::MAX),
            SpanOrder::Total | SpanOrder::Function => self.total,
            SpanOrder::Newest => self.range.end_ms,
        };
        SpanCursor { rank, samples: self.samples, span_id: self.span_id }
    }
}

impl SpanCursor {
    pub(super) fn key(self) -> (Reverse<(i64, u64)>, SpanId) {
        (Reverse((self.rank, self.samples)), self.span_id)
    }
}

/// What the entries of one span add up to. The numbers of its series and its name are those of one source.
pub(super) struct Sum {
    source: usize,
    name: u32,
    series: u32,
    pub(super) item: SpanListItem,
}

/// By span first: one may have entries in several series and sources, which only together tell its rank.
type BySpan = HashMap<SpanId, Sum, RandomState>;

/// What was added up, and when it is too much.
struct Sums {
    spans: BySpan,
    most: usize,
}

/// What one source has for the list.
pub(super) struct Listed<'a> {
    source: &'a dyn Source,
    /// Those of the service, with the type.
    series: HashMap<u32, SeriesEntry, RandomState>,
    /// Numbers of the name asked for, none if none was.
    wanted_name: Option<HashSet<u32, RandomState>>,
    names: Names<'a>,
}

impl<'a> Listed<'a> {
    fn new(source: &'a dyn Source, filter: &SpanListFilter) -> Result<Self, StoreError> {
        let mut series: HashMap<u32, SeriesEntry, RandomState> =
            source.series(None)?.into_iter().map(|series| (series.id, series)).collect();
        if let Some(service) = &filter.service {
            series.retain(|_, series| series.labels.service() == service);
        }
        if let Some(kind) = &filter.kind {
            series.retain(|_, series| series.types.contains(kind));
        }
        let mut names = Names::new(source);
        let mut wanted_name = None;
        if let Some(wanted) = &filter.name {
            let numbers: &mut HashSet<u32, RandomState> = wanted_name.insert(HashSet::default());
            numbers.extend(wanted.is_empty().then_some(0));
            for &series in series.keys() {
                for number in source.span_names(series)? {
                    if names.get(number)? == Some(wanted.as_str()) {
                        numbers.insert(number);
                    }
                }
            }
        }
        Ok(Self { source, series, wanted_name, names })
    }

    /// Whether the entry passes, its values aside.
    fn passes(&self, entry: &SpanEntry, filter: &SpanListFilter) -> bool {
        entry.span.span_id.is_some()
            && self.series.contains_key(&entry.series)
            && filter.range.is_none_or(|range| range.overlaps(&entry.range))
            && self.wanted_name.as_ref().is_none_or(|names| names.contains(&entry.span.name))
    }

    /// What of the entry is of profiles in the time asked for, and its total of the type; none if it has no profile then.
    fn asked_for(
        &self,
        entry: &SpanEntry,
        filter: &SpanListFilter,
    ) -> Result<Option<(SpanEntry, i64)>, StoreError> {
        let types = self.series.get(&entry.series).map_or(&[][..], |series| &series.types);
        let column =
            filter.kind.as_ref().and_then(|kind| types.iter().position(|of_series| of_series == kind));
        let mut part: Option<SpanEntry> = None;
        let mut total = 0i64;
        for found in self.source.runs(&[entry.id])? {
            let FoundRun { chunk, run } = &found;
            let interval = chunk.interval();
            if filter.range.is_some_and(|range| !range.overlaps(&interval)) {
                continue;
            }
            let counts = SampleCounts::new(types, chunk.period);
            let nothing = || SpanEntry { samples: 0, cpu_nanos: 0, range: interval, ..entry.clone() };
            let value = |column: usize, row: usize| chunk.column(column)[row];
            part.get_or_insert_with(nothing).add(interval, types, &counts, chunk.rows(*run), value);
            if let Some(column) = column {
                total = total.saturating_add(run_total(&found, column, &counts).0);
            }
        }
        Ok(part.map(|part| (part, total)))
    }
}

/// Whether all profiles of an entry overlap this time, for all that its own time says.
fn is_all_in(entry: &SpanEntry, range: TimeRange) -> bool {
    range.start_ms <= entry.range.start_ms && entry.range.end_ms <= range.end_ms
}

impl Engine {
    /// At most `limit` spans with samples of their own, sorted.
    ///
    /// # Errors
    /// Beside those of the store, [`QueryError::TooMuch`] when millions of spans would have to be sorted.
    pub fn spans(&self, filter: &SpanListFilter, limit: usize) -> Result<Vec<SpanListItem>, QueryError> {
        self.spans_among(filter, limit, MAX_SPANS)
    }

    /// The same, sorting `most` spans at most.
    pub(super) fn spans_among(
        &self,
        filter: &SpanListFilter,
        limit: usize,
        most: usize,
    ) -> Result<Vec<SpanListItem>, QueryError> {
        let sources = self.sources();
        let (spans, mut listed) = sums(&sources, filter, None, most)?;
        let after = filter.after.map(SpanCursor::key);
        let place = |sum: &Sum| sum.item.cursor(filter.order).key();
        let is_of_type = |sum: &Sum| filter.kind.is_none() || sum.item.total != 0;
        let is_wanted = |sum: &Sum| is_of_type(sum) && after.is_none_or(|after| place(sum) > after);
        let mut sums: Vec<Sum> = spans.into_values().filter(is_wanted).collect();
        sums.sort_unstable_by_key(place);
        sums.truncate(limit);
        let mut items = Vec::with_capacity(sums.len());
        for Sum { source, name, series, item } in sums {
            let part = &mut listed[source];
            let service = part.series.get(&series).map(|series| series.labels.service().to_owned());
            let name = part.names.get(name)?.map(str::to_owned);
            items.push(SpanListItem { service: service.unwrap_or_default(), name, ..item });
        }
        Ok(items)
    }
}

/// What these sources have of all spans, or of `among`, for as long as there are no more than `most`.
pub(super) fn sums<'a>(
    sources: &'a [Arc<dyn Source>],
    filter: &SpanListFilter,
    among: Option<&[SpanId]>,
    most: usize,
) -> Result<(BySpan, Vec<Listed<'a>>), QueryError> {
    let mut sums = Sums { spans: HashMap::default(), most };
    let mut listed = Vec::with_capacity(sources.len());
    for source in sources {
        cancel::check()?;
        let is_outside = |bounds: TimeRange| filter.range.is_some_and(|range| !range.overlaps(&bounds));
        if source.bounds().is_none_or(is_outside) {
            continue;
        }
        let at = listed.len();
        let part = Listed::new(source.as_ref(), filter)?;
        let mut wanted: Vec<u32> = part.series.keys().copied().collect();
        wanted.sort_unstable();
        // A source must not be asked for values while it is visited.
        let mut later: Vec<u32> = Vec::new();
        let mut visit = |entry: &SpanEntry| match filter.kind {
            _ if sums.are_too_many() || !part.passes(entry, filter) => {}
            None if filter.range.is_none_or(|range| is_all_in(entry, range)) => sums.add(at, entry, 0),
            _ => later.push(entry.id),
        };
        match (among, filter.trace_id) {
            (Some(ids), _) => {
                for some in ids.chunks(AT_ONCE) {
                    cancel::check()?;
                    let lookups: Vec<SpanLookup> = some.iter().copied().map(SpanLookup::Span).collect();
                    source.find(&lookups, &mut |_, entry| visit(entry))?;
                }
            }
            (None, Some(trace)) => source.spans(SpanLookup::Trace(trace), &mut visit)?,
            (None, None) => source.all_spans(Some(&wanted), filter.range, &mut visit)?,
        }
        for some in later.chunks(AT_ONCE) {
            cancel::check()?;
            for entry in source.entries(some)? {
                if let Some((part, total)) = part.asked_for(&entry, filter)? {
                    sums.add(at, &part, total);
                }
            }
            if sums.are_too_many() {
                break;
            }
        }
        listed.push(part);
        if sums.are_too_many() {
            return Err(QueryError::TooMuch {
                what: "spans to sort",
                max: most,
                fix: "ask for less time, or for one service or name",
            });
        }
    }
    Ok((sums.spans, listed))
}

impl Sums {
    fn are_too_many(&self) -> bool {
        self.spans.len() > self.most
    }

    fn add(&mut self, source: usize, entry: &SpanEntry, total: i64) {
        let Some(id) = entry.span.span_id else { return };
        let new = || Sum::new(source, id, entry, total);
        self.spans.entry(id).and_modify(|sum| sum.add(source, entry, total)).or_insert_with(new);
    }
}

impl Sum {
    fn new(source: usize, span_id: SpanId, entry: &SpanEntry, total: i64) -> Self {
        let item = SpanListItem {
            span_id,
            trace_id: entry.span.trace_id,
            service: String::new(),
            name: None,
            samples: entry.samples,
            cpu_nanos: entry.cpu_nanos,
            total,
            range: entry.range,
        };
        Self { source, name: entry.span.name, series: entry.series, item }
    }

    fn add(&mut self, source: usize, entry: &SpanEntry, total: i64) {
        let Self { item, .. } = self;
        item.samples = item.samples.saturating_add(entry.samples);
        item.cpu_nanos = item.cpu_nanos.saturating_add(entry.cpu_nanos);
        item.total = item.total.saturating_add(total);
        item.range = item.range.union(entry.range);
        item.trace_id = item.trace_id.or(entry.span.trace_id);
        if self.name == 0 {
            (self.source, self.name, self.series) = (source, entry.span.name, entry.series);
        }
    }
}
