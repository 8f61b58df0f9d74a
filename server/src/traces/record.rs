//! The form in which spans are kept: those of one trace that came together are one record, a message of OpenTelemetry's
//! own, deflated where that helps. Resources are kept beside them, once.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use buffa::{DecodeOptions, Message};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use foldhash::fast::RandomState;
use spanflame_wire::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::span::{Origin, SpanStatus, TracedSpan, span_id, trace_id};
use crate::ingest::{MAX_SPAN_BYTES, SpanBatch, span_weight};
use crate::model::{SpanId, TraceId};

/// Memory that the spans of a record take at which the next is begun, in bytes: a trace is read record by record.
const RECORD_BYTES: usize = 1 << 20;
/// The most that a record may take to be read, inflated, and again in memory. Whatever was let in is smaller: this is no
/// setting, since what was acknowledged has to be read under other settings too.
const MAX_RECORD_BYTES: usize = 64 << 20;
const _: () =
    assert!(MAX_RECORD_BYTES > RECORD_BYTES + MAX_SPAN_BYTES, "a record and its last span can be read");
const _: () = assert!(MAX_RECORD_BYTES > 2 * MAX_SPAN_BYTES, "a resource and a library can be read");
/// What the index of one span takes on disk, in bytes, about.
const INDEX_BYTES: usize = 120;

/// Spans that are ready to be written.
pub(super) struct Prepared {
    pub(super) origins: Vec<PreparedOrigin>,
    pub(super) records: Vec<PreparedRecord>,
    pub(super) rows: Vec<PreparedRow>,
    /// What they take on disk, and while they wait, about.
    pub(super) bytes: usize,
}

pub(super) struct PreparedOrigin {
    pub(super) service: Arc<str>,
    resource: Arc<[u8]>,
    library: Vec<u8>,
}

impl PreparedOrigin {
    /// The message of both, as it is stored.
    pub(super) fn message(&self) -> Vec<u8> {
        [&self.resource[..], &self.library].concat()
    }
}

pub(super) struct PreparedRecord {
    /// Which of the origins.
    pub(super) origin: usize,
    pub(super) trace: TraceId,
    pub(super) bytes: Vec<u8>,
}

/// What is known of a span without its record.
pub(super) struct PreparedRow {
    /// Which of the origins.
    pub(super) origin: usize,
    pub(super) name: String,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) start_nanos: u64,
    pub(super) facts: RowFacts,
}

/// What the index keeps of a span beside its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowFacts {
    pub(super) duration_nanos: u64,
    pub(super) status: SpanStatus,
}

impl RowFacts {
    pub(super) fn status_number(self) -> u8 {
        match self.status {
            SpanStatus::Unset => 0,
            SpanStatus::Ok => 1,
            SpanStatus::Error => 2,
        }
    }
}

impl Prepared {
    pub(super) fn new(batches: Vec<SpanBatch>) -> Self {
        let mut prepared = Self { origins: Vec::new(), records: Vec::new(), rows: Vec::new(), bytes: 0 };
        for SpanBatch { service, resource, library, spans } in batches {
            let number = prepared.origins.len();
            prepared.bytes += resource.len() + library.len();
            prepared.origins.push(PreparedOrigin { service, resource, library });
            let mut traces: HashMap<TraceId, (usize, Vec<Span>), RandomState> = HashMap::default();
            let mut order = Vec::new();
            for span in spans {
                let ids = trace_id(&span.trace_id).zip(span_id(&span.span_id));
                let Some((trace, id)) = ids else { continue };
                let status = span.status.as_option().map_or(0, |status| status.code.to_i32());
                prepared.bytes += INDEX_BYTES + span.name.len();
                prepared.rows.push(PreparedRow {
                    origin: number,
                    name: span.name.clone(),
                    trace,
                    span: id,
                    start_nanos: span.start_time_unix_nano,
                    facts: RowFacts {
                        duration_nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                        status: SpanStatus::of(status),
                    },
                });
                let (weight, known) = traces.entry(trace).or_insert_with(|| {
                    order.push(trace);
                    Default::default()
                });
                *weight += span_weight(&span);
                known.push(span);
                if *weight >= RECORD_BYTES {
                    *weight = 0;
                    let full = std::mem::take(known);
                    prepared.record(number, trace, full);
                }
            }
            for trace in order {
                let (_, spans) = traces.remove(&trace).unwrap_or_default();
                if !spans.is_empty() {
                    prepared.record(number, trace, spans);
                }
            }
        }
        prepared
    }

    fn record(&mut self, origin: usize, trace: TraceId, spans: Vec<Span>) {
        let bytes = pack(ScopeSpans { spans, ..Default::default() }.encode_to_vec());
        self.bytes += bytes.len();
        self.records.push(PreparedRecord { origin, trace, bytes });
    }
}

