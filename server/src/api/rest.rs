//! The page's own interface below `/api/v1`: spans by id, and nothing else to be known. `docs/api.md` describes it.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use spanflame_wire::querier::v1::SelectMergeStacktracesResponse;

use super::App;
use super::access::Access;
use super::error::ApiError;
use super::flame::{self, FlameQuery};
use crate::model::{SpanId, TraceId};
use crate::query::{Engine, QueryError, Selection, SpanFilter, SpanListFilter, SpanListItem, SpanSummary};
use crate::telemetry::SpanOutcome;

/// Spans of one answer when the client names no number, and at most.
const DEFAULT_SPANS: usize = 100;
const MAX_SPANS: usize = 10_000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/spans", get(spans))
        .route("/api/v1/spans/{span_id}", get(span))
        .route("/api/v1/spans/{span_id}/profile", get(profile))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    span_id: String,
    trace_id: Option<String>,
    parent_span_id: Option<String>,
    local_root_span_id: Option<String>,
    service: String,
    name: Option<String>,
    labels: serde_json::Map<String, serde_json::Value>,
    from: i64,
    until: i64,
    profile_types: Vec<TypeTotal>,
    samples: u64,
    cpu_nanos: i64,
}

#[derive(Serialize)]
struct TypeTotal {
    id: String,
    unit: String,
    total: i64,
    samples: u64,
}

#[derive(Serialize)]
struct SpanList {
    spans: Vec<SpanRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanRow {
    span_id: String,
    trace_id: Option<String>,
    service: String,
    name: Option<String>,
    samples: u64,
    cpu_nanos: i64,
    from: i64,
    until: i64,
}

impl From<SpanSummary> for Span {
    fn from(span: SpanSummary) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            trace_id: span.trace_id.map(|id| id.to_string()),
            parent_span_id: span.parent.map(|id| id.to_string()),
            local_root_span_id: span.local_root.map(|id| id.to_string()),
            service: span.labels.service().to_owned(),
            name: span.name,
            labels: span.labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
            from: span.range.start_ms,
            until: span.range.end_ms,
            profile_types: span
                .types
                .iter()
                .map(|entry| TypeTotal {
                    id: entry.kind.to_string(),
                    unit: entry.kind.sample_unit.to_string(),
                    total: entry.total,
                    samples: entry.samples,
                })
                .collect(),
            samples: span.samples,
            cpu_nanos: span.cpu_nanos,
        }
    }
}

