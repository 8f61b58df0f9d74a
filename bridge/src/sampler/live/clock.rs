//! The clocks: what makes a thread be sampled once per period of its CPU time. The collector's side; what their signals
//! stand for is the handler's business.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::state::{self, BIRTH, NEVER, PROCESS_PERIODS, STATES, STRANGERS, ThreadState};
use crate::sys::perf::{self, Event};
use crate::sys::signal::SIGNAL;
use crate::sys::thread;
use crate::sys::timer::{self, Timer};

/// From when on a thread's CPU time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// From this moment.
    Now,
    /// From its birth: the first signal then stands for what has passed since.
    Birth,
}

/// What ticks for one thread: a timer, a perf event, or nothing of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) tid: i32,
    /// The state of the thread.
    pub(super) index: usize,
    /// The kernel's number for the timer or the event.
    pub(super) id: i32,
}

/// A source of ticks. How they are chosen is in [`choice`](super::choice).
pub(super) trait Clock: Send {
    /// What it is, for people.
    fn name(&self) -> &'static str;

    /// Makes thread `tid`, whose state is at `index`, be signalled from now on.
    fn start(&mut self, tid: i32, index: usize, since: Since) -> io::Result<Tick>;

    /// Whether it still ticks: not once its thread is gone.
    fn runs(&self, tick: Tick) -> bool;

    /// Makes it tick at the pace set last.
    fn adjust(&mut self, tick: Tick);

    /// Ends it.
    fn stop(&mut self, tick: Tick);

    /// Has ticks come only after this many periods each; for those under way once they are adjusted.
    fn set_divider(&mut self, divider: u32);

    /// Has threads that nobody knows yet sampled too, or no longer. Most clocks cannot.
    fn follow_strangers(&mut self, _on: bool) {}

    /// Whether it charges what threads use before they are known.
    fn charges_strangers(&self) -> bool {
        false
    }
}

/// A period, its multiple, and where in it a thread begins.
struct Pace {
    period: Duration,
    divider: u32,
    random: RandomState,
    drawn: u64,
}

impl Pace {
    fn new(frequency: u32) -> Self {
        let period = Duration::from_nanos(1_000_000_000 / u64::from(frequency.max(1)));
        Self { period, divider: 1, random: RandomState::new(), drawn: 0 }
    }

    /// From one signal to the next.
    fn interval(&self) -> Duration {
        self.period.saturating_mul(self.divider)
    }

    /// Uniform in (0, `span`], so that threads which live shorter than that are sampled in proportion to the time they
    /// use.
    fn phase(&mut self, span: Duration) -> Duration {
        self.drawn += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.drawn);
        Duration::from_nanos(1 + hasher.finish() % span.as_nanos().max(1) as u64)
    }
}

/// One POSIX timer per thread, on its CPU clock: unprivileged, exact shares through the overrun count, no interrupt of
/// its own (docs/decisions/0006-per-thread-timers.md).
pub(super) struct ThreadTimers {
    pace: Pace,
    tick: Duration,
}

impl ThreadTimers {
    pub(super) const NAME: &'static str = "thread CPU timers";

    pub(super) fn new(frequency: u32) -> Self {
        Self { pace: Pace::new(frequency), tick: timer::kernel_tick() }
    }

    /// When a timer is due for the first time, and how many periods have then passed unseen.
    ///
    /// The kernel looks at the timer only at its tick, so the thread's last half tick goes unseen on average. That is
    /// made up for at the beginning, half a tick early: else threads that live a few ticks would be charged too little.
    fn first(&mut self) -> (Duration, u32) {
        let interval = self.pace.interval();
        let early = self.pace.phase(interval);
        match early.checked_sub(self.tick / 2) {
            Some(first) if !first.is_zero() => (first, 0),
            _ => {
                let before = (self.tick / 2 - early).as_nanos() / self.pace.period.as_nanos().max(1);
                (Duration::from_nanos(1), before as u32)
            }
        }
    }
}

