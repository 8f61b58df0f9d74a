//! The same export in JSON, which becomes protobuf first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Budget, Limits, decode_otlp, otlp_from_json};
use spanflame_server::store::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    let Ok(message) = otlp_from_json(bytes, &limits) else { return };
    let exported = decode_otlp(&message, &limits, &mut Budget::new(&limits), 0);
    for exported in exported.unwrap_or_default() {
        if let Ok(profiles) = exported.profiles {
            fuzzing::keep(profiles);
        }
    }
});
