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
use crate::ingest::SpanBatch;
use crate::model::{SpanId, TraceId};

/// The most that a record is inflated to, in bytes; what was let in is far smaller.
const MAX_RECORD_BYTES: u64 = 1 << 30;
/// What the index of one span takes on disk, in bytes, about.
const INDEX_BYTES: usize = 120;

/// Spans that are ready to be written.
pub(super) struct Prepared {
    pub(super) origins: Vec<PreparedOrigin>,
    pub(super) records: Vec<PreparedRecord>,
    pub(super) rows: Vec<PreparedRow>,
    /// What they take on disk, about.
    pub(super) bytes: usize,
}

pub(super) struct PreparedOrigin {
    pub(super) service: String,
    pub(super) message: Vec<u8>,
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
        for SpanBatch { service, origin, spans } in batches {
            let number = prepared.origins.len();
            let message = origin.encode_to_vec();
            prepared.origins.push(PreparedOrigin { service, message });
            let mut traces: HashMap<TraceId, Vec<Span>, RandomState> = HashMap::default();
            let mut order = Vec::new();
            for span in spans {
                let ids = trace_id(&span.trace_id).zip(span_id(&span.span_id));
                let Some((trace, id)) = ids else { continue };
                let status = span.status.as_option().map_or(0, |status| status.code.to_i32());
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
                let known = traces.entry(trace).or_insert_with(|| {
                    order.push(trace);
                    Vec::new()
                });
                known.push(span);
            }
            for trace in order {
                let spans = traces.remove(&trace).unwrap_or_default();
                let message = ScopeSpans { spans, ..Default::default() }.encode_to_vec();
                prepared.records.push(PreparedRecord { origin: number, trace, bytes: pack(message) });
            }
        }
        let records: usize = prepared.records.iter().map(|record| record.bytes.len()).sum();
        prepared.bytes = records + prepared.rows.len() * INDEX_BYTES;
        prepared
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
            let mut inflated = DeflateDecoder::new(deflated).take(MAX_RECORD_BYTES);
            inflated.read_to_end(&mut message).map_err(|error| error.to_string())?;
            Ok(message)
        }
        _ => Err("a record in a form that is not known".to_owned()),
    }
}

/// Reads the spans of a record.
pub(super) fn spans(packed: &[u8], origin: &Arc<Origin>) -> Result<Vec<TracedSpan>, String> {
    let message = unpack(packed)?;
    let message: ScopeSpans =
        DecodeOptions::new().decode_from_slice(&message).map_err(|error| error.to_string())?;
    Ok(message.spans.into_iter().filter_map(|span| TracedSpan::read(span, origin)).collect())
}

/// Reads a resource.
pub(super) fn origin(service: &str, message: &[u8]) -> Result<Origin, String> {
    let message: ResourceSpans =
        DecodeOptions::new().decode_from_slice(message).map_err(|error| error.to_string())?;
    Ok(Origin::read(service, message))
}