impl Clock for ThreadTimers {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn start(&mut self, tid: i32, index: usize, since: Since) -> io::Result<Tick> {
        let timer = timer::create(tid, SIGNAL, state::value(index))?;
        let (first, before) = self.first();
        let state = &STATES[index];
        let from_birth = since == Since::Birth;
        state.due.store(NEVER, Ordering::Relaxed);
        state.first.store(before | if from_birth { BIRTH } else { 0 }, Ordering::Relaxed);
        match timer.arm(first, from_birth, self.pace.interval()) {
            Ok(()) => Ok(Tick { tid, index, id: timer.0 }),
            Err(error) => {
                timer.delete();
                Err(error)
            }
        }
    }

    fn runs(&self, tick: Tick) -> bool {
        Timer(tick.id).runs()
    }

    fn adjust(&mut self, tick: Tick) {
        let interval = self.pace.interval();
        let first = self.pace.phase(interval);
        // A thread that has ended needs none.
        let _ = Timer(tick.id).arm(first, false, interval);
    }

    fn stop(&mut self, tick: Tick) {
        Timer(tick.id).delete();
    }

    fn set_divider(&mut self, divider: u32) {
        self.pace.divider = divider;
    }
}

/// Whether a clock of ours has armed the process-wide profiling timer.
static OURS: AtomicBool = AtomicBool::new(false);

/// Makes a thread's first period end `phase` after what counts of its CPU time.
fn begin(state: &ThreadState, tid: i32, since: Since, phase: Duration) -> io::Result<()> {
    // Asked in any case: a thread that has ended has no such clock.
    let used = timer::cpu_time(tid).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let start = if since == Since::Birth { Duration::ZERO } else { used };
    state.first.store(if since == Since::Birth { BIRTH } else { 0 }, Ordering::Relaxed);
    state.due.store((start + phase).as_nanos() as u64, Ordering::Relaxed);
    Ok(())
}

/// One perf event per thread, on the kernel's software CPU clock: true rates above the kernel's tick, an interrupt and an
/// open file for each.
pub(super) struct PerfEvents {
    pace: Pace,
    open: u64,
}

impl PerfEvents {
    pub(super) const NAME: &'static str = "perf task-clock";
    /// The share of the files that the process may have open: they are the service's, not ours.
    const SHARE_OF_FILES: u64 = 4;

    pub(super) fn new(frequency: u32) -> Self {
        Self { pace: Pace::new(frequency), open: 0 }
    }
}

impl Clock for PerfEvents {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn start(&mut self, tid: i32, index: usize, since: Since) -> io::Result<Tick> {
        if self.open >= perf::open_files_limit() / Self::SHARE_OF_FILES {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let event = perf::open(tid, SIGNAL, self.pace.interval())?;
        let state = &STATES[index];
        // The event begins with a whole period, and the thread's account with it.
        state.event.store(event.0 + 1, Ordering::Relaxed);
        match begin(state, tid, since, self.pace.period).and_then(|()| event.enable()) {
            Ok(()) => {
                self.open += 1;
                Ok(Tick { tid, index, id: event.0 })
            }
            Err(error) => {
                state.due.store(NEVER, Ordering::Relaxed);
                state.event.store(0, Ordering::Relaxed);
                event.close();
                Err(error)
            }
        }
    }

    fn runs(&self, tick: Tick) -> bool {
        thread::exists(tick.tid)
    }

    fn adjust(&mut self, tick: Tick) {
        // An open event can be set; one whose thread has ended does not matter.
        let _ = Event(tick.id).set_period(self.pace.interval());
    }

    fn stop(&mut self, tick: Tick) {
        STATES[tick.index].event.store(0, Ordering::Relaxed);
        Event(tick.id).close();
        self.open -= 1;
    }

    fn set_divider(&mut self, divider: u32) {
        self.pace.divider = divider;
    }
}

/// One timer for the whole process, which signals whatever thread runs: the last resort where a thread can have no clock
/// of its own, and the way to see threads that end before they are found.
pub(super) struct ProcessTimer {
    pace: Pace,
    tick: Duration,
    /// Reserved from the start, as others may use the limit up. `None` where the process-wide profiling timer does it.
    timer: Option<Timer>,
    /// Periods from one signal to the next, as armed last.
    armed: u32,
    threads: usize,
    strangers: bool,
}

impl ProcessTimer {
    pub(super) const NAME: &'static str = "process CPU timer";

