//! The one form of an error on the wire: `{"code","message"}`, with Connect's code names and their HTTP statuses.

use axum::body::Body as HttpBody;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connectrpc::{ConnectError, ErrorCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use crate::query::QueryError;
use crate::store::{ErrorKind, StoreError};
use crate::traces::TraceError;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What a gRPC message may not hold as it is; other than ASCII never may.
const GRPC_RESERVED: &AsciiSet = &CONTROLS.add(b'%');

/// An error of a plain HTTP route. RPC handlers answer [`ConnectError`] themselves, which looks the same.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Body,
    retry_after: Option<u64>,
}

/// What an answer says went wrong, beside its body: for callers that cannot read JSON.
#[derive(Debug, Clone)]
struct Failure {
    code: ErrorCode,
    message: String,
}

#[derive(Debug, Serialize)]
struct Body {
    #[serde(serialize_with = "code_name")]
    code: ErrorCode,
    message: String,
    #[serde(flatten)]
    details: serde_json::Map<String, serde_json::Value>,
}

impl ApiError {
    /// An error with the status that belongs to its code.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let body = Body { code, message: message.into(), details: Default::default() };
        Self { status: code.http_status(), body, retry_after: None }
    }

    /// The request is wrong and will stay so.
    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// What was asked for is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The server has no such method.
    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unimplemented, message)
    }

    /// An error that keeps a status which Connect's table does not know, as 405 or 413.
    pub(crate) fn with_status(status: StatusCode, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::UNAUTHORIZED => ErrorCode::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorCode::PermissionDenied,
            StatusCode::NOT_FOUND => ErrorCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => ErrorCode::Unimplemented,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => ErrorCode::DeadlineExceeded,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => ErrorCode::ResourceExhausted,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => ErrorCode::Unavailable,
            status if status.is_client_error() => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        };
        Self { status, ..Self::new(code, message) }
    }

    /// Says after how many seconds the same request may succeed.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a field beside code and message.
    pub(crate) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.body.details.insert(name.to_owned(), value.into());
        self
    }
}

fn code_name<S: serde::Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body).expect("strings and numbers are JSON");
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Failure { code: self.body.code, message: self.body.message });
        response
    }
}

/// The same error for a gRPC caller, who reads it in headers and sees no HTTP status but 200.
pub(super) fn for_grpc(response: Response, content_type: HeaderValue) -> Response {
    let (mut parts, _) = response.into_parts();
    let failure = parts.extensions.remove::<Failure>().unwrap_or_else(|| {
        let error = ApiError::with_status(parts.status, "");
        let message = parts.status.canonical_reason().unwrap_or("unknown error").to_lowercase();
        Failure { code: error.body.code, message }
    });
    parts.status = StatusCode::OK;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, content_type);
    parts.headers.insert(GRPC_STATUS, failure.code.grpc_code().into());
    let message = utf8_percent_encode(&failure.message, GRPC_RESERVED).to_string();
    let message = HeaderValue::try_from(message).expect("controls and other than ASCII are encoded");
    parts.headers.insert(GRPC_MESSAGE, message);
    Response::from_parts(parts, HttpBody::empty())
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        Self { status: error.http_status(), ..Self::new(error.code, error.message.unwrap_or_default()) }
    }
}

impl From<ApiError> for ConnectError {
    fn from(error: ApiError) -> Self {
        let Body { code, message, .. } = error.body;
        let said = Self::new(code, message).with_http_status(error.status);
        match error.retry_after {
            Some(seconds) => said.with_headers([(header::RETRY_AFTER, seconds.into())].into_iter().collect()),
            None => said,
        }
    }
}

/// What a failed query is to the client.
pub(crate) fn query_failed(error: &QueryError) -> ConnectError {
    match error {
        QueryError::Step { .. } => ConnectError::invalid_argument(error.to_string()),
        QueryError::Cancelled(_) => ConnectError::new(ErrorCode::Canceled, error.to_string()),
        QueryError::TooMuch { .. } => ConnectError::resource_exhausted(error.to_string()),
        error => {
            tracing::error!(%error, "query failed");
            ConnectError::unavailable(format!("the store could not be read: {error}"))
        }
    }
}

