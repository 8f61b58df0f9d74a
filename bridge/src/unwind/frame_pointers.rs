//! The walk along frame pointers: for builds in which every function keeps one (`-C force-frame-pointers`).

use super::arch::Architecture;
use super::walk::{End, Memory, Registers};

/// Bytes of a frame record: the caller's frame pointer, then the return address. The same on x86-64 and aarch64.
const RECORD: u64 = 16;

/// Gives `push` the program counter and then each return address, innermost first, until it returns `false`. Code
/// without frame pointers is invisible to it: what such code keeps in the register ends the walk, or leads it to words
/// that are no return addresses. Whether what was pushed is code is left to the receiving end.
#[inline]
pub(crate) fn follow<A: Architecture>(
    registers: Registers,
    memory: &mut impl Memory,
    mut push: impl FnMut(u64) -> bool,
) -> End {
    let Registers { ip, sp, mut fp, .. } = registers;
    if !push(ip) {
        return End::TooDeep;
    }
    let mut above = sp;
    loop {
        if fp < above {
            return if fp == 0 { End::Entry } else { End::NoProgress };
        }
        let Some([next, caller]) = memory.pair(fp) else { return End::BadRead };
        if caller == 0 {
            return End::Entry;
        }
        if !push(A::code_address(caller)) {
            return End::TooDeep;
        }
        above = fp.wrapping_add(RECORD);
        fp = next;
    }
}
