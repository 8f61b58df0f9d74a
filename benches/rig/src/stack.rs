//! How much stack a signal takes: the stack below the interrupted frame is painted, and the paint looked for after.
#![allow(unsafe_code)] // writes and reads below the stack pointer

use crate::chain::at_depth;
use crate::protocol::{HandlerStack, Subject};
use crate::signal::{Forged, Wrapped, handled, settle};
use anyhow::{Result, ensure};
use std::arch::asm;
use std::ptr::{read_volatile, write_volatile};

/// More than any profiler takes.
const PAINTED: usize = 96 << 10;
/// Below the stack pointer: what a function without calls may use without moving it, and a little.
const SPARED: usize = 512;
const PAINT: u64 = 0xA5C3_5A3C_96E1_1E69;

/// The deepest of several signals, with the profiler's handler and with an empty one.
pub(crate) fn measure<S: Subject>(subject: &S, frames: usize, signals: usize) -> Result<HandlerStack> {
    let wrapped = Wrapped::install()?;
    let forged = Forged::new(subject.signal_value()?);
    let mut deepest = [0; 2];
    for (is_empty, deepest) in [false, true].into_iter().zip(&mut deepest) {
        wrapped.set_empty(is_empty);
        at_depth(frames, &mut || {
            for _ in 0..signals {
                *deepest = (*deepest).max(used_by(&forged));
            }
        });
        subject.discard();
    }
    wrapped.set_empty(false);
    let [bytes, empty_bytes] = deepest;
    ensure!(bytes < PAINTED, "the handler used all of the {PAINTED} bytes that were painted");
    Ok(HandlerStack { bytes, empty_bytes })
}

/// Bytes below this function's frame that a signal leaves traces in.
#[inline(never)]
fn used_by(forged: &Forged) -> usize {
    let top: usize;
    // SAFETY: reads the stack pointer.
    unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, nostack, preserves_flags)) };
    let words = || (top - PAINTED..top - SPARED).step_by(8);
    for word in words() {
        // SAFETY: below the red zone of this function, above the end of the thread's stack of 2 MiB, and aligned, as
        // the stack pointer is.
        unsafe { write_volatile(word as *mut u64, PAINT) };
    }
    let seen = handled();
    forged.send();
    settle(seen);
    // SAFETY: the words just painted.
    let untouched = words().take_while(|word| unsafe { read_volatile(*word as *const u64) } == PAINT).count();
    PAINTED - untouched * 8
}

/// Takes signals near the beginning of a stack of that size. A profiler that needs more ends the process.
pub(crate) fn survive<S: Subject>(subject: &S, bytes: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, || {
            let forged = Forged::new(subject.signal_value()?);
            (0..100).for_each(|_| forged.send());
            anyhow::Ok(())
        })?;
        thread.join().expect("a measuring thread does not panic")
    })
}
