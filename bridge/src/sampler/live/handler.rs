//! What happens on a timer's signal: label, registers and stack become one record in the thread's ring.
//!
//! Runs on the interrupted thread between any two of its instructions, so nothing here may allocate, lock, touch
//! thread-local storage or errno, or panic.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock;
use super::state::{
    self, BIRTH, MAX_THREADS, NEVER, PROBED_EVENT, PROBES, PROCESS_PERIODS, STATES, STRANGERS, ThreadState,
};
use crate::config::Unwinder;
use crate::spans::{SpanKey, SpanRecord, SpanTable, SpanWords};
use crate::sys::arch::{cycles, stack_pointer};
use crate::sys::published::{Published, Taken};
use crate::sys::signal::{OnTimer, Origin};
use crate::sys::stack::Probing;
use crate::sys::thread;
use crate::unwind::{CodeMap, End, Memory, Native, Records, Registers, follow, walk};

/// What the handler works with while sampling is on.
pub(super) struct Session {
    pub(super) code: CodeMap,
    pub(super) unwinder: Unwinder,
    pub(super) spans: &'static SpanTable,
    pub(super) max_depth: u16,
    /// The most periods one sample may stand for.
    pub(super) max_weight: u32,
    /// A period of CPU time, in nanoseconds.
    pub(super) period: u64,
}

/// Empty while sampling is off.
pub(super) static SESSION: Published<Session, ThreadState> = Published::new(&STATES);

/// Words of a record for its span, which mean nothing if there is none.
const SPAN_WORDS: usize = SpanWords::LEN;
/// Words of a record before its frames: the weight, then the span's.
const BEFORE_FRAMES: usize = 1 + SPAN_WORDS;
/// One sample in 64 is timed.
const TIMED_MASK: u32 = 63;

/// The most words of a record.
pub(super) const fn most_words(max_depth: usize) -> usize {
    BEFORE_FRAMES + max_depth
}

// The tag of a record: why the walk ended in the low byte, then flags.
const END_MASK: u32 = 0xff;
const HAS_SPAN: u32 = 1 << 8;
const TAGGED: u32 = 1 << 9;
const NO_HEADROOM: u32 = 1 << 10;

/// Stack that a walk and what is around it may need, in bytes; several times what an optimized build was seen to use.
const HEADROOM: u64 = 2048;

pub(super) struct TakeSample;

impl OnTimer for TakeSample {
    #[inline]
    fn on_timer(value: usize, overrun: u32, registers: Registers) -> bool {
        let Some(index) = state::index(value) else { return no_thread_s(value, overrun, registers) };
        sample(index, registers, |state, _| {
            let periods = overrun.saturating_add(1).saturating_mul(state.divider.load(Ordering::Relaxed));
            Some(Weight { periods, may_claim: true })
        });
        true
    }

    #[cold]
    #[inline(never)]
    fn on_clock(origin: Origin, registers: Registers) -> bool {
        match origin {
            // Someone else's, unless that timer is ours.
            Origin::Kernel => clock::process_timer_is_ours() && by_process(None, registers),
            Origin::File(number) => by_event(number.wrapping_add(1), registers),
        }
    }
}

