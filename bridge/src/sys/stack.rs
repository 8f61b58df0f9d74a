//! Reads of the running thread's own stack, bounded so that they cannot fault.
#![allow(unsafe_code)] // raw reads and one system call

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{arch, thread};
use crate::unwind::{End, Memory, Records};

/// Of any size that processors offer, pages are whole multiples of this: larger ones are asked about more often.
const PAGE: u64 = 4096;
/// Bytes of a frame record.
const RECORD: u64 = 16;

/// How far above the stack pointer pages are asked about, at most: further up, where the stack may have ended, memory may be
/// another thread's, which can unmap it between the question and the read.
const REACH: u64 = 1 << 20;

/// Where a thread's stack lies, once that is known. Written by the thread itself or by the collector, read by the
/// thread's signal handler.
#[derive(Default)]
pub(crate) struct Bounds {
    low: AtomicU64,
    /// Zero while unknown.
    high: AtomicU64,
}

impl Bounds {
    pub(crate) const fn new() -> Self {
        Self { low: AtomicU64::new(0), high: AtomicU64::new(0) }
    }

    /// Asks libc; to be called on the thread whose bounds these are, outside signal handlers.
    pub(crate) fn learn_own(&self) {
        if let Some(stack) = thread::stack() {
            self.set(stack);
        }
    }

    /// Finds the stack among the process's mappings from a stack pointer and the control block of a live thread.
    /// Leaves the bounds unknown where the end is not certain, as on a stack that no thread library made.
    pub(crate) fn learn(&self, sp: u64, control_block: u64, mappings: &[Mapping]) {
        let Some(mapping) = mappings.iter().find(|mapping| mapping.range.contains(&sp)) else { return };
        // Mappings merge with their neighbours: only what lies below the control block is certainly the stack's.
        if mapping.main_stack {
            self.set(mapping.range.clone());
        } else if mapping.range.contains(&control_block) && control_block > sp {
            self.set(mapping.range.start..control_block);
        }
    }

    pub(crate) fn forget(&self) {
        self.high.store(0, Ordering::Release);
    }

    fn set(&self, stack: Range<u64>) {
        self.low.store(stack.start, Ordering::Relaxed);
        self.high.store(stack.end, Ordering::Release);
    }

    /// Bytes of the stack below `sp`; meaningless unless `sp` lies in it. For the same signal handlers.
    #[inline]
    pub(crate) fn room(&self, sp: u64) -> u64 {
        sp.saturating_sub(self.low.load(Ordering::Relaxed))
    }

    /// The calling thread's stack from `sp` up, if `sp` lies in it. For signal handlers of the thread whose bounds these are.
    #[inline]
    pub(crate) fn stack(&self, sp: u64) -> Option<Stack> {
        let high = self.high.load(Ordering::Acquire);
        (self.low.load(Ordering::Relaxed) <= sp && sp < high).then(|| Stack {
            low: sp,
            len: (high - sp).saturating_sub(7),
            above: sp,
            beyond: high.saturating_sub(RECORD - 1),
        })
    }
}

/// The interrupted thread's stack from its stack pointer up.
pub(crate) struct Stack {
    low: u64,
    /// A word may be read up to this far from `low`, exclusively.
    len: u64,
    /// Where the next frame record may begin at the lowest; at `low` or above.
    above: u64,
    /// Where no record can begin any more.
    beyond: u64,
}

impl Memory for Stack {
    #[inline]
    fn word(&mut self, address: u64) -> Option<u64> {
        if address & 7 != 0 || address.wrapping_sub(self.low) >= self.len {
            return None;
        }
        // SAFETY: aligned, and between the stack pointer and the end of the running thread's stack.
        Some(unsafe { (address as *const u64).read_volatile() })
    }
}

impl Records for Stack {
    #[inline]
    fn record(&mut self, address: u64) -> Result<[u64; 2], End> {
        if address < self.above {
            return Err(End::NoProgress);
        }
        if address >= self.beyond || address & 7 != 0 {
            return Err(End::BadRead);
        }
        self.above = address.wrapping_add(RECORD);
        // SAFETY: aligned, at the stack pointer or above it, and a record's length or more from the end of the running
        // thread's stack.
        Ok(unsafe { (address as *const [u64; 2]).read_volatile() })
    }
}

/// The same of a stack that may end anywhere: the kernel is asked about each page.
pub(crate) struct Probing {
    low: u64,
    above: u64,
    /// Pages found readable.
    probed: [u64; 2],
}

impl Probing {
    /// The stack from `sp` up.
    pub(crate) fn new(sp: u64) -> Self {
        Self { low: sp, above: sp, probed: [0; 2] }
    }

    /// Whether the page of `address` is readable, asked once per page as long as a walk goes upwards.
    fn probe(&mut self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        if !(self.low..self.low.saturating_add(REACH)).contains(&address) {
            return false;
        }
        if self.probed.contains(&page) {
            return true;
        }
        if !readable(page) {
            return false;
        }
        self.probed = [page, self.probed[0]];
        true
    }
}

impl Memory for Probing {
    #[inline]
    fn word(&mut self, address: u64) -> Option<u64> {
        if address & 7 != 0 || address < self.low || !self.probe(address) {
            return None;
        }
        // SAFETY: aligned, and in a page that the kernel has just read from, near the stack pointer. A stack with less than
        // `REACH` left above, whose end is not known yet, may have a neighbour that is unmapped at this very moment; a
        // rule would have to lead there.
        Some(unsafe { (address as *const u64).read_volatile() })
    }
}

