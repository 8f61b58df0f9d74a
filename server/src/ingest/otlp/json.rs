//! OpenTelemetry's JSON, which becomes the same message as its protobuf.

use buffa::Message;
use serde::de::DeserializeOwned;
use spanflame_wire::opentelemetry::proto::collector::profiles::v1development::ExportProfilesServiceRequest;
use spanflame_wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;

use crate::ingest::{IngestError, Limits};
use crate::json;

/// No message takes more memory than this, without the messages in it; twice that, since lists grow by doubling.
const OBJECT_BYTES: usize = 512;
/// The same for an element of a list that is no message.
const ELEMENT_BYTES: usize = 48;

/// The protobuf form of an export request of profiles in JSON. Unknown fields are left out; ids stay as they were, which is looked
/// after where they are read.
///
/// # Errors
/// When it is no such JSON, or when its message would take more memory than the limits allow.
pub fn to_protobuf(body: &[u8], limits: &Limits) -> Result<Vec<u8>, IngestError> {
    convert::<ExportProfilesServiceRequest>(body, limits)
}

/// The same of spans.
///
/// # Errors
/// The same.
pub fn spans_to_protobuf(body: &[u8], limits: &Limits) -> Result<Vec<u8>, IngestError> {
    convert::<ExportTraceServiceRequest>(body, limits)
}

fn convert<M: Message + DeserializeOwned>(body: &[u8], limits: &Limits) -> Result<Vec<u8>, IngestError> {
    let (max, most) = (limits.max_decoded_bytes, most_bytes(body));
    if most > max {
        return Err(IngestError::over("body", "max_decoded_bytes", max, most));
    }
    json::check(body).map_err(|what| IngestError::invalid("body", what))?;
    let request: M = serde_json::from_slice(body)
        .map_err(|error| IngestError::invalid("body", format!("is no export request in JSON: {error}")))?;
    Ok(request.encode_to_vec())
}

/// The most memory that the message in this JSON can take, known before any of it is taken.
fn most_bytes(body: &[u8]) -> usize {
    let (mut bytes, mut in_text, mut escaped) = (body.len(), false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' => bytes = bytes.saturating_add(OBJECT_BYTES),
            b'[' | b',' => bytes = bytes.saturating_add(ELEMENT_BYTES),
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use spanflame_wire::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
    use spanflame_wire::opentelemetry::proto::profiles::v1development as profiles;
    use spanflame_wire::opentelemetry::proto::trace::v1 as trace;

    use super::*;

    #[test]
    fn messages_are_as_small_as_is_believed() {
        for size in [
            size_of::<ExportProfilesServiceRequest>(),
            size_of::<profiles::ResourceProfiles>(),
            size_of::<profiles::ScopeProfiles>(),
            size_of::<profiles::Profile>(),
            size_of::<profiles::ProfilesDictionary>(),
            size_of::<profiles::Sample>(),
            size_of::<profiles::Location>(),
            size_of::<profiles::Mapping>(),
            size_of::<trace::ResourceSpans>(),
            size_of::<trace::ScopeSpans>(),
            size_of::<trace::span::Event>(),
            size_of::<trace::span::Link>(),
            size_of::<KeyValue>(),
            size_of::<AnyValue>(),
        ] {
            assert!(2 * size <= OBJECT_BYTES, "{size}");
        }
        assert!(2 * size_of::<String>() <= ELEMENT_BYTES);
    }

    #[test]
    fn what_is_written_in_texts_weighs_nothing() {
        assert_eq!(most_bytes(br#""{[,\"{""#), 8);
        assert_eq!(most_bytes(b"{}"), 2 + OBJECT_BYTES);
        assert_eq!(most_bytes(b"[1,2]"), 5 + 2 * ELEMENT_BYTES);
    }

    #[test]
    fn small_bodies_that_would_grow_are_refused_before_they_do() {
        let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
        let body = format!(r#"{{"resourceProfiles":[{}{{}}]}}"#, "{},".repeat(4000));
        let error = to_protobuf(body.as_bytes(), &limits).unwrap_err().to_string();
        assert!(error.starts_with("body: ") && error.contains("max_decoded_bytes"), "{error}");
    }

    #[test]
    fn what_is_no_json_says_where() {
        let error = to_protobuf(br#"{"dictionary":7}"#, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("line 1 column"), "{error}");
        let error =
            to_protobuf(br#"{"resourceProfiles":[{"resource":[]}]}"#, &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "body: resource: expected a JSON object, got an array");
        assert_eq!(to_protobuf(br#"{"noSuchField":[{}]}"#, &Limits::default()).unwrap(), b"");
    }
}
