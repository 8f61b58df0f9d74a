//! `/ingest`: profiles of agents that do not push, each with a description in the query string.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::routing::post;
use axum::{Extension, Router, middleware};
use bytes::Bytes;

use super::access::Access;
use super::error::ApiError;
use super::{App, body, guard, intake};
use crate::ingest::{IngestError, Parts, Upload};

/// More parts than any form of an agent has.
const MAX_PARTS: usize = 16;

pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let bounded = middleware::from_fn_with_state(Arc::clone(app), guard::bound_body);
    Router::new().route("/ingest", post(ingest)).route("/pyroscope/ingest", post(ingest)).route_layer(bounded)
}

/// Answers 200 without a body once the profiles are on disk.
async fn ingest(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    request: Request,
) -> Result<(), ApiError> {
    app.metrics.pushes.inc();
    let (head, body) = request.into_parts();
    let received_ms = intake::now_ms();
    let described = access.writable().map_err(ApiError::from).and_then(|tenant| {
        let upload = describe(&app, &head.uri, &head.headers, received_ms)?;
        Ok((tenant, upload))
    });
    let (tenant, upload) = match described {
        Ok(described) => described,
        Err(error) => {
            body::skim(body).await;
            return Err(error);
        }
    };
    let whole = body::read(&head.headers, body).await?;
    app.metrics.profile_bytes.inc_by(whole.len() as u64);
    let parts = match content_type(&head.headers) {
        form if is_form(form) => parts(form, whole).await,
        _ => Ok(Parts { profile: whole, ..Parts::default() }),
    };
    let counted = upload.format.is_counted();
    let app_name = upload.name.app().to_owned();
    let decoded = match parts {
        Ok(parts) => {
            let decode = move |limits: &_, budget: &mut _| upload.decode(&parts, limits, budget, received_ms);
            intake::decode(&app, tenant, decode).await?
        }
        Err(error) => Err(error),
    };
    let profiles = decoded.map_err(|error| {
        app.metrics.refuse(error.reason());
        // Formats that count stack traces are pushed after they were read, and a push answers so.
        let pushed = counted && matches!(error, IngestError::OverLimit { .. });
        refused(&app_name, pushed, &error)
    })?;
    match intake::append(&app, tenant, vec![((), profiles)]).await?.first() {
        None => Ok(()),
        Some((_, error)) => {
            app.metrics.refuse(intake::UNSTORABLE);
            Err(refused(&app_name, counted, error))
        }
    }
}

fn refused(app_name: &str, pushed: bool, error: &dyn std::error::Error) -> ApiError {
    let message = format!("profile of {app_name:?} refused: {error}");
    tracing::info!(reason = message, "profile refused");
    let status = if pushed { StatusCode::BAD_REQUEST } else { StatusCode::UNPROCESSABLE_ENTITY };
    ApiError::with_status(status, message)
}

/// What the query string says.
fn describe(app: &App, uri: &Uri, headers: &HeaderMap, received_ms: i64) -> Result<Upload, ApiError> {
    let parameters = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| ApiError::invalid_argument(format!("query string: {error}")))?;
    Upload::parse(&parameters, content_type(headers), received_ms).map_err(|error| {
        app.metrics.refuse(error.reason());
        ApiError::invalid_argument(error.to_string())
    })
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_form(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("multipart/form-data")
}

/// The parts of a form that is all in memory.
async fn parts(content_type: &str, whole: Bytes) -> Result<Parts, IngestError> {
    let broken = |error: multer::Error| IngestError::invalid("form", error.to_string());
    let boundary = multer::parse_boundary(content_type).map_err(broken)?;
    let mut form = multer::Multipart::new(Body::from(whole).into_data_stream(), boundary);
    let (mut profile, mut sample_type_config, mut labels) = (None, None, None);
    for number in 0.. {
        let Some(field) = form.next_field().await.map_err(broken)? else { break };
        if number == MAX_PARTS {
            return Err(IngestError::invalid("form", format!("has more than {MAX_PARTS} parts")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(broken)?;
        match name.as_str() {
            "profile" | "jfr" => profile = Some(bytes),
            "labels" => labels = Some(bytes),
            "sample_type_config" => sample_type_config = Some(bytes),
            "prev_profile" => {
                let message =
                    "is how agents sent sums since the start of a process until 2022: update the agent";
                return Err(IngestError::invalid("prev_profile", message));
            }
            _ => {}
        }
    }
    let profile =
        profile.ok_or_else(|| IngestError::invalid("profile", "is no part of the form, nor is jfr"))?;
    Ok(Parts { profile, sample_type_config, labels })
}
