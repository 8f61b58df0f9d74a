//! The clock: what makes a thread be sampled once per period of its CPU time.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::time::Duration;

use crate::sys::signal::SIGNAL;
use crate::sys::timer::{self, Timer};

/// From when on a thread's CPU time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// From this moment.
    Now,
    /// From its birth: the first signal then stands for what has passed since.
    Birth,
}

/// A source of ticks. Timers on each thread's CPU clock are the only one so far: unprivileged, exact shares through
/// the overrun count, no interrupt of their own (docs/decisions/0006-per-thread-timers.md).
pub(super) trait Clock {
    /// What ticks for one thread.
    type Tick: Copy;

    /// Makes thread `tid` be signalled with `value` from now on.
    fn start(&mut self, tid: i32, value: usize, since: Since) -> io::Result<Self::Tick>;

    /// Whether it still ticks: not once its thread is gone.
    fn runs(&self, tick: Self::Tick) -> bool;

    /// Ends it.
    fn stop(&self, tick: Self::Tick);
}

/// One POSIX timer per thread, on its CPU clock.
pub(super) struct ThreadTimers {
    period: Duration,
    random: RandomState,
    started: u64,
}

impl ThreadTimers {
    pub(super) fn new(frequency: u32) -> Self {
        let period = Duration::from_nanos(1_000_000_000 / u64::from(frequency.max(1)));
        Self { period, random: RandomState::new(), started: 0 }
    }

    /// Uniform in (0, period], so that threads which live shorter than a period are sampled in proportion to the time
    /// they use.
    fn phase(&mut self) -> Duration {
        self.started += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.started);
        Duration::from_nanos(1 + hasher.finish() % self.period.as_nanos() as u64)
    }
}

impl Clock for ThreadTimers {
    type Tick = Timer;

    fn start(&mut self, tid: i32, value: usize, since: Since) -> io::Result<Timer> {
        let timer = timer::create(tid, SIGNAL, value)?;
        match timer.arm(self.phase(), since == Since::Birth, self.period) {
            Ok(()) => Ok(timer),
            Err(error) => {
                timer.delete();
                Err(error)
            }
        }
    }

    fn runs(&self, timer: Timer) -> bool {
        timer.runs()
    }

    fn stop(&self, timer: Timer) {
        timer.delete();
    }
}
