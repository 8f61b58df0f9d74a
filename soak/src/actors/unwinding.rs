//! Others who walk stacks while the sampler does: panics, backtraces, and stacks deeper than anyone wants to walk.

use std::backtrace::Backtrace;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use spanflame_bench_rig::storm::panic_through;

use super::{Round, Stage, in_span};
use crate::kinds::Kind;

/// Panics, thrown and caught, with the hook and without.
pub(super) fn panics(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let kind = Kind::nth(round as usize);
        in_span(&stage.tracer, kind, || {
            (0..200).for_each(|frames| panic_through(frames % 60));
            kind.burn(Duration::from_micros(200));
        });
        let caught = std::panic::catch_unwind(|| assert!(black_box(round) == 0, "round {round}"));
        ensure!(caught.is_err(), "a panic was lost");
        Ok(())
    })
}

/// Captures backtraces, and at times puts names to them.
pub(super) fn backtraces() -> Round {
    let mut round = 0_u64;
    Box::new(move || {
        for _ in 0..50 {
            drop(black_box(Backtrace::force_capture()));
        }
        round += 1;
        if round.is_multiple_of(200) {
            let text = captured_here().to_string();
            ensure!(text.contains("captured_here"), "a backtrace without its own function:\n{text}");
        }
        Ok(())
    })
}

#[inline(never)]
fn captured_here() -> Backtrace {
    black_box(Backtrace::force_capture())
}

/// Burns at the bottom of stacks of up to 20,000 frames.
pub(super) fn recursion(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let frames = [100, 127, 128, 129, 1_000, 20_000][round % 6];
        let stage = Arc::clone(&stage);
        let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(move || {
            let kind = Kind::nth(round);
            in_span(&stage.tracer, kind, || {
                descend(frames, &mut || kind.burn(Duration::from_millis(3)));
            });
        })?;
        ensure!(thread.join().is_ok(), "a deep recursion panicked");
        Ok(())
    })
}

#[inline(never)]
fn descend(frames: u32, work: &mut dyn FnMut()) -> u32 {
    if frames == 0 {
        work();
        return 0;
    }
    black_box(descend(black_box(frames - 1), work)) + 1
}
