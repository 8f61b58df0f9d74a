//! What a signal costs the thread that gets it, as far as it is known. Measurements may include whatever else ran
//! meanwhile: no single one counts for much.

use std::time::{Duration, Instant};

use super::state;
use crate::sys::arch::cycles;
use crate::sys::signal;

pub(super) struct Cost {
    started: Instant,
    cycles_at_start: u64,
    /// CPU time of the process as of the last look.
    pub(super) cpu: Duration,
    /// Signals of the process's own timer until then.
    pub(super) by_process: u64,
    /// What a signal costs its thread until and after the handler, where that was measured beforehand.
    pub(super) known: Option<Duration>,
    /// The same in cycles, from one signal after each drain, as caches are cold by then.
    delivery: Estimate,
    /// Cycles in the handler, from those that it timed since the last look.
    handler: Estimate,
    /// Cycles and samples that were timed until then.
    timed: (u64, u64),
}

impl Cost {
    /// `timed` says what all threads have counted before.
    pub(super) fn new(timed: (u64, u64)) -> Self {
        Self {
            started: Instant::now(),
            cycles_at_start: cycles(),
            cpu: Duration::ZERO,
            by_process: 0,
            known: None,
            delivery: Estimate::default(),
            handler: Estimate::default(),
            timed,
        }
    }

    /// Sends the calling thread a signal that is handled at once.
    pub(super) fn probe(&mut self) {
        let before = cycles();
        signal::send_own(state::probe_value());
        self.delivery.add(cycles().wrapping_sub(before) as f64);
    }

    /// To be told of all cycles and samples that were timed so far.
    pub(super) fn look(&mut self, timed: (u64, u64)) {
        let (cycles_before, samples_before) = std::mem::replace(&mut self.timed, timed);
        let samples = timed.1.saturating_sub(samples_before);
        if samples > 0 {
            self.handler.add(timed.0.saturating_sub(cycles_before) as f64 / samples as f64);
        }
    }

    pub(super) fn per_signal(&self) -> Duration {
        let passed = cycles().wrapping_sub(self.cycles_at_start);
        let second = self.started.elapsed().as_secs_f64() / (passed as f64).max(1.0);
        let handler = self.handler.value();
        match self.known {
            Some(known) => known + Duration::from_secs_f64(handler * second),
            None => Duration::from_secs_f64((self.delivery.value() + handler) * second),
        }
    }
}

/// A mean that forgets, and that no single measurement moves far.
#[derive(Default)]
struct Estimate {
    /// The first measurements, in order: until there are enough, their median counts.
    first: Vec<f64>,
    mean: f64,
}

impl Estimate {
    const FIRST: usize = 7;
    const SHARE: f64 = 1.0 / 16.0;
    /// As many times the mean is no signal's cost: the thread was interrupted meanwhile.
    const MOST: f64 = 4.0;

    fn add(&mut self, measured: f64) {
        if self.first.len() < Self::FIRST {
            let at = self.first.partition_point(|before| *before < measured);
            self.first.insert(at, measured);
            self.mean = self.first[(self.first.len() - 1) / 2];
        } else {
            self.mean += (measured.min(self.mean * Self::MOST) - self.mean) * Self::SHARE;
        }
    }

    /// Zero until anything was measured.
    fn value(&self) -> f64 {
        self.mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_counts_for_little_whenever_it_comes_and_a_lasting_change_is_learnt() {
        for at in [0, 1, 5, 8, 90] {
            let mut estimate = Estimate::default();
            for i in 0..100 {
                // One in which the thread lost the processor for milliseconds.
                estimate.add(if i == at { 1e7 } else { 1e3 });
                assert!(i == 0 || estimate.value() <= 1.2e3, "{at} {i}: {}", estimate.value());
            }
            (0..60).for_each(|_| estimate.add(3e3));
            assert!((2.9e3..=3.0e3).contains(&estimate.value()), "{}", estimate.value());
            (0..60).for_each(|_| estimate.add(1e3));
            assert!((1e3..=1.1e3).contains(&estimate.value()), "{}", estimate.value());
        }
    }

    #[test]
    fn the_handler_costs_what_was_timed_since_the_last_look() {
        let mut cost = Cost::new((1_000_000, 10));
        cost.look((1_000_000, 10));
        assert_eq!(cost.handler.value(), 0.0);
        cost.look((1_003_000, 11));
        assert_eq!(cost.handler.value(), 3_000.0);
        cost.look((1_009_000, 13));
        assert_eq!(cost.handler.value(), 3_000.0);
    }
}
