//! What every request passes: size limits, and answers that are always a Connect error when they are an error at all.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use connectrpc::{CompressionProvider, ConnectError, ErrorCode, GzipProvider};
use tokio::sync::OwnedSemaphorePermit;

use super::body::Bounded;
use super::class::Class;
use super::error::{ApiError, for_grpc};
use super::{App, MAX_QUERY_BYTES};
use crate::telemetry::RequestLabels;

/// How long a request waits for memory.
const MAX_MEMORY_WAIT: Duration = Duration::from_secs(10);

const SERVER: HeaderValue = HeaderValue::from_static(concat!("spanflame/", env!("CARGO_PKG_VERSION")));

/// Counts the request and puts the server's name on the answer.
pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::SERVER, SERVER);
    let status = response.status();
    let seconds = started.elapsed().as_secs_f64();
    tracing::debug!(route, status = status.as_u16(), seconds, "answered");
    let labels = RequestLabels { route, status: status.as_u16() };
    app.metrics.request_seconds.get_or_create(&labels).observe(seconds);
    response
}

/// Gives errors that a library answered in plain text, or with no text at all, the form that clients can read: that of
/// Connect, or of gRPC where a gRPC client asks.
pub(super) async fn explain_errors(request: Request, next: Next) -> Response {
    let grpc = request.headers().get(header::CONTENT_TYPE).filter(|_| is_grpc(request.headers())).cloned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_grpc(response.headers()) {
        return response;
    }
    if let Some(content_type) = grpc {
        return for_grpc(response, content_type);
    }
    if is_json(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let message = match status {
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not take {method}"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            format!("content-type: {path} takes application/json or application/proto")
        }
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        _ => match std::str::from_utf8(&said) {
            Ok(text) if !text.is_empty() => text.to_owned(),
            _ => status.canonical_reason().unwrap_or("unknown error").to_lowercase(),
        },
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::CONTENT_TYPE);
    let mut response = ApiError::with_status(status, message).into_response();
    response.headers_mut().extend(parts.headers);
    response
}

/// Refuses bodies beyond the limit, counted as they arrive, and bodies for which there is no memory.
pub(super) async fn bound_body(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let push = Class::of(&request) == Class::Ingest;
    let limit = if push { app.config.max_request_bytes } else { MAX_QUERY_BYTES };
    let Some(_memory) = reserve(&app, request.headers(), limit).await else {
        app.metrics.refuse("busy");
        let message = "too many requests are being read (max_inflight_bytes); try again";
        return ApiError::new(ErrorCode::Unavailable, message).retry_after(1).into_response();
    };
    let (parts, body) = request.into_parts();
    let (body, overflow) = Bounded::new(body, limit);
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    if !overflow.drain().await {
        return response;
    }
    app.metrics.refuse("request_too_large");
    let name = if push { "max_request_bytes of" } else { "for queries of" };
    let message = format!("request body: over the limit {name} {limit} bytes");
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, message).into_response()
}

/// Waits for the memory that a body may need: its length if it tells one and is not compressed, else all it may have.
async fn reserve(app: &App, headers: &HeaderMap, limit: usize) -> Option<OwnedSemaphorePermit> {
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = match told {
        _ if is_compressed(headers) => app.config.max_message_bytes,
        Some(length) => limit.min(length),
        None => limit,
    };
    let permits = u32::try_from(bytes.min(app.config.max_inflight_bytes) / 1024).unwrap_or(u32::MAX);
    let memory = Arc::clone(&app.bodies).acquire_many_owned(permits);
    tokio::time::timeout(MAX_MEMORY_WAIT, memory).await.ok()?.ok()
}

/// Whether the body grows when it is read, be it said to HTTP or to gRPC.
fn is_compressed(headers: &HeaderMap) -> bool {
    let told = headers.get(header::CONTENT_ENCODING).or_else(|| headers.get("grpc-encoding"));
    told.is_some_and(|encoding| encoding != "identity")
}

/// Answers a request whose handler panicked; the process lives on.
pub(super) fn answer_panic(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "request handler panicked");
    ApiError::new(ErrorCode::Internal, "the server failed on this request; its log says why").into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

/// gzip whose refusal of a bomb names the limit, and is counted.
pub(super) struct Gzip {
    gzip: GzipProvider,
    app: Arc<App>,
}

impl Gzip {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { gzip: GzipProvider::default(), app }
    }
}

impl CompressionProvider for Gzip {
    fn name(&self) -> &'static str {
        self.gzip.name()
    }

    fn compress(&self, data: &[u8]) -> Result<Bytes, ConnectError> {
        self.gzip.compress(data)
    }

    fn decompressor<'a>(&self, data: &'a [u8]) -> Result<Box<dyn std::io::Read + 'a>, ConnectError> {
        self.gzip.decompressor(data)
    }

    fn decompress_with_limit(&self, data: &[u8], max_size: usize) -> Result<Bytes, ConnectError> {
        self.gzip.decompress_with_limit(data, max_size).map_err(|error| match error.code {
            ErrorCode::ResourceExhausted => {
                self.app.metrics.refuse("request_too_large");
                ConnectError::resource_exhausted(format!(
                    "request body: decompressed, it is over the limit max_message_bytes of {max_size} bytes"
                ))
                .with_http_status(StatusCode::PAYLOAD_TOO_LARGE)
            }
            _ => ConnectError::new(
                error.code,
                format!("request body: {}", error.message.unwrap_or_else(|| "not gzip".to_owned())),
            ),
        })
    }
}
