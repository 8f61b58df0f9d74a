//! Threads that come and go: whether they end before they are found, so that the process's own timer has to charge
//! them. Decides only; no clock is touched here. What is charged to nobody stays so: no other thread's sample stands for
//! it, as nobody knows what ran then, or in which span.

use std::time::Duration;

/// CPU time over which a share is judged.
const ENOUGH: Duration = Duration::from_millis(150);
/// Shares older than this much CPU time fade.
const MEMORY: Duration = Duration::from_secs(1);
/// The uncharged share from which on strangers are followed.
const MUCH: f64 = 0.1;
/// The share of strangers below which that is given up, and the CPU time over which that is judged.
const LITTLE: f64 = 0.02;
const TERM: Duration = Duration::from_secs(10);
/// The most terms until it is tried again.
const MOST_TERMS: u32 = 64;

pub(super) struct Strangers {
    period: Duration,
    /// CPU time of the process and periods charged, at the last look.
    before: Option<(Duration, u64)>,
    /// CPU time in seconds, and how much of it was charged, of late.
    cpu: f64,
    charged_of_late: f64,
    /// Periods charged to strangers.
    pub(super) charged: u64,
    /// The process's CPU time and [`charged`](Self::charged) since when they are followed.
    following: Option<(Duration, u64)>,
    /// Not to be followed again before the process has used this much.
    not_before: Duration,
    /// Terms to wait after the next one in vain: others than strangers may go uncharged, such as a thread that blocks the
    /// signal, and following does not help then.
    wait: u32,
}

impl Strangers {
    pub(super) fn new(frequency: u32) -> Self {
        Self {
            period: Duration::from_secs(1) / frequency,
            before: None,
            cpu: 0.0,
            charged_of_late: 0.0,
            charged: 0,
            following: None,
            not_before: Duration::ZERO,
            wait: 1,
        }
    }

    /// To be told of the process's CPU time, of the periods charged so far, and of how many periods the sampled threads
    /// may together be ahead of what they were charged. Says when strangers are to be followed from now on, or no longer.
    pub(super) fn look(&mut self, cpu: Duration, charged: u64, ahead: u32) -> Option<bool> {
        let (cpu_before, charged_before) = self.before.replace((cpu, charged)).unwrap_or((cpu, charged));
        let seconds = |periods: u64| self.period.as_secs_f64() * periods as f64;
        let cpu_since = cpu.saturating_sub(cpu_before).as_secs_f64();
        let charged_since = seconds(charged.saturating_sub(charged_before));
        let unsure = f64::from(ahead) * self.period.as_secs_f64() / 2.0;
        if let Some((since, charged_then)) = self.following {
            let used = cpu.saturating_sub(since);
            if used < TERM {
                return None;
            }
            let share = seconds(self.charged - charged_then) / used.as_secs_f64();
            (self.cpu, self.charged_of_late) = (0.0, 0.0);
            if share >= LITTLE {
                self.following = Some((cpu, self.charged));
                self.wait = 1;
                return None;
            }
            self.following = None;
            self.not_before = cpu + TERM * self.wait;
            self.wait = (self.wait * 2).min(MOST_TERMS);
            return Some(false);
        }
        self.cpu += cpu_since;
        self.charged_of_late += charged_since;
        let nobody_s = self.cpu - self.charged_of_late;
        if cpu >= self.not_before && self.cpu >= ENOUGH.as_secs_f64() && nobody_s > MUCH * self.cpu + unsure {
            self.following = Some((cpu, self.charged));
            return Some(true);
        }
        if self.cpu > MEMORY.as_secs_f64() {
            self.cpu /= 2.0;
            self.charged_of_late /= 2.0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    #[test]
    fn strangers_are_followed_while_there_are_some() {
        let mut strangers = Strangers::new(100);
        let (mut cpu, mut charged) = (Duration::ZERO, 0);
        let mut step = |strangers: &mut Strangers, periods| {
            cpu += STEP;
            charged += periods;
            strangers.look(cpu, charged, 4)
        };
        for _ in 0..100 {
            assert_eq!(step(&mut strangers, 10), None, "everything is charged");
            assert_eq!(step(&mut strangers, 9), None, "almost");
        }
        let started = (0..10).find_map(|look| step(&mut strangers, 1).map(|follow| (look, follow)));
        assert!(matches!(started, Some((0..4, true))), "{started:?}");
        for _ in 0..300 {
            strangers.charged += 5;
            assert_eq!(step(&mut strangers, 10), None, "half of it is theirs");
        }
        let ended = (0..201).find_map(|_| step(&mut strangers, 10));
        assert_eq!(ended, Some(false));
        assert!((0..50).all(|_| step(&mut strangers, 0).is_none()), "not at once again");
    }

    #[test]
    fn where_following_finds_nobody_it_is_tried_ever_more_rarely() {
        let mut strangers = Strangers::new(100);
        let mut cpu = Duration::ZERO;
        // A thousand seconds, half of which are never charged.
        let changes: Vec<bool> = (0..10_000u64)
            .filter_map(|look| {
                cpu += STEP;
                strangers.look(cpu, look * 5, 4)
            })
            .collect();
        assert_eq!(changes.iter().filter(|follow| **follow).count(), 7, "after 10, 20, 40, … seconds");
        // Once it helps, a lull is a lull.
        strangers.not_before = Duration::ZERO;
        assert!((0..10).any(|_| {
            cpu += STEP;
            strangers.look(cpu, 50_000, 4) == Some(true)
        }));
        for _ in 0..150 {
            cpu += STEP;
            strangers.charged += 5;
            strangers.look(cpu, 50_000, 4);
        }
        assert_eq!(strangers.wait, 1);
    }
}
