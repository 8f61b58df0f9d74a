//! Functions whose instructions are known one by one, written once per architecture under the same names.

use std::ops::Range;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod native;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod native;

pub(crate) use native::{WHOLE_STACKS_WITH_STUBS, signal_frames_are_described, step_over_the_trap};

macro_rules! functions {
    ($($name:ident, $end:ident;)*) => {
        unsafe extern "C" {
            $(
                fn $name(turns: u64);
                fn $end();
            )*
            fn spanflame_any_frame_pointer(value: u64, turns: u64);
        }
    };
}

functions! {
    spanflame_leaf, spanflame_leaf_end;
    spanflame_trap, spanflame_trap_end;
    spanflame_trap_caller, spanflame_trap_caller_end;
    spanflame_stub_calls, spanflame_stub_calls_end;
    spanflame_chain_inner, spanflame_chain_inner_end;
    spanflame_chain_middle, spanflame_chain_middle_end;
    spanflame_chain_outer, spanflame_chain_outer_end;
}

fn range(start: unsafe extern "C" fn(u64), end: unsafe extern "C" fn()) -> Range<u64> {
    start as usize as u64..end as usize as u64
}

/// A loop that calls nobody and keeps no frame.
pub(crate) fn leaf() -> Range<u64> {
    range(spanflame_leaf, spanflame_leaf_end)
}

pub(crate) fn run_leaf(turns: u64) {
    // SAFETY: counts down in a register.
    unsafe { spanflame_leaf(turns) }
}

/// The first instruction of a function that is no instruction.
pub(crate) fn trap() -> u64 {
    range(spanflame_trap, spanflame_trap_end).start
}

/// The function that calls the trap.
pub(crate) fn trap_caller() -> Range<u64> {
    range(spanflame_trap_caller, spanflame_trap_caller_end)
}

/// Runs into the trap; whoever handles SIGILL must step over it.
pub(crate) fn run_trap() {
    // SAFETY: keeps the calling convention once the trap is stepped over.
    unsafe { spanflame_trap_caller(0) }
}

/// A function that calls another library through a linkage stub.
pub(crate) fn calls_through_a_stub() -> Range<u64> {
    range(spanflame_stub_calls, spanflame_stub_calls_end)
}

pub(crate) fn run_calls_through_a_stub(turns: u64) {
    // SAFETY: calls `abs` that often.
    unsafe { spanflame_stub_calls(turns) }
}

/// Functions with frame pointers, innermost first.
pub(crate) fn chain() -> [Range<u64>; 3] {
    [
        range(spanflame_chain_inner, spanflame_chain_inner_end),
        range(spanflame_chain_middle, spanflame_chain_middle_end),
        range(spanflame_chain_outer, spanflame_chain_outer_end),
    ]
}

pub(crate) fn run_chain(turns: u64) {
    // SAFETY: counts down in a register.
    unsafe { spanflame_chain_outer(turns) }
}

/// Loops with `value` in the register of the frame pointer.
pub(crate) fn run_with_frame_pointer(value: u64, turns: u64) {
    // SAFETY: restores the register.
    unsafe { spanflame_any_frame_pointer(value, turns) }
}
