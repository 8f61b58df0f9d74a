//! OpenTelemetry traces in, over HTTP and over gRPC. A bad span never costs its neighbours: it is told as a partial success.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use connectrpc::{
    ConnectError, Encodable, RequestContext, Response as RpcResponse, ServiceRequest, ServiceResult,
};
use spanflame_wire::opentelemetry::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, TraceService,
};

use super::{receive, refused};
use crate::api::access::Access;
use crate::api::error::{ApiError, of_traces};
use crate::api::refusals::{Parts, Refusals};
use crate::api::{App, intake};
use crate::ingest::{self, Limits};
use crate::model::TenantId;

/// Where exports come in over HTTP.
pub(super) const HTTP: &str = "/v1/traces";
/// Where they come in over gRPC.
pub(in crate::api) const RPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub(in crate::api) struct Traces(pub(in crate::api) Arc<App>);

impl TraceService for Traces {
    async fn export<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, ExportTraceServiceRequest>,
    ) -> ServiceResult<impl Encodable<ExportTraceServiceResponse> + Send + use<'a>> {
        let tenant = Access::of(context.extensions()).writable()?;
        let message = request.bytes().clone();
        RpcResponse::ok(store(&self.0, tenant, move |_, _| Ok(message)).await?)
    }
}

pub(super) async fn export(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (encoding, tenant, read) = receive(request, Parts::Spans, ingest::spans_from_json).await?;
    Ok(encoding.answer(&store(&app, &tenant, read).await?))
}

/// Stores the spans of the message in protobuf that `read` makes of a body.
async fn store(
    app: &Arc<App>,
    tenant: &TenantId,
    read: impl FnOnce(&App, &Limits) -> Result<Bytes, ConnectError> + Send + 'static,
) -> Result<ExportTraceServiceResponse, ConnectError> {
    let received_ms = intake::now_ms();
    let counted = Arc::clone(app);
    let decoded = intake::decode(app, tenant, move |limits, budget| {
        let message = read(&counted, limits)?;
        counted.metrics.trace_bytes.inc_by(message.len() as u64);
        ingest::decode_spans(&message, limits, budget, received_ms)
            .map_err(|error| refused(&counted, Parts::Spans, &error))
    });
    let exported = decoded.await??;
    let mut refusals = Refusals::of(Parts::Spans);
    for (place, error) in &exported.refused {
        refusals.add(place, error);
    }
    app.metrics.drop_of_spans(exported.dropped);
    app.traces.append(tenant, exported.batches).await.map_err(|error| {
        app.metrics.refuse("traces");
        of_traces(&error)
    })?;
    match refusals.report(app, exported.total) {
        None => Ok(ExportTraceServiceResponse::default()),
        // Nothing was taken: that is no partial success.
        Some(message) if refusals.count() == exported.total as u64 => {
            Err(ConnectError::invalid_argument(message))
        }
        Some(error_message) => Ok(ExportTraceServiceResponse {
            partial_success: ExportTracePartialSuccess {
                rejected_spans: i64::try_from(refusals.count()).unwrap_or(i64::MAX),
                error_message,
                ..Default::default()
            }
            .into(),
            ..Default::default()
        }),
    }
}