impl From<SpanListItem> for SpanRow {
    fn from(span: SpanListItem) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            trace_id: span.trace_id.map(|id| id.to_string()),
            service: span.service,
            name: span.name,
            samples: span.samples,
            cpu_nanos: span.cpu_nanos,
            from: span.range.start_ms,
            until: span.range.end_ms,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListParams {
    limit: Option<usize>,
    service: Option<String>,
    trace_id: Option<String>,
}

async fn spans(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<Json<SpanList>, ApiError> {
    let Query(params) = params.map_err(bad_query)?;
    let limit = params.limit.unwrap_or(DEFAULT_SPANS);
    if limit > MAX_SPANS {
        return Err(ApiError::invalid_argument(format!("limit: expected 0 to {MAX_SPANS}, got {limit}")));
    }
    let trace_id = params.trace_id.as_deref().map(|text| {
        text.parse::<TraceId>().map_err(|error| ApiError::invalid_argument(format!("traceId: {error}")))
    });
    let filter = SpanListFilter { service: params.service, trace_id: trace_id.transpose()? };
    let spans = app.compute(move |app| app.engine(&access).spans(&filter, limit)).await?;
    Ok(Json(SpanList { spans: spans.into_iter().map(SpanRow::from).collect() }))
}

async fn span(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Span>, ApiError> {
    let id = span_id(id)?;
    let engine = app.engine(&access);
    match find(&app, &engine, id).await? {
        Some(span) => {
            app.metrics.span_query(SpanOutcome::Hit);
            Ok(Json(span.into()))
        }
        None => Err(unknown_span(&app, &engine, id).await),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfileParams {
    #[serde(rename = "type")]
    profile_type: Option<String>,
    max_nodes: Option<i64>,
    format: Option<String>,
}

async fn profile(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    id: Result<Path<String>, PathRejection>,
    params: Result<Query<ProfileParams>, QueryRejection>,
) -> Result<Response, ApiError> {
    let id = span_id(id)?;
    let Query(params) = params.map_err(bad_query)?;
    let asked = params
        .profile_type
        .map(|text| text.parse().map_err(|error| ApiError::invalid_argument(format!("type: {error}"))))
        .transpose()?;
    let max_nodes = flame::max_nodes(params.max_nodes).map_err(|error| {
        ApiError::invalid_argument(error.message.unwrap_or_default().replace("max_nodes", "maxNodes"))
    })?;
    if let Some(format) = params.format.filter(|format| format != "flamegraph") {
        return Err(ApiError::invalid_argument(format!("format: expected flamegraph, got {format:?}")));
    }
    let engine = app.engine(&access);
    let Some(span) = find(&app, &engine, id).await? else {
        return Err(unknown_span(&app, &engine, id).await);
    };
    let profile_type = match asked.or_else(|| default_type(&span)) {
        Some(profile_type) => profile_type,
        None => {
            app.metrics.span_query(SpanOutcome::NoSamplesOfType);
            tracing::info!(reason = SpanOutcome::NoSamplesOfType.as_str(), span = %id, "span has no values");
            return Err(
                ApiError::not_found("the span has samples, but no values").with("reason", "no_values")
            );
        }
    };
    let selection = Selection { spans: SpanFilter::spans([id]), ..Selection::of(profile_type) };
    let query = FlameQuery {
        selection,
        selector_text: String::new(),
        max_nodes: Some(max_nodes),
        graph_nodes: max_nodes,
    };
    let graph =
        app.compute(move |app| Ok::<_, QueryError>(query.merge(app, &engine)?.flame_graph(max_nodes)));
    let flamegraph = flame::wire_graph(graph.await?).into();
    let answer = SelectMergeStacktracesResponse { flamegraph, ..Default::default() };
    let body = serde_json::to_vec(&answer).expect("a flame graph is JSON");
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn find(app: &Arc<App>, engine: &Engine, id: SpanId) -> Result<Option<SpanSummary>, QueryError> {
    let engine = engine.clone();
    app.compute(move |_| engine.span(id)).await
}

fn default_type(span: &SpanSummary) -> Option<crate::model::ProfileType> {
    let types = || span.types.iter().map(|entry| &entry.kind);
    types().find(|profile_type| profile_type.is_cpu_time()).or_else(|| types().next()).cloned()
}

fn span_id(id: Result<Path<String>, PathRejection>) -> Result<SpanId, ApiError> {
    let bad = |message: String| ApiError::invalid_argument(message).with("reason", "bad_span_id");
    let Path(text) = id.map_err(|error| bad(format!("span_id: {}", error.body_text())))?;
    text.parse::<SpanId>().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        let zero = if shown.len() == 16 && shown.bytes().all(|b| b == b'0') { ", not all zero" } else { "" };
        let hint = flame::template_hint(&text);
        bad(format!("span_id: expected 16 hexadecimal characters{zero}, got {shown:?}{hint}"))
    })
}

fn bad_query(error: QueryRejection) -> ApiError {
    ApiError::invalid_argument(format!("query: {}", error.body_text()))
}

async fn unknown_span(app: &Arc<App>, engine: &Engine, id: SpanId) -> ApiError {
    let engine = engine.clone();
    let stats = app.compute(move |_| engine.stats()).await;
    let mut hints = Vec::new();
    if stats.profiles == 0 {
        hints.push("the server has received no profiles yet: check the address that the service pushes to");
    } else if stats.spans == 0 {
        hints.push("no profile names a span: the service pushes profiles without span_id labels");
    } else {
        hints.push("the span may have used less CPU than one sampling period (10 ms at 100 Hz)");
        hints.push("profiles arrive up to one upload interval after the span ended");
        hints.push("the span may be of a service that is not profiled, or was not sampled by the tracer");
    }
    let outcome = SpanOutcome::UnknownSpan;
    app.metrics.span_query(outcome);
    tracing::info!(reason = outcome.as_str(), span = %id, "span look-up found no samples");
    ApiError::not_found(format!("no stored sample belongs to span {id}"))
        .with("reason", outcome.as_str())
        .with("hints", hints)
        .with(
            "store",
            serde_json::json!({
                "profiles": stats.profiles,
                "spans": stats.spans,
                "oldest": stats.oldest_ms,
                "newest": stats.newest_ms,
            }),
        )
}
