//! What the handler knows of each thread, at a fixed address for the life of the process: a timer carries the address,
//! so the handler needs no thread-local look-up, and recognises a foreign signal by the address's range.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ring::Ring;
use crate::sys::published::Reader;
use crate::sys::stack::Bounds;

/// Threads that can be followed at once. Untouched states cost nothing: they are zero pages.
pub(super) const MAX_THREADS: usize = 8192;

/// One per thread, then pooled.
#[repr(align(64))]
pub(super) struct ThreadState {
    /// Raised while the thread's handler runs.
    reading: AtomicBool,
    /// Whether the thread itself is bound to this, and so maintains the label and the bounds.
    pub(super) bound: AtomicBool,
    /// Whether the next sample makes up for CPU time from before the thread was found: it may not claim a span.
    pub(super) catching_up: AtomicBool,
    /// The `SpanKey` that samples are stamped with.
    pub(super) label: AtomicU64,
    pub(super) bounds: Bounds,
    pub(super) ring: Ring,
    /// Stack pointer and control block that the first sample without known bounds saw, for the collector to look up.
    pub(super) seen_sp: AtomicU64,
    pub(super) seen_control_block: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) lost_weight: AtomicU64,
    pub(super) excess_weight: AtomicU64,
    pub(super) nested: AtomicU64,
}

pub(super) static STATES: [ThreadState; MAX_THREADS] = [const { ThreadState::new() }; MAX_THREADS];

impl ThreadState {
    pub(super) const fn new() -> Self {
        Self {
            reading: AtomicBool::new(false),
            bound: AtomicBool::new(false),
            catching_up: AtomicBool::new(false),
            label: AtomicU64::new(0),
            bounds: Bounds::new(),
            ring: Ring::new(),
            seen_sp: AtomicU64::new(0),
            seen_control_block: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            lost_weight: AtomicU64::new(0),
            excess_weight: AtomicU64::new(0),
            nested: AtomicU64::new(0),
        }
    }

    /// Makes the state fit for a thread that is new to it; the counters go on.
    pub(super) fn reset(&self) {
        self.bound.store(false, Ordering::Relaxed);
        self.catching_up.store(false, Ordering::Relaxed);
        self.label.store(0, Ordering::Relaxed);
        self.unlearn();
        self.ring.clear();
    }

    /// Forgets where the stack is.
    pub(super) fn unlearn(&self) {
        self.bounds.forget();
        self.seen_sp.store(0, Ordering::Relaxed);
        self.seen_control_block.store(0, Ordering::Relaxed);
    }

    /// Undoes what a fork copied from the middle of another thread's handler, and what the parent counted. Writes only
    /// where something is to be undone: pages that are only read stay shared.
    pub(super) fn after_fork(&self) {
        if self.reading.load(Ordering::Relaxed) {
            self.reading.store(false, Ordering::Relaxed);
        }
        for counter in [&self.lost, &self.lost_weight, &self.excess_weight, &self.nested] {
            if counter.load(Ordering::Relaxed) != 0 {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
}

impl Reader for ThreadState {
    #[inline]
    fn reading(&self) -> &AtomicBool {
        &self.reading
    }
}

/// What a timer of the thread with this state carries.
pub(super) fn value(index: usize) -> usize {
    (&raw const STATES[index]) as usize
}

/// The index of the state whose timer carries `value`, if it is of ours.
#[inline]
pub(super) fn index(value: usize) -> Option<usize> {
    let offset = value.wrapping_sub(STATES.as_ptr() as usize);
    let index = offset / size_of::<ThreadState>();
    (index < MAX_THREADS && offset.is_multiple_of(size_of::<ThreadState>())).then_some(index)
}

/// Adds to a counter that only one thread writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_states_are_recognised() {
        assert_eq!(index(value(0)), Some(0));
        assert_eq!(index(value(MAX_THREADS - 1)), Some(MAX_THREADS - 1));
        assert_eq!(index(value(1) + 8), None);
        assert_eq!(index(value(0) - size_of::<ThreadState>()), None);
        assert_eq!(index(value(0) + size_of_val(&STATES)), None);
        assert_eq!(index(0), None);
        assert_eq!(index(usize::MAX), None);
    }
}
