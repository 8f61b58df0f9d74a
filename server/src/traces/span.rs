//! A stored span, as it is read.

use std::sync::Arc;

use spanflame_wire::opentelemetry::proto::common::v1::__buffa::oneof::any_value::Value;
use spanflame_wire::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
use spanflame_wire::opentelemetry::proto::trace::v1::span::{Event, Link};
use spanflame_wire::opentelemetry::proto::trace::v1::{ResourceSpans, Span};

use crate::model::{SpanId, TraceId};

/// What a span says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedSpan {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// Its parent, none for a root.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: String,
    /// What it is to those that it talks to.
    pub kind: SpanKind,
    /// When it began, in Unix nanoseconds.
    pub start_nanos: i64,
    /// How long it lasted, in nanoseconds.
    pub duration_nanos: i64,
    /// How it ended.
    pub status: SpanStatus,
    /// What it said about that.
    pub status_message: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// What happened in it.
    pub events: Vec<TracedEvent>,
    /// Other spans that it has to do with.
    pub links: Vec<TracedLink>,
    /// Attributes, events and links that it lost, by its sender's limits or here.
    pub dropped: [u32; 3],
    /// Who sent it.
    pub origin: Arc<Origin>,
}

/// Who made spans.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Origin {
    /// The service.
    pub service: String,
    /// Attributes of the process, the host and so on.
    pub resource: Attributes,
    /// The library's name and version.
    pub scope: (String, String),
}

/// Something that happened in a span.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedEvent {
    /// When, in Unix nanoseconds.
    pub at_nanos: i64,
    /// What.
    pub name: String,
    /// More about it.
    pub attributes: Attributes,
}

/// Another span that one has to do with.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedLink {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// How they belong together.
    pub attributes: Attributes,
}

/// Named values, in the order in which they were sent.
pub type Attributes = Vec<(String, Attribute)>;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A truth.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Double(f64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<Attribute>),
    /// Named values.
    Map(Attributes),
}

/// What a span is to those that it talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanKind {
    /// Not told.
    #[default]
    Unspecified,
    /// Work within a process.
    Internal,
    /// It answers a request.
    Server,
    /// It makes a request.
    Client,
    /// It sends a message.
    Producer,
    /// It takes a message.
    Consumer,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanStatus {
    /// Nothing is said.
    #[default]
    Unset,
    /// Well.
    Ok,
    /// With an error.
    Error,
}

impl SpanKind {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    fn of(number: i32) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

impl SpanStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Unset, Self::Ok, Self::Error];

    /// The name in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }

    pub(super) fn of(number: i32) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

impl TracedSpan {
    /// When it ended, in Unix nanoseconds.
    pub fn end_nanos(&self) -> i64 {
        self.start_nanos.saturating_add(self.duration_nanos)
    }

