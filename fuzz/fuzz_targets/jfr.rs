//! A recording of Java Flight Recorder, and the labels beside it. What is accepted is kept and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Limits, fuzzing as ingest};
use spanflame_server::store::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    // The first byte tells how many of those at the end are labels.
    let Some((&labels, rest)) = bytes.split_first() else { return };
    let (recording, labels) = rest.split_at(rest.len().saturating_sub(labels.into()));
    if let Ok(profiles) = ingest::jfr(recording, labels, &limits) {
        fuzzing::keep(profiles);
    }
});
