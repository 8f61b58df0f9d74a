//! OpenTelemetry spans: each is judged by itself, and cut to what limits allow. What is cut is counted in the span, in
//! the fields that OpenTelemetry has for that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use buffa::{DecodeError, DecodeOptions, Message};
use foldhash::fast::RandomState;
use spanflame_wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use spanflame_wire::opentelemetry::proto::common::v1::__buffa::oneof::any_value::Value;
use spanflame_wire::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use spanflame_wire::opentelemetry::proto::resource::v1::Resource;
use spanflame_wire::opentelemetry::proto::trace::v1::span::{Event, Link};
use spanflame_wire::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::ids::id;
use crate::ingest::assemble::Header;
use crate::ingest::{Budget, IngestError, Limits};
use crate::model::{SpanId, TraceId};

/// The longest state of a trace that W3C Trace Context wants to be passed on whole, in bytes.
const MAX_STATE_BYTES: usize = 512;
/// The most memory that a span, a resource or a library takes, as [`span_weight`] counts it: all that is kept can be read
/// again, whatever the limits are by then.
pub const MAX_SPAN_BYTES: usize = 16 << 20;

/// The spans of one resource that one library made. Ids have their true lengths, every span has a trace, an id and a time,
/// and weighs [`MAX_SPAN_BYTES`] at most.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanBatch {
    /// The service.
    pub service: Arc<str>,
    /// The resource, as a message `ResourceSpans`: the same memory in all batches of one export that have the same.
    pub resource: Arc<[u8]>,
    /// The library, as another; one behind the other they are the message of both.
    pub library: Vec<u8>,
    /// The spans.
    pub spans: Vec<Span>,
}

/// How much of spans was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Attributes of spans, events, links and resources.
    pub attributes: u64,
    /// Events.
    pub events: u64,
    /// Links.
    pub links: u64,
}

/// What an export of spans became.
#[derive(Debug, Default)]
pub struct ExportedSpans {
    /// The good ones.
    pub batches: Vec<SpanBatch>,
    /// Where the others stand, as `resource_spans[0].scope_spans[0].spans[2]`, and what is wrong with them.
    pub refused: Vec<(String, IngestError)>,
    /// How many there were.
    pub total: usize,
    /// What the good ones lost.
    pub dropped: Dropped,
}

