//! The payload of a record of the log: its checksum keeps random bytes from getting this far in `log_file`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| spanflame_server::store::fuzzing::log_payload(bytes));
