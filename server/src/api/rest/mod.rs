//! Our own interface below `/api/v1`: spans, traces and operations, and profiles of any selection.
//!
//! `docs/openapi.yaml` describes it; a test holds the two together. One file for each question, which reads the request,
//! asks the engine and writes the answer.

mod causes;
mod delete;
mod exists;
mod explain;
mod format;
mod list;
mod openapi;
mod operations;
mod params;
mod profile;
mod span;
mod told;
mod trace;
mod traces;

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post};
use axum::{Router, middleware};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{App, guard};
use crate::model::Labels;
use crate::query::TypeTotal;

/// Where the routes lie, as the document names them.
const PATHS: [&str; 14] = [
    "/api/v1/spans",
    "/api/v1/spans:exists",
    "/api/v1/spans/{span_id}",
    "/api/v1/spans/{span_id}/profile",
    "/api/v1/traces",
    "/api/v1/traces/{trace_id}",
    "/api/v1/traces/{trace_id}/profile",
    "/api/v1/operations",
    "/api/v1/operations/durations",
    "/api/v1/profile",
    "/api/v1/explain",
    "/api/v1/profiles",
    "/api/v1/openapi.json",
    "/api/v1/openapi.yaml",
];

pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    // The only route with a body.
    let bounded = middleware::from_fn_with_state(Arc::clone(app), guard::bound_body);
    let methods: [MethodRouter<Arc<App>>; PATHS.len()] = [
        get(list::spans),
        post(exists::spans).route_layer(bounded),
        get(span::span),
        get(profile::of_span),
        get(traces::traces),
        get(trace::trace),
        get(profile::of_trace),
        get(operations::operations),
        get(operations::durations),
        get(profile::of_selection),
        get(explain::explain),
        delete(delete::profiles),
        get(openapi::json),
        get(openapi::yaml),
    ];
    PATHS.into_iter().zip(methods).fold(Router::new(), |router, (path, methods)| router.route(path, methods))
}

/// The total of one profile type.
#[derive(Serialize)]
struct Total {
    id: String,
    unit: String,
    total: i64,
    samples: u64,
}

impl Total {
    fn all(types: &[TypeTotal]) -> Vec<Self> {
        let total = |of_type: &TypeTotal| Self {
            id: of_type.kind.to_string(),
            unit: of_type.kind.sample_unit.to_string(),
            total: of_type.total,
            samples: of_type.samples,
        };
        types.iter().map(total).collect()
    }
}

/// Labels as an object.
fn object(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}