    /// Whether an attribute of the span, or else of its resource, says this when written as text.
    pub fn says(&self, key: &str, text: &str) -> bool {
        let of = |attributes: &Attributes| {
            attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.is(text))
        };
        of(&self.attributes).or_else(|| of(&self.origin.resource)).unwrap_or(false)
    }

    /// The memory that it takes, in bytes, its origin aside.
    pub(super) fn weight(&self) -> usize {
        let events = self
            .events
            .iter()
            .map(|event| size_of::<TracedEvent>() + event.name.len() + weight(&event.attributes));
        let links = self.links.iter().map(|link| size_of::<TracedLink>() + weight(&link.attributes));
        let own = size_of::<Self>() + self.name.len() + self.status_message.len() + weight(&self.attributes);
        own + events.sum::<usize>() + links.sum::<usize>()
    }

    /// The same without attributes, events, links and resource.
    pub(super) fn bare(self) -> Self {
        let origin = Origin { service: self.origin.service.clone(), ..Origin::default() };
        Self {
            attributes: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
            status_message: String::new(),
            origin: Arc::new(origin),
            ..self
        }
    }

    /// Reads a span's message; none if its ids are none, which no stored one's are.
    pub(super) fn read(span: Span, origin: &Arc<Origin>) -> Option<Self> {
        let (status, status_message) = match span.status.into_option() {
            Some(status) => (SpanStatus::of(status.code.to_i32()), status.message),
            None => Default::default(),
        };
        let event = |event: Event| TracedEvent {
            at_nanos: signed(event.time_unix_nano),
            name: event.name,
            attributes: attributes(event.attributes),
        };
        let link = |link: Link| {
            Some(TracedLink {
                trace_id: trace_id(&link.trace_id)?,
                span_id: span_id(&link.span_id)?,
                attributes: attributes(link.attributes),
            })
        };
        Some(Self {
            trace_id: trace_id(&span.trace_id)?,
            span_id: span_id(&span.span_id)?,
            parent: span_id(&span.parent_span_id),
            name: span.name,
            kind: SpanKind::of(span.kind.to_i32()),
            start_nanos: signed(span.start_time_unix_nano),
            duration_nanos: signed(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)),
            status,
            status_message,
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(event).collect(),
            links: span.links.into_iter().filter_map(link).collect(),
            dropped: [span.dropped_attributes_count, span.dropped_events_count, span.dropped_links_count],
            origin: Arc::clone(origin),
        })
    }
}

impl Origin {
    /// The memory that it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        let texts = self.service.len() + self.scope.0.len() + self.scope.1.len();
        size_of::<Self>() + texts + weight(&self.resource)
    }

    /// Reads the message of a service's resource and library.
    pub(super) fn read(service: &str, origin: ResourceSpans) -> Self {
        let scope = origin.scope_spans.into_iter().next().and_then(|scope| scope.scope.into_option());
        let resource = origin.resource.into_option().unwrap_or_default();
        Self {
            service: service.to_owned(),
            resource: attributes(resource.attributes),
            scope: scope.map(|scope| (scope.name, scope.version)).unwrap_or_default(),
        }
    }
}

impl Attribute {
    fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.iter().map(|value| size_of::<Self>() + value.weight()).sum(),
            Self::Map(map) => weight(map),
            Self::Bool(_) | Self::Integer(_) | Self::Double(_) => 0,
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Bool(own) => text == if *own { "true" } else { "false" },
            Self::Integer(own) => text.parse() == Ok(*own),
            Self::Double(own) => text.parse() == Ok(*own),
            Self::List(list) => list.iter().any(|value| value.is(text)),
            Self::Bytes(_) | Self::Map(_) => false,
        }
    }

    fn read(value: AnyValue) -> Option<Self> {
        Some(match value.value? {
            Value::StringValue(text) => Self::Text(text),
            Value::BoolValue(truth) => Self::Bool(truth),
            Value::IntValue(number) => Self::Integer(number),
            Value::DoubleValue(number) => Self::Double(number),
            Value::BytesValue(bytes) => Self::Bytes(bytes),
            Value::ArrayValue(list) => Self::List(list.values.into_iter().filter_map(Self::read).collect()),
            Value::KvlistValue(list) => Self::Map(attributes(list.values)),
            Value::StringValueStrindex(_) => return None,
        })
    }
}

/// The memory that attributes take, in bytes.
fn weight(attributes: &Attributes) -> usize {
    let of =
        |(key, value): &(String, Attribute)| size_of::<(String, Attribute)>() + key.len() + value.weight();
    attributes.iter().map(of).sum()
}

fn attributes(list: Vec<KeyValue>) -> Attributes {
    let read = |attribute: KeyValue| Some((attribute.key, Attribute::read(attribute.value.into_option()?)?));
    list.into_iter().filter_map(read).collect()
}

/// Nanoseconds are kept as senders count them; what is later than the year 2262 is never let in.
fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

pub(super) fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    TraceId::new(u128::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn span_id(bytes: &[u8]) -> Option<SpanId> {
    SpanId::new(u64::from_be_bytes(bytes.try_into().ok()?))
}