impl Records for Probing {
    #[inline]
    fn record(&mut self, address: u64) -> Result<[u64; 2], End> {
        if address < self.above {
            return Err(End::NoProgress);
        }
        let (Some(first), Some(second)) = (self.word(address), self.word(address.wrapping_add(8))) else {
            return Err(End::BadRead);
        };
        self.above = address.wrapping_add(RECORD);
        Ok([first, second])
    }
}

/// A mapping of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    range: Range<u64>,
    main_stack: bool,
}

/// The readable and writable mappings of this process.
pub(crate) fn mappings() -> Vec<Mapping> {
    std::fs::read_to_string("/proc/self/maps")
        .map(|maps| maps.lines().filter_map(mapping).collect())
        .unwrap_or_default()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    fields.next().filter(|access| access.starts_with("rw"))?;
    Some(Mapping { range, main_stack: fields.nth(3) == Some("[stack]") })
}

/// Whether the kernel can read a word at `address`: it looks at a signal set there, and then at a nonsensical request.
fn readable(address: u64) -> bool {
    const NO_SUCH_REQUEST: u64 = u64::MAX;
    const SET_SIZE: u64 = 8;
    let arguments = [NO_SUCH_REQUEST, address, 0, SET_SIZE];
    // SAFETY: the kernel looks at the set and refuses the request: it changes nothing.
    let answer = unsafe { arch::raw_call(libc::SYS_rt_sigprocmask, arguments) };
    // EFAULT when the set cannot be read.
    answer == -i64::from(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_apart_without_a_fault() {
        let words = [1u64, 2, 3, 4];
        let at = words.as_ptr() as u64;
        assert!(readable(at & !(PAGE - 1)));
        assert!(!readable(0));
        assert!(!readable(1 << 63));
        let mut probing = Probing::new(at);
        assert_eq!(probing.word(at + 8), Some(2));
        assert_eq!(probing.word(at - 8), None, "below the stack pointer");
        assert_eq!(probing.word(at + 4), None, "unaligned");
        assert_eq!(probing.word(u64::MAX - 7), None);
        let large = vec![7u64; 2 * REACH as usize / 8];
        let at_large = large.as_ptr() as u64;
        let mut probing = Probing::new(at_large);
        assert_eq!(probing.word(at_large + REACH - 8), Some(7));
        assert_eq!(probing.word(at_large + REACH), None, "readable, but too far up");
        let bounds = Bounds::new();
        bounds.set(at..at + 32);
        assert!(bounds.stack(at - 8).is_none());
        assert!(bounds.stack(at + 32).is_none());
        let mut bounded = bounds.stack(at).expect("known and inside");
        assert_eq!(bounded.word(at), Some(1));
        assert_eq!(bounded.word(at + 24), Some(4));
        assert_eq!(bounded.word(at + 32), None);
        assert_eq!(bounded.word(at - 8), None);
    }

    #[test]
    fn frame_records_are_read_upwards_and_within_the_stack() {
        let words = [1u64, 2, 3, 4, 5];
        let at = words.as_ptr() as u64;
        let bounds = Bounds::new();
        bounds.set(at..at + 40);
        fn upwards(stack: &mut impl Records, at: u64) {
            assert_eq!(stack.record(at - 8), Err(End::NoProgress), "below the stack pointer");
            assert_eq!(stack.record(at + 4), Err(End::BadRead), "unaligned");
            assert_eq!(stack.record(at + 8), Ok([2, 3]));
            assert_eq!(stack.record(at + 16), Err(End::NoProgress), "in the record before");
            assert_eq!(stack.record(at + 24), Ok([4, 5]));
            assert_eq!(stack.record(u64::MAX - 7), Err(End::BadRead));
        }
        upwards(&mut Probing::new(at), at);
        upwards(&mut bounds.stack(at).expect("known and inside"), at);
        let mut bounded = bounds.stack(at).expect("known and inside");
        assert_eq!(bounded.record(at + 32), Err(End::BadRead), "half of it is beyond the end");
        bounds.set(at..at + 8);
        let mut short = bounds.stack(at).expect("known and inside");
        assert_eq!(short.record(at), Err(End::BadRead));
    }

    #[test]
    fn a_threads_stack_is_found_from_its_registers() {
        let check = || {
            let marker = 0u64;
            let at = (&raw const marker) as u64;
            let (own, found) = (Bounds::new(), Bounds::new());
            own.learn_own();
            found.learn(at, thread::control_block(), &mappings());
            let end = |bounds: &Bounds| bounds.high.load(Ordering::Relaxed);
            assert!(own.stack(at).is_some() && found.stack(at).is_some());
            // libc counts the control block and thread-local variables as stack.
            assert!(end(&found) > at && end(&found) <= end(&own));
        };
        std::thread::spawn(check).join().expect("found in a spawned thread");
        assert_eq!(
            mapping("7ffc0000-7ffd0000 rw-p 00000000 00:00 0    [stack]").map(|m| m.main_stack),
            Some(true)
        );
        assert_eq!(mapping("7ffc0000-7ffd0000 r--p 00000000 00:00 0"), None);
        assert_eq!(mapping(""), None);
    }
}
