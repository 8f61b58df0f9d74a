//! Which spans there are: the top ones, of a service, of a name, of a time; page by page.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::params::{self, Params};
use super::told::{self, millis};
use crate::api::App;
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::model::SpanId;
use crate::query::{SpanCursor, SpanListFilter, SpanListItem, SpanOrder, SpanUnder};
use crate::traces::TracedFacts;

/// Spans of one answer when the client names no number, and at most.
const DEFAULT_SPANS: usize = 100;
const MAX_SPANS: usize = 10_000;
/// Spans of one answer whose traces are looked up.
const MAX_TRACED: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListParams {
    limit: Option<usize>,
    service: Option<String>,
    trace_id: Option<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    profile_type: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
    sort: Option<String>,
    after: Option<String>,
    function: Option<String>,
}

#[derive(Serialize)]
pub(super) struct SpanList {
    spans: Vec<Row>,
    /// What `after` takes to ask for the page behind this one; none if this is the last.
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    span_id: String,
    trace_id: Option<String>,
    service: String,
    name: Option<String>,
    samples: u64,
    cpu_nanos: i64,
    /// Of the type asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    from: i64,
    until: i64,
    /// From its trace, where that is known and not too many spans are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_nanos: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// Under the function asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    function_nanos: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_samples: Option<u64>,
}

impl Row {
    fn new(span: SpanListItem, typed: bool) -> Self {
        Self {
            span_id: span.span_id.to_string(),
            trace_id: span.trace_id.map(|id| id.to_string()),
            service: span.service,
            name: span.name,
            samples: span.samples,
            cpu_nanos: span.cpu_nanos,
            total: typed.then_some(span.total),
            from: span.range.start_ms,
            until: span.range.end_ms,
            start: None,
            duration_nanos: None,
            status: None,
            function_nanos: None,
            function_samples: None,
        }
    }

    fn with(self, traced: Option<&TracedFacts>) -> Self {
        let Some(traced) = traced else { return self };
        Self {
            start: Some(millis(traced.start_nanos)),
            duration_nanos: Some(traced.duration_nanos),
            status: Some(traced.status.as_str()),
            ..self
        }
    }

    fn under(span: SpanUnder) -> Self {
        let (nanos, samples) = (span.item.total, span.samples);
        Self { function_nanos: Some(nanos), function_samples: Some(samples), ..Self::new(span.item, false) }
    }
}

pub(super) async fn spans(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(params): Params<ListParams>,
) -> Result<Json<SpanList>, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_SPANS);
    if limit > MAX_SPANS {
        return Err(ApiError::invalid_argument(format!("limit: expected 0 to {MAX_SPANS}, got {limit}")));
    }
    // One more tells whether there is another page.
    let asked = if limit == 0 { 0 } else { limit + 1 };
    if params.function.is_some() {
        return under(app, access, params, limit, asked).await;
    }
    let spans = app.compute(move |app| {
        let filter = params.filter(None)?;
        let mut spans = app.engine(&access).spans(&filter, asked)?;
        let (order, typed) = (filter.order, filter.kind.is_some());
        let more = spans.len() > limit;
        spans.truncate(limit);
        let next = spans.last().filter(|_| more).map(|span| cursor_text(order, span.cursor(order)));
        let known = known(app, &access, &spans)?;
        let row = |span: SpanListItem| {
            let traced = known.get(&span.span_id);
            Row::new(span, typed).with(traced)
        };
        Ok::<_, ApiError>(Json(SpanList { spans: spans.into_iter().map(row).collect(), next }))
    });
    spans.await
}

/// What traces tell of the spans of a list, if it is not too long.
fn known<'a>(
    app: &App,
    access: &Access,
    spans: impl IntoIterator<Item = &'a SpanListItem, IntoIter: ExactSizeIterator>,
) -> Result<HashMap<SpanId, TracedFacts>, ApiError> {
    let spans = spans.into_iter();
    if spans.len() > MAX_TRACED {
        return Ok(HashMap::new());
    }
    let asked: Vec<_> = spans.map(|span| (span.trace_id, span.span_id)).collect();
    told::where_known(app.traces.facts(&access.readable(), &asked))
}

