//! A trace: its spans with samples.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;

use super::params::TracePath;
use super::{Total, causes};
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::query::{SpanFilter, TraceSummary, TreeSpan};
use crate::telemetry::SpanOutcome;

/// Spans that an answer names; it tells how many there are.
const MAX_SPANS: usize = 10_000;

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
}

impl From<TreeSpan> for Row {
    fn from(span: TreeSpan) -> Self {
        Self {
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

impl From<TraceSummary> for Trace {
    fn from(trace: TraceSummary) -> Self {
        Self {
            trace_id: trace.trace_id.to_string(),
            services: trace.services,
            from: trace.range.start_ms,
            until: trace.range.end_ms,
            profile_types: Total::all(&trace.types),
            samples: trace.samples,
            cpu_nanos: trace.cpu_nanos,
            span_count: trace.spans.len(),
            spans: trace.spans.into_iter().take(MAX_SPANS).map(Row::from).collect(),
        }
    }
}

pub(super) async fn trace(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    TracePath(id): TracePath,
) -> Result<Json<Trace>, ApiError> {
    let engine = app.engine(&access).since(bounds::since());
    let found = app.compute(move |_| engine.trace(id)).await?;
    match found {
        Some(trace) => {
            app.metrics.span_query(SpanOutcome::Hit);
            Ok(Json(trace.into()))
        }
        None => Err(causes::unknown(&app, &access, "trace", id.to_string(), SpanFilter::traces([id])).await),
    }
}