/// One byte for the form, 0 as it is or 1 deflated, then the message.
fn pack(message: Vec<u8>) -> Vec<u8> {
    let mut packed = vec![1];
    let mut encoder = DeflateEncoder::new(&mut packed, Compression::default());
    let written = encoder.write_all(&message).and_then(|()| encoder.finish().map(drop));
    if written.is_err() || packed.len() > message.len() {
        packed.clear();
        packed.push(0);
        packed.extend(message);
    }
    packed
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    match packed.split_first() {
        Some((0, message)) => Ok(message.to_vec()),
        Some((1, deflated)) => {
            let mut message = Vec::new();
            let mut inflated = DeflateDecoder::new(deflated).take(MAX_RECORD_BYTES as u64);
            inflated.read_to_end(&mut message).map_err(|error| error.to_string())?;
            Ok(message)
        }
        _ => Err("a record in a form that is not known".to_owned()),
    }
}

fn options() -> DecodeOptions {
    DecodeOptions::new().with_element_memory_limit(MAX_RECORD_BYTES)
}

/// Reads the spans of a record.
pub(super) fn spans(packed: &[u8], origin: &Arc<Origin>) -> Result<Vec<TracedSpan>, String> {
    let message = unpack(packed)?;
    let message: ScopeSpans = options().decode_from_slice(&message).map_err(|error| error.to_string())?;
    Ok(message.spans.into_iter().filter_map(|span| TracedSpan::read(span, origin)).collect())
}

/// Reads a resource and a library.
pub(super) fn origin(service: &str, message: &[u8]) -> Result<Origin, String> {
    let message: ResourceSpans = options().decode_from_slice(message).map_err(|error| error.to_string())?;
    Ok(Origin::read(service, message))
}

#[cfg(test)]
mod tests {
    use buffa::Message;
    use spanflame_wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
    use spanflame_wire::opentelemetry::proto::common::v1::__buffa::oneof::any_value::Value;
    use spanflame_wire::opentelemetry::proto::common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue,
    };
    use spanflame_wire::opentelemetry::proto::resource::v1::Resource;

    use super::*;
    use crate::ingest::{Budget, Limits, decode_spans};
    use crate::testing::START_MS;

    /// An attribute of so many empty values, two bytes each in a message.
    fn list(key: &str, values: usize) -> KeyValue {
        let list = ArrayValue { values: vec![AnyValue::default(); values], ..Default::default() };
        let value = AnyValue { value: Some(Value::ArrayValue(Box::new(list))), ..Default::default() };
        KeyValue { key: key.to_owned(), value: value.into(), ..Default::default() }
    }

    fn span(id: u64, attributes: Vec<KeyValue>) -> Span {
        Span {
            trace_id: vec![7; 16],
            span_id: id.to_be_bytes().to_vec(),
            start_time_unix_nano: START_MS as u64 * 1_000_000,
            attributes,
            ..Default::default()
        }
    }

    /// Whatever the limits let in can be read again: here they let in more than any decoder takes by default.
    #[test]
    fn all_that_is_let_in_can_be_read() {
        let most = (MAX_SPAN_BYTES - 4096) / (size_of::<AnyValue>() + 2);
        let resource = Resource { attributes: vec![list("resource", most)], ..Default::default() };
        let scope = InstrumentationScope {
            name: "shop".to_owned(),
            attributes: vec![list("scope", most)],
            ..Default::default()
        };
        // Many of ordinary size, and some as large as may be: too much together for a decoder's default.
        let mut spans: Vec<Span> = (1..=60_000).map(|id| span(id, vec![list("small", 5)])).collect();
        spans.extend((0..5).map(|id| span(100_000 + id, vec![list("large", most)])));
        let of_resource = ResourceSpans {
            resource: resource.into(),
            scope_spans: vec![ScopeSpans { scope: scope.into(), spans, ..Default::default() }],
            ..Default::default()
        };
        let request = ExportTraceServiceRequest { resource_spans: vec![of_resource], ..Default::default() };
        let limits = Limits { max_attribute_bytes: 1 << 30, max_decoded_bytes: 1 << 30, ..Limits::default() };
        let message = request.encode_to_vec();
        let exported = decode_spans(&message, &limits, &mut Budget::new(&limits), START_MS).unwrap();
        assert_eq!((exported.refused.len(), exported.total), (0, 60_005), "{:?}", exported.refused.first());
        let prepared = Prepared::new(exported.batches);
        let [of_all] = &prepared.origins[..] else { panic!("one origin") };
        let origin = Arc::new(origin(&of_all.service, &of_all.message()).unwrap());
        assert_eq!((origin.resource.len(), origin.scope.0.as_str()), (1, "shop"));
        let sizes: Vec<usize> =
            prepared.records.iter().map(|record| spans_of(record, &origin).len()).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 60_005);
        assert!(sizes.len() > 10, "a trace is read piece by piece: {sizes:?}");
        let kept: usize = prepared.records.iter().map(|record| record.bytes.len()).sum();
        assert!(prepared.bytes >= kept + of_all.message().len(), "the queue counts origins too");
    }

    fn spans_of(record: &PreparedRecord, origin: &Arc<Origin>) -> Vec<TracedSpan> {
        spans(&record.bytes, origin).unwrap()
    }
}
