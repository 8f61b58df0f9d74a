//! Instants of the older HTTP routes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::attime;

fuzz_target!(|text: &str| {
    for now in [0, 1_767_225_600_000_000_000, i64::MIN, i64::MAX] {
        if let Err(error) = attime::parse(text, now) {
            assert!(!error.to_string().is_empty());
        }
    }
});