    pub(super) fn new(frequency: u32) -> Self {
        // A timer of this kind ends with the program at an `exec`, unlike the process-wide profiling timer, which would
        // kill the program after it.
        let timer = timer::process_timers_hit_the_running_thread()
            .then(|| timer::create_for_process(SIGNAL, state::process_value()).ok())
            .flatten();
        Self {
            pace: Pace::new(frequency),
            tick: timer::kernel_tick(),
            timer,
            armed: 0,
            threads: 0,
            strangers: false,
        }
    }

    /// Periods from one signal to the next: at least the kernel's tick, beyond which signals would merge.
    fn periods(&self) -> u32 {
        let least = self.tick.as_nanos().div_ceil(self.pace.period.as_nanos().max(1));
        self.pace.divider.max(least as u32)
    }

    /// Whether it is to be armed.
    fn wanted(&self) -> bool {
        self.threads > 0 || self.strangers
    }

    fn arm(&mut self) -> io::Result<()> {
        if !STATES[STATES.len() - STRANGERS..].iter().all(|state| state.ring.allocate()) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let periods = self.periods();
        let interval = self.pace.period.saturating_mul(periods);
        PROCESS_PERIODS.store(periods, Ordering::Relaxed);
        self.armed = periods;
        let armed = match self.timer {
            Some(timer) => timer.arm(self.pace.phase(interval), false, interval),
            None => timer::set_process_timer(interval).inspect(|()| OURS.store(true, Ordering::Relaxed)),
        };
        if armed.is_err() {
            PROCESS_PERIODS.store(0, Ordering::Relaxed);
        }
        armed
    }

    fn disarm(&mut self) {
        PROCESS_PERIODS.store(0, Ordering::Relaxed);
        match self.timer {
            Some(timer) => timer.disarm(),
            None => {
                // Another profiler may have taken it over.
                if timer::process_timer() == Some(self.pace.period.saturating_mul(self.armed)) {
                    let _ = timer::set_process_timer(Duration::ZERO);
                }
                OURS.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Arms or disarms it after `change`.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> io::Result<()> {
        let before = self.wanted();
        change(self);
        match (before, self.wanted()) {
            (false, true) => self.arm(),
            (true, false) => {
                self.disarm();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Clock for ProcessTimer {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn start(&mut self, tid: i32, index: usize, since: Since) -> io::Result<Tick> {
        let phase = self.pace.phase(self.pace.period);
        begin(&STATES[index], tid, since, phase)?;
        match self.change(|timer| timer.threads += 1) {
            Ok(()) => Ok(Tick { tid, index, id: 0 }),
            Err(error) => {
                self.threads -= 1;
                STATES[index].due.store(NEVER, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn runs(&self, tick: Tick) -> bool {
        thread::exists(tick.tid)
    }

    fn adjust(&mut self, _tick: Tick) {}

    fn stop(&mut self, _tick: Tick) {
        // Disarming succeeds.
        let _ = self.change(|timer| timer.threads -= 1);
    }

    fn set_divider(&mut self, divider: u32) {
        self.pace.divider = divider;
        if self.wanted() {
            // It was armed before, so it can be.
            let _ = self.arm();
        }
    }

    fn follow_strangers(&mut self, on: bool) {
        // The other kind would outlive the program at an `exec`: too much for what it gives.
        if self.timer.is_some() && self.change(|timer| timer.strangers = on).is_err() {
            self.strangers = false;
        }
    }

    fn charges_strangers(&self) -> bool {
        self.wanted()
    }
}

/// In the child of a fork, which inherits no timer: what armed there is someone else's.
pub(super) fn forget_process_timer() {
    PROCESS_PERIODS.store(0, Ordering::Relaxed);
    OURS.store(false, Ordering::Relaxed);
}

/// Whether the process-wide profiling timer, if it is armed, is ours.
pub(super) fn process_timer_is_ours() -> bool {
    OURS.load(Ordering::Relaxed)
}

impl Drop for ProcessTimer {
    fn drop(&mut self) {
        if self.wanted() {
            self.disarm();
        }
        if let Some(timer) = self.timer.take() {
            timer.delete();
        }
    }
}
