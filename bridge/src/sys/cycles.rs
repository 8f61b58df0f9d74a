//! The processor's own clock: one instruction, allowed in signal handlers.
#![allow(unsafe_code)] // one instruction

/// Cycles of the processor's invariant counter since some moment. Its rate is for the caller to find out.
#[inline]
pub(crate) fn cycles() -> u64 {
    // SAFETY: reads a counter; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
