//! A file of the log as it may be found after a stop of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| spanflame_server::store::fuzzing::log_file(bytes));
