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
/// Spans of one trace that are told apart where they are counted.
const MAX_COUNTED: usize = 200_000;
/// Bytes of the names of one trace's services.
const MAX_SERVICES_BYTES: usize = 64 << 10;

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

/// A trace that was found. Spans are without attributes, events, links and resource.
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
    /// The services that they are of, sorted; no further ones than 64 KiB of names.
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
            let mut good = HashSet::new();
            self.store.shared.visit_trace(&tenants[tenant], row.trace, &mut |span| {
                self.spans += 1;
                if self.spans > MAX_SPANS {
                    return Err(TraceError::TooMuch { max: MAX_SPANS });
                }
                if search.takes_span(&span, window) {
                    good.insert(span.span_id);
                }
                Ok(true)
            })?;
            self.matching.insert((tenant, row.trace), good);
        }
        Ok(self.matching[&(tenant, row.trace)].contains(&row.span))
    }
}

impl TraceStore {
    /// At most `limit` traces, those whose last span that is as asked for began last before the others; as many, if there are.
    ///
    /// # Errors
    /// When a file cannot be read, or when too much would have to be looked at.
    pub fn search(
        &self,
        tenants: &[TenantId],
        search: &TraceSearch,
        limit: usize,
    ) -> Result<Vec<FoundTrace>, TraceError> {
        let mut found = Vec::new();
        let mut round = Round {
            search,
            after: search.after,
            judged: HashSet::default(),
            looked: Looked { store: self, spans: 0, matching: HashMap::default() },
            rows: 0,
        };
        // Candidates that were on a page before turn out when they are read whole; then others take their places.
        while found.len() < limit {
            let wanted = limit - found.len();
            let candidates = round.candidates(tenants, wanted)?;
            let Some(&(last, ..)) = candidates.last() else { break };
            let is_all = candidates.len() < wanted;
            for (at, tenant, trace) in candidates {
                round.judged.insert((tenant, trace));
                let window = self.shared.window(&tenants[tenant], search.range);
                let mut summary = Summary::default();
                self.shared.visit_trace(&tenants[tenant], trace, &mut |span| {
                    Ok(summary.add(span, at, |span| search.takes_span(span, window)))
                })?;
                found.extend(summary.found());
            }
            if is_all {
                break;
            }
            round.after = Some(last);
        }
        Ok(found)
    }
}

/// One search, which may go through the index more than once.
struct Round<'a> {
    search: &'a TraceSearch,
    /// Where it goes on.
    after: Option<TraceCursor>,
    /// Traces that are on the page, or were on one before.
    judged: HashSet<(usize, TraceId), RandomState>,
    looked: Looked<'a>,
    rows: usize,
}

impl Round<'_> {
    /// At most `limit` traces behind the place where it goes on, each at its last span there that is as asked for; in order.
    fn candidates(
        &mut self,
        tenants: &[TenantId],
        limit: usize,
    ) -> Result<Vec<(TraceCursor, usize, TraceId)>, TraceError> {
        let Self { search, after, judged, looked, rows } = self;
        let shared = &looked.store.shared;
        let mut last = Last { limit, order: BTreeSet::new(), places: HashMap::default() };
        for (tenant, id) in tenants.iter().enumerate() {
            let window = shared.window(id, search.range);
            // Nothing that began after the place is behind it.
            let until = after.map_or(window.1, |after| window.1.min(after.start_nanos));
            for (slice, first, end) in shared.holding(id, (window.0, until)) {
                if last.is_behind(end) {
                    continue;
                }
                let Some(facts) = slice.facts(id) else { continue };
                shared.look(&slice, || {
                    let reading = slice.read()?;
                    for operation in reading.operations(facts)?.iter().filter(|found| search.wants(found)) {
                        let told = search.is_told_by_index(operation);
                        reading.starts(operation.number, first, end, |row| {
                            *rows += 1;
                            if *rows > MAX_ROWS {
                                return Err(TraceError::TooMuch { max: MAX_ROWS });
                            }
                            if last.is_behind(row.start_nanos) {
                                return Ok(false);
                            }
                            if after.is_none_or(|after| place(&row) < after)
                                && search.takes_row(&row)
                                && !judged.contains(&(tenant, row.trace))
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
        Ok(last.order.into_iter().rev().collect())
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

/// What is said of a trace.
#[derive(Default)]
struct Summary {
    counted: HashSet<SpanId, RandomState>,
    matched: Option<TracedSpan>,
    matches: usize,
    /// Whether a later span of it is what is asked for too, so that it was on a page before.
    was_before: bool,
    first: Option<TracedSpan>,
    start_nanos: i64,
    end_nanos: i64,
    spans: usize,
    errors: usize,
    services: BTreeSet<String>,
    services_bytes: usize,
}

impl Summary {
    /// Adds a span of a trace that is a candidate at this place; tells whether the others are of interest.
    fn add(&mut self, span: TracedSpan, at: TraceCursor, takes: impl FnOnce(&TracedSpan) -> bool) -> bool {
        let place =
            TraceCursor { start_nanos: u64::try_from(span.start_nanos).unwrap_or(0), span_id: span.span_id };
        let good = takes(&span);
        if good && place > at {
            self.was_before = true;
            return false;
        }
        // One that came again counts once.
        if self.counted.len() < MAX_COUNTED && !self.counted.insert(span.span_id) {
            if good && place == at {
                self.matched.get_or_insert_with(|| span.bare());
            }
            return true;
        }
        (self.start_nanos, self.end_nanos) = match self.spans {
            0 => (span.start_nanos, span.end_nanos()),
            _ => (self.start_nanos.min(span.start_nanos), self.end_nanos.max(span.end_nanos())),
        };
        self.spans += 1;
        self.errors += usize::from(span.status == SpanStatus::Error);
        self.matches += usize::from(good);
        let service = &span.origin.service;
        if self.services_bytes + service.len() <= MAX_SERVICES_BYTES && !self.services.contains(service) {
            self.services_bytes += service.len();
            self.services.insert(service.clone());
        }
        // A root comes before what has a parent, and of these the first.
        let rank = |span: &TracedSpan| (span.parent.is_some(), span.start_nanos, span.span_id);
        let is_first = self.first.as_ref().is_none_or(|first| rank(&span) < rank(first));
        let is_matched = good && place == at;
        if is_first || is_matched {
            let bare = span.bare();
            if is_matched {
                self.matched = Some(bare.clone());
            }
            if is_first {
                self.first = Some(bare);
            }
        }
        true
    }

    /// All of it; none if it was on a page before, or if the span in question cannot be read.
    fn found(self) -> Option<FoundTrace> {
        if self.was_before {
            return None;
        }
        Some(FoundTrace {
            matched: self.matched?,
            matches: self.matches,
            first: self.first?,
            start_nanos: self.start_nanos,
            duration_nanos: self.end_nanos.saturating_sub(self.start_nanos),
            spans: self.spans,
            errors: self.errors,
            services: self.services.into_iter().collect(),
        })
    }
}
