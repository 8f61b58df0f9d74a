//! What every request passes: size limits, and answers that are always a Connect error when they are an error at all.

use std::any::Any;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use connectrpc::{CompressionProvider, ConnectError, ErrorCode, GzipProvider};

use super::App;
use super::access::Access;
use super::body::{self, Allowed, Bounded, Most, Trouble};
use super::class::Class;
use super::error::{ApiError, for_grpc};
use super::memory::Memory;
use crate::model::TenantId;
use crate::telemetry::RequestLabels;

/// The longest target of a request, in bytes: path and query.
const MAX_TARGET_BYTES: usize = 32 << 10;
/// The most headers of a request, and how long they may be together, in bytes.
const MAX_HEADERS: usize = 128;
const MAX_HEADERS_BYTES: usize = 64 << 10;

/// How much of a message is decompressed at a time, in bytes.
const PART_BYTES: usize = 64 << 10;

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

/// Refuses requests whose head is larger than any client's. What HTTP's own reader takes is more, so that the answer to most
/// of what is too much is this one.
pub(super) async fn bound_head(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let (status, reason, message) = if target > MAX_TARGET_BYTES {
        let message = format!(
            "request target: expected at most {MAX_TARGET_BYTES} bytes, got {target}; ask with POST, or for less at a time"
        );
        (StatusCode::URI_TOO_LONG, "request_target", message)
    } else if headers.len() > MAX_HEADERS || bytes > MAX_HEADERS_BYTES {
        let message = format!(
            "request headers: expected at most {MAX_HEADERS} of {MAX_HEADERS_BYTES} bytes together, got {} of {bytes}; \
             send fewer (are cookies among them?)",
            headers.len()
        );
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "request_headers", message)
    } else {
        return next.run(request).await;
    };
    app.metrics.refuse(reason);
    body::skim(request.into_body()).await;
    ApiError::with_status(status, message).into_response()
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

/// Decompresses bodies, and refuses those beyond the limit, counted as they arrive, and those for which there is no memory.
pub(super) async fn bound_body(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (allowed, memory, place) = match Class::of(&request) {
        Class::Ingest => {
            let tenant = Access::of(request.extensions()).writable().ok();
            (ingest_allowance(&app, tenant), Memory::new(Some(Arc::clone(&app.bodies))), app.place(tenant))
        }
        _ => {
            let most = Most { name: "max_query_bytes", bytes: app.config.max_query_bytes };
            (Allowed { sent: most, whole: most }, Memory::new(None), String::new())
        }
    };
    let (mut parts, body) = request.into_parts();
    let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(got) = told.filter(|told| *told > allowed.sent.bytes) {
        // Whoever asks first whether to send it need not.
        if !parts.headers.contains_key(header::EXPECT) {
            body::discard(body).await;
        }
        return refused(&app, &Trouble::TooLong { most: allowed.sent, got, decompressed: false }, &place)
            .into();
    }
    let gzip = body::is_gzip(&parts.headers);
    if gzip {
        // What is handed on is neither.
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let (body, fate) = Bounded::new(body, gzip, allowed, Arc::clone(&memory));
    let answer = next.run(Request::from_parts(parts, Body::new(body)));
    let response = memory.within(ALLOWED.scope(allowed.whole, answer)).await;
    match fate.end().await {
        None => response,
        Some(trouble) => refused(&app, &trouble, &place).into(),
    }
}

tokio::task_local! {
    /// How long the current request's message may be.
    static ALLOWED: Most;
}

/// What a tenant may push at once.
fn ingest_allowance(app: &App, tenant: Option<&TenantId>) -> Allowed {
    let limits = app.limits(tenant.unwrap_or(&TenantId::anonymous()));
    Allowed {
        sent: Most { name: "max_request_bytes", bytes: limits.max_request_bytes },
        whole: Most { name: "max_message_bytes", bytes: limits.max_message_bytes },
    }
}

/// Counts a body that was not taken, and says why not.
fn refused(app: &App, trouble: &Trouble, place: &str) -> Refused {
    match trouble {
        Trouble::TooLong { most: Most { name, bytes }, got, decompressed } => {
            app.metrics.refuse(name);
            // Of what is decompressed no more is known than was looked at.
            let it_has = if *decompressed { "decompressed, it has at least" } else { "it has" };
            let message = format!(
                "request body: over the limit {name} of {bytes} bytes: {it_has} {got} (send less at a time, or raise {name} \
                 in the server's configuration{place})"
            );
            Refused(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::ResourceExhausted, message)
        }
        Trouble::NoMemory => {
            app.metrics.refuse("max_inflight_bytes");
            let most = app.config.max_inflight_bytes;
            let message = format!(
                "max_inflight_bytes of {most}: requests with so many bytes are being read; try again, or raise the limit"
            );
            Refused(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
        Trouble::NotGzip(_) => {
            app.metrics.refuse("invalid_body");
            Refused(StatusCode::BAD_REQUEST, ErrorCode::InvalidArgument, trouble.to_string())
        }
    }
}

/// An answer in place of that to a body, for both kinds of those who read bodies.
struct Refused(StatusCode, ErrorCode, String);

impl From<Refused> for Response {
    fn from(Refused(status, code, message): Refused) -> Self {
        let error = ApiError::with_status(status, message);
        let error = if code == ErrorCode::Unavailable { error.retry_after(1) } else { error };
        error.into_response()
    }
}

impl From<Refused> for ConnectError {
    fn from(Refused(status, code, message): Refused) -> Self {
        ConnectError::new(code, message).with_http_status(status)
    }
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

/// gzip of messages within a body, as gRPC has it: with the limits of the current request.
pub(super) struct Gzip {
    gzip: GzipProvider,
    app: Arc<App>,
}

impl Gzip {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { gzip: GzipProvider::default(), app }
    }

    fn read(&self, data: &[u8], max_size: usize) -> Result<Bytes, Trouble> {
        let not_gzip = |error: &dyn std::fmt::Display| Trouble::NotGzip(error.to_string());
        let most = ALLOWED.try_with(|most| *most).ok();
        let most = most.unwrap_or(Most { name: "max_message_bytes", bytes: max_size });
        let memory = Memory::current().unwrap_or_else(|| Memory::new(None));
        let mut reader = self.gzip.decompressor(data).map_err(|error| not_gzip(&error))?;
        let (mut bytes, mut part) = (Vec::new(), vec![0; PART_BYTES]);
        loop {
            let read = reader.read(&mut part).map_err(|error| not_gzip(&error))?;
            if read == 0 {
                return Ok(bytes.into());
            }
            let got = bytes.len() + read;
            if got > most.bytes {
                return Err(Trouble::TooLong { most, got, decompressed: true });
            }
            // There is no waiting here: the caller reads whole messages.
            if !memory.try_take(read) {
                return Err(Trouble::NoMemory);
            }
            bytes.extend_from_slice(&part[..read]);
        }
    }
}

impl CompressionProvider for Gzip {
    fn name(&self) -> &'static str {
        self.gzip.name()
    }

    fn compress(&self, data: &[u8]) -> Result<Bytes, ConnectError> {
        self.gzip.compress(data)
    }

    fn decompressor<'a>(&self, data: &'a [u8]) -> Result<Box<dyn Read + 'a>, ConnectError> {
        self.gzip.decompressor(data)
    }

    fn decompress_with_limit(&self, data: &[u8], max_size: usize) -> Result<Bytes, ConnectError> {
        self.read(data, max_size).map_err(|trouble| refused(&self.app, &trouble, "").into())
    }
}
