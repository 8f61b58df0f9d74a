//! Collects the spans that a service exports by OTLP over HTTP, as a trace store would.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use parking_lot::Mutex;
use prost::Message as _;

use crate::http::{BODY_LIMIT, Server};

/// A span as a trace store knows it.
#[derive(Clone, Debug)]
pub struct Span {
    /// 32 lower-case hexadecimal characters.
    pub trace_id: String,
    /// 16 lower-case hexadecimal characters.
    pub span_id: String,
    /// The parent's id, if there is a parent.
    pub parent: Option<String>,
    /// The span's name.
    pub name: String,
    /// Start and end in Unix nanoseconds.
    pub start: u64,
    /// Start and end in Unix nanoseconds.
    pub end: u64,
    /// The span's own attributes, those that are strings.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of its resource, those that are strings.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// The id under which the span's profile can be found, if the span says there is one.
    pub fn profile_id(&self) -> Option<&str> {
        self.attributes.get("pyroscope.profile.id").map(String::as_str)
    }
}

/// Listens for spans until it is dropped.
pub struct Collector {
    spans: Spans,
    server: Server,
}

type Spans = Arc<Mutex<Vec<Span>>>;

impl Collector {
    /// Starts to listen on loopback.
    pub fn start() -> Self {
        let spans = Spans::default();
        let routes = Router::new()
            .route("/v1/traces", post(export))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(Arc::clone(&spans));
        Self { spans, server: Server::start(routes) }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` should be.
    pub fn endpoint(&self) -> &str {
        self.server.address()
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }
}

async fn export(State(spans): State<Spans>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    const TYPE: &str = "application/x-protobuf";
    if headers.get(header::CONTENT_TYPE).is_none_or(|given| given != TYPE) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("expected {TYPE}")));
    }
    let request = ExportTraceServiceRequest::decode(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("not an export request: {error}")))?;
    spans.lock().extend(read(request));
    Ok(([(header::CONTENT_TYPE, TYPE)], ExportTraceServiceResponse::default().encode_to_vec()))
}

fn read(request: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    request.resource_spans.into_iter().flat_map(|of_resource| {
        let resource = strings(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        spans.map(move |span| Span {
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
            name: span.name,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: strings(span.attributes),
            resource: resource.clone(),
        })
    })
}

fn strings(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let string = |attribute: KeyValue| match attribute.value?.value? {
        any_value::Value::StringValue(value) => Some((attribute.key, value)),
        _ => None,
    };
    attributes.into_iter().filter_map(string).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
