//! Finding traces by what their spans say, the latest first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::error::TraceError;
use super::slice::{Operation, Row, Slice};
use super::span::{SpanStatus, TracedSpan};
use super::{Shared, TraceStore};
use crate::model::{SpanId, TenantId, TimeRange, TraceId};

/// Spans that one search may look at, in the index and as a whole.
const MAX_ROWS: usize = 10_000_000;
const MAX_SPANS: usize = 200_000;

/// Which traces are asked for: those with a span of which all of this holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceSearch {
    /// Its service.
    pub service: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// It lasted as long at least, in nanoseconds.
    pub min_nanos: Option<u64>,
    /// It lasted as long at most, in nanoseconds.
    pub max_nanos: Option<u64>,
    /// It ended so.
    pub status: Option<SpanStatus>,
    /// It or its resource has these attributes.
    pub attributes: Vec<(String, String)>,
    /// It began within this time.
    pub range: Option<TimeRange>,
    /// Only those behind this one.
    pub after: Option<TraceCursor>,
}

/// A place in the list: that of a span. It stays where it is when traces come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceCursor {
    /// When the span began, in Unix nanoseconds.
    pub start_nanos: u64,
    /// The span.
    pub span_id: SpanId,
}

/// A trace that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTrace {
    /// The last of its spans that is as asked for.
    pub matched: TracedSpan,
    /// How many of its spans are.
    pub matches: usize,
    /// Its root, or where that is not known its first span.
    pub first: TracedSpan,
    /// When it began, in Unix nanoseconds.
    pub start_nanos: i64,
    /// From then until the end of its last span, in nanoseconds.
    pub duration_nanos: i64,
    /// Its spans.
    pub spans: usize,
    /// Those that ended with an error.
    pub errors: usize,
    /// The services that they are of, sorted.
    pub services: Vec<String>,
}

impl FoundTrace {
    /// Its place in the list.
    pub fn cursor(&self) -> TraceCursor {
        let start_nanos = u64::try_from(self.matched.start_nanos).unwrap_or(0);
        TraceCursor { start_nanos, span_id: self.matched.span_id }
    }
}

impl TraceSearch {
    /// Whether an operation's spans can be what is asked for.
    fn wants(&self, operation: &Operation) -> bool {
        operation.rest
            || (self.service.as_ref().is_none_or(|service| *service == operation.service)
                && self.name.as_ref().is_none_or(|name| *name == operation.name))
    }

    /// Whether the index alone says that a span is.
    fn is_told_by_index(&self, operation: &Operation) -> bool {
        self.attributes.is_empty() && !(operation.rest && (self.service.is_some() || self.name.is_some()))
    }

    fn takes_row(&self, row: &Row) -> bool {
        self.takes(row.facts.duration_nanos, row.facts.status)
            && self.after.is_none_or(|after| place(row) < after)
    }

    fn takes(&self, duration_nanos: u64, status: SpanStatus) -> bool {
        self.min_nanos.is_none_or(|least| duration_nanos >= least)
            && self.max_nanos.is_none_or(|most| duration_nanos <= most)
            && self.status.is_none_or(|wanted| wanted == status)
    }

    /// Whether a span is what is asked for, its place in the list aside.
    fn takes_span(&self, span: &TracedSpan, window: (u64, u64)) -> bool {
        let start = u64::try_from(span.start_nanos).unwrap_or(0);
        self.takes(u64::try_from(span.duration_nanos).unwrap_or(0), span.status)
            && (window.0..=window.1).contains(&start)
            && self.service.as_ref().is_none_or(|service| *service == span.origin.service)
            && self.name.as_ref().is_none_or(|name| *name == span.name)
            && self.attributes.iter().all(|(key, text)| span.says(key, text))
    }
}

fn place(row: &Row) -> TraceCursor {
    TraceCursor { start_nanos: row.start_nanos, span_id: row.span }
}

impl Shared {
    /// What is seen of a time, in Unix nanoseconds, both ends included; none if nothing is.
    pub(super) fn window(&self, tenant: &TenantId, range: Option<TimeRange>) -> (u64, u64) {
        let nanos = |ms: i64| u64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(0);
        let since = u64::try_from(self.since_nanos(tenant)).unwrap_or(0);
        match range {
            None => (since, u64::MAX),
            Some(range) => (since.max(nanos(range.start_ms)), nanos(range.end_ms).saturating_add(999_999)),
        }
    }
}

/// The last traces that were found so far, each at its last span that is as asked for.
struct Last {
    limit: usize,
    order: BTreeSet<(TraceCursor, usize, TraceId)>,
    places: HashMap<(usize, TraceId), TraceCursor, RandomState>,
}

impl Last {
    fn add(&mut self, tenant: usize, trace: TraceId, at: TraceCursor) {
        match self.places.get_mut(&(tenant, trace)) {
            Some(known) if *known >= at => return,
            Some(known) => {
                self.order.remove(&(*known, tenant, trace));
                *known = at;
            }
            None => _ = self.places.insert((tenant, trace), at),
        }
        self.order.insert((at, tenant, trace));
        if self.order.len() > self.limit
            && let Some((_, tenant, trace)) = self.order.pop_first()
        {
            self.places.remove(&(tenant, trace));
        }
    }

    /// Whether spans that began at this time or before are of no account.
    fn is_behind(&self, start_nanos: u64) -> bool {
        self.order.len() >= self.limit
            && self.order.first().is_none_or(|(first, ..)| start_nanos < first.start_nanos)
    }
}

