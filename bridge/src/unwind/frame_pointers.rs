//! The walk along frame pointers: for builds in which every function keeps one (`-C force-frame-pointers`).

use std::sync::atomic::{AtomicU64, Ordering};

use super::arch::Architecture;
use super::walk::{End, Registers};

/// Reads of the frame records on the walked thread's stack: the caller's frame pointer, then the return address. The same
/// on x86-64 and aarch64.
pub(crate) trait Records {
    /// The record at `address`. [`End::NoProgress`] if that is below the stack pointer or not above the record that was
    /// read before, [`End::BadRead`] if it may not be read.
    fn record(&mut self, address: u64) -> Result<[u64; 2], End>;
}

/// Frames between two looks at how much room is left: the compiler unrolls as much.
const BLOCK: usize = 8;

/// Writes the program counter and then each return address into `frames`, innermost first, and tells how many there are.
/// Code without frame pointers is invisible to it: what such code keeps in the register ends the walk, or leads it to
/// words that are no return addresses. Whether what was written is code is left to the receiving end, and so is the look
/// for the [entry](until_entry).
#[inline]
pub(crate) fn follow<A: Architecture>(
    registers: Registers,
    mut records: impl Records,
    frames: &[AtomicU64],
) -> (usize, End) {
    let Some((innermost, callers)) = frames.split_first() else { return (0, End::TooDeep) };
    innermost.store(registers.ip, Ordering::Relaxed);
    let mut fp = registers.fp;
    let mut written: usize = 1;
    let mut step = |frame: &AtomicU64| {
        let [next, caller] = match records.record(fp) {
            Ok(record) => record,
            Err(end) => return Some(if fp == 0 { End::Entry } else { end }),
        };
        frame.store(A::code_address(caller), Ordering::Relaxed);
        fp = next;
        None
    };
    let (blocks, rest) = callers.as_chunks::<BLOCK>();
    for block in blocks {
        for (i, frame) in block.iter().enumerate() {
            if let Some(end) = step(frame) {
                return (written.wrapping_add(i), end);
            }
        }
        written = written.wrapping_add(BLOCK);
    }
    for frame in rest {
        if let Some(end) = step(frame) {
            return (written, end);
        }
        written = written.wrapping_add(1);
    }
    (written, End::TooDeep)
}

/// Cuts what [`follow`] wrote off at the first frame that nothing called: that one is the thread's entry.
pub(crate) fn until_entry(frames: &[u64], end: End) -> (&[u64], End) {
    match frames.iter().skip(1).position(|caller| *caller == 0) {
        Some(entry) => (&frames[..entry + 1], End::Entry),
        None => (frames, end),
    }
}

/// Any memory, for walks that are not along a running thread's stack.
#[cfg(any(test, fuzzing))]
pub(crate) struct Upwards<M> {
    pub(crate) memory: M,
    /// Where the next record may begin at the lowest.
    pub(crate) above: u64,
}

#[cfg(any(test, fuzzing))]
impl<M: super::Memory> Records for Upwards<M> {
    fn record(&mut self, address: u64) -> Result<[u64; 2], End> {
        if address < self.above {
            return Err(End::NoProgress);
        }
        let mut word = |at| self.memory.word(at).ok_or(End::BadRead);
        let record = [word(address)?, word(address.wrapping_add(8))?];
        self.above = address.wrapping_add(16);
        Ok(record)
    }
}
