//! The one form of an error on the wire: `{"code","message"}`, with Connect's code names and their HTTP statuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connectrpc::{ConnectError, ErrorCode};
use serde::Serialize;

use crate::query::QueryError;
use crate::store::{ErrorKind, StoreError};

/// An error of a plain HTTP route. RPC handlers answer [`ConnectError`] themselves, which looks the same.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    code: &'static str,
    message: String,
    #[serde(flatten)]
    details: serde_json::Map<String, serde_json::Value>,
}

impl ApiError {
    /// An error with the status that belongs to its code.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let body = Body { code: code.as_str(), message: message.into(), details: Default::default() };
        Self { status: code.http_status(), body }
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

    /// Adds a field beside code and message.
    pub(crate) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.body.details.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body).expect("strings and numbers are JSON");
        let json = HeaderValue::from_static("application/json");
        (self.status, [(header::CONTENT_TYPE, json)], body).into_response()
    }
}

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> Self {
        Self { status: error.http_status(), ..Self::new(error.code, error.message.unwrap_or_default()) }
    }
}

/// What a failed query is to the client.
pub(crate) fn query_failed(error: &QueryError) -> ConnectError {
    match error {
        QueryError::Step { .. } => ConnectError::invalid_argument(error.to_string()),
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

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        query_failed(&error).into()
    }
}