/// Whole spans that were looked at.
struct Looked<'a> {
    store: &'a TraceStore,
    spans: usize,
    /// Which spans of a trace are what is asked for.
    matching: HashMap<(usize, TraceId), HashSet<SpanId>, RandomState>,
}

impl Looked<'_> {
    fn matches(
        &mut self,
        tenants: &[TenantId],
        tenant: usize,
        row: &Row,
        search: &TraceSearch,
        window: (u64, u64),
    ) -> Result<bool, TraceError> {
        if !self.matching.contains_key(&(tenant, row.trace)) {
            let spans = self.store.trace(&tenants[tenant..=tenant], row.trace)?;
            self.spans += spans.len();
            if self.spans > MAX_SPANS {
                return Err(TraceError::TooMuch { max: MAX_SPANS });
            }
            let good = spans.iter().filter(|span| search.takes_span(span, window));
            self.matching.insert((tenant, row.trace), good.map(|span| span.span_id).collect());
        }
        Ok(self.matching[&(tenant, row.trace)].contains(&row.span))
    }
}

impl TraceStore {
    /// At most `limit` traces, those whose last span that is as asked for began last before the others.
    ///
    /// # Errors
    /// When a file cannot be read, or when too much would have to be looked at.
    pub fn search(
        &self,
        tenants: &[TenantId],
        search: &TraceSearch,
        limit: usize,
    ) -> Result<Vec<FoundTrace>, TraceError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut last = Last { limit, order: BTreeSet::new(), places: HashMap::default() };
        let mut looked = Looked { store: self, spans: 0, matching: HashMap::default() };
        let mut rows = 0;
        for (tenant, id) in tenants.iter().enumerate() {
            let window = self.shared.window(id, search.range);
            // Nothing that began after the place is behind it.
            let until = search.after.map_or(window.1, |after| window.1.min(after.start_nanos));
            for (slice, first, end) in self.shared.holding(id, (window.0, until)) {
                if last.is_behind(end) {
                    continue;
                }
                let Some(facts) = slice.facts(id) else { continue };
                self.shared.look(&slice, || {
                    let reading = slice.read()?;
                    for operation in reading.operations(facts)?.iter().filter(|found| search.wants(found)) {
                        let told = search.is_told_by_index(operation);
                        reading.starts(operation.number, first, end, |row| {
                            rows += 1;
                            if rows > MAX_ROWS {
                                return Err(TraceError::TooMuch { max: MAX_ROWS });
                            }
                            if last.is_behind(row.start_nanos) {
                                return Ok(false);
                            }
                            if search.takes_row(&row)
                                && (told || looked.matches(tenants, tenant, &row, search, window)?)
                            {
                                last.add(tenant, row.trace, place(&row));
                            }
                            Ok(true)
                        })?;
                    }
                    Ok(())
                })?;
            }
        }
        let mut found = Vec::with_capacity(last.order.len());
        for (at, tenant, trace) in last.order.into_iter().rev() {
            let spans = self.trace(&tenants[tenant..=tenant], trace)?;
            let window = self.shared.window(&tenants[tenant], search.range);
            found.extend(summary(spans, search, window, at));
        }
        Ok(found)
    }
}

impl Shared {
    /// The files with spans of a tenant that began within this time, and what of it each has; the last first.
    pub(super) fn holding(&self, tenant: &TenantId, window: (u64, u64)) -> Vec<(Arc<Slice>, u64, u64)> {
        let slices = self.slices();
        let mut holding: Vec<(Arc<Slice>, u64, u64)> = slices
            .into_iter()
            .filter_map(|slice| {
                let facts = slice.facts(tenant)?;
                let (first, last) = (window.0.max(facts.first_nanos), window.1.min(facts.last_nanos));
                (first <= last).then_some((slice, first, last))
            })
            .collect();
        holding.sort_by_key(|(_, _, last)| std::cmp::Reverse(*last));
        holding
    }
}

/// What is said of a trace; none if a later span of it is what is asked for too, so that it was on a page before.
fn summary(
    spans: Vec<TracedSpan>,
    search: &TraceSearch,
    window: (u64, u64),
    at: TraceCursor,
) -> Option<FoundTrace> {
    let good: Vec<&TracedSpan> = spans.iter().filter(|span| search.takes_span(span, window)).collect();
    let place = |span: &TracedSpan| TraceCursor {
        start_nanos: u64::try_from(span.start_nanos).unwrap_or(0),
        span_id: span.span_id,
    };
    if good.iter().any(|span| place(span) > at) {
        return None;
    }
    let matched = (*good.iter().find(|span| span.span_id == at.span_id)?).clone();
    let matches = good.len();
    let start_nanos = spans.iter().map(|span| span.start_nanos).min()?;
    let end_nanos = spans.iter().map(TracedSpan::end_nanos).max()?;
    let services: BTreeSet<&str> = spans.iter().map(|span| span.origin.service.as_str()).collect();
    Some(FoundTrace {
        matched,
        matches,
        first: spans.iter().find(|span| span.parent.is_none()).or(spans.first())?.clone(),
        start_nanos,
        duration_nanos: end_nanos.saturating_sub(start_nanos),
        spans: spans.len(),
        errors: spans.iter().filter(|span| span.status == SpanStatus::Error).count(),
        services: services.into_iter().map(str::to_owned).collect(),
    })
}
