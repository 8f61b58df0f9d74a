//! What happens on a timer's signal: label, registers and stack become one record in the thread's ring.
//!
//! Runs on the interrupted thread between any two of its instructions, so nothing here may allocate, lock, touch
//! thread-local storage or errno, or panic.

use std::sync::atomic::Ordering;

use super::ring::Reservation;
use super::state::{
    self, BIRTH, MAX_THREADS, NEVER, PROBED_EVENT, PROBES, PROCESS_PERIODS, STATES, STRANGERS, ThreadState,
};
use crate::config::Unwinder;
use crate::spans::{LabelSetId, SpanId, SpanKey, SpanRecord, SpanTable, TraceId};
use crate::sys::arch::{cycles, stack_pointer};
use crate::sys::published::{Published, Taken};
use crate::sys::signal::{OnTimer, Origin};
use crate::sys::stack::Stack;
use crate::sys::thread;
use crate::unwind::{CodeMap, End, Native, Registers, follow, walk};

/// What the handler works with while sampling is on.
pub(super) struct Session {
    pub(super) code: CodeMap,
    pub(super) unwinder: Unwinder,
    pub(super) spans: &'static SpanTable,
    pub(super) max_depth: usize,
    /// The most periods one sample may stand for.
    pub(super) max_weight: u32,
    /// A period of CPU time, in nanoseconds.
    pub(super) period: u64,
    /// Periods between two signals of a timer: more than one while the rate is lowered.
    pub(super) divider: u32,
}

/// Empty while sampling is off.
pub(super) static SESSION: Published<Session, ThreadState> = Published::new(&STATES);

/// Words of a record before its frames: the weight, and the span if there is one.
const WEIGHT_WORDS: usize = 1;
const SPAN_WORDS: usize = 6;
/// One sample in 64 is timed.
const TIMED_MASK: u32 = 63;

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
        sample(index, registers, |_, session| {
            Some(overrun.saturating_add(1).saturating_mul(session.divider))
        });
        true
    }

    #[cold]
    #[inline(never)]
    fn on_clock(origin: Origin, registers: Registers) -> bool {
        match origin {
            Origin::Kernel => by_process(None, registers),
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
        sample_without_value(index, None, registers);
    }
    ours
}

/// On its own, so that only the usual clock's path is inlined.
#[inline(never)]
fn sample_without_value(index: usize, weight: Option<u32>, registers: Registers) {
    sample(index, registers, |state, session| weight.or_else(|| full_periods(state, session)));
}

/// How many periods of CPU time the thread has filled since its last sample. Signals may be merged, late or refused
/// while the thread is in the kernel: its own CPU time is what counts.
fn full_periods(state: &ThreadState, session: &Session) -> Option<u32> {
    let due = state.due.load(Ordering::Relaxed);
    let Some(now) = thread::own_cpu_time() else { return Some(session.divider) };
    // A clock that runs in step with the periods must not lose every other signal to a little jitter.
    let late = now.wrapping_add(session.period / 4).checked_sub(due)?;
    let periods = late.checked_div(session.period)?.wrapping_add(1);
    let next = due.wrapping_add(periods.wrapping_mul(session.period));
    // Whoever gives the thread another clock meanwhile wins.
    state.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
    Some(periods.min(u64::from(u32::MAX)) as u32)
}

