//! The work itself: one named function for each thing the program does, so that a flame graph shows who burned what.
//! Knows nothing of spans.

use std::hint::black_box;
use std::time::Duration;

use example_work::spend;

/// Undoes a made-up run-length coding.
#[inline(never)]
pub(crate) fn unpack_pictures(cpu: Duration) {
    let runs: Vec<(u8, usize)> = (1..64_u8).map(|colour| (colour, usize::from(colour) % 7 + 1)).collect();
    spend(cpu, || {
        let pixels =
            black_box(&runs).iter().flat_map(|(colour, length)| std::iter::repeat_n(*colour, *length));
        black_box(pixels.map(u64::from).sum::<u64>());
    });
}

/// Fills a made-up canvas.
#[inline(never)]
pub(crate) fn draw_cover(cpu: Duration) {
    let mut canvas = [0_u32; 256];
    spend(cpu, || {
        for (place, pixel) in canvas.iter_mut().enumerate() {
            *pixel = black_box(*pixel).wrapping_mul(31).wrapping_add(place as u32);
        }
    });
}

/// Averages neighbours.
#[inline(never)]
pub(crate) fn shrink_picture(cpu: Duration) {
    let row: Vec<u32> = (0..512).map(|pixel| pixel * 37 % 251).collect();
    spend(cpu, || {
        black_box(black_box(&row).chunks_exact(4).map(|four| four.iter().sum::<u32>() / 4).sum::<u32>());
    });
}
