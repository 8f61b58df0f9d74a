//! What the handler knows of each thread, at a fixed address for the life of the process: a timer carries the address,
//! so the handler needs no thread-local look-up, and recognises a foreign signal by the address's range.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::ring::Ring;
use crate::sys::perf::Event;
use crate::sys::published::Reader;
use crate::sys::stack::Bounds;

/// Threads that can be followed at once. Untouched states cost nothing: they are zero pages.
pub(super) const MAX_THREADS: usize = 8192;
/// States after those of threads: samples of threads that have none yet go there, one thread at a time.
pub(super) const STRANGERS: usize = 8;
/// The kernel's own limit of thread ids.
const MAX_TID: usize = 1 << 22;

/// [`ThreadState::due`] of a thread that a timer of its own signals.
pub(super) const NEVER: u64 = u64::MAX;
/// Set in [`ThreadState::first`] of a thread that is charged from its birth.
pub(super) const BIRTH: u32 = 1 << 31;

/// One per thread, then pooled. Of a size that an address is divided by without a multiplication.
#[repr(align(256))]
pub(super) struct ThreadState {
    /// Raised while the thread's handler runs.
    reading: AtomicBool,
    /// Whether the thread itself is bound to this, and so maintains the label and the bounds.
    pub(super) bound: AtomicBool,
    /// What the thread's first sample has to know, then zero: [`BIRTH`] if it makes up for CPU time from before the
    /// thread was found, so that it may not claim a span if it stands for more than one period; and periods to add.
    pub(super) first: AtomicU32,
    /// The thread that has this state.
    pub(super) tid: AtomicI32,
    /// CPU time of the thread, in nanoseconds, at which its next period is full. Kept where signals do not tell how
    /// many periods they stand for; [`NEVER`] where they do.
    pub(super) due: AtomicU64,
    /// The thread's perf event, as its number plus one; zero for none.
    pub(super) event: AtomicI32,
    /// Periods from one signal of the thread's clock to the next: more than one while the rate is lowered.
    pub(super) divider: AtomicU32,
    /// Samples taken.
    pub(super) taken: AtomicU32,
    /// Samples whose handler was timed, and the cycles that it took.
    pub(super) timed: AtomicU64,
    pub(super) timed_cycles: AtomicU64,
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

pub(super) static STATES: [ThreadState; MAX_THREADS + STRANGERS] =
    [const { ThreadState::new() }; MAX_THREADS + STRANGERS];

/// How many states of threads were ever in use, in this process or in one that it was forked from.
pub(super) static USED: AtomicUsize = AtomicUsize::new(0);

/// Every state that may ever have been in use.
pub(super) fn used() -> impl Iterator<Item = &'static ThreadState> {
    STATES[..USED.load(Ordering::Relaxed)].iter().chain(&STATES[MAX_THREADS..])
}

/// The index of each thread's state plus one, for signals that carry no value. Eight megabytes of zero pages, of which
/// those are touched whose thread ids were ever in use here.
static INDICES: [AtomicU16; MAX_TID] = [const { AtomicU16::new(0) }; MAX_TID];

/// Periods that each signal of the process's own timer stands for; zero while there is no such timer. Its address is
/// what that timer carries.
pub(super) static PROCESS_PERIODS: AtomicU32 = AtomicU32::new(0);

/// Signals of a thread's attempts to find out what a signal costs. Its address is what those signals carry.
pub(super) static PROBES: AtomicU64 = AtomicU64::new(0);
/// The perf event of such an attempt, as its number plus one.
pub(super) static PROBED_EVENT: AtomicI32 = AtomicI32::new(0);

impl ThreadState {
    pub(super) const fn new() -> Self {
        Self {
            reading: AtomicBool::new(false),
            bound: AtomicBool::new(false),
            first: AtomicU32::new(0),
            tid: AtomicI32::new(0),
            due: AtomicU64::new(NEVER),
            event: AtomicI32::new(0),
            divider: AtomicU32::new(1),
            taken: AtomicU32::new(0),
            timed: AtomicU64::new(0),
            timed_cycles: AtomicU64::new(0),
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

    /// Makes the state fit for thread `tid`, which is new to it; the counters go on.
    pub(super) fn reset(&self, tid: i32) {
        self.bound.store(false, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
        self.due.store(NEVER, Ordering::Relaxed);
        self.tid.store(tid, Ordering::Relaxed);
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
        // The thread ids of this process are others, and its copies of the events would keep them from ending.
        if self.tid.load(Ordering::Relaxed) != 0 {
            self.tid.store(0, Ordering::Relaxed);
        }
        let event = self.event.load(Ordering::Relaxed);
        if event != 0 {
            self.event.store(0, Ordering::Relaxed);
            Event(event - 1).forget();
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

/// What the process's own timer carries.
pub(super) fn process_value() -> usize {
    (&raw const PROCESS_PERIODS) as usize
}

/// What attempts to measure a signal carry.
pub(super) fn probe_value() -> usize {
    (&raw const PROBES) as usize
}

/// The index of the state of thread `tid`.
#[inline]
pub(super) fn of(tid: i32) -> Option<usize> {
    let index = INDICES.get(tid as usize)?.load(Ordering::Relaxed).wrapping_sub(1);
    let state = STATES.get(usize::from(index))?;
    (state.tid.load(Ordering::Relaxed) == tid).then_some(usize::from(index))
}

/// Has [`of`] find the state at `index` by the thread that it was reset for.
pub(super) fn enlist(index: usize) {
    let tid = STATES[index].tid.load(Ordering::Relaxed);
    if let Some(entry) = INDICES.get(tid as usize) {
        entry.store(index as u16 + 1, Ordering::Relaxed);
    }
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
        assert_eq!(index(value(MAX_THREADS - 1) + size_of::<ThreadState>()), None, "no thread's");
        assert_eq!(index(0), None);
        assert_eq!(index(usize::MAX), None);
    }

    #[test]
    fn a_state_is_found_by_the_thread_that_has_it_and_by_no_other() {
        let _turn = crate::sampler::TURN.lock();
        let (ours, tid) = (MAX_THREADS - 1, 4_000_000);
        STATES[ours].reset(tid);
        assert_eq!(of(tid), None);
        enlist(ours);
        assert_eq!(of(tid), Some(ours));
        STATES[ours].reset(tid + 1);
        assert_eq!(of(tid), None, "given away");
        for outside in [0, -1, i32::MAX, i32::MIN, MAX_TID as i32] {
            assert_eq!(of(outside), None);
        }
        STATES[ours].reset(0);
    }
}
