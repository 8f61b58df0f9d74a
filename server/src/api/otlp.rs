//! OpenTelemetry profiles in, over HTTP and over gRPC. A bad profile never costs its neighbours: it is told as a partial
//! success. Traces come in beside them.

mod traces;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, middleware};
use buffa::Message;
use bytes::Bytes;
use connectrpc::{
    ConnectError, Encodable, RequestContext, Response as RpcResponse, ServiceRequest, ServiceResult,
};
use spanflame_wire::opentelemetry::proto::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
    ProfilesService,
};

use super::access::Access;
use super::error::ApiError;
use super::refusals::{Parts, Refusals};
use super::{App, body, guard, intake};
use crate::ingest::{self, Exported, IngestError, Limits};
use crate::model::TenantId;

/// Where exports come in over HTTP.
pub(super) const HTTP: &str = "/v1development/profiles";
/// Where they come in over gRPC.
pub(super) const RPC: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

pub(super) use self::traces::{RPC as TRACES_RPC, Traces};

pub(super) struct Profiles(pub(super) Arc<App>);

/// What the bytes of an export are, and of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

/// The route over HTTP.
pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let bounded = middleware::from_fn_with_state(Arc::clone(app), guard::bound_body);
    Router::new()
        .route(HTTP, post(export).route_layer(bounded.clone()))
        .route(traces::HTTP, post(traces::export).route_layer(bounded))
}

impl ProfilesService for Profiles {
    async fn export<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, ExportProfilesServiceRequest>,
    ) -> ServiceResult<impl Encodable<ExportProfilesServiceResponse> + Send + use<'a>> {
        let tenant = Access::of(context.extensions()).writable()?;
        let message = request.bytes().clone();
        RpcResponse::ok(store(&self.0, tenant, move |_, _| Ok(message)).await?)
    }
}

async fn export(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (encoding, tenant, read) = receive(request, Parts::Profiles, ingest::otlp_from_json).await?;
    Ok(encoding.answer(&store(&app, &tenant, read).await?))
}

/// Receives an export over HTTP: how it is written and answered, whose it is, and what makes its message in protobuf. That
/// reads JSON by `from_json`, so it is done where other decoding is.
async fn receive(
    request: Request,
    parts: Parts,
    from_json: fn(&[u8], &Limits) -> Result<Vec<u8>, IngestError>,
) -> Result<
    (Encoding, TenantId, impl FnOnce(&App, &Limits) -> Result<Bytes, ConnectError> + Send + 'static),
    ApiError,
> {
    let (head, body) = request.into_parts();
    let known = Encoding::of(&head.headers)
        .and_then(|encoding| Ok((encoding, Access::of(&head.extensions).writable()?.clone())));
    let (encoding, tenant) = match known {
        Ok(known) => known,
        Err(error) => {
            body::skim(body).await;
            return Err(error);
        }
    };
    let body = body::read(&head.headers, body).await?;
    let read = move |app: &App, limits: &Limits| match encoding {
        Encoding::Protobuf => Ok(body),
        Encoding::Json => Ok(from_json(&body, limits).map_err(|error| refused(app, parts, &error))?.into()),
    };
    Ok((encoding, tenant, read))
}

impl Encoding {
    /// What a request's body is; parameters of its type say nothing that matters.
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let of = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or_default());
        match of.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Self::Json),
            "application/x-protobuf" | "application/protobuf" => Ok(Self::Protobuf),
            got => Err(ApiError::with_status(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("content-type: expected application/x-protobuf or application/json, got {got:?}"),
            )),
        }
    }

    fn answer<M: Message + serde::Serialize>(self, stored: &M) -> Response {
        let (of, body) = match self {
            Self::Protobuf => ("application/x-protobuf", stored.encode_to_vec()),
            Self::Json => {
                ("application/json", serde_json::to_vec(stored).expect("strings and numbers are JSON"))
            }
        };
        ([(header::CONTENT_TYPE, HeaderValue::from_static(of))], Body::from(body)).into_response()
    }
}

/// What a request is told that cannot be read at all.
fn refused(app: &App, parts: Parts, error: &IngestError) -> ConnectError {
    app.metrics.refuse(parts.reason(error));
    ConnectError::invalid_argument(error.to_string())
}

/// Stores the profiles of the message in protobuf that `read` makes of a body.
async fn store(
    app: &Arc<App>,
    tenant: &TenantId,
    read: impl FnOnce(&App, &Limits) -> Result<Bytes, ConnectError> + Send + 'static,
) -> Result<ExportProfilesServiceResponse, ConnectError> {
    app.metrics.pushes.inc();
    let received_ms = intake::now_ms();
    let counted = Arc::clone(app);
    let decoded = intake::decode(app, tenant, move |limits, budget| {
        let message = read(&counted, limits)?;
        counted.metrics.profile_bytes.inc_by(message.len() as u64);
        budget.count(message.len());
        ingest::decode_otlp(&message, limits, budget, received_ms)
            .map_err(|error| refused(&counted, Parts::Profiles, &error))
    });
    let exported = decoded.await??;
    let total = exported.len();
    let mut refusals = Refusals::default();
    let mut profiles = Vec::new();
    for Exported { place, profiles: of_place } in exported {
        match of_place {
            Ok(of_place) => profiles.push((place, of_place)),
            Err(error) => refusals.add(&place, &error),
        }
    }
    for (places, error) in intake::append(app, tenant, profiles).await? {
        refusals.add_unstored(&places, &error);
    }
    match refusals.report(app, total) {
        None => Ok(ExportProfilesServiceResponse::default()),
        // Nothing was taken: that is no partial success.
        Some(message) if refusals.count() == total as u64 => Err(ConnectError::invalid_argument(message)),
        Some(error_message) => Ok(ExportProfilesServiceResponse {
            partial_success: ExportProfilesPartialSuccess {
                rejected_profiles: i64::try_from(refusals.count()).unwrap_or(i64::MAX),
                error_message,
                ..Default::default()
            }
            .into(),
            ..Default::default()
        }),
    }
}
