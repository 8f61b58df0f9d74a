//! The work itself: one named function for each thing the program does, so that a flame graph shows who burned what.
//! Each takes the CPU time it should cost and returns the CPU time it did cost. Knows nothing of spans.

use std::hint::black_box;
use std::time::Duration;

use example_work::spend;

/// Reads numbers out of text.
#[inline(never)]
pub(crate) fn parse_records(cpu: Duration) -> Duration {
    spend(cpu, || {
        for record in ["17;4;2026", "3;11;2025", "28;2;2024"] {
            black_box(
                black_box(record).split(';').filter_map(|field| field.parse::<u32>().ok()).sum::<u32>(),
            );
        }
    })
}

/// Hashes made-up keys.
#[inline(never)]
pub(crate) fn index_records(cpu: Duration) -> Duration {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    spend(cpu, || {
        for key in 0..2_000_u64 {
            hash = (hash ^ black_box(key)).wrapping_mul(0x0100_0000_01b3);
        }
    })
}

/// Undoes a made-up differential coding.
#[inline(never)]
pub(crate) fn decode_image(cpu: Duration) -> Duration {
    let mut pixels = [7_u8; 512];
    spend(cpu, || {
        for index in 1..pixels.len() {
            pixels[index] = black_box(pixels[index]).wrapping_add(pixels[index - 1]);
        }
    })
}

/// Averages neighbours.
#[inline(never)]
pub(crate) fn scale_image(cpu: Duration) -> Duration {
    let row: Vec<u32> = (0..1_024).map(|pixel| pixel * 37 % 251).collect();
    spend(cpu, || {
        black_box(black_box(&row).chunks_exact(2).map(|pair| (pair[0] + pair[1]) / 2).sum::<u32>());
    })
}
