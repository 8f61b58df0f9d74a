//! A trace, a span and facts of spans by their ids. Spans are read one by one, and what is kept of them is bounded: a few
//! bytes on disk may be very many in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::TraceError;
use super::span::{Origin, SpanStatus, TracedSpan};
use super::{Shared, TraceStore};
use crate::cancel;
use crate::model::{SpanId, TenantId, TraceId};

/// Spans of one trace that are kept at most, and the memory that they may take, in bytes.
const MAX_SPANS: usize = 50_000;
const MAX_BYTES: usize = 64 << 20;

/// The spans of a trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WholeTrace {
    /// Those that began first before the others, each of them once.
    pub spans: Vec<TracedSpan>,
    /// Whether there are more than are read of one trace: 50,000, or 64 MiB.
    pub truncated: bool,
}

/// When a span ran and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracedFacts {
    /// When it began, in Unix nanoseconds.
    pub start_nanos: i64,
    /// How long it lasted, in nanoseconds.
    pub duration_nanos: i64,
    /// How it ended.
    pub status: SpanStatus,
}

/// What was read of a trace.
#[derive(Default)]
struct Gathered {
    spans: HashMap<SpanId, TracedSpan>,
    /// By where they lie, and held for as long as that tells them apart.
    origins: HashMap<usize, Arc<Origin>>,
    bytes: usize,
    truncated: bool,
}

impl Gathered {
    /// Adds a span instead of the one that came before under its id; tells whether there is room for more.
    fn add(&mut self, span: TracedSpan, (max_spans, max_bytes): (usize, usize)) -> bool {
        let before = self.spans.get(&span.span_id).map(TracedSpan::weight);
        let place = Arc::as_ptr(&span.origin) as usize;
        let origin = if self.origins.contains_key(&place) { 0 } else { span.origin.weight() };
        let bytes = self.bytes - before.unwrap_or(0) + span.weight() + origin;
        if bytes > max_bytes || (before.is_none() && self.spans.len() >= max_spans) {
            self.truncated = true;
            return false;
        }
        self.bytes = bytes;
        self.origins.entry(place).or_insert_with(|| Arc::clone(&span.origin));
        self.spans.insert(span.span_id, span);
        true
    }
}

impl TraceStore {
    /// The spans of a trace, as many as are read of one.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn trace(&self, tenants: &[TenantId], trace: TraceId) -> Result<WholeTrace, TraceError> {
        self.trace_within(tenants, trace, (MAX_SPANS, MAX_BYTES))
    }

    pub(super) fn trace_within(
        &self,
        tenants: &[TenantId],
        trace: TraceId,
        most: (usize, usize),
    ) -> Result<WholeTrace, TraceError> {
        let mut gathered = Gathered::default();
        for tenant in tenants {
            self.shared.visit_trace(tenant, trace, &mut |span| Ok(gathered.add(span, most)))?;
            if gathered.truncated {
                break;
            }
        }
        let mut spans: Vec<TracedSpan> = gathered.spans.into_values().collect();
        spans.sort_unstable_by_key(|span| (span.start_nanos, span.span_id));
        Ok(WholeTrace { spans, truncated: gathered.truncated })
    }

    /// A span, by its id alone; with its trace it is found sooner.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn span(
        &self,
        tenants: &[TenantId],
        trace: Option<TraceId>,
        span: SpanId,
    ) -> Result<Option<TracedSpan>, TraceError> {
        let Some(trace) = trace.map_or_else(|| self.trace_of(tenants, span), |trace| Ok(Some(trace)))? else {
            return Ok(None);
        };
        let mut last = None;
        for tenant in tenants {
            self.shared.visit_trace(tenant, trace, &mut |found| {
                if found.span_id == span {
                    last = Some(found);
                }
                Ok(true)
            })?;
        }
        Ok(last)
    }

    /// When spans ran and how they ended, of those that are known. With their traces they are found sooner.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn facts(
        &self,
        tenants: &[TenantId],
        asked: &[(Option<TraceId>, SpanId)],
    ) -> Result<HashMap<SpanId, TracedFacts>, TraceError> {
        let mut facts = HashMap::new();
        if !self.has_any(tenants) {
            return Ok(facts);
        }
        let mut by_trace: HashMap<TraceId, HashSet<SpanId>> = HashMap::new();
        for &(trace, span) in asked {
            cancel::check()?;
            if let Some(trace) =
                trace.map_or_else(|| self.trace_of(tenants, span), |trace| Ok(Some(trace)))?
            {
                by_trace.entry(trace).or_default().insert(span);
            }
        }
        for (trace, wanted) in by_trace {
            for tenant in tenants {
                self.shared.visit_trace(tenant, trace, &mut |span| {
                    let TracedSpan { span_id, start_nanos, duration_nanos, status, .. } = span;
                    if wanted.contains(&span_id) {
                        facts.insert(span_id, TracedFacts { start_nanos, duration_nanos, status });
                    }
                    Ok(true)
                })?;
            }
        }
        Ok(facts)
    }

    fn trace_of(&self, tenants: &[TenantId], span: SpanId) -> Result<Option<TraceId>, TraceError> {
        for slice in self.shared.slices().iter().rev() {
            for facts in tenants.iter().filter_map(|tenant| slice.facts(tenant)) {
                if let Some(trace) = self.shared.look(slice, || slice.read()?.trace_of(facts, span))? {
                    return Ok(Some(trace));
                }
            }
        }
        Ok(None)
    }
}

impl Shared {
    /// Visits the spans of a trace that a tenant sees in the order in which they came, until it is told to stop; one that came
    /// twice, twice.
    pub(super) fn visit_trace(
        &self,
        tenant: &TenantId,
        trace: TraceId,
        visit: &mut dyn FnMut(TracedSpan) -> Result<bool, TraceError>,
    ) -> Result<(), TraceError> {
        let since = self.since_nanos(tenant);
        let mut goes_on = true;
        for slice in self.slices() {
            let Some(facts) = slice.facts(tenant) else { continue };
            let unreadable = self.look(&slice, || {
                slice.read()?.trace(facts, trace, &mut |span| {
                    goes_on = span.start_nanos < since || visit(span)?;
                    Ok(goes_on)
                })
            })?;
            self.counters.unreadable_records.fetch_add(unreadable, Ordering::Relaxed);
            if !goes_on {
                break;
            }
        }
        Ok(())
    }
}
