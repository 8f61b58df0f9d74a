//! A trace: its spans with samples, and what they say of themselves where that is known.

use std::collections::HashMap;

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;

use super::params::TracePath;
use super::told::{self, Told};
use super::{Total, causes};
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::model::SpanId;
use crate::query::{KnownSpan, SpanFilter, TraceSummary, TreeSpan};
use crate::telemetry::SpanOutcome;
use crate::traces::{SpanStatus, TracedSpan, WholeTrace};

/// Spans that an answer names; it tells how many there are.
const MAX_SPANS: usize = 10_000;
/// Bytes of attributes, events and links in one answer.
const MAX_TOLD_BYTES: usize = 8 << 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trace {
    trace_id: String,
    services: Vec<String>,
    from: i64,
    until: i64,
    profile_types: Vec<Total>,
    samples: u64,
    cpu_nanos: i64,
    /// In the order of the tree, with depths: nested, a hostile trace would be deeper than readers can take.
    spans: Vec<Row>,
    span_count: usize,
    /// What the spans say of their trace, where they say anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    traced: Option<Traced>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Traced {
    start: f64,
    duration_nanos: i64,
    span_count: usize,
    error_count: usize,
    /// Whether later spans are without attributes, events and links, for their size.
    attributes_left_out: bool,
    /// Whether there are more spans than are read of one trace.
    truncated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    span_id: String,
    parent_span_id: Option<String>,
    local_root_span_id: Option<String>,
    depth: u32,
    service: Option<String>,
    name: Option<String>,
    samples: u64,
    cpu_nanos: i64,
    total_samples: u64,
    total_cpu_nanos: i64,
    from: Option<i64>,
    until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traced: Option<Told>,
}

impl Row {
    fn new(span: TreeSpan, traced: Option<Told>) -> Self {
        Self {
            traced,
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent.map(|id| id.to_string()),
            local_root_span_id: span.local_root.map(|id| id.to_string()),
            depth: span.depth,
            service: span.service,
            name: span.name,
            samples: span.samples,
            cpu_nanos: span.cpu_nanos,
            total_samples: span.total_samples,
            total_cpu_nanos: span.total_cpu_nanos,
            from: span.range.map(|range| range.start_ms),
            until: span.range.map(|range| range.end_ms),
        }
    }
}

impl Trace {
    fn new(trace: TraceSummary, known: &[TracedSpan], truncated: bool) -> Self {
        let by_id: HashMap<SpanId, &TracedSpan> = known.iter().map(|span| (span.span_id, span)).collect();
        let mut bytes = 0;
        let mut told = |span: &TreeSpan| {
            let known = by_id.get(&span.span_id)?;
            bytes += told::weight(known);
            Some(if bytes <= MAX_TOLD_BYTES { Told::new(known) } else { Told::bare(known) })
        };
        let span_count = trace.spans.len();
        let rows = trace.spans.into_iter().take(MAX_SPANS).map(|span| {
            let traced = told(&span);
            Row::new(span, traced)
        });
        let spans: Vec<Row> = rows.collect();
        let start = known.iter().map(|span| span.start_nanos).min();
        let end = known.iter().map(TracedSpan::end_nanos).max();
        let traced = start.zip(end).map(|(start, end)| Traced {
            start: told::millis(start),
            duration_nanos: end.saturating_sub(start),
            span_count: known.len(),
            error_count: known.iter().filter(|span| span.status == SpanStatus::Error).count(),
            attributes_left_out: bytes > MAX_TOLD_BYTES,
            truncated,
        });
        Self {
            trace_id: trace.trace_id.to_string(),
            services: trace.services,
            from: trace.range.start_ms,
            until: trace.range.end_ms,
            profile_types: Total::all(&trace.types),
            samples: trace.samples,
            cpu_nanos: trace.cpu_nanos,
            span_count,
            spans,
            traced,
        }
    }
}

/// What is needed of a span to place it in the tree.
fn known(span: &TracedSpan) -> KnownSpan {
    KnownSpan {
        span_id: span.span_id,
        parent: span.parent,
        service: span.origin.service.clone(),
        name: span.name.clone(),
        nanos: (span.start_nanos, span.end_nanos()),
    }
}

pub(super) async fn trace(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    TracePath(id): TracePath,
) -> Result<Json<Trace>, ApiError> {
    let since = bounds::since();
    let engine = app.engine(&access).since(since);
    let tenants = access.readable();
    let found = app.compute(move |app| {
        let WholeTrace { mut spans, truncated } = told::where_known(app.traces.trace(&tenants, id))?;
        let since_nanos = since.map_or(i64::MIN, |ms| ms.saturating_mul(1_000_000));
        spans.retain(|span| span.end_nanos() >= since_nanos);
        let known: Vec<KnownSpan> = spans.iter().map(known).collect();
        let found = engine.trace_with(id, &known)?;
        Ok::<_, ApiError>(found.map(|trace| Trace::new(trace, &spans, truncated)))
    });
    match found.await? {
        Some(trace) => {
            app.metrics.span_query(SpanOutcome::Hit);
            Ok(Json(trace))
        }
        None => Err(causes::unknown(&app, &access, "trace", id.to_string(), SpanFilter::traces([id])).await),
    }
}
