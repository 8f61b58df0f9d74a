//! Instants of the older HTTP routes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::attime;

fuzz_target!(|input: (&str, i64)| {
    let (text, now) = input;
    if let Err(error) = attime::parse(text, now) {
        assert!(!error.to_string().is_empty());
    }
});
