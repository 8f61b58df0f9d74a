//! A span: everything that is known of it.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::params::SpanPath;
use super::told::{self, Told};
use super::{Total, causes, object};
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::query::{SpanFilter, SpanSeries, SpanSummary, TreeSpan};
use crate::telemetry::SpanOutcome;

/// Children that an answer names; it tells how many there are.
const MAX_CHILDREN: usize = 1000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Span {
    span_id: String,
    trace_id: Option<String>,
    parent_span_id: Option<String>,
    local_root_span_id: Option<String>,
    service: String,
    services: Vec<String>,
    name: Option<String>,
    labels: Map<String, Value>,
    series: Vec<Series>,
    from: i64,
    until: i64,
    profile_types: Vec<Total>,
    samples: u64,
    cpu_nanos: i64,
    own_samples: u64,
    own_cpu_nanos: i64,
    children: Vec<Child>,
    child_count: usize,
    /// What the span says of itself, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    traced: Option<Told>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    labels: Map<String, Value>,
    from: i64,
    until: i64,
    samples: u64,
    cpu_nanos: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    span_id: String,
    service: Option<String>,
    name: Option<String>,
    samples: u64,
    cpu_nanos: i64,
    own_samples: u64,
    own_cpu_nanos: i64,
    /// Whether it ran in another process, so that its parent's totals are without it.
    remote: bool,
}

impl From<SpanSummary> for Span {
    fn from(span: SpanSummary) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            trace_id: span.trace_id.map(|id| id.to_string()),
            parent_span_id: span.parent.map(|id| id.to_string()),
            local_root_span_id: span.local_root.map(|id| id.to_string()),
            service: span.labels.service().to_owned(),
            services: span.services(),
            name: span.name,
            labels: object(&span.labels),
            series: span.series.iter().map(Series::from).collect(),
            from: span.range.start_ms,
            until: span.range.end_ms,
            profile_types: Total::all(&span.types),
            samples: span.samples,
            cpu_nanos: span.cpu_nanos,
            own_samples: span.own_samples,
            own_cpu_nanos: span.own_cpu_nanos,
            traced: None,
            child_count: span.children.len(),
            children: span.children.into_iter().take(MAX_CHILDREN).map(Child::from).collect(),
        }
    }
}

impl From<&SpanSeries> for Series {
    fn from(series: &SpanSeries) -> Self {
        Self {
            labels: object(&series.labels),
            from: series.range.start_ms,
            until: series.range.end_ms,
            samples: series.samples,
            cpu_nanos: series.cpu_nanos,
        }
    }
}

impl From<TreeSpan> for Child {
    fn from(span: TreeSpan) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            remote: span.local_root == Some(span.span_id),
            service: span.service,
            name: span.name,
            samples: span.total_samples,
            cpu_nanos: span.total_cpu_nanos,
            own_samples: span.samples,
            own_cpu_nanos: span.cpu_nanos,
        }
    }
}

pub(super) async fn span(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    SpanPath(id): SpanPath,
) -> Result<Json<Span>, ApiError> {
    let since = bounds::since();
    let engine = app.engine(&access).since(since);
    let tenants = access.readable();
    let found = app.compute(move |app| {
        let found = engine.span(id)?;
        let trace = found.as_ref().and_then(|span| span.trace_id);
        let traced = told::where_known(app.traces.span(&tenants, trace, id))?;
        let since_nanos = since.map_or(i64::MIN, |ms| ms.saturating_mul(1_000_000));
        Ok::<_, ApiError>((found, traced.filter(|span| span.end_nanos() >= since_nanos)))
    });
    let (found, traced) = found.await?;
    match found {
        Some(span) => {
            app.metrics.span_query(SpanOutcome::Hit);
            Ok(Json(Span { traced: traced.as_ref().map(Told::whole), ..span.into() }))
        }
        None => {
            let filter = SpanFilter::spans([id]);
            let error = causes::unknown(&app, &access, "span", id.to_string(), filter).await;
            let Some(traced) = traced else { return Err(error) };
            let error = error.with("traceId", traced.trace_id.to_string());
            let error =
                error.with("service", traced.origin.service.clone()).with("name", traced.name.clone());
            Err(error.with("traced", json!(Told::whole(&traced))))
        }
    }
}
