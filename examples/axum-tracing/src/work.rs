//! The work itself: one named function for each thing the shop does, so that a flame graph shows who burned what.
//! Each takes the CPU time it should cost and returns the CPU time it did cost. Knows nothing of spans.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use example_work::spend;

/// Walks a made-up permission list.
#[inline(never)]
pub(crate) fn authorize_customer(cpu: Duration) -> Duration {
    let mut roles = 0xa5a5_u64;
    spend(cpu, || {
        for role in 0..2_000_u64 {
            roles ^= black_box(role).wrapping_mul(31) << (role % 7);
        }
    })
}

/// Adds up prices, discounts and tax.
#[inline(never)]
pub(crate) fn price_cart(cpu: Duration) -> Duration {
    let mut cents = 0_u64;
    spend(cpu, || {
        for item in 1..2_000_u64 {
            let price = black_box(item) * 199;
            cents = cents.wrapping_add(price - price / 10 + price * 19 / 100);
        }
    })
}

/// Raises a number to a power modulo a prime, as signature checks do.
#[inline(never)]
pub(crate) fn verify_payment(cpu: Duration) -> Duration {
    let mut signature = 0x1234_5678_u64;
    spend(cpu, || {
        for _ in 0..1_000 {
            signature = black_box(signature) * signature % 4_294_967_291 + 1;
        }
    })
}

/// Mixes the bits of shelf numbers.
#[inline(never)]
pub(crate) fn reserve_stock(cpu: Duration) -> Duration {
    let mut shelf = 1_u64;
    spend(cpu, || {
        for _ in 0..2_000 {
            shelf = black_box(shelf).rotate_left(13) ^ (shelf >> 7) ^ 0x9e37_79b9;
        }
    })
}

/// Writes lines of text.
#[inline(never)]
pub(crate) fn render_receipt(cpu: Duration) -> Duration {
    let mut receipt = String::new();
    spend(cpu, || {
        receipt.clear();
        for line in 0..50 {
            writeln!(receipt, "{line:>3}  item {}", line * 7).expect("a string takes all text");
        }
        black_box(&receipt);
    })
}

/// Splits a query into words.
#[inline(never)]
pub(crate) fn parse_query(cpu: Duration) -> Duration {
    spend(cpu, || {
        for query in ["red shoes size 42", "garden hose 20 m", "usb cable"] {
            black_box(black_box(query).split(' ').map(str::len).sum::<usize>());
        }
    })
}

/// Sorts made-up scores.
#[inline(never)]
pub(crate) fn rank_products(cpu: Duration) -> Duration {
    let mut seed = 7_u32;
    spend(cpu, || {
        let mut scores: Vec<u32> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        })
        .take(100)
        .collect();
        scores.sort_unstable();
        black_box(&scores);
    })
}

/// Counts down, as a probe that waits for its dependencies.
#[inline(never)]
pub(crate) fn probe_dependencies(cpu: Duration) -> Duration {
    spend(cpu, || {
        let mut countdown = 2_000_u32;
        while black_box(countdown) > 0 {
            countdown -= 1;
        }
    })
}