/// Takes a sample of the thread whose state is at `index`, for as many periods as `weigh` says, if any.
#[inline]
fn sample(index: usize, registers: Registers, weigh: impl FnOnce(&ThreadState, &Session) -> Option<u32>) {
    let Some(state) = SESSION.reader(index) else { return };
    match SESSION.read(index) {
        Ok(Some(session)) => {
            let Some(weight) = weigh(state, &session) else { return };
            let taken = state.taken.load(Ordering::Relaxed).wrapping_add(1);
            state.taken.store(taken, Ordering::Relaxed);
            if taken & TIMED_MASK == 0 {
                timed(state, &session, weight, registers);
            } else {
                take(state, &session, weight, registers);
            }
        }
        // A signal that was under way when sampling stopped.
        Ok(None) => {}
        Err(Taken) => {
            state.nested.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a sample costs is taken from one in 64.
#[cold]
#[inline(never)]
fn timed(state: &ThreadState, session: &Session, weight: u32, registers: Registers) {
    let start = cycles();
    take(state, session, weight, registers);
    state::add(&state.timed_cycles, cycles().wrapping_sub(start));
    state::add(&state.timed, 1);
}

#[inline]
fn take(state: &ThreadState, session: &Session, mut weight: u32, registers: Registers) {
    let mut may_claim = true;
    let first = state.first.load(Ordering::Relaxed);
    if first != 0 {
        state.first.store(0, Ordering::Relaxed);
        may_claim = first & BIRTH == 0 || weight <= session.divider;
        weight = weight.saturating_add(first & !BIRTH);
    }
    if weight > session.max_weight {
        // The thread blocked the signal for a while: this stack cannot stand for all of that.
        state::add(&state.excess_weight, u64::from(weight.wrapping_sub(session.max_weight)));
        weight = session.max_weight;
    }
    let span = if may_claim { span(state, session) } else { None };
    let before_frames = WEIGHT_WORDS.wrapping_add(if span.is_some() { SPAN_WORDS } else { 0 });
    let room = before_frames.wrapping_add(session.max_depth);
    let Some(record) = state.ring.reserve(room) else {
        state::add(&state.lost, 1);
        state::add(&state.lost_weight, u64::from(weight));
        return;
    };
    let stack = match state.bounds.stack(registers.sp) {
        // The kernel found room for what it saves; without room for a walk, where the thread is must do.
        Some(_) if state.bounds.room(stack_pointer()) < HEADROOM => None,
        Some(stack) => Some(stack),
        None => Some(unknown_stack(state, registers.sp)),
    };
    write(record, weight, span, session, registers, stack);
}

#[inline]
fn span(state: &ThreadState, session: &Session) -> Option<SpanRecord> {
    match SpanKey(state.label.load(Ordering::Relaxed)) {
        SpanKey::NONE => None,
        key => session.spans.read(key),
    }
}

/// Leaves a note for the collector, and asks the kernel about each page meanwhile.
#[cold]
fn unknown_stack(state: &ThreadState, sp: u64) -> Stack {
    if state.seen_sp.load(Ordering::Relaxed) == 0 {
        state.seen_control_block.store(thread::control_block(), Ordering::Relaxed);
        state.seen_sp.store(sp, Ordering::Release);
    }
    Stack::probing(sp)
}

#[inline]
fn write(
    record: Reservation<'_>,
    weight: u32,
    span: Option<SpanRecord>,
    session: &Session,
    registers: Registers,
    stack: Option<Stack>,
) {
    let mut words = record.words.iter();
    let mut put = |value: u64| words.next().map(|word| word.store(value, Ordering::Relaxed)).is_some();
    put(u64::from(weight));
    let mut tag = 0;
    if let Some(span) = span {
        tag = HAS_SPAN | if span.tagged { TAGGED } else { 0 };
        put(span.span_id.0);
        put(span.parent.0);
        put(span.local_root.0);
        put((span.trace_id.0 >> 64) as u64);
        put(span.trace_id.0 as u64);
        put(u64::from(span.labels.0) | u64::from(span.root_labels.0) << 32);
    }
    let end = match (stack, session.unwinder) {
        (Some(mut stack), Unwinder::Tables) => walk::<Native>(&session.code, registers, &mut stack, put),
        (Some(mut stack), Unwinder::FramePointers) => follow::<Native>(registers, &mut stack, put),
        (None, _) => {
            put(registers.ip);
            tag |= NO_HEADROOM;
            End::TooDeep
        }
    };
    let used = record.words.len().wrapping_sub(words.len());
    record.commit(used, tag | end as u32);
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
    /// `None` for words that `write` never wrote.
    pub(super) fn read(words: &'a [u64], tag: u32) -> Option<Self> {
        let (weight, mut frames) = words.split_first()?;
        let mut span = None;
        if tag & HAS_SPAN != 0 {
            let (fields, rest) = frames.split_first_chunk::<SPAN_WORDS>()?;
            let [span_id, parent, local_root, trace_high, trace_low, labels] = *fields;
            frames = rest;
            span = Some(SpanRecord {
                span_id: SpanId(span_id),
                parent: SpanId(parent),
                local_root: SpanId(local_root),
                trace_id: TraceId(u128::from(trace_high) << 64 | u128::from(trace_low)),
                labels: LabelSetId(labels as u32),
                root_labels: LabelSetId((labels >> 32) as u32),
                tagged: tag & TAGGED != 0,
            });
        }
        let end = End::ALL.into_iter().find(|end| *end as u32 == tag & END_MASK)?;
        let no_headroom = tag & NO_HEADROOM != 0;
        Some(Self { weight: *weight as u32, span, frames, end, no_headroom })
    }
}
