//! What may be behind samples that are not there: what the server knows of itself, and what it cannot know.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::{App, bounds};
use crate::ingest::Limits;
use crate::model::{Loss, TenantId, TimeRange};
use crate::query::{QueryError, SpanFilter, Stats};
use crate::settings::Settings;
use crate::telemetry::SpanOutcome;

/// Something that may be behind missing samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Cause {
    reason: &'static str,
    message: String,
    advice: String,
}

impl Cause {
    fn new(reason: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason, message: message.into(), advice: advice.into() }
    }
}

/// Reasons beside the names of limits under which the metrics count profiles that were refused, and what to do about each.
const REFUSALS: [(&str, &str); 3] = [
    ("invalid_profile", "a refusal names what is wrong with the profile: see the sender's log"),
    ("invalid_body", "a refusal names what is wrong with the request: see the sender's log"),
    ("store", "the disk did not take what was sent: see the server's log and spanflame_store_accepts_writes"),
];
/// Limits beside those of a tenant that profiles are refused for.
const LIMITS: [&str; 4] =
    ["max_inflight_bytes", "max_head_bytes", "max_ingest_requests", "ingest_timeout_ms"];

/// What may be behind samples of spans that are not there, the surest first.
pub(super) fn of_missing_spans(
    app: &App,
    tenants: &[TenantId],
    stats: &Stats,
    losses: &[Loss],
    window: Option<TimeRange>,
) -> Vec<Cause> {
    if stats.profiles == 0 {
        let message = "the server has received no profiles yet";
        let advice = "check the address that the service pushes to";
        return [Cause::new("no_profiles", message, advice)]
            .into_iter()
            .chain(refused(app, tenants))
            .collect();
    }
    let mut causes = Vec::new();
    causes.extend(expired(app, stats, window));
    causes.extend(losses.iter().map(lost));
    causes.extend(refused(app, tenants));
    if stats.spans == 0 {
        let message = "no profile names a span";
        let advice = "the service pushes profiles without span_id labels";
        causes.push(Cause::new("no_spans", message, advice));
        return causes;
    }
    causes.push(Cause::new(
        "too_short",
        "the span may have used less CPU than one sampling period (10 ms at 100 Hz)",
        "look at a longer span, or sample more often",
    ));
    causes.push(Cause::new(
        "not_pushed_yet",
        "profiles arrive up to one upload interval after the span ended",
        "ask again in a few seconds",
    ));
    causes.push(Cause::new(
        "not_profiled",
        "the span may be of a service that is not profiled, or was not sampled by the tracer",
        "compare its service with those of GET /api/v1/spans",
    ));
    causes
}

/// Profiles that have reached their retention.
fn expired(app: &App, stats: &Stats, window: Option<TimeRange>) -> Option<Cause> {
    // The count is of all tenants, of which one learns nothing.
    let expired = if app.config.multi_tenant { 0 } else { app.store.status().expired_profiles };
    let oldest = stats.oldest_ms?;
    let before = window.is_none_or(|window| window.start_ms < oldest);
    (expired > 0 && before).then(|| {
        let kept = format!("what is kept begins at {oldest} (Unix milliseconds)");
        Cause::new(
            "expired",
            format!("older profiles have reached their retention: {kept}"),
            "raise retention_ms or retention_bytes",
        )
    })
}

/// What a sender said that it lost.
fn lost(loss: &Loss) -> Cause {
    let Loss { cause, samples } = loss;
    Cause::new("lost_by_sender", format!("the sender lost {samples} samples ({cause})"), lost_advice(cause))
}

/// What to do about a loss, by the name that the bridge gives it.
fn lost_advice(cause: &str) -> &'static str {
    match cause {
        "ring_full" => {
            "the service took samples faster than they were collected: lower its sampling frequency"
        }
        "window_full" => "one upload interval held too many distinct stacks: push more often",
        "labels" => {
            "more spans were active than labels are kept for: they are in the profile without their span"
        }
        "threads_refused" | "timers_refused" => {
            "the system gave no timer to some threads: raise the limit on pending signals (ulimit -i)"
        }
        "handler_replaced" | "other_timer" => {
            "another profiler took the service's signal: run one of the two"
        }
        "exporter_busy" | "queue_full" => {
            "pushing took too long: look at the network and at the server's load"
        }
        "rejected" => "the server refused what the service sent: see the service's log",
        _ => "see the statistics of the service's profiler",
    }
}

/// Profiles that were refused since the server was started, of these tenants where tenants are kept apart.
fn refused(app: &App, tenants: &[TenantId]) -> impl Iterator<Item = Cause> {
    let of = Some(tenants).filter(|_| app.config.multi_tenant);
    let known = REFUSALS.into_iter().map(|(reason, advice)| (reason, advice.to_owned()));
    let limits = Limits::ALL.iter().map(|limit| limit.name).chain(LIMITS).map(|limit| {
        let told = "a refusal names the value that was seen: see the sender's log";
        (limit, format!("send less, or raise {limit}; {told}"))
    });
    limits.chain(known).filter(|(reason, _)| !is_of_queries(reason)).filter_map(move |(reason, advice)| {
        let count = app.metrics.refused(reason, of);
        let message = format!("profiles were refused since the server was started ({reason})");
        (count > 0).then(|| Cause::new("refused", message, advice))
    })
}

/// Whether a limit is about what is asked for, and not about what is sent.
fn is_of_queries(limit: &str) -> bool {
    limit.starts_with("max_query_") || limit.ends_with("_flamegraph_nodes")
}

/// What there is in the store at all.
pub(super) fn store(stats: &Stats) -> Value {
    json!({
        "profiles": stats.profiles,
        "spans": stats.spans,
        "oldest": stats.oldest_ms,
        "newest": stats.newest_ms,
    })
}

/// The answer for a span or a trace without a sample, or with none that queries see: counted, logged, and with what may be
/// behind it.
pub(super) async fn unknown(
    app: &Arc<App>,
    access: &Access,
    what: &str,
    id: String,
    filter: SpanFilter,
) -> ApiError {
    let (engine, tenants, limited) = (app.engine(access), access.readable(), bounds::since().is_some());
    let found = app.compute(move |app| {
        let stats = engine.stats();
        // Looked for once more without the limit.
        let hidden = if limited { engine.samples(&filter)? } else { 0 };
        Ok::<_, QueryError>((stats, hidden, of_missing_spans(app, &tenants, &stats, &[], None)))
    });
    let (stats, hidden, causes) = match found.await {
        Ok(found) => found,
        Err(error) => return error.into(),
    };
    if hidden > 0 {
        let outcome = SpanOutcome::OutsideWindow;
        app.metrics.span_query(outcome);
        tracing::info!(reason = outcome.as_str(), id, "{what} look-up found samples too long ago");
        return ApiError::not_found(format!(
            "{what} {id} has {hidden} samples, but they are longer ago than queries see: raise max_query_lookback_ms"
        ))
        .with("reason", "limits")
        .with("store", store(&stats));
    }
    let outcome = SpanOutcome::UnknownSpan;
    app.metrics.span_query(outcome);
    tracing::info!(reason = outcome.as_str(), id, "{what} look-up found no samples");
    let hints: Vec<String> =
        causes.iter().map(|Cause { message, advice, .. }| format!("{message}: {advice}")).collect();
    ApiError::not_found(format!("no stored sample belongs to {what} {id}"))
        .with("reason", outcome.as_str())
        .with("hints", hints)
        .with("store", store(&stats))
}
