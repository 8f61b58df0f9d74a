//! Entries and checkpoints of the manifest, whose checksums fit.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| spanflame_server::store::fuzzing::manifest(bytes));