/// Reads an export request in protobuf.
///
/// # Errors
/// When the bytes are no such message, or one that takes more memory than the limits allow. What is wrong with a single
/// span is told with that span.
pub fn decode_spans(
    message: &[u8],
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<ExportedSpans, IngestError> {
    budget.count(message.len());
    let options = DecodeOptions::new().with_element_memory_limit(limits.max_decoded_bytes);
    let request: ExportTraceServiceRequest =
        options.decode_from_slice(message).map_err(|error| match error {
            DecodeError::ElementMemoryLimitExceeded => {
                let max = limits.max_decoded_bytes;
                IngestError::over("body", "max_decoded_bytes", max, max.saturating_add(1))
            }
            error => {
                IngestError::invalid("body", format!("is no export of traces, or a damaged one: {error}"))
            }
        })?;
    let mut exported = ExportedSpans::default();
    let mut cutter = Cutter { limits, dropped: Dropped::default() };
    let mut origins = Origins::default();
    for (of_resource, resource) in request.resource_spans.into_iter().enumerate() {
        let own = cutter.resource(resource.resource.into_option().unwrap_or_default());
        let service: Arc<str> = service(&own.attributes).into();
        let weight = elements(&own.attributes);
        let own = ResourceSpans {
            resource: own.into(),
            schema_url: cutter.text(resource.schema_url),
            ..Default::default()
        };
        let weight = weight.saturating_add(own.encoded_len() as usize);
        let own = bounded("resource", weight).map(|()| origins.resource(own.encode_to_vec()));
        for (of_scope, scope) in resource.scope_spans.into_iter().enumerate() {
            let place =
                |at: usize| format!("resource_spans[{of_resource}].scope_spans[{of_scope}].spans[{at}]");
            let mut spans = Vec::with_capacity(scope.spans.len());
            let mut places = Vec::with_capacity(scope.spans.len());
            for (at, mut span) in scope.spans.into_iter().enumerate() {
                exported.total += 1;
                let checked = match exported.total {
                    got if got > limits.max_spans_per_push => {
                        let max = limits.max_spans_per_push;
                        Err(IngestError::over("number in this push", "max_spans_per_push", max, got))
                    }
                    _ => check(&mut span, limits, received_ms),
                };
                let checked = checked.and_then(|()| {
                    cutter.span(&mut span);
                    bounded("span", span_weight(&span))
                });
                match checked {
                    Ok(()) => {
                        spans.push(span);
                        places.push(at);
                    }
                    Err(error) => exported.refused.push((place(at), error)),
                }
            }
            if spans.is_empty() {
                continue;
            }
            let library = cutter.library(scope.scope.into_option().unwrap_or_default(), scope.schema_url);
            let batch = match own.clone().and_then(|own| origins.batch(own, library?, budget)) {
                Ok(batch) => batch,
                Err(error) => {
                    exported.refused.extend(places.into_iter().map(|at| (place(at), error.clone())));
                    continue;
                }
            };
            match batch {
                Batch::Known(number) => exported.batches[number].spans.append(&mut spans),
                Batch::New { resource, library } => {
                    exported.batches.push(SpanBatch {
                        service: Arc::clone(&service),
                        resource,
                        library,
                        spans,
                    });
                }
            }
        }
    }
    exported.dropped = cutter.dropped;
    Ok(exported)
}

/// Resources and libraries of an export, so that each is kept once however often it is named.
#[derive(Default)]
struct Origins {
    resources: HashMap<Arc<[u8]>, usize, RandomState>,
    /// The batch of each pair.
    batches: HashMap<(usize, Vec<u8>), usize, RandomState>,
}

/// Where spans belong.
enum Batch {
    Known(usize),
    New { resource: Arc<[u8]>, library: Vec<u8> },
}

impl Origins {
    /// A resource and its number.
    fn resource(&mut self, message: Vec<u8>) -> (Arc<[u8]>, usize) {
        if let Some((known, &number)) = self.resources.get_key_value(&message[..]) {
            return (Arc::clone(known), number);
        }
        let (own, number) = (Arc::<[u8]>::from(message), self.resources.len());
        self.resources.insert(Arc::clone(&own), number);
        (own, number)
    }

    /// The batch of a resource and a library. Each pair is kept with all of its resource, which is far more than was sent of it:
    /// it counts.
    fn batch(
        &mut self,
        (resource, number): (Arc<[u8]>, usize),
        library: Vec<u8>,
        budget: &mut Budget,
    ) -> Result<Batch, IngestError> {
        let next = self.batches.len();
        match self.batches.entry((number, library)) {
            Entry::Occupied(known) => Ok(Batch::Known(*known.get())),
            Entry::Vacant(new) => {
                let bytes = resource.len().saturating_add(new.key().1.len());
                budget.take_for("resource: once for each of its scopes", bytes)?;
                let library = new.key().1.clone();
                new.insert(next);
                Ok(Batch::New { resource, library })
            }
        }
    }
}

/// Refuses what takes too much memory to be read again.
fn bounded(field: &str, weight: usize) -> Result<(), IngestError> {
    if weight <= MAX_SPAN_BYTES {
        return Ok(());
    }
    let message =
        format!("takes {weight} bytes of memory, {MAX_SPAN_BYTES} at most: send fewer or shorter attributes");
    Err(IngestError::invalid(field, message))
}

/// The memory that a span takes, in bytes: no less than what decoders count, and than its message has.
pub fn span_weight(span: &Span) -> usize {
    let events = span.events.iter().map(|event| size_of::<Event>() + elements(&event.attributes));
    let links = span.links.iter().map(|link| size_of::<Link>() + elements(&link.attributes));
    let parts = elements(&span.attributes) + events.sum::<usize>() + links.sum::<usize>();
    size_of::<Span>() + span.encoded_len() as usize + parts
}

/// The memory of attributes, their texts and bytes aside.
fn elements(attributes: &[KeyValue]) -> usize {
    fn of(value: &AnyValue) -> usize {
        match &value.value {
            Some(Value::ArrayValue(list)) => {
                list.values.iter().map(|value| size_of::<AnyValue>() + of(value)).sum()
            }
            Some(Value::KvlistValue(list)) => elements(&list.values),
            _ => 0,
        }
    }
    let of_one = |attribute: &KeyValue| size_of::<KeyValue>() + attribute.value.as_option().map_or(0, of);
    attributes.iter().map(of_one).sum()
}

/// The service of a resource: its name, else what its process is called.
fn service(attributes: &[KeyValue]) -> String {
    let text = |name: &str| {
        let found = attributes.iter().find(|attribute| attribute.key == name)?;
        match &found.value.as_option()?.value {
            Some(Value::StringValue(text)) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        }
    };
    match (text("service.name"), text("process.executable.name")) {
        (Some(service), _) => service.to_owned(),
        (None, Some(executable)) => format!("unknown_service:{executable}"),
        (None, None) => "unknown_service".to_owned(),
    }
}

/// Refuses a span that cannot be kept, and writes ids and times as they are kept.
fn check(span: &mut Span, limits: &Limits, received_ms: i64) -> Result<(), IngestError> {
    let bad_id = |field: &str, want: usize, bytes: &[u8]| {
        let zero = if bytes.len() == want { "not all zero" } else { "an id" };
        IngestError::invalid(field, format!("expected {want} bytes, {zero}, got {} bytes", bytes.len()))
    };
    let trace = id(&span.trace_id, 16).and_then(TraceId::new);
    let trace = trace.ok_or_else(|| bad_id("trace_id", 16, &span.trace_id))?;
    let own = id(&span.span_id, 8).and_then(|bits| SpanId::new(bits as u64));
    let own = own.ok_or_else(|| bad_id("span_id", 8, &span.span_id))?;
    let parent =
        id(&span.parent_span_id, 8).ok_or_else(|| bad_id("parent_span_id", 8, &span.parent_span_id))?;
    span.trace_id = trace.get().to_be_bytes().to_vec();
    span.span_id = own.get().to_be_bytes().to_vec();
    span.parent_span_id = match SpanId::new(parent as u64) {
        Some(parent) if parent != own => parent.get().to_be_bytes().to_vec(),
        _ => Vec::new(),
    };
    if span.start_time_unix_nano == 0 {
        return Err(IngestError::invalid("start_time_unix_nano", "is 0: send when the span began"));
    }
    // Clocks that are set while a span lasts make it end before it began.
    span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    let signed = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
    let header = Header {
        start_nanos: signed(span.start_time_unix_nano),
        duration_nanos: signed(span.end_time_unix_nano - span.start_time_unix_nano),
        period: 0,
    };
    header.check("start_time_unix_nano", limits, received_ms)?;
    Ok(())
}

/// Cuts what is too much, and counts it.
struct Cutter<'a> {
    limits: &'a Limits,
    dropped: Dropped,
}

