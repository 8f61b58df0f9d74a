//! What happens on a timer's signal: label, registers and stack become one record in the thread's ring.
//!
//! Runs on the interrupted thread between any two of its instructions, so nothing here may allocate, lock, touch
//! thread-local storage or errno, or panic.

use std::sync::atomic::Ordering;

use super::ring::Reservation;
use super::state::{self, STATES, ThreadState};
use crate::config::Unwinder;
use crate::spans::{NameId, SpanId, SpanKey, SpanRecord, SpanTable, TraceId};
use crate::sys::published::{Published, Taken};
use crate::sys::signal::OnTimer;
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
}

/// Empty while sampling is off.
pub(super) static SESSION: Published<Session, ThreadState> = Published::new(&STATES);

/// Words of a record before its frames: the weight, and the span if there is one.
const WEIGHT_WORDS: usize = 1;
const SPAN_WORDS: usize = 6;

// The tag of a record: why the walk ended in the low byte, then flags.
const END_MASK: u32 = 0xff;
const HAS_SPAN: u32 = 1 << 8;
const TAGGED: u32 = 1 << 9;

pub(super) struct TakeSample;

impl OnTimer for TakeSample {
    #[inline]
    fn on_timer(value: usize, overrun: u32, registers: Registers) -> bool {
        let Some(index) = state::index(value) else { return false };
        let Some(state) = SESSION.reader(index) else { return false };
        match SESSION.read(index) {
            Ok(Some(session)) => take(state, &session, overrun, registers),
            // A signal that was under way when sampling stopped.
            Ok(None) => {}
            Err(Taken) => state::add(&state.nested, 1),
        }
        true
    }
}

#[inline]
fn take(state: &ThreadState, session: &Session, overrun: u32, registers: Registers) {
    let mut weight = overrun.saturating_add(1);
    if weight > session.max_weight {
        // The thread blocked the signal for a while: this stack cannot stand for all of that.
        state::add(&state.excess_weight, u64::from(weight.wrapping_sub(session.max_weight)));
        weight = session.max_weight;
    }
    let span = span(state, session, weight);
    let before_frames = WEIGHT_WORDS.wrapping_add(if span.is_some() { SPAN_WORDS } else { 0 });
    let room = before_frames.wrapping_add(session.max_depth);
    let Some(record) = state.ring.reserve(room) else {
        state::add(&state.lost, 1);
        state::add(&state.lost_weight, u64::from(weight));
        return;
    };
    let stack = match state.bounds.stack(registers.sp) {
        Some(stack) => stack,
        None => unknown_stack(state, registers.sp),
    };
    write(record, weight, span, session, registers, stack);
}

#[inline]
fn span(state: &ThreadState, session: &Session, weight: u32) -> Option<SpanRecord> {
    if state.catching_up.load(Ordering::Relaxed) {
        state.catching_up.store(false, Ordering::Relaxed);
        if weight > 1 {
            return None;
        }
    }
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
    mut stack: Stack,
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
        put(u64::from(span.name.0) | u64::from(span.root_name.0) << 32);
    }
    let end = match session.unwinder {
        Unwinder::Tables => walk::<Native>(&session.code, registers, &mut stack, put),
        Unwinder::FramePointers => follow::<Native>(registers, &mut stack, put),
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
}

impl<'a> Record<'a> {
    /// `None` for words that `write` never wrote.
    pub(super) fn read(words: &'a [u64], tag: u32) -> Option<Self> {
        let (weight, mut frames) = words.split_first()?;
        let mut span = None;
        if tag & HAS_SPAN != 0 {
            let (fields, rest) = frames.split_first_chunk::<SPAN_WORDS>()?;
            let [span_id, parent, local_root, trace_high, trace_low, names] = *fields;
            frames = rest;
            span = Some(SpanRecord {
                span_id: SpanId(span_id),
                parent: SpanId(parent),
                local_root: SpanId(local_root),
                trace_id: TraceId(u128::from(trace_high) << 64 | u128::from(trace_low)),
                name: NameId(names as u32),
                root_name: NameId((names >> 32) as u32),
                tagged: tag & TAGGED != 0,
            });
        }
        let end = End::ALL.into_iter().find(|end| *end as u32 == tag & END_MASK)?;
        Some(Self { weight: *weight as u32, span, frames, end })
    }
}
