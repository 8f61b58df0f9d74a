//! Whether the server is up, what it is and what it counted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use connectrpc::ErrorCode;
use serde_json::{Value, json};

use super::App;
use super::error::ApiError;
use crate::query::Engine;
use crate::store::StoreError;
use crate::telemetry::Metrics;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status/buildinfo", get(build_info))
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    readiness(app.store.refusal())
}

/// The store was opened before the first connection is accepted, so that an answer is readiness, unless the store will never
/// take anything again: then others should be asked. What passes by itself, as a full disk, is none of this: queries go on.
fn readiness(refusal: Option<StoreError>) -> Result<&'static str, ApiError> {
    refusal.map_or(Ok("ready\n"), |error| Err(ApiError::new(ErrorCode::Unavailable, error.to_string())))
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

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_server_that_will_never_take_a_push_again_is_not_ready() {
        assert_eq!(readiness(None).into_response().status(), StatusCode::OK);
        let refused = readiness(Some(StoreError::Copied(Uuid::nil()))).into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