impl Cutter<'_> {
    fn resource(&mut self, mut resource: Resource) -> Resource {
        self.attributes(&mut resource.attributes, &mut resource.dropped_attributes_count);
        resource.__buffa_unknown_fields = Default::default();
        resource
    }

    /// The message of a library.
    fn library(&mut self, scope: InstrumentationScope, schema_url: String) -> Result<Vec<u8>, IngestError> {
        let scope = self.scope(scope);
        let weight = elements(&scope.attributes).saturating_add(scope.encoded_len() as usize);
        bounded("scope", weight)?;
        let scope =
            ScopeSpans { scope: scope.into(), schema_url: self.text(schema_url), ..Default::default() };
        Ok(ResourceSpans { scope_spans: vec![scope], ..Default::default() }.encode_to_vec())
    }

    fn scope(&mut self, mut scope: InstrumentationScope) -> InstrumentationScope {
        self.attributes(&mut scope.attributes, &mut scope.dropped_attributes_count);
        scope.name = self.text(scope.name);
        scope.version = self.text(scope.version);
        scope.__buffa_unknown_fields = Default::default();
        scope
    }

    fn span(&mut self, span: &mut Span) {
        cut(&mut span.name, self.limits.max_label_value_bytes);
        drop_long_state(&mut span.trace_state);
        self.attributes(&mut span.attributes, &mut span.dropped_attributes_count);
        let gone =
            truncate(&mut span.events, self.limits.max_events_per_span, &mut span.dropped_events_count);
        self.dropped.events += gone;
        let gone = truncate(&mut span.links, self.limits.max_links_per_span, &mut span.dropped_links_count);
        self.dropped.links += gone;
        for Event { name, attributes, dropped_attributes_count, __buffa_unknown_fields, .. } in
            &mut span.events
        {
            cut(name, self.limits.max_label_value_bytes);
            self.attributes(attributes, dropped_attributes_count);
            *__buffa_unknown_fields = Default::default();
        }
        // A link to nothing says nothing.
        span.links.retain_mut(|link| {
            let trace = id(&link.trace_id, 16).and_then(TraceId::new);
            let span = id(&link.span_id, 8).and_then(|bits| SpanId::new(bits as u64));
            let Some((trace, span)) = trace.zip(span) else { return false };
            link.trace_id = trace.get().to_be_bytes().to_vec();
            link.span_id = span.get().to_be_bytes().to_vec();
            true
        });
        for Link { trace_state, attributes, dropped_attributes_count, __buffa_unknown_fields, .. } in
            &mut span.links
        {
            drop_long_state(trace_state);
            self.attributes(attributes, dropped_attributes_count);
            *__buffa_unknown_fields = Default::default();
        }
        if let Some(status) = span.status.as_option_mut() {
            cut(&mut status.message, self.limits.max_attribute_bytes);
            status.__buffa_unknown_fields = Default::default();
        }
        span.__buffa_unknown_fields = Default::default();
    }

    fn attributes(&mut self, attributes: &mut Vec<KeyValue>, dropped: &mut u32) {
        let before = attributes.len();
        let limits = self.limits;
        attributes.retain_mut(|attribute| {
            let named = (1..=limits.max_label_name_bytes).contains(&attribute.key.len());
            named
                && attribute
                    .value
                    .as_option_mut()
                    .is_some_and(|value| fits(value, limits.max_attribute_bytes))
        });
        attributes.truncate(limits.max_attributes_per_span);
        let gone = before - attributes.len();
        *dropped = dropped.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
        self.dropped.attributes += gone as u64;
    }

    fn text(&self, mut text: String) -> String {
        cut(&mut text, self.limits.max_label_value_bytes);
        text
    }
}

