//! The binary form whose nodes are frames.
#![no_main]

mod upload;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| upload::decode("tree", bytes));
