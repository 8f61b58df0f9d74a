//! Threads that come and go: whether they end before they are found, so that the process's own timer has to charge
//! them, and how much CPU time was charged to nobody because no tick met it. Decides only; no clock is touched here.

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
/// Uncharged CPU time that is remembered, at most, in seconds.
const MOST_OWED: f64 = 5.0;
/// CPU time of the process after which it is forgotten, in seconds.
const FORGOTTEN_AFTER: f64 = 10.0;

pub(super) struct Strangers {
    period: Duration,
    /// CPU time of the process and periods charged, at the last look.
    before: Option<(Duration, u64)>,
    /// CPU time in seconds, and how much of it was charged, of late.
    cpu: f64,
    charged_of_late: f64,
    /// CPU time in seconds that nobody was charged with.
    owed: f64,
    /// Periods that samples of threads which came and went may stand for besides their own.
    credit: u64,
    /// Periods charged to strangers.
    pub(super) charged: u64,
    /// The process's CPU time and [`charged`](Self::charged) since when they are followed.
    following: Option<(Duration, u64)>,
    /// Not to be followed again before the process has used this much.
    not_before: Duration,
}

impl Strangers {
    pub(super) fn new(frequency: u32) -> Self {
        Self {
            period: Duration::from_secs(1) / frequency,
            before: None,
            cpu: 0.0,
            charged_of_late: 0.0,
            owed: 0.0,
            credit: 0,
            charged: 0,
            following: None,
            not_before: Duration::ZERO,
        }
    }

    /// How many periods a sample of a thread that came and went stands for besides its own `weight`: it speaks for others
    /// like it that no tick met. For three of them at most.
    pub(super) fn besides(&mut self, weight: u32) -> u32 {
        let besides = self.credit.min(u64::from(weight) * 3) as u32;
        self.credit -= u64::from(besides);
        besides
    }

    /// To be told of the process's CPU time, of the periods charged so far, and of how many periods the sampled threads
    /// may together be ahead of what they were charged. Says when strangers are to be followed from now on, or no longer.
    pub(super) fn look(&mut self, cpu: Duration, charged: u64, ahead: u32) -> Option<bool> {
        let (cpu_before, charged_before) = self.before.replace((cpu, charged)).unwrap_or((cpu, charged));
        let seconds = |periods: u64| self.period.as_secs_f64() * periods as f64;
        let cpu_since = cpu.saturating_sub(cpu_before).as_secs_f64();
        let charged_since = seconds(charged.saturating_sub(charged_before));
        let unsure = f64::from(ahead) * self.period.as_secs_f64() / 2.0;
        let remembered = 1.0 - (cpu_since / FORGOTTEN_AFTER).min(1.0);
        self.owed = (self.owed * remembered + cpu_since - charged_since).clamp(-MOST_OWED, MOST_OWED);
        self.credit = ((self.owed - unsure) / self.period.as_secs_f64()).max(0.0) as u64;
        if let Some((since, charged_then)) = self.following {
            let used = cpu.saturating_sub(since);
            if used < TERM {
                return None;
            }
            let share = seconds(self.charged - charged_then) / used.as_secs_f64();
            self.following = (share >= LITTLE).then_some((cpu, self.charged));
            (self.cpu, self.charged_of_late) = (0.0, 0.0);
            self.not_before = cpu + TERM;
            return self.following.is_none().then_some(false);
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
    fn what_nobody_was_charged_with_goes_to_samples_of_threads_that_came_and_went() {
        let mut strangers = Strangers::new(100);
        strangers.look(Duration::ZERO, 0, 0);
        strangers.look(Duration::from_millis(200), 12, 2);
        let besides: Vec<u32> = (0..6).map(|_| strangers.besides(1)).collect();
        assert_eq!(besides, [3, 3, 1, 0, 0, 0], "80 ms less two half periods");
        strangers.look(Duration::from_millis(400), 32 + 8, 2);
        assert_eq!(strangers.besides(100), 0, "all is charged");
        strangers.look(Duration::from_secs(1000), 40, 0);
        assert_eq!(strangers.besides(1000), 500, "no more than five seconds are remembered");
    }
}