/// Cuts a value if it can be cut; tells whether it is one that can be kept.
fn fits(value: &mut AnyValue, most: usize) -> bool {
    match &mut value.value {
        Some(Value::StringValue(text)) => {
            cut(text, most);
            true
        }
        Some(Value::BytesValue(bytes)) => {
            bytes.truncate(most);
            true
        }
        Some(Value::BoolValue(_) | Value::IntValue(_) | Value::DoubleValue(_)) => true,
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) => value.encoded_len() as usize <= most,
        // Traces have no dictionary.
        Some(Value::StringValueStrindex(_)) | None => false,
    }
}

fn drop_long_state(state: &mut String) {
    if state.len() > MAX_STATE_BYTES {
        state.clear();
    }
}

/// Keeps the beginning of a text.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

fn truncate<T>(list: &mut Vec<T>, most: usize, dropped: &mut u32) -> u64 {
    let gone = list.len().saturating_sub(most);
    list.truncate(most);
    *dropped = dropped.saturating_add(u32::try_from(gone).unwrap_or(u32::MAX));
    gone as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: i64 = 1_767_225_600_000;
    const NOW: u64 = NOW_MS as u64 * 1_000_000;

    fn attribute(key: &str, value: Value) -> KeyValue {
        let value = AnyValue { value: Some(value), ..Default::default() };
        KeyValue { key: key.to_owned(), value: value.into(), ..Default::default() }
    }

    fn span(number: u8) -> Span {
        Span {
            trace_id: vec![7; 16],
            span_id: vec![number; 8],
            name: "charge".to_owned(),
            start_time_unix_nano: NOW,
            end_time_unix_nano: NOW + 5,
            ..Default::default()
        }
    }

    fn request(spans: Vec<Span>) -> Vec<u8> {
        let resource = Resource {
            attributes: vec![attribute("service.name", Value::StringValue("checkout".to_owned()))],
            ..Default::default()
        };
        let of_resource = ResourceSpans {
            resource: resource.into(),
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![of_resource], ..Default::default() }.encode_to_vec()
    }

    fn decode(spans: Vec<Span>, limits: &Limits) -> ExportedSpans {
        decode_spans(&request(spans), limits, &mut Budget::new(limits), NOW_MS).unwrap()
    }

    #[test]
    fn bad_spans_are_named_and_the_others_stay() {
        let spans = vec![
            span(1),
            Span { trace_id: vec![0; 16], ..span(2) },
            Span { span_id: vec![1; 7], ..span(3) },
            Span { start_time_unix_nano: 0, ..span(4) },
            Span { start_time_unix_nano: NOW + 3_600_000_000_000, ..span(5) },
            Span { end_time_unix_nano: 3, parent_span_id: vec![0; 8], ..span(6) },
        ];
        let exported = decode(spans, &Limits::default());
        assert_eq!((exported.total, exported.batches.len()), (6, 1));
        assert_eq!(&*exported.batches[0].service, "checkout");
        let kept: Vec<u8> = exported.batches[0].spans.iter().map(|span| span.span_id[0]).collect();
        assert_eq!(kept, [1, 6]);
        let last = &exported.batches[0].spans[1];
        assert_eq!((last.end_time_unix_nano, last.parent_span_id.len()), (NOW, 0));
        let said: Vec<String> =
            exported.refused.iter().map(|(place, error)| format!("{place}: {error}")).collect();
        for (said, wanted) in said.iter().zip([
            "resource_spans[0].scope_spans[0].spans[1]: trace_id: expected 16 bytes, not all zero",
            "resource_spans[0].scope_spans[0].spans[2]: span_id: expected 8 bytes, an id, got 7",
            "resource_spans[0].scope_spans[0].spans[3]: start_time_unix_nano: is 0",
            "resource_spans[0].scope_spans[0].spans[4]: start_time_unix_nano: the beginning at",
        ]) {
            assert!(said.starts_with(wanted), "{said}");
        }
        assert_eq!(said.len(), 4);
    }

    #[test]
    fn what_is_too_much_is_cut_and_counted() {
        let limits = Limits {
            max_attributes_per_span: 2,
            max_events_per_span: 1,
            max_links_per_span: 1,
            max_attribute_bytes: 4,
            max_spans_per_push: 1,
            ..Limits::default()
        };
        let text = |text: &str| Value::StringValue(text.to_owned());
        let list =
            Value::ArrayValue(Box::new(spanflame_wire::opentelemetry::proto::common::v1::ArrayValue {
                values: vec![AnyValue { value: Some(text("abcdef")), ..Default::default() }],
                ..Default::default()
            }));
        let attributes = vec![
            attribute("", text("nameless")),
            attribute("list", list),
            attribute("a", text("aäöü")),
            attribute("b", Value::IntValue(7)),
            attribute("c", Value::BoolValue(true)),
        ];
        let link = Link { trace_id: vec![1; 16], span_id: vec![1; 8], ..Default::default() };
        let span = Span {
            attributes,
            events: vec![Event::default(), Event::default(), Event::default()],
            links: vec![link.clone(), link],
            ..span(1)
        };
        let exported = decode(vec![span.clone(), span], &limits);
        let kept = &exported.batches[0].spans[0];
        assert_eq!(
            (kept.dropped_attributes_count, kept.dropped_events_count, kept.dropped_links_count),
            (3, 2, 1)
        );
        assert_eq!(exported.dropped, Dropped { attributes: 3, events: 2, links: 1 });
        let cut = kept.attributes[0].value.as_option().and_then(|value| value.value.clone());
        assert_eq!(cut, Some(text("aä")));
        assert!(exported.refused[0].1.to_string().contains("max_spans_per_push"), "{:?}", exported.refused);
    }

    /// A resource of half a mebibyte, and as many spans, each of a library of its own.
    fn with_scopes(scopes: usize) -> Vec<u8> {
        let attributes: Vec<KeyValue> =
            (0..32).map(|n| attribute(&format!("a{n}"), Value::StringValue("x".repeat(16 << 10)))).collect();
        let scope_spans: Vec<ScopeSpans> = (0..scopes)
            .map(|number| ScopeSpans {
                scope: InstrumentationScope { name: format!("library {number}"), ..Default::default() }
                    .into(),
                spans: vec![Span { span_id: (number as u64 + 1).to_be_bytes().to_vec(), ..span(1) }],
                ..Default::default()
            })
            .collect();
        let of_resource = ResourceSpans {
            resource: Resource { attributes, ..Default::default() }.into(),
            scope_spans,
            ..Default::default()
        };
        // The same once more: nothing of it is new.
        ExportTraceServiceRequest {
            resource_spans: vec![of_resource.clone(), of_resource],
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn a_resource_is_there_once_and_counts_for_each_library() {
        let limits = Limits { max_push_bytes: 8 << 20, ..Limits::default() };
        let decode =
            |scopes| decode_spans(&with_scopes(scopes), &limits, &mut Budget::new(&limits), NOW_MS).unwrap();
        let exported = decode(10);
        assert_eq!((exported.batches.len(), exported.refused.len()), (10, 0));
        for batch in &exported.batches {
            assert!(Arc::ptr_eq(&batch.resource, &exported.batches[0].resource));
            assert_eq!(batch.spans.len(), 2, "of both times");
            let message = [&batch.resource[..], &batch.library].concat();
            let origin = ResourceSpans::decode_from_slice(&message).unwrap();
            assert_eq!(origin.resource.as_option().unwrap().attributes.len(), 32);
            assert!(origin.scope_spans[0].scope.as_option().unwrap().name.starts_with("library "));
        }
        let exported = decode(1000);
        assert!((10..16).contains(&exported.batches.len()), "{}", exported.batches.len());
        let kept: usize = exported.batches.iter().map(|batch| batch.spans.len()).sum();
        assert_eq!(kept + exported.refused.len(), exported.total);
        let (place, error) = &exported.refused[0];
        assert!(place.starts_with("resource_spans[0].scope_spans[15].spans[0]"), "{place}");
        assert!(error.to_string().contains("max_push_bytes"), "{error}");
    }

    #[test]
    fn what_takes_too_much_memory_is_refused_whatever_its_message_takes() {
        // Two bytes each, and a hundred in memory.
        let list = |count: usize| {
            let list = spanflame_wire::opentelemetry::proto::common::v1::ArrayValue {
                values: vec![AnyValue::default(); count],
                ..Default::default()
            };
            attribute("list", Value::ArrayValue(Box::new(list)))
        };
        let limits = Limits { max_attribute_bytes: 4 << 20, ..Limits::default() };
        let heavy = Span { attributes: vec![list(MAX_SPAN_BYTES / size_of::<AnyValue>())], ..span(1) };
        let light = Span { attributes: vec![list(MAX_SPAN_BYTES / size_of::<AnyValue>() / 2)], ..span(2) };
        assert!(heavy.encoded_len() < 4 << 20);
        let exported = decode(vec![heavy, light], &limits);
        assert_eq!(exported.batches[0].spans.len(), 1);
        let said = exported.refused[0].1.to_string();
        assert!(said.starts_with("span: takes ") && said.contains("16777216 at most"), "{said}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let limits = Limits::default();
            let _ = decode_spans(&bytes, &limits, &mut Budget::new(&limits), NOW_MS);
        }

        #[test]
        fn damaged_messages_do_not_panic(at in 0..200usize, bit in 0..8u8) {
            let limits = Limits::default();
            let mut bytes = request(vec![span(1), span(2)]);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(exported) = decode_spans(&bytes, &limits, &mut Budget::new(&limits), NOW_MS) {
                for span in exported.batches.iter().flat_map(|batch| &batch.spans) {
                    prop_assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
                }
            }
        }
    }
}
