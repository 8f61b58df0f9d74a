//! What requests say: ids in the path, and what follows the `?`. Refusals name the field and what was expected.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::Uri;
use axum::http::request::Parts;
use connectrpc::ConnectError;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::api::bounds::OPEN;
use crate::api::error::ApiError;
use crate::api::{bounds, flame};
use crate::model::{ProfileType, SpanId, TimeRange, TraceId};
use crate::selector::LabelSelector;

/// What follows the `?`.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::invalid_argument(format!("query: {}", error.body_text())))?;
        Ok(Self(params))
    }
}

/// The same where `attribute` may be given several times.
pub(super) struct Pairs<T> {
    pub(super) params: T,
    pub(super) several: Vec<String>,
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Pairs<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bad = |error: QueryRejection| ApiError::invalid_argument(format!("query: {}", error.body_text()));
        let Query(pairs): Query<Vec<(String, String)>> = Query::try_from_uri(&parts.uri).map_err(bad)?;
        let (several, once): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|(name, _)| name == "attribute");
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let once: Vec<String> =
            once.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let uri = Uri::builder().path_and_query(format!("/?{}", once.join("&"))).build();
        let uri = uri.map_err(|error| ApiError::invalid_argument(format!("query: {error}")))?;
        let Query(params) = Query::try_from_uri(&uri).map_err(bad)?;
        Ok(Self { params, several: several.into_iter().map(|(_, value)| value).collect() })
    }
}

/// A span's id in the path.
pub(super) struct SpanPath(pub(super) SpanId);

impl<S: Send + Sync> FromRequestParts<S> for SpanPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = |error: ApiError| error.with("reason", "bad_span_id");
        let text = segment(parts, state, "span_id").await.map_err(bad)?;
        span_id("span_id", &text).map(Self).map_err(bad)
    }
}

/// A trace's id in the path.
pub(super) struct TracePath(pub(super) TraceId);

impl<S: Send + Sync> FromRequestParts<S> for TracePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = |error: ApiError| error.with("reason", "bad_trace_id");
        let text = segment(parts, state, "trace_id").await.map_err(bad)?;
        trace_id("trace_id", &text).map(Self).map_err(bad)
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, field: &str) -> Result<String, ApiError> {
    let Path(text) = Path::from_request_parts(parts, state)
        .await
        .map_err(|error| ApiError::invalid_argument(format!("{field}: {}", error.body_text())))?;
    Ok(text)
}

/// Reads a span's id.
pub(super) fn span_id(field: &str, text: &str) -> Result<SpanId, ApiError> {
    text.parse().map_err(|_| bad_id(field, 16, text))
}

/// Reads a trace's id.
pub(super) fn trace_id(field: &str, text: &str) -> Result<TraceId, ApiError> {
    text.parse().map_err(|_| bad_id(field, 32, text))
}

fn bad_id(field: &str, length: usize, text: &str) -> ApiError {
    let shown: String = text.chars().take(64).collect();
    let zero = if shown.len() == length && shown.bytes().all(|b| b == b'0') { ", not all zero" } else { "" };
    let hint = flame::template_hint(text);
    ApiError::invalid_argument(format!(
        "{field}: expected {length} hexadecimal characters{zero}, got {shown:?}{hint}"
    ))
}

/// Reads a profile type.
pub(super) fn profile_type(text: &str) -> Result<ProfileType, ApiError> {
    text.parse().map_err(|error| ApiError::invalid_argument(format!("type: {error}")))
}

/// Reads a label selector; none and the empty one let everything through.
pub(super) fn selector(text: Option<&str>) -> Result<LabelSelector, ApiError> {
    LabelSelector::parse(text.unwrap_or_default())
        .map_err(|error| ApiError::invalid_argument(format!("selector: {error}")))
}

/// What the request may see of the time that it names.
pub(super) fn seen(named: Option<TimeRange>) -> Result<Option<TimeRange>, ApiError> {
    bounds::range(named).map_err(of_query)
}

/// The same for a request that looks a span or a trace up.
pub(super) fn seen_by_id(named: Option<TimeRange>) -> Result<Option<TimeRange>, ApiError> {
    bounds::range_by_id(named).map_err(of_query)
}

/// A refusal of a range in the words of these routes.
fn of_query(error: ConnectError) -> ApiError {
    ApiError::invalid_argument(error.message.unwrap_or_default().replace("start, end", "from, until"))
}

/// Reads a time in Unix milliseconds, either end of which may be open; none where both are.
pub(super) fn range(from: Option<i64>, until: Option<i64>) -> Result<Option<TimeRange>, ApiError> {
    if from.is_none() && until.is_none() {
        return Ok(None);
    }
    let (from, until) = (from.unwrap_or(OPEN.start_ms), until.unwrap_or(OPEN.end_ms));
    TimeRange::new(from, until).map(Some).ok_or_else(|| {
        ApiError::invalid_argument(format!("from, until: expected from <= until, got {from} and {until}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_end_of_a_range_may_be_open() {
        let read =
            |from, until| range(from, until).ok().flatten().map(|range| (range.start_ms, range.end_ms));
        assert_eq!(read(None, None), None);
        assert_eq!(read(Some(5), None), Some((5, i64::MAX)));
        assert_eq!(read(None, Some(5)), Some((i64::MIN, 5)));
        assert_eq!(read(Some(5), Some(5)), Some((5, 5)));
        assert!(range(Some(6), Some(5)).is_err());
    }
}
