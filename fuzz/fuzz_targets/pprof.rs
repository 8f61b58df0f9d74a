//! One pprof: gzip, protobuf, references, labels. What is accepted is kept and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Limits, decode_series};
use spanflame_server::store::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    // Small enough that reaching a limit is not running out of memory.
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    let labels = [("__name__", "process_cpu"), ("service_name", "fuzz")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    if let Ok(profiles) = decode_series(labels.into(), bytes.to_vec().into(), &limits, 0) {
        fuzzing::keep(profiles);
    }
});
