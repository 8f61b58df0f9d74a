//! The service: its routes, and the spans in which they work. Knows `tracing` only; no line here is about profiles.

use std::time::Duration;

use axum::extract::Query;
use axum::routing::get;
use axum::{Json, Router};
use example_work::slice;
use opentelemetry::trace::TraceContextExt as _;
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::work;

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/checkout", get(checkout))
        .route("/search", get(search))
        .route("/health", get(health))
}

/// Which span a request was: enough to look its profile up.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Handled {
    span_id: String,
    pub(crate) name: String,
    trace_id: String,
}

impl Handled {
    fn current(name: &str) -> Json<Self> {
        let context = Span::current().context();
        let span = context.span();
        let span = span.span_context();
        Json(Self {
            span_id: span.span_id().to_string(),
            name: name.to_owned(),
            trace_id: span.trace_id().to_string(),
        })
    }
}

/// What each part of a checkout costs, in milliseconds of CPU time.
#[derive(Deserialize)]
#[serde(default)]
struct Checkout {
    authorize_ms: u16,
    price_ms: u16,
    verify_ms: u16,
    stock_ms: u16,
    render_ms: u16,
}

impl Default for Checkout {
    fn default() -> Self {
        Self { authorize_ms: 10, price_ms: 30, verify_ms: 60, stock_ms: 20, render_ms: 20 }
    }
}

#[tracing::instrument(name = "GET /checkout", skip_all, fields(otel.kind = "server"))]
async fn checkout(Query(cost): Query<Checkout>) -> Json<Handled> {
    in_slices(cost.authorize_ms, work::authorize_customer).await;
    price(cost.price_ms).await;
    // Two spans that take turns within one task.
    tokio::join!(verify(cost.verify_ms), reserve(cost.stock_ms));

    // A span goes to another thread by being moved there and entered there.
    let receipt = tracing::info_span!("render receipt");
    let render = move || receipt.in_scope(|| work::render_receipt(milliseconds(cost.render_ms)));
    tokio::task::spawn_blocking(render).await.expect("rendering does not panic");
    Handled::current("GET /checkout")
}

#[tracing::instrument(name = "price cart", skip_all)]
async fn price(cpu_ms: u16) {
    in_slices(cpu_ms, work::price_cart).await;
}

#[tracing::instrument(name = "verify payment", skip_all)]
async fn verify(cpu_ms: u16) {
    in_slices(cpu_ms, work::verify_payment).await;
}

#[tracing::instrument(name = "reserve stock", skip_all)]
async fn reserve(cpu_ms: u16) {
    in_slices(cpu_ms, work::reserve_stock).await;
}

/// What each part of a search costs, in milliseconds of CPU time.
#[derive(Deserialize)]
#[serde(default)]
struct Search {
    parse_ms: u16,
    rank_ms: u16,
}

impl Default for Search {
    fn default() -> Self {
        Self { parse_ms: 10, rank_ms: 30 }
    }
}

#[tracing::instrument(name = "GET /search", skip_all, fields(otel.kind = "server"))]
async fn search(Query(cost): Query<Search>) -> Json<Handled> {
    in_slices(cost.parse_ms, work::parse_query).await;
    rank(cost.rank_ms).await;
    Handled::current("GET /search")
}

#[tracing::instrument(name = "rank products", skip_all)]
async fn rank(cpu_ms: u16) {
    in_slices(cpu_ms, work::rank_products).await;
}

/// What a probe costs, in milliseconds of CPU time.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Health {
    probe_ms: u16,
}

#[tracing::instrument(name = "GET /health", skip_all, fields(otel.kind = "server"))]
async fn health(Query(cost): Query<Health>) -> Json<Handled> {
    in_slices(cost.probe_ms, work::probe_dependencies).await;
    Handled::current("GET /health")
}

/// Spends the CPU time in short slices and lets other tasks run in between, as a handler does that awaits a database.
/// The spans of several requests so take turns on every worker thread.
async fn in_slices(cpu_ms: u16, work: fn(Duration) -> Duration) {
    let mut left = milliseconds(cpu_ms);
    while !left.is_zero() {
        left = left.saturating_sub(work(left.min(slice())));
        tokio::task::yield_now().await;
    }
}

fn milliseconds(cpu_ms: u16) -> Duration {
    Duration::from_millis(cpu_ms.into())
}
