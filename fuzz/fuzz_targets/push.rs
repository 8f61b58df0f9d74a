//! A Push message, as protobuf and as JSON, and the profiles in it.
#![no_main]

use buffa::DecodeOptions;
use libfuzzer_sys::fuzz_target;
use spanflame_server::ingest::{Limits, decode_series};
use spanflame_server::store::fuzzing;
use spanflame_wire::push::v1::PushRequest;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 16 << 20, ..Limits::default() };
    let request = DecodeOptions::new()
        .with_max_message_size(1 << 20)
        .decode_from_slice::<PushRequest>(bytes)
        .ok()
        .or_else(|| serde_json::from_slice(bytes).ok());
    for series in request.into_iter().flat_map(|request| request.series) {
        let labels: Vec<_> = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        for sample in series.samples {
            if let Ok(profiles) = decode_series(labels.clone(), sample.raw_profile.into(), &limits, 0) {
                fuzzing::keep(profiles);
            }
        }
    }
});
