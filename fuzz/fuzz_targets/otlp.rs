//! An export of OpenTelemetry profiles in protobuf. What is accepted is kept and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Budget, Limits, decode_otlp};
use spanflame_server::store::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    for exported in decode_otlp(bytes, &limits, &mut Budget::new(&limits), 0).unwrap_or_default() {
        assert!(!exported.place.is_empty());
        if let Ok(profiles) = exported.profiles {
            fuzzing::keep(profiles);
        }
    }
});
