//! speedscope's JSON.
#![no_main]

mod upload;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| upload::decode("speedscope", bytes));