/// A timer's signal that is no thread's own.
#[cold]
#[inline(never)]
fn no_thread_s(value: usize, overrun: u32, registers: Registers) -> bool {
    if value == state::probe_value() {
        PROBES.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    // One that was under way when its timer was stopped is ours as well.
    if value == state::process_value() {
        by_process(Some(overrun.saturating_add(1)), registers);
        return true;
    }
    false
}

/// The process's own timer, which hits whatever thread runs. Threads with a clock of their own ignore it; others are
/// charged with what the signal stands for, if `signals` says how many were merged into it.
fn by_process(signals: Option<u32>, registers: Registers) -> bool {
    let periods = PROCESS_PERIODS.load(Ordering::Relaxed);
    if periods == 0 {
        return false;
    }
    let tid = thread::own_id();
    match state::of(tid) {
        Some(index) => {
            let of_its_own = |state: &ThreadState| {
                state.due.load(Ordering::Relaxed) == NEVER || state.event.load(Ordering::Relaxed) != 0
            };
            if STATES.get(index).is_some_and(|state| !of_its_own(state)) {
                let weight = signals.map(|signals| signals.saturating_mul(periods));
                sample_without_value(index, weight, registers);
            }
        }
        // Nobody knows it yet.
        None => {
            let place = MAX_THREADS.wrapping_add(tid as usize & (STRANGERS - 1));
            let weight = signals.unwrap_or(1).saturating_mul(periods);
            sample_without_value(place, Some(weight), registers);
        }
    }
    true
}

/// A perf event, `event` being its number plus one.
fn by_event(event: i32, registers: Registers) -> bool {
    if PROBED_EVENT.load(Ordering::Relaxed) == event {
        PROBES.fetch_add(1, Ordering::Relaxed);
        return true;
    }
    let Some(index) = state::of(thread::own_id()) else { return false };
    let ours = STATES.get(index).is_some_and(|state| state.event.load(Ordering::Relaxed) == event);
    if ours {
        sample_of_event(index, registers);
    }
    ours
}

/// On its own, so that only the usual clock's path is inlined.
#[inline(never)]
fn sample_without_value(index: usize, weight: Option<u32>, registers: Registers) {
    sample(index, registers, |state, session| {
        let periods = weight.or_else(|| full_periods(state, session))?;
        Some(Weight { periods, may_claim: true })
    });
}

/// An event's signals come in user code only. One that stands for clearly more than its due makes up for time in the
/// kernel, which may have been another span's: it claims none.
#[inline(never)]
fn sample_of_event(index: usize, registers: Registers) {
    sample(index, registers, |state, session| {
        let periods = full_periods(state, session)?;
        let due = state.divider.load(Ordering::Relaxed);
        Some(Weight { periods, may_claim: periods <= due.saturating_mul(2) })
    });
}

/// How many periods of CPU time the thread has filled since its last sample. Signals may be merged, late or refused
/// while the thread is in the kernel: its own CPU time is what counts.
fn full_periods(state: &ThreadState, session: &Session) -> Option<u32> {
    let due = state.due.load(Ordering::Relaxed);
    let Some(now) = thread::own_cpu_time() else { return Some(state.divider.load(Ordering::Relaxed)) };
    // A clock that runs in step with the periods must not lose every other signal to a little jitter.
    let late = now.wrapping_add(session.period / 4).checked_sub(due)?;
    let periods = late.checked_div(session.period)?.wrapping_add(1);
    let next = due.wrapping_add(periods.wrapping_mul(session.period));
    // Whoever gives the thread another clock meanwhile wins.
    state.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
    Some(periods.min(u64::from(u32::MAX)) as u32)
}

/// What a sample stands for.
#[derive(Clone, Copy)]
struct Weight {
    periods: u32,
    /// Whether the span of this instant may have it.
    may_claim: bool,
}

/// Takes a sample of the thread whose state is at `index`, for as much as `weigh` says, if anything.
#[inline]
fn sample(index: usize, registers: Registers, weigh: impl FnOnce(&ThreadState, &Session) -> Option<Weight>) {
    let Some(state) = SESSION.reader(index) else { return };
    let read = SESSION.read(index, |session| {
        // There is none for a signal that was under way when sampling stopped.
        let Some(session) = session else { return };
        let Some(weight) = weigh(state, session) else { return };
        let taken = state.taken.load(Ordering::Relaxed).wrapping_add(1);
        state.taken.store(taken, Ordering::Relaxed);
        if taken & TIMED_MASK == 0 {
            timed(state, session, weight, registers);
        } else {
            take(state, session, weight, registers);
        }
    });
    if let Err(Taken) = read {
        state.nested.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a sample costs is taken from one in 64.
#[cold]
#[inline(never)]
fn timed(state: &ThreadState, session: &Session, weight: Weight, registers: Registers) {
    let start = cycles();
    take(state, session, weight, registers);
    state::add(&state.timed_cycles, cycles().wrapping_sub(start));
    state::add(&state.timed, 1);
}

/// Inlined whatever its size: the usual clock's path is one function.
#[inline(always)]
fn take(state: &ThreadState, session: &Session, weight: Weight, registers: Registers) {
    let Weight { periods: mut weight, mut may_claim } = weight;
    let first = state.first.load(Ordering::Relaxed);
    if first != 0 {
        state.first.store(0, Ordering::Relaxed);
        may_claim &= first & BIRTH == 0 || weight <= state.divider.load(Ordering::Relaxed);
        weight = weight.saturating_add(first & !BIRTH);
    }
    if weight > session.max_weight {
        // The thread blocked the signal for a while: this stack cannot stand for all of that.
        state::add(&state.excess_weight, u64::from(weight.wrapping_sub(session.max_weight)));
        weight = session.max_weight;
    }
    // Saturates never: there are far fewer frames. What is not used is given back.
    let room = session.max_depth.saturating_add(BEFORE_FRAMES as u16);
    let Some(record) = state.ring.reserve(room) else {
        state::add(&state.lost, 1);
        state::add(&state.lost_weight, u64::from(weight));
        return;
    };
    // The room reserved is never less.
    let Some((weight_word, rest)) = record.words.split_first() else { return };
    let Some((span_words, frames)) = rest.split_first_chunk::<SPAN_WORDS>() else { return };
    weight_word.store(u64::from(weight), Ordering::Relaxed);
    let mut tag = if may_claim { span(state, session, span_words) } else { 0 };
    let (len, end) = match state.bounds.stack(registers.sp) {
        // The kernel found room for what it saves; without room for a walk, where the thread is must do.
        Some(_) if state.bounds.room(stack_pointer()) < HEADROOM => {
            let Some(innermost) = frames.first() else { return };
            innermost.store(registers.ip, Ordering::Relaxed);
            tag |= NO_HEADROOM;
            (1, End::TooDeep)
        }
        Some(stack) => trace(session, registers, stack, frames),
        None => trace_unknown(state, session, registers, frames),
    };
    record.commit(BEFORE_FRAMES.wrapping_add(len), tag | end as u32);
}

/// The tag for the span that the thread is in, with its words in `to`.
#[inline]
fn span(state: &ThreadState, session: &Session, to: &[AtomicU64; SPAN_WORDS]) -> u32 {
    match SpanKey(state.label.load(Ordering::Relaxed)) {
        SpanKey::NONE => 0,
        key => match session.spans.copy(key, to) {
            Some(tagged) => HAS_SPAN | if tagged { TAGGED } else { 0 },
            None => 0,
        },
    }
}

/// Writes the stack into `frames`, innermost first, and tells how many there are. Inlined: where the stack ends stays in
/// registers.
#[inline(always)]
fn trace(
    session: &Session,
    registers: Registers,
    mut stack: impl Memory + Records,
    frames: &[AtomicU64],
) -> (usize, End) {
    match session.unwinder {
        Unwinder::Tables => {
            let mut words = frames.iter();
            let put = |frame| words.next().map(|word| word.store(frame, Ordering::Relaxed)).is_some();
            let end = walk::<Native>(&session.code, registers, &mut stack, put);
            (frames.len().wrapping_sub(words.len()), end)
        }
        Unwinder::FramePointers => follow::<Native>(registers, stack, frames),
    }
}

/// Leaves a note for the collector, and asks the kernel about each page meanwhile.
#[cold]
#[inline(never)]
fn trace_unknown(
    state: &ThreadState,
    session: &Session,
    registers: Registers,
    frames: &[AtomicU64],
) -> (usize, End) {
    if state.seen_sp.load(Ordering::Relaxed) == 0 {
        state.seen_control_block.store(thread::control_block(), Ordering::Relaxed);
        state.seen_sp.store(registers.sp, Ordering::Release);
    }
    trace(session, registers, Probing::new(registers.sp), frames)
}

/// A record taken apart again.
pub(super) struct Record<'a> {
    pub(super) weight: u32,
    pub(super) span: Option<SpanRecord>,
    pub(super) frames: &'a [u64],
    pub(super) end: End,
    /// Whether there was no room on the stack for a walk.
    pub(super) no_headroom: bool,
}

impl<'a> Record<'a> {
    /// `None` for words that `take` never wrote.
    pub(super) fn read(words: &'a [u64], tag: u32) -> Option<Self> {
        let (weight, rest) = words.split_first()?;
        let (span, frames) = rest.split_first_chunk::<SPAN_WORDS>()?;
        let span =
            (tag & HAS_SPAN != 0).then(|| SpanWords { words: *span, tagged: tag & TAGGED != 0 }.record());
        let end = End::ALL.into_iter().find(|end| *end as u32 == tag & END_MASK)?;
        let no_headroom = tag & NO_HEADROOM != 0;
        Some(Self { weight: *weight as u32, span, frames, end, no_headroom })
    }
}
