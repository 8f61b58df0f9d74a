//! Why a query is empty: the first check that no sample passed, in plain words, and what to do.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Total;
use super::causes::{self, Cause};
use super::params::{self, Params};
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::model::{SpanId, TraceId};
use crate::query::{EmptyReason, ExplainQuery, Explanation, SpanFilter, TypeTotal};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParams {
    span: Option<String>,
    trace: Option<String>,
    r#type: Option<String>,
    selector: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    empty: bool,
    reason: &'static str,
    message: String,
    advice: Option<String>,
    causes: Vec<Cause>,
    samples: Samples,
    #[serde(rename = "profileTypes")]
    profile_types: Vec<Total>,
    matchers: Vec<Finding>,
    window: Option<Window>,
    losses: Vec<Lost>,
    store: Value,
}

/// Samples left after each check.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Samples {
    found: u64,
    of_type: u64,
    selected: u64,
    in_window: u64,
}

#[derive(Serialize)]
struct Finding {
    matcher: String,
    samples: u64,
    others: Vec<String>,
}

#[derive(Serialize)]
struct Window {
    from: i64,
    until: i64,
}

#[derive(Serialize)]
struct Lost {
    cause: String,
    samples: u64,
}

/// What the question is about.
enum Subject {
    Span(SpanId),
    Trace(TraceId),
    Everything,
}

impl Subject {
    fn filter(&self) -> SpanFilter {
        match *self {
            Self::Span(id) => SpanFilter::spans([id]),
            Self::Trace(id) => SpanFilter::traces([id]),
            Self::Everything => SpanFilter::default(),
        }
    }

    /// How sentences name it.
    fn name(&self) -> String {
        match self {
            Self::Span(id) => format!("span {id}"),
            Self::Trace(id) => format!("trace {id}"),
            Self::Everything => "the store".to_owned(),
        }
    }
}

pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(params): Params<ExplainParams>,
) -> Result<Json<Answer>, ApiError> {
    let subject = match (&params.span, &params.trace) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid_argument("span, trace: expected one of them, got both"));
        }
        (Some(span), None) => Subject::Span(params::span_id("span", span)?),
        (None, Some(trace)) => Subject::Trace(params::trace_id("trace", trace)?),
        (None, None) => Subject::Everything,
    };
    let named = params::range(params.from, params.until)?;
    // A query that limits refuse is one of those that this is asked about.
    let seen = match subject {
        Subject::Everything => bounds::range(named),
        Subject::Span(_) | Subject::Trace(_) => bounds::range_by_id(named),
    };
    let (seen, refused) = match seen {
        Ok(seen) => (seen, None),
        Err(error) => (named, error.message),
    };
    let answer = app.compute(move |app| {
        let query = ExplainQuery {
            filter: subject.filter(),
            kind: params.r#type.as_deref().map(params::profile_type).transpose()?,
            selector: params::selector(params.selector.as_deref())?,
            range: seen,
        };
        let engine = app.engine(&access);
        let explanation = engine.explain(&query)?;
        let stats = engine.stats();
        let reason = explanation.reason();
        let causes = match reason {
            Some(EmptyReason::UnknownSpan) => {
                causes::of_missing_spans(app, &access.readable(), &stats, &explanation.losses, query.range)
            }
            _ => Vec::new(),
        };
        let too_long = refused.is_some();
        let hidden = explanation.reason() == Some(EmptyReason::OutsideWindow)
            && seen != named
            && named.is_none_or(|named| explanation.window.is_some_and(|window| named.overlaps(&window)));
        let (message, advice) = match refused {
            Some(refusal) => (refusal, Some("ask for a shorter time, or raise the limit".to_owned())),
            None if hidden => hidden_by_limits(&subject, &explanation),
            None => told(&subject, &query, &explanation),
        };
        Ok::<_, ApiError>(Answer {
            empty: reason.is_some() || too_long,
            reason: match reason {
                _ if too_long || hidden => "limits",
                None => "hit",
                Some(EmptyReason::UnknownSpan) if query.filter.is_empty() => "no_profiles",
                Some(reason) => reason.as_str(),
            },
            message,
            advice,
            causes,
            samples: Samples {
                found: explanation.stages.found,
                of_type: explanation.stages.of_type,
                selected: explanation.stages.selected,
                in_window: explanation.stages.in_window,
            },
            profile_types: Total::all(&explanation.types),
            matchers: explanation
                .matchers
                .into_iter()
                .map(|found| Finding { matcher: found.matcher, samples: found.samples, others: found.others })
                .collect(),
            window: explanation.window.map(|window| Window { from: window.start_ms, until: window.end_ms }),
            losses: explanation
                .losses
                .into_iter()
                .map(|loss| Lost { cause: loss.cause.into(), samples: loss.samples })
                .collect(),
            store: causes::store(&stats),
        })
    });
    Ok(Json(answer.await?))
}

