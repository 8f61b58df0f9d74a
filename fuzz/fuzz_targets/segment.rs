//! A segment, whoever wrote it: what is changed is mostly what its checksums cover, which then fit again.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use spanflame_server::store::fuzzing;

fuzz_target!(|bytes: &[u8]| fuzzing::segment(bytes));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Now and then the file as it lies on disk.
    if seed % 8 > 0
        && let Some(mut unpacked) =
            fuzzing::segment_unpacked(&data[..size]).filter(|unpacked| unpacked.len() <= max_size)
    {
        let size = unpacked.len();
        unpacked.resize(max_size, 0);
        let size = fuzzer_mutate(&mut unpacked, size, max_size);
        let packed = fuzzing::segment_packed(&unpacked[..size]);
        if let Some(packed) = packed.filter(|packed| packed.len() <= max_size) {
            data[..packed.len()].copy_from_slice(&packed);
            return packed.len();
        }
    }
    fuzzer_mutate(data, size, max_size)
});
