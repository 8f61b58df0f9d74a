//! An export of OpenTelemetry traces in protobuf, or in JSON where that is what it is. What is accepted is cut to the limits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Budget, Limits, decode_spans, spans_from_json};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_decoded_bytes: 16 << 20, max_attributes_per_span: 4, ..Limits::default() };
    let from_json = spans_from_json(bytes, &limits).ok();
    for message in [Some(bytes), from_json.as_deref()].into_iter().flatten() {
        let Ok(exported) = decode_spans(message, &limits, &mut Budget::new(&limits), 0) else { continue };
        for span in exported.batches.iter().flat_map(|batch| &batch.spans) {
            assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
            assert!(span.attributes.len() <= 4 && span.end_time_unix_nano >= span.start_time_unix_nano);
        }
    }
});
