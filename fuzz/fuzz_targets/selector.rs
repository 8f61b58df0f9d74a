//! Label selectors, with their regular expressions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::selector::LabelSelector;

fuzz_target!(|text: &str| {
    if let Err(error) = LabelSelector::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
