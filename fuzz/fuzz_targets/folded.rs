//! Stack traces as text, with counts.
#![no_main]

mod upload;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| upload::decode("groups", bytes));