/// What a failed append is to the client.
pub(crate) fn append_failed(error: &StoreError) -> ConnectError {
    match error.kind() {
        ErrorKind::InvalidRequest => ConnectError::invalid_argument(error.to_string()),
        _ => {
            tracing::error!(%error, "cannot store profiles");
            ConnectError::unavailable(format!("the profiles could not be made durable: {error}"))
        }
    }
}

/// What went wrong with traces is to the client.
pub(crate) fn of_traces(error: &TraceError) -> ConnectError {
    match error {
        TraceError::Cancelled(_) => ConnectError::new(ErrorCode::Canceled, error.to_string()),
        TraceError::TooMuch { .. } => ConnectError::resource_exhausted(error.to_string()),
        error => {
            tracing::error!(%error, "traces failed");
            ConnectError::unavailable(error.to_string())
        }
    }
}

impl From<TraceError> for ApiError {
    fn from(error: TraceError) -> Self {
        of_traces(&error).into()
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        query_failed(&error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the Connect protocol, and the numbers of gRPC.
    const CODES: [(ErrorCode, &str, u16, &str); 16] = [
        (ErrorCode::Canceled, "canceled", 499, "1"),
        (ErrorCode::Unknown, "unknown", 500, "2"),
        (ErrorCode::InvalidArgument, "invalid_argument", 400, "3"),
        (ErrorCode::DeadlineExceeded, "deadline_exceeded", 504, "4"),
        (ErrorCode::NotFound, "not_found", 404, "5"),
        (ErrorCode::AlreadyExists, "already_exists", 409, "6"),
        (ErrorCode::PermissionDenied, "permission_denied", 403, "7"),
        (ErrorCode::ResourceExhausted, "resource_exhausted", 429, "8"),
        (ErrorCode::FailedPrecondition, "failed_precondition", 400, "9"),
        (ErrorCode::Aborted, "aborted", 409, "10"),
        (ErrorCode::OutOfRange, "out_of_range", 400, "11"),
        (ErrorCode::Unimplemented, "unimplemented", 501, "12"),
        (ErrorCode::Internal, "internal", 500, "13"),
        (ErrorCode::Unavailable, "unavailable", 503, "14"),
        (ErrorCode::DataLoss, "data_loss", 500, "15"),
        (ErrorCode::Unauthenticated, "unauthenticated", 401, "16"),
    ];

    #[tokio::test]
    async fn codes_have_their_names_statuses_and_numbers() {
        for (code, name, status, number) in CODES {
            let response = ApiError::new(code, "ü 100%\n").retry_after(7).into_response();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (status, &"7".parse().unwrap())
            );
            let grpc = for_grpc(response, HeaderValue::from_static("application/grpc"));
            assert_eq!(grpc.status(), 200);
            for (header, value) in [
                ("content-type", "application/grpc"),
                ("grpc-status", number),
                ("grpc-message", "%C3%BC 100%25%0A"),
                ("retry-after", "7"),
            ] {
                assert_eq!(grpc.headers()[header], value);
            }
            let body = ApiError::new(code, "why").into_response().into_body();
            let body = axum::body::to_bytes(body, 1024).await.unwrap();
            assert_eq!(body, format!(r#"{{"code":"{name}","message":"why"}}"#));
        }
    }

    #[test]
    fn statuses_of_http_alone_have_the_nearest_code() {
        for (status, number) in
            [(405, "12"), (413, "8"), (415, "3"), (408, "4"), (502, "14"), (418, "3"), (505, "13")]
        {
            let response = (StatusCode::from_u16(status).unwrap(), "said").into_response();
            let grpc = for_grpc(response, HeaderValue::from_static("application/grpc"));
            assert_eq!(grpc.headers()["grpc-status"], number, "{status}");
            let error = ApiError::with_status(StatusCode::from_u16(status).unwrap(), "");
            assert_eq!(error.into_response().status().as_u16(), status);
        }
    }
}