/// The reason in a plain sentence, and what to do.
fn told(subject: &Subject, query: &ExplainQuery, explanation: &Explanation) -> (String, Option<String>) {
    let name = subject.name();
    let stages = &explanation.stages;
    match explanation.reason() {
        None => (format!("{name} has {} such samples", stages.in_window), None),
        Some(EmptyReason::UnknownSpan) => match subject {
            Subject::Everything => ("no profile is stored".to_owned(), None),
            _ => (format!("no stored sample belongs to {name}"), None),
        },
        Some(EmptyReason::NoSamplesOfType) => {
            let wanted = query.kind.as_ref().map(ToString::to_string).unwrap_or_default();
            let had = types(&explanation.types);
            (
                format!("{name} has {} samples, but none of type {wanted}", stages.found),
                Some(format!("ask for a type that it has: {had}")),
            )
        }
        Some(EmptyReason::SelectorMismatch) => mismatch(&name, explanation),
        Some(EmptyReason::OutsideWindow) => {
            let fits = explanation.window.map(|w| (w.start_ms, w.end_ms)).unwrap_or_default();
            (
                format!(
                    "{name} has {} such samples, in profiles from {} to {} (Unix milliseconds), which is outside \
                     of the time asked for",
                    stages.selected, fits.0, fits.1
                ),
                Some(format!("ask for from={} and until={}, or for no time at all", fits.0, fits.1)),
            )
        }
    }
}

fn hidden_by_limits(subject: &Subject, explanation: &Explanation) -> (String, Option<String>) {
    let (name, samples) = (subject.name(), explanation.stages.selected);
    (
        format!("{name} has {samples} such samples, but they are longer ago than queries see"),
        Some("raise the limits max_query_lookback_ms and max_query_length_ms".to_owned()),
    )
}

fn mismatch(name: &str, explanation: &Explanation) -> (String, Option<String>) {
    let samples = explanation.stages.of_type;
    let guilty: Vec<_> = explanation.matchers.iter().filter(|found| found.samples == 0).collect();
    if guilty.is_empty() {
        return (
            format!("{name} has {samples} such samples, but none that all matchers together let through"),
            Some("leave a matcher out: each of them lets some samples through".to_owned()),
        );
    }
    let matchers: Vec<&str> = guilty.iter().map(|found| found.matcher.as_str()).collect();
    let values = guilty.iter().map(|found| {
        let values = found.others.iter().map(|value| match value.as_str() {
            "" => "no such label".to_owned(),
            value => format!("{value:?}"),
        });
        format!("instead of {} there is {}", found.matcher, values.collect::<Vec<_>>().join(", "))
    });
    let values: Vec<String> = values.collect();
    (
        format!(
            "{name} has {samples} such samples, but {} lets none of them through",
            matchers.join(" and ")
        ),
        Some(format!("{}: ask for that, or leave the matcher out", values.join("; "))),
    )
}

fn types(types: &[TypeTotal]) -> String {
    types.iter().map(|of_type| of_type.kind.to_string()).collect::<Vec<_>>().join(", ")
}