/// The spans with most CPU time under a function.
async fn under(
    app: Arc<App>,
    access: Access,
    mut params: ListParams,
    limit: usize,
    asked: usize,
) -> Result<Json<SpanList>, ApiError> {
    let function = params.function.take().unwrap_or_default();
    if function.is_empty() {
        return Err(ApiError::invalid_argument("function: expected a function's name, got an empty one"));
    }
    if params.profile_type.is_some() {
        return Err(ApiError::invalid_argument(
            "type: has no meaning with function, which is about CPU time",
        ));
    }
    if let Some(sort) = params.sort.as_deref().filter(|sort| *sort != name_of(SpanOrder::Function)) {
        let message = format!("sort: with function the list can only be sorted by it, got {sort:?}");
        return Err(ApiError::invalid_argument(message));
    }
    let spans = app.compute(move |app| {
        let filter = params.filter(Some(SpanOrder::Function))?;
        let mut spans = app.engine(&access).spans_under(&function, &filter, asked)?;
        let more = spans.len() > limit;
        spans.truncate(limit);
        let cursor = |span: &SpanUnder| {
            let cursor = SpanCursor { samples: span.samples, ..span.item.cursor(SpanOrder::Function) };
            cursor_text(SpanOrder::Function, cursor)
        };
        let next = spans.last().filter(|_| more).map(cursor);
        let items: Vec<SpanListItem> = spans.iter().map(|span| span.item.clone()).collect();
        let known = known(app, &access, &items)?;
        let row = |span: SpanUnder| {
            let traced = known.get(&span.item.span_id);
            Row::under(span).with(traced)
        };
        Ok::<_, ApiError>(Json(SpanList { spans: spans.into_iter().map(row).collect(), next }))
    });
    spans.await
}

impl ListParams {
    fn filter(self, order: Option<SpanOrder>) -> Result<SpanListFilter, ApiError> {
        let kind = self.profile_type.as_deref().map(params::profile_type).transpose()?;
        let order = match self.sort.as_deref() {
            _ if order == Some(SpanOrder::Function) => SpanOrder::Function,
            None if kind.is_some() => SpanOrder::Total,
            None => SpanOrder::Cpu,
            Some(name) => {
                ORDERS.into_iter().find(|(known, _)| *known == name).map(|(_, order)| order).ok_or_else(
                    || {
                        ApiError::invalid_argument(format!(
                            "sort: expected cpu, samples, total or newest, got {name:?}"
                        ))
                    },
                )?
            }
        };
        if order == SpanOrder::Total && kind.is_none() {
            return Err(ApiError::invalid_argument("sort: total is that of a type, and type is missing"));
        }
        Ok(SpanListFilter {
            service: self.service,
            trace_id: self.trace_id.map(|text| params::trace_id("traceId", &text)).transpose()?,
            name: self.name,
            kind,
            range: params::seen(params::range(self.from, self.until)?)?,
            order,
            after: self.after.map(|text| cursor(order, &text)).transpose()?,
        })
    }
}

const ORDERS: [(&str, SpanOrder); 4] = [
    ("cpu", SpanOrder::Cpu),
    ("samples", SpanOrder::Samples),
    ("total", SpanOrder::Total),
    ("newest", SpanOrder::Newest),
];

fn name_of(order: SpanOrder) -> &'static str {
    if order == SpanOrder::Function {
        return "function";
    }
    ORDERS.into_iter().find(|(_, known)| *known == order).map_or("", |(name, _)| name)
}

/// A place in the list for the client to give back.
fn cursor_text(order: SpanOrder, cursor: SpanCursor) -> String {
    let SpanCursor { rank, samples, span_id } = cursor;
    format!("{}.{rank}.{samples}.{span_id}", name_of(order))
}

fn cursor(order: SpanOrder, text: &str) -> Result<SpanCursor, ApiError> {
    let name = name_of(order);
    let parts: Vec<&str> = text.splitn(5, '.').collect();
    let read = || match parts[..] {
        [of, rank, samples, span_id] if of == name => Some(SpanCursor {
            rank: rank.parse().ok()?,
            samples: samples.parse().ok()?,
            span_id: span_id.parse().ok()?,
        }),
        _ => None,
    };
    read().ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        let message = format!("after: expected what `next` was in an answer sorted by {name}, got {shown:?}");
        ApiError::invalid_argument(message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cursors_come_back_as_they_went(
            order in prop::sample::select(ORDERS.map(|(_, order)| order).to_vec()),
            rank in any::<i64>(),
            samples in any::<u64>(),
            id in 1..u64::MAX,
        ) {
            let span_id = crate::model::SpanId::new(id).unwrap();
            let sent = SpanCursor { rank, samples, span_id };
            prop_assert_eq!(cursor(order, &cursor_text(order, sent)).unwrap(), sent);
        }

        #[test]
        fn no_cursor_panics(text in ".{0,80}") {
            let _ = cursor(SpanOrder::Cpu, &text);
        }
    }

    #[test]
    fn a_cursor_of_another_order_is_refused() {
        let span_id = crate::model::SpanId::new(1).unwrap();
        let text = cursor_text(SpanOrder::Samples, SpanCursor { rank: 1, samples: 1, span_id });
        assert!(cursor(SpanOrder::Cpu, &text).is_err());
    }
}
