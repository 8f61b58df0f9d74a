//! Applications' names with their labels: what is read is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::AppName;

fuzz_target!(|text: &str| {
    let Ok(name) = text.parse::<AppName>() else { return };
    let labels: Vec<String> = name.labels().map(|(name, value)| format!("{name}={value}")).collect();
    let written = format!("{}{{{}}}", name.app(), labels.join(","));
    assert_eq!(written.parse::<AppName>().as_ref(), Ok(&name));
});
