//! The overhead governor: keeps what profiling costs within a share of the CPU time that the process uses, by lowering
//! the sampling rate by whole divisors. Decides only; the collector measures and acts.

use std::time::Duration;

/// CPU time of the process over which a cost is judged.
const TERM: Duration = Duration::from_secs(1);
/// Terms in a row that must fit before the rate is raised, and how well they must fit.
const CALM: u32 = 5;
const FIT: f64 = 0.75;
/// The largest divisor.
const MOST: u32 = 64;

/// Running totals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// CPU time that the process has used.
    pub(crate) cpu: Duration,
    /// What taking samples has cost.
    pub(crate) sampling: Duration,
    /// What the profiler's own threads have used.
    pub(crate) background: Duration,
}

pub(crate) struct Governor {
    /// `None` for no limit.
    budget: Option<f64>,
    frequency: u32,
    divider: u32,
    before: Totals,
    calm: u32,
    overhead: f64,
}

impl Governor {
    pub(crate) fn new(budget: Option<f64>, frequency: u32) -> Self {
        Self { budget, frequency, divider: 1, before: Totals::default(), calm: 0, overhead: 0.0 }
    }

    /// Samples asked for per second of CPU time.
    pub(crate) fn frequency(&self) -> u32 {
        self.frequency
    }

    /// What profiling cost of late, as a share of the CPU time that the process used. Zero until it used a second.
    pub(crate) fn overhead(&self) -> f64 {
        self.overhead
    }

    /// To be told the totals every now and then; gives a new divisor when there is one.
    pub(crate) fn look(&mut self, totals: Totals) -> Option<u32> {
        let since = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64();
        let cpu = since(totals.cpu, self.before.cpu);
        if cpu < TERM.as_secs_f64() {
            return None;
        }
        let sampling = since(totals.sampling, self.before.sampling);
        let background = since(totals.background, self.before.background);
        self.before = totals;
        self.overhead = (sampling + background) / cpu;
        let budget = self.budget? * cpu;
        // A lower rate saves little of what the background costs, so that may not take all from the samples.
        let allowed = (budget - background).max(budget / 2.0);
        let divider = if sampling > allowed {
            self.calm = 0;
            // Near the kernel's tick a small divisor changes nothing; the next look divides further.
            let enough = (f64::from(self.divider) * sampling / allowed).ceil() as u32;
            enough.max(self.divider + 1)
        } else if self.divider > 1
            && sampling * f64::from(self.divider) / f64::from(self.divider - 1) <= FIT * allowed
        {
            self.calm += 1;
            if self.calm < CALM {
                return None;
            }
            self.calm = 0;
            // As far down as still fits that well.
            let fits = (f64::from(self.divider) * sampling / (FIT * allowed)).ceil() as u32;
            fits.clamp(self.divider / 2, self.divider - 1)
        } else {
            self.calm = 0;
            return None;
        };
        let divider = divider.clamp(1, MOST.min(self.frequency));
        let changed = divider != self.divider;
        self.divider = divider;
        changed.then_some(divider)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A process that uses `cpu` a look, in which a sample costs `cost`, and whose clock gives at most `tick` samples
    /// a second.
    struct World {
        cpu: Duration,
        cost: Duration,
        tick: f64,
        background: Duration,
        totals: Totals,
    }

    impl World {
        fn step(&mut self, governor: &mut Governor) -> Option<u32> {
            let rate = (f64::from(governor.frequency) / f64::from(governor.divider)).min(self.tick);
            self.totals.cpu += self.cpu;
            self.totals.sampling += self.cost.mul_f64(rate * self.cpu.as_secs_f64());
            self.totals.background += self.background;
            governor.look(self.totals)
        }
    }

    fn costing(micros: u64) -> World {
        World {
            cpu: Duration::from_secs(1),
            cost: Duration::from_micros(micros),
            tick: f64::INFINITY,
            background: Duration::ZERO,
            totals: Totals::default(),
        }
    }

    #[test]
    fn the_rate_falls_until_it_fits_and_rises_when_it_may() {
        let mut governor = Governor::new(Some(0.01), 1000);
        let mut world = costing(80);
        assert_eq!(world.step(&mut governor), Some(8));
        assert!((governor.overhead() - 0.08).abs() < 1e-9);
        for _ in 0..20 {
            assert_eq!(world.step(&mut governor), None);
            assert!(governor.overhead() <= 0.0101);
        }
        world.cost = Duration::from_micros(6);
        let raised: Vec<u32> = (0..40).filter_map(|_| world.step(&mut governor)).collect();
        assert_eq!(raised, [4, 2, 1], "slowly, and all the way");
    }

    #[test]
    fn a_tick_that_caps_the_rate_is_found_and_a_background_cannot_starve_the_samples() {
        let mut governor = Governor::new(Some(0.01), 1000);
        let mut world = World { tick: 250.0, ..costing(60) };
        let dividers: Vec<u32> = (0..20).filter_map(|_| world.step(&mut governor)).collect();
        assert!(dividers.is_sorted() && dividers.last() <= Some(&7), "{dividers:?}");
        assert!(governor.overhead() <= 0.01);

        let mut governor = Governor::new(Some(0.01), 100);
        let mut world = World { background: Duration::from_millis(300), ..costing(20) };
        assert!((0..20).all(|_| world.step(&mut governor).is_none()), "0.2 % for samples is little");
        assert!(governor.overhead() > 0.3, "but all of it is told");
    }

    #[test]
    fn without_a_budget_it_only_tells() {
        let mut governor = Governor::new(None, 1000);
        let mut world = costing(500);
        assert!((0..20).all(|_| world.step(&mut governor).is_none()));
        assert!(governor.overhead() > 0.4);
    }

    #[test]
    fn an_idle_process_is_not_judged() {
        let mut governor = Governor::new(Some(0.01), 100);
        let mut world =
            World { cpu: Duration::from_millis(1), background: Duration::from_millis(5), ..costing(20) };
        assert!((0..900).all(|_| world.step(&mut governor).is_none()));
        assert!(governor.overhead() == 0.0);
    }

    proptest! {
        #[test]
        fn it_ends_within_the_budget_or_at_the_largest_divisor(
            frequency in 1..=1000u32,
            micros in 1..2000u64,
            percent in 1..500u32,
            tick in 50..2000u32,
        ) {
            let budget = f64::from(percent) / 10_000.0;
            let mut governor = Governor::new(Some(budget), frequency);
            let mut world = World { tick: f64::from(tick), ..costing(micros) };
            let changes: Vec<bool> = (0..200).map(|_| world.step(&mut governor).is_some()).collect();
            let settled = governor.overhead() <= budget * 1.001;
            prop_assert!(settled || governor.divider == MOST.min(frequency));
            prop_assert!(changes[150..].iter().filter(|changed| **changed).count() <= 8, "it hardly swings");
        }
    }
}
