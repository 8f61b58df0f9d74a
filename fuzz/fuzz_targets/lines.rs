//! Stack traces as text, one for each sample.
#![no_main]

mod upload;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| upload::decode("lines", bytes));
