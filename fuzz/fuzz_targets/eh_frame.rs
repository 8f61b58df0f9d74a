//! The bridge's compiler of `.eh_frame`, and walks over what it makes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| spanflame::fuzzing::eh_frame(bytes));
