//! Whether the server is up, what it is and what it counted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::App;
use crate::query::Engine;
use crate::telemetry::Metrics;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status/buildinfo", get(build_info))
}

/// The store was opened before the first connection is accepted, so that an answer is readiness.
async fn ready() -> &'static str {
    "ready\n"
}

/// What is stored is told of all tenants together.
async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let engine = Engine::new(Arc::clone(&app.store), app.store.tenants().into());
    let stats = app.status.run(move || engine.stats()).await;
    app.metrics.stored_profiles.set(stats.profiles);
    app.metrics.stored_spans.set(stats.spans);
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], app.metrics.encode())
}

/// In the form of Prometheus and Pyroscope; the bridge knows the server by `application`.
async fn build_info() -> Json<Value> {
    Json(json!({
        "status": "success",
        "data": {
            "application": "spanflame",
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        },
    }))
}
