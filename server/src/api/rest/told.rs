//! What spans say of themselves, as it stands in answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::error::ApiError;
use crate::traces::{Attribute, Attributes, TraceError, TracedEvent, TracedLink, TracedSpan};

/// What a span says of itself. The names of attributes are the sender's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    kind: &'static str,
    start: f64,
    duration_nanos: i64,
    status: &'static str,
    status_message: String,
    attributes: Map<String, Value>,
    events: Vec<Event>,
    links: Vec<Link>,
    dropped: Dropped,
    /// Of its process; told with a single span.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
}

#[derive(Serialize)]
struct Event {
    at: f64,
    name: String,
    attributes: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: String,
    span_id: String,
    attributes: Map<String, Value>,
}

#[derive(Serialize)]
struct Dropped {
    attributes: u32,
    events: u32,
    links: u32,
}

#[derive(Serialize)]
struct Scope {
    name: String,
    version: String,
}

/// What traces tell, or nothing where they cannot be read: profiles are answered all the same.
pub(super) fn where_known<T: Default>(found: Result<T, TraceError>) -> Result<T, ApiError> {
    match found {
        Err(error @ TraceError::Cancelled(_)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "traces cannot be read, the answer is without them");
            Ok(T::default())
        }
        Ok(found) => Ok(found),
    }
}

/// Unix milliseconds, to the microsecond about: a double holds no more.
pub(super) fn millis(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

impl Told {
    /// What a span of many says.
    pub(super) fn new(span: &TracedSpan) -> Self {
        let event = |event: &TracedEvent| Event {
            at: millis(event.at_nanos),
            name: event.name.clone(),
            attributes: object(&event.attributes),
        };
        let link = |link: &TracedLink| Link {
            trace_id: link.trace_id.to_string(),
            span_id: link.span_id.to_string(),
            attributes: object(&link.attributes),
        };
        let [attributes, events, links] = span.dropped;
        Self {
            kind: span.kind.as_str(),
            start: millis(span.start_nanos),
            duration_nanos: span.duration_nanos,
            status: span.status.as_str(),
            status_message: span.status_message.clone(),
            attributes: object(&span.attributes),
            events: span.events.iter().map(event).collect(),
            links: span.links.iter().map(link).collect(),
            dropped: Dropped { attributes, events, links },
            resource: None,
            scope: None,
        }
    }

    /// What a span says, and who made it.
    pub(super) fn whole(span: &TracedSpan) -> Self {
        let (name, version) = span.origin.scope.clone();
        Self {
            resource: Some(object(&span.origin.resource)),
            scope: Some(Scope { name, version }),
            ..Self::new(span)
        }
    }

    /// The same without attributes, events and links.
    pub(super) fn bare(span: &TracedSpan) -> Self {
        Self {
            attributes: Map::new(),
            events: Vec::new(),
            links: Vec::new(),
            status_message: String::new(),
            ..Self::new(span)
        }
    }
}

/// Bytes of what a span says, about.
pub(super) fn weight(span: &TracedSpan) -> usize {
    let of = |attributes: &Attributes| -> usize {
        attributes.iter().map(|(name, value)| name.len() + value_weight(value) + 8).sum()
    };
    let events: usize = span.events.iter().map(|event| event.name.len() + of(&event.attributes) + 60).sum();
    let links: usize = span.links.iter().map(|link| of(&link.attributes) + 100).sum();
    of(&span.attributes) + events + links + span.status_message.len()
}

fn value_weight(value: &Attribute) -> usize {
    match value {
        Attribute::Text(text) => text.len(),
        Attribute::Bytes(bytes) => bytes.len() * 4 / 3,
        Attribute::List(list) => list.iter().map(|value| value_weight(value) + 4).sum(),
        Attribute::Map(map) => map.iter().map(|(name, value)| name.len() + value_weight(value) + 8).sum(),
        Attribute::Bool(_) | Attribute::Integer(_) | Attribute::Double(_) => 8,
    }
}

fn object(attributes: &Attributes) -> Map<String, Value> {
    attributes.iter().map(|(name, value)| (name.clone(), json(value))).collect()
}

/// Bytes are base64; a number that is none is null.
fn json(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => text.as_str().into(),
        Attribute::Bool(truth) => (*truth).into(),
        Attribute::Integer(number) => (*number).into(),
        Attribute::Double(number) => (*number).into(),
        Attribute::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Attribute::List(list) => list.iter().map(json).collect::<Vec<_>>().into(),
        Attribute::Map(map) => object(map).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancelled;

    #[test]
    fn traces_that_cannot_be_read_cost_no_answer_about_profiles() {
        let why = "said so".into();
        let damaged = TraceError::Damaged { path: "1.redb".into(), why };
        assert_eq!(where_known(Err::<Option<u8>, _>(damaged)).unwrap(), None);
        assert!(where_known(Err::<Vec<u8>, _>(TraceError::Closed)).unwrap().is_empty());
        assert_eq!(where_known(Ok(Some(7))).unwrap(), Some(7));
        assert!(where_known(Err::<Vec<u8>, _>(Cancelled.into())).is_err(), "nobody waits for it");
    }
}
