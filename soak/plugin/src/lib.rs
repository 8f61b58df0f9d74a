//! A small library to load, run and unload while samples are taken: it burns CPU some frames deep and catches a panic
//! of its own, so that both a profiler and libgcc walk through it.
#![allow(unsafe_code)] // an unmangled name, to be found by `dlsym`

use std::hint::black_box;

/// Burns about `steps` steps at a depth that depends on them.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_soak_plugin_work(steps: u32) -> u64 {
    let caught = std::panic::catch_unwind(|| descend(steps % 24, steps));
    caught.unwrap_or_else(|_| u64::from(steps))
}

#[inline(never)]
fn descend(depth: u32, steps: u32) -> u64 {
    if depth > 0 {
        return black_box(descend(black_box(depth - 1), steps)).wrapping_add(1);
    }
    let mut state = u64::from(steps) | 1;
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state = black_box(state);
    }
    if state & 1 == 0 {
        std::panic::resume_unwind(Box::new(state));
    }
    state
}
