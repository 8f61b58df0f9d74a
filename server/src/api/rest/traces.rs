//! Finding traces: by service, span name, duration, status, attributes and time, page by page.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::params::{self, Pairs};
use super::told::millis;
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::model::TraceId;
use crate::traces::{FoundTrace, SpanStatus, TraceCursor, TraceSearch, TracedSpan};

/// Traces of one answer when the client names no number, and at most.
const DEFAULT_TRACES: usize = 50;
const MAX_TRACES: usize = 1000;
/// Attributes that one search may ask for.
const MAX_ATTRIBUTES: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SearchParams {
    service: Option<String>,
    name: Option<String>,
    min_duration: Option<String>,
    max_duration: Option<String>,
    status: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
pub(super) struct TraceList {
    traces: Vec<Row>,
    /// What `after` takes to ask for the page behind this one; none if this is the last.
    next: Option<String>,
    /// Whether the server has any traces at all.
    known: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    trace_id: String,
    service: String,
    name: String,
    start: f64,
    duration_nanos: i64,
    services: Vec<String>,
    span_count: usize,
    error_count: usize,
    match_count: usize,
    matched: Matched,
    samples: u64,
    cpu_nanos: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Matched {
    span_id: String,
    service: String,
    name: String,
    start: f64,
    duration_nanos: i64,
    status: &'static str,
}

impl Matched {
    fn new(span: &TracedSpan) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            service: span.origin.service.clone(),
            name: span.name.clone(),
            start: millis(span.start_nanos),
            duration_nanos: span.duration_nanos,
            status: span.status.as_str(),
        }
    }
}

pub(super) async fn traces(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Pairs { params, several }: Pairs<SearchParams>,
) -> Result<Json<TraceList>, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_TRACES);
    if limit > MAX_TRACES {
        return Err(ApiError::invalid_argument(format!("limit: expected 0 to {MAX_TRACES}, got {limit}")));
    }
    let since = bounds::since();
    let search = params.search(several)?;
    // One more tells whether there is another page.
    let asked = if limit == 0 { 0 } else { limit + 1 };
    let found = app.compute(move |app| {
        let tenants = access.readable();
        let mut traces = app.traces.search(&tenants, &search, asked)?;
        let more = traces.len() > limit;
        traces.truncate(limit);
        let ids: Vec<TraceId> = traces.iter().map(|found| found.matched.trace_id).collect();
        let totals = app.engine(&access).since(since).trace_totals(&ids)?;
        Ok::<_, ApiError>((traces, totals, more, app.traces.has_any(&tenants)))
    });
    let (traces, totals, more, known) = found.await?;
    let next = traces.last().filter(|_| more).map(|found| cursor_text(found.cursor()));
    let row = |found: FoundTrace| {
        let (samples, cpu_nanos) = totals.get(&found.matched.trace_id).copied().unwrap_or_default();
        Row {
            trace_id: found.matched.trace_id.to_string(),
            service: found.first.origin.service.clone(),
            name: found.first.name.clone(),
            start: millis(found.start_nanos),
            duration_nanos: found.duration_nanos,
            services: found.services,
            span_count: found.spans,
            error_count: found.errors,
            match_count: found.matches,
            matched: Matched::new(&found.matched),
            samples,
            cpu_nanos,
        }
    };
    Ok(Json(TraceList { traces: traces.into_iter().map(row).collect(), next, known }))
}

impl SearchParams {
    fn search(self, attributes: Vec<String>) -> Result<TraceSearch, ApiError> {
        let duration = |field: &str, text: Option<String>| text.map(|text| nanos(field, &text)).transpose();
        let (min_nanos, max_nanos) =
            (duration("minDuration", self.min_duration)?, duration("maxDuration", self.max_duration)?);
        if let Some((least, most)) = min_nanos.zip(max_nanos).filter(|(least, most)| least > most) {
            let message = format!(
                "minDuration, maxDuration: expected the first to be the shorter, got {least} ns and {most} ns"
            );
            return Err(ApiError::invalid_argument(message));
        }
        let status = self.status.map(|text| {
            SpanStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
                ApiError::invalid_argument(format!("status: expected unset, ok or error, got {text:?}"))
            })
        });
        if attributes.len() > MAX_ATTRIBUTES {
            let got = attributes.len();
            let message = format!("attribute: expected it {MAX_ATTRIBUTES} times at most, got {got}");
            return Err(ApiError::invalid_argument(message));
        }
        let attributes = attributes.into_iter().map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(ApiError::invalid_argument(format!("attribute: expected key=value, got {text:?}"))),
        });
        Ok(TraceSearch {
            service: self.service,
            name: self.name,
            min_nanos,
            max_nanos,
            status: status.transpose()?,
            attributes: attributes.collect::<Result<_, _>>()?,
            range: params::seen(params::range(self.from, self.until)?)?,
            after: self.after.map(|text| cursor(&text)).transpose()?,
        })
    }
}

/// Reads a duration: a number and a unit, as `250ms`; without a unit it counts nanoseconds.
fn nanos(field: &str, text: &str) -> Result<u64, ApiError> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    // A point has digits on both sides.
    let number = if number.starts_with('.') || number.ends_with('.') { "" } else { number };
    let factor = match unit {
        "" | "ns" => Some(1.0),
        "us" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        "m" => Some(60e9),
        "h" => Some(3600e9),
        _ => None,
    };
    let nanos = factor.zip(number.parse::<f64>().ok()).map(|(factor, number)| number * factor);
    let nanos = nanos.filter(|nanos| nanos.is_finite() && *nanos < u64::MAX as f64);
    nanos.map(|nanos| nanos as u64).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::invalid_argument(format!(
            "{field}: expected a duration such as 250ms or 1.5s, got {shown:?}"
        ))
    })
}

fn cursor_text(cursor: TraceCursor) -> String {
    format!("{}.{}", cursor.start_nanos, cursor.span_id)
}

fn cursor(text: &str) -> Result<TraceCursor, ApiError> {
    let read = || {
        let (start, span_id) = text.split_once('.')?;
        Some(TraceCursor { start_nanos: start.parse().ok()?, span_id: span_id.parse().ok()? })
    };
    read().ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ApiError::invalid_argument(format!("after: expected what `next` was in an answer, got {shown:?}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back_as_they_went(start_nanos in any::<u64>(), id in 1..u64::MAX) {
            let sent = TraceCursor { start_nanos, span_id: crate::model::SpanId::new(id).unwrap() };
            prop_assert_eq!(cursor(&cursor_text(sent)).unwrap(), sent);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = (cursor(&text), nanos("x", &text));
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, wanted) in [
            ("7", 7),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("2us", 2_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(nanos("x", text).unwrap(), wanted, "{text}");
        }
        for bad in
            ["", "ms", "1 s", "-1s", "1.2.3s", "1d", ".5s", "5.s", "99999999999999999999h", "NaN", "inf"]
        {
            assert!(nanos("x", bad).is_err(), "{bad}");
        }
    }
}
