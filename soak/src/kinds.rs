//! Work that tells whose it is: a sample's function names a kind, and so does the span that it may carry.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::IdGenerator;
use spanflame_bench_rig::thread_cpu;

/// What kind of span, and of work, something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(usize);

macro_rules! burn_functions {
    ($($name:ident = $index:literal),* $(,)?) => {
        $(
            #[inline(never)]
            fn $name(time: Duration) -> u64 {
                black_box(burn($index, time)) ^ $index
            }
        )*
        static BURN: &[(&str, fn(Duration) -> u64)] = &[$((stringify!($name), $name)),*];
    };
}

burn_functions! {
    soak_kind_00 = 0, soak_kind_01 = 1, soak_kind_02 = 2, soak_kind_03 = 3,
    soak_kind_04 = 4, soak_kind_05 = 5, soak_kind_06 = 6, soak_kind_07 = 7,
    soak_kind_08 = 8, soak_kind_09 = 9, soak_kind_10 = 10, soak_kind_11 = 11,
    soak_kind_12 = 12, soak_kind_13 = 13, soak_kind_14 = 14, soak_kind_15 = 15,
}

#[inline(always)]
fn burn(seed: u64, time: Duration) -> u64 {
    let until = thread_cpu() + time;
    let mut state = seed | 1;
    while thread_cpu() < until {
        for _ in 0..500 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state = black_box(state);
        }
    }
    state
}

/// Work in no span.
#[inline(never)]
pub(crate) fn soak_without_span(time: Duration) -> u64 {
    black_box(burn(255, time)) ^ 255
}

thread_local! {
    static NEXT: Cell<Kind> = const { Cell::new(Kind(255)) };
}

impl Kind {
    pub(crate) fn nth(n: usize) -> Self {
        Self(n % BURN.len())
    }

    pub(crate) fn name(self) -> &'static str {
        BURN[self.0].0
    }

    /// Burns that much CPU time.
    pub(crate) fn burn(self, time: Duration) {
        black_box(BURN[self.0].1(time));
    }

    /// Has spans that this thread starts be of this kind.
    pub(crate) fn announce(self) {
        NEXT.set(self);
    }

    /// Whether a sample of this stack may carry a span of that id, in hexadecimal, and that name; where a check is
    /// possible at all.
    pub(crate) fn may_carry(stack: &[String], span_id: Option<&str>, name: Option<&str>) -> Option<bool> {
        let runs = |function: &str| stack.iter().any(|symbol| symbol.ends_with(function));
        if runs("soak_without_span") {
            return Some(span_id.is_none() && name.is_none());
        }
        let kind = Self(BURN.iter().position(|(function, _)| runs(function))?);
        let id_fits = span_id.is_none_or(|id| id.get(14..) == Some(&format!("{:02x}", kind.0)));
        // Past the limit on names a span is called so.
        let name_fits = name.is_none_or(|name| name == kind.name() || name == "other");
        Some(id_fits && name_fits)
    }
}

/// Random ids, but for a span's last byte: its kind.
#[derive(Debug, Default)]
pub(crate) struct KindIds(AtomicU64);

impl KindIds {
    fn random(&self) -> u64 {
        // SplitMix64.
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl IdGenerator for KindIds {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from((u128::from(self.random()) << 64) | u128::from(self.random() | 1))
    }

    fn new_span_id(&self) -> SpanId {
        let random = self.random() | 0x100;
        SpanId::from((random & !0xff) | NEXT.get().0 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_span_is_told_by_its_id_or_by_its_name() {
        let ids = KindIds::default();
        Kind::nth(7).announce();
        let id = ids.new_span_id().to_string();
        Kind::nth(3).announce();
        let other = ids.new_span_id().to_string();
        let stack = ["main".to_owned(), "spanflame_soak::kinds::soak_kind_07".to_owned()];
        let may = |id: Option<&str>, name: Option<&str>| Kind::may_carry(&stack, id, name);
        assert_eq!(may(Some(&id), Some("soak_kind_07")), Some(true));
        assert_eq!(may(Some(&id), None), Some(true));
        assert_eq!(may(None, None), Some(true));
        assert_eq!(may(Some(&other), None), Some(false));
        assert_eq!(may(None, Some("soak_kind_03")), Some(false));
        assert_eq!(Kind::may_carry(&["main".to_owned()], Some(&id), None), None);
        let bare = ["spanflame_soak::kinds::soak_without_span".to_owned()];
        assert_eq!(Kind::may_carry(&bare, None, None), Some(true));
        assert_eq!(Kind::may_carry(&bare, Some(&id), None), Some(false));
    }
}
