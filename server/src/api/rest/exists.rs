//! Whether spans have samples, for many of them in one call: whoever shows a trace asks it for every span.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::params;
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::json;
use crate::model::SpanId;
use crate::query::SpanTotals;

/// Ids of one call.
const MAX_IDS: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Asked {
    span_ids: Vec<String>,
    roll_up: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct Answers {
    spans: Vec<Answer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    span_id: String,
    exists: bool,
    samples: u64,
    cpu_nanos: i64,
}

pub(super) async fn spans(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answers>, ApiError> {
    let asked = read(&headers, body)?;
    if asked.span_ids.len() > MAX_IDS {
        let got = asked.span_ids.len();
        return Err(ApiError::invalid_argument(format!(
            "spanIds: expected at most {MAX_IDS} ids, got {got}"
        )));
    }
    let numbered = asked.span_ids.iter().enumerate();
    let ids = numbered.map(|(at, text)| params::span_id(&format!("spanIds[{at}]"), text));
    let ids = ids.collect::<Result<Vec<SpanId>, ApiError>>()?;
    let roll_up = asked.roll_up.unwrap_or(true);
    let since = bounds::since();
    let answers = app.compute(move |app| {
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let totals = app.engine(&access).since(since).span_totals(&distinct, roll_up)?;
        let totals: HashMap<SpanId, _> = distinct.into_iter().zip(totals).collect();
        let answer = |id: SpanId| {
            let found: Option<SpanTotals> = totals[&id];
            Answer {
                span_id: id.to_string(),
                exists: found.is_some(),
                samples: found.map_or(0, |found| found.samples),
                cpu_nanos: found.map_or(0, |found| found.cpu_nanos),
            }
        };
        Ok::<_, ApiError>(ids.into_iter().map(answer).collect())
    });
    Ok(Json(Answers { spans: answers.await? }))
}

fn read(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Asked, ApiError> {
    let of = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or_default());
    let media = of.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let message = "content-type: expected application/json";
        return Err(ApiError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let bad = |what: String| ApiError::invalid_argument(format!("request body: {what}"));
    let body = body.map_err(|error| bad(error.body_text()))?;
    json::check(&body).map_err(bad)?;
    serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))
}
