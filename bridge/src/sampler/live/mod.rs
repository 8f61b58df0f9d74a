//! The sampler of Linux.

mod choice;
mod clock;
mod cost;
mod handler;
mod modules;
mod ring;
mod self_test;
mod state;
mod strangers;
mod threads;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::clock::{PerfEvents, Since};
use self::cost::Cost;
use self::handler::{Record, SESSION, Session, TakeSample};
use self::modules::Modules;
use self::self_test::Roots;
use self::state::{MAX_THREADS, PROCESS_PERIODS, STATES, ThreadState};
use self::strangers::Strangers;
use self::threads::{Thread, Threads};
use super::{ClockInUse, MAX_DEPTH, Module, Options, Sample, SamplerError, SamplerStats, Spent};
use crate::config::Unwinder;
use crate::spans::SpanKey;
use crate::sys::published::Retired;
use crate::sys::{self, signal, stack, thread, timer};
use crate::unwind::{End, Table, until_entry};

/// How often threads and modules are looked for, at most: a little less than drains are apart, so that each looks.
const LOOK: Duration = Duration::from_millis(90);
/// The same with more threads than `MANY`: each costs two system calls a look.
const SLOW_LOOK: Duration = Duration::from_millis(250);
const MANY: usize = 128;

/// Forks in a row, each of which may sample anew.
const MAX_FORKS: usize = 16;

/// The threads of this process, at the index `FORKS`. A forked child starts over with the next one: the lock of its
/// parent's may have been held, and its contents half-written, at the moment of the fork.
static THREADS: [Mutex<Option<Threads>>; MAX_FORKS] = [const { Mutex::new(None) }; MAX_FORKS];
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// Whether there is a sampler.
static RUNNING: AtomicBool = AtomicBool::new(false);
/// Whether threads that publish are to be registered.
static SAMPLING: AtomicBool = AtomicBool::new(false);
/// The latest sampler: the only one that may drain.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// Where labels of threads go that have no state: all states taken, or already past their end.
static NOBODY: ThreadState = ThreadState::new();

thread_local! {
    /// The calling thread's state, once it has published while sampling was on.
    static SLOT: Cell<Option<&'static ThreadState>> = const { Cell::new(None) };
    static AT_EXIT: AtExit = const { AtExit };
}

/// Makes `key` what samples of the calling thread are stamped with, from now to the next call.
#[inline]
pub(crate) fn publish(key: SpanKey) {
    SLOT.with(|slot| match slot.get() {
        Some(state) => state.label.store(key.0, Ordering::Relaxed),
        None => bind(slot, key),
    });
}

/// What samples of the calling thread are stamped with.
#[cfg(test)]
pub(crate) fn label() -> SpanKey {
    SLOT.with(|slot| slot.get().map_or(SpanKey::NONE, |state| SpanKey(state.label.load(Ordering::Relaxed))))
}

/// Registers the calling thread as its first label would.
pub(crate) fn register() {
    SLOT.with(|slot| {
        if slot.get().is_none() {
            bind(slot, SpanKey::NONE);
        }
    });
}

/// The calling thread's id.
pub(crate) fn thread_id() -> i32 {
    thread::id()
}

/// CPU time that a thread of this process has used; zero once it is gone.
pub(crate) fn thread_cpu_time(tid: i32) -> Duration {
    timer::cpu_time(tid).unwrap_or_default()
}

/// The signal handler.
#[cfg(feature = "bench-internals")]
pub(crate) fn handler() -> signal::Handler {
    signal::handler::<TakeSample>
}

/// What the calling thread's timer carries, if it has one.
#[cfg(feature = "bench-internals")]
pub(crate) fn signal_value() -> Option<usize> {
    SLOT.with(Cell::get)
        .map(|state| (&raw const *state) as usize)
        .filter(|value| state::index(*value).is_some())
}

/// Registers the calling thread if sampling is on; while it is off there is nobody to tell.
#[cold]
fn bind(slot: &Cell<Option<&'static ThreadState>>, key: SpanKey) {
    if !SAMPLING.load(Ordering::Relaxed) {
        return;
    }
    // What follows allocates; an allocator that publishes must not come here again.
    slot.set(Some(&NOBODY));
    let Some(threads) = threads() else { return };
    let Some(index) = threads.lock().as_mut().and_then(|threads| threads.adopt(thread::id())) else {
        return;
    };
    let state = &STATES[index];
    state.bounds.learn_own();
    state.bound.store(true, Ordering::Release);
    state.label.store(key.0, Ordering::Relaxed);
    if let Some(threads) = threads.lock().as_mut() {
        // A refusal is counted there and tried again at the next look for threads.
        let _ = threads.tick(index, Since::Now);
    }
    slot.set(Some(state));
    // Past the thread's end nothing needs undoing: its state is not given away before it is gone.
    let _ = AT_EXIT.try_with(|_| ());
}

/// Unbinds the thread when it ends: destructors of other thread-local values may still publish after that.
struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        SLOT.with(|slot| {
            if let Some(state) = slot.replace(Some(&NOBODY)) {
                state.label.store(SpanKey::NONE.0, Ordering::Relaxed);
                state.bound.store(false, Ordering::Release);
                state.bounds.forget();
            }
        });
    }
}

fn threads() -> Option<&'static Mutex<Option<Threads>>> {
    THREADS.get(FORKS.load(Ordering::Acquire))
}

/// Has `child` called in the child of every fork from now on, until the process ends. It may not lock.
pub(crate) fn at_fork(child: extern "C" fn()) -> Result<(), SamplerError> {
    thread::at_fork(None, None, child).map_err(SamplerError::Handler)
}

/// In the child of a fork: no timer was inherited, and no other thread.
extern "C" fn forked() {
    sys::modules::let_go();
    SAMPLING.store(false, Ordering::Relaxed);
    RUNNING.store(false, Ordering::Relaxed);
    FORKS.fetch_add(1, Ordering::Relaxed);
    LATEST.fetch_add(1, Ordering::Relaxed);
    // Not freed: that would cost more in copied pages than it gives back.
    let _ = SESSION.replace(None);
    clock::forget_process_timer();
    state::used().for_each(ThreadState::after_fork);
    SLOT.with(|slot| slot.set(None));
}

/// What outlives a sampler for the sake of the next one.
#[derive(Default)]
struct Kept {
    modules: Modules,
    retired: Vec<Retired<Session>>,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// Samples the process until [`stop`](Self::stop). One at a time, until it is dropped.
pub(crate) struct Sampler {
    options: Options,
    id: u64,
    running: bool,
    kept: Kept,
    looked: Instant,
    clock: ClockInUse,
    /// Whether it may tick more often than the kernel.
    above_tick: bool,
    cost: Cost,
    strangers: Strangers,
    /// CPU time of the process when this one started, and used since, until it stopped.
    cpu_at_start: Duration,
    cpu: Duration,
    stats: SamplerStats,
    roots: Roots,
    /// What the threads' counters stood at when this one started.
    before: Lost,
    active: Vec<Thread>,
    words: Vec<u64>,
    /// Given up last: a ring has one consumer, and the last samples are drained after the stop.
    _claim: Claim,
}

/// The right to be the process's one sampler.
struct Claim {
    forks: usize,
}

impl Claim {
    fn take() -> Option<Self> {
        let forks = FORKS.load(Ordering::Acquire);
        (!RUNNING.swap(true, Ordering::AcqRel)).then(|| Self { forks })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What a forked child inherited is no claim of its own.
        if FORKS.load(Ordering::Acquire) == self.forks {
            RUNNING.store(false, Ordering::Release);
        }
    }
}

impl Sampler {
    /// Starts sampling every thread.
    pub(crate) fn start(options: Options) -> Result<Self, SamplerError> {
        if !(1..=1000).contains(&options.frequency) {
            return Err(SamplerError::Frequency(options.frequency));
        }
        let options = Options { max_depth: options.max_depth.clamp(1, MAX_DEPTH), ..options };
        let claim = Claim::take().ok_or(SamplerError::AlreadyRunning)?;
        Self::start_alone(options, claim)
    }

    fn start_alone(options: Options, claim: Claim) -> Result<Self, SamplerError> {
        static HOOKED: Mutex<bool> = Mutex::new(false);

        let all = threads().ok_or(SamplerError::Forks)?;
        if timer::process_timer().is_some() {
            return Err(SamplerError::OtherTimer);
        }
        let chained = match signal::install::<TakeSample>().map_err(SamplerError::Handler)? {
            signal::Installed::Yes { chained } => chained,
            signal::Installed::Replaced => return Err(SamplerError::HandlerReplaced),
        };
        let mut hooked = HOOKED.lock();
        if !*hooked {
            thread::at_fork(Some(sys::modules::hold), Some(sys::modules::let_go), forked)
                .map_err(SamplerError::Handler)?;
            *hooked = true;
        }
        drop(hooked);

        let mut sampler = Self {
            options,
            id: LATEST.fetch_add(1, Ordering::AcqRel) + 1,
            running: true,
            kept: KEPT.lock().take().unwrap_or_default(),
            looked: Instant::now(),
            clock: ClockInUse::default(),
            above_tick: false,
            cost: Cost::new((0, 0)),
            strangers: Strangers::new(options.frequency),
            cpu_at_start: timer::process_cpu_time(),
            cpu: Duration::ZERO,
            stats: SamplerStats {
                chained,
                divider: 1,
                unwinder: options.unwinder,
                ..SamplerStats::default()
            },
            roots: Roots::default(),
            before: Lost::default(),
            active: Vec::new(),
            words: Vec::new(),
            _claim: claim,
        };
        sampler.kept.modules.refresh(options.unwinder);
        sampler.publish_code();
        (sampler.stats.self_test, sampler.roots) = self_test::run(&sampler.kept.modules, options.unwinder);
        sampler.before = Lost::of(all.lock().get_or_insert_with(Threads::new));
        sampler.cost = Cost::new(sampler.timed());
        SAMPLING.store(true, Ordering::Release);
        // Should it fail, dropping the sampler undoes everything.
        sampler.start_clocks(all)?;
        Ok(sampler)
    }

    /// Chooses clocks, and has them tick for every thread.
    fn start_clocks(&mut self, all: &Mutex<Option<Threads>>) -> Result<(), SamplerError> {
        let chosen = choice::choose(&self.options);
        let tids = threads::list().map_err(SamplerError::Threads)?;
        let mut threads = all.lock();
        let threads = threads.get_or_insert_with(Threads::new);
        threads.set_divider(self.stats.divider);
        let wanted = chosen.clocks.first().map(|clock| clock.name()).unwrap_or_default();
        let started = threads.start(chosen.clocks, &tids);
        let name = threads.clock_name().unwrap_or_default();
        // All but refused, as where the limit of pending signals lets only a few threads have a timer.
        let instead = chosen.instead || wanted != name;
        self.clock = ClockInUse { name, why: chosen.why, instead };
        self.cost.known = chosen.sample_cost;
        self.above_tick = wanted == PerfEvents::NAME;
        started.map_err(SamplerError::Timer)
    }

    /// How long the next drain may wait: until the ring of a thread that always runs is half full of the deepest stacks.
    pub(crate) fn pause(&self) -> Duration {
        let rate = f64::from(self.options.frequency) / f64::from(self.stats.divider);
        let most = 1.0 / timer::kernel_tick().as_secs_f64();
        pause(if self.above_tick { rate } else { rate.min(most) }, self.options.max_depth)
    }

    /// Hands over every sample taken since the last call, and looks for threads and modules that came or went. To be
    /// called about ten times a second; `sink` must not publish. After [`stop`](Self::stop) it hands over what was left.
    pub(crate) fn drain(&mut self, sink: &mut dyn FnMut(&Sample<'_>)) {
        let Some(all) = self.threads() else { return };
        let threads = all.lock().as_ref().map_or(0, Threads::ticking);
        let look = if threads > MANY { SLOW_LOOK } else { LOOK };
        if self.running && self.looked.elapsed() >= look {
            self.looked = Instant::now();
            self.look_for_threads(all, sink);
            self.look_for_the_handler(all);
            self.stats.other_timer = timer::process_timer().is_some() && !clock::process_timer_is_ours();
            if self.kept.modules.refresh(self.options.unwinder) {
                self.publish_code();
            }
            SESSION.reclaim(&mut self.kept.retired);
        }
        self.note_cpu();
        self.active.clear();
        self.active.extend(all.lock().iter().flat_map(Threads::all));
        for i in 0..self.active.len() {
            self.drain_thread(self.active[i], sink);
        }
        for index in MAX_THREADS..STATES.len() {
            let (samples, weight) = (self.stats.samples, self.stats.weight);
            self.drain_thread(Thread { index, tid: 0 }, sink);
            self.stats.strangers += self.stats.samples - samples;
            self.strangers.charged += self.stats.weight - weight;
        }
    }

    /// The modules that samples may refer to: loaded ones, then those unloaded in the last minute.
    pub(crate) fn modules(&self) -> Arc<[Module]> {
        self.kept.modules.list()
    }

    /// What became of the samples since this sampler started.
    pub(crate) fn stats(&self) -> SamplerStats {
        let mut stats = self.stats;
        if let Some(all) = self.threads()
            && let Some(threads) = &*all.lock()
        {
            stats.threads = threads.ticking() as u32;
            Lost::of(threads).since(&self.before, &mut stats);
        }
        let charged = stats.weight + stats.lost_ring_full_weight + stats.excess_weight;
        let charged = Duration::from_secs_f64(self.period().as_secs_f64() * charged as f64);
        stats.uncharged = self.cpu.saturating_sub(charged);
        for (module, table) in self.kept.modules.tables() {
            stats.modules += 1;
            stats.table_bytes += table.bytes() as u64;
            stats.text_bytes += module.end - module.start;
            stats.rows_not_expressible += u64::from(table.not_expressible());
        }
        stats
    }

    /// The clock in use.
    pub(crate) fn clock(&self) -> ClockInUse {
        self.clock.clone()
    }

    /// What sampling has cost since this sampler started. Measures a signal to the calling thread.
    pub(crate) fn spent(&mut self) -> Spent {
        let stats = self.stats();
        if !stats.handler_replaced {
            self.cost.probe();
        }
        self.cost.look(self.timed());
        let cpu = timer::process_cpu_time().saturating_sub(self.cpu_at_start);
        // Threads with clocks of their own are interrupted by the process's as well.
        let periods = u64::from(PROCESS_PERIODS.load(Ordering::Relaxed)) * self.period().as_nanos() as u64;
        let by_process = ((cpu - self.cost.cpu).as_nanos() as u64).checked_div(periods).unwrap_or(0);
        self.cost.cpu = cpu;
        self.cost.by_process += by_process;
        let signals = stats.samples + stats.lost_ring_full + stats.nested + self.cost.by_process;
        Spent { signals, per_signal: self.cost.per_signal(), cpu }
    }

    /// Has threads be signalled only after `divider` periods each; a sample then stands for as many.
    pub(crate) fn set_divider(&mut self, divider: u32) {
        let divider = divider.clamp(1, self.options.frequency);
        if !self.running || divider == self.stats.divider {
            return;
        }
        self.stats.divider = divider;
        if let Some(all) = self.threads()
            && let Some(threads) = &mut *all.lock()
        {
            threads.set_divider(divider);
        }
    }

    /// Cycles in the handler of samples that were timed, and how many those are.
    fn timed(&self) -> (u64, u64) {
        let threads = self.threads().map(Mutex::lock);
        let threads = threads.as_ref().and_then(|threads| threads.as_ref());
        threads.map_or((0, 0), |threads| {
            (total(threads, |state| &state.timed_cycles), total(threads, |state| &state.timed))
        })
    }

    fn period(&self) -> Duration {
        Duration::from_secs(1) / self.options.frequency
    }

    /// Modules with unwind rows that no table rule can express, and how many.
    pub(crate) fn not_expressible(&self) -> Vec<(Arc<Path>, u32)> {
        let modules = self.kept.modules.tables();
        let count = |(module, table): (&Module, &Table)| (module.path.clone(), table.not_expressible());
        modules.map(count).filter(|(_, rows)| *rows > 0).collect()
    }

    /// Stops every timer. The handler stays: signals may be under way, and the default action would end the process.
    pub(crate) fn stop(&mut self) {
        if !self.running {
            return;
        }
        self.note_cpu();
        self.running = false;
        // In a forked child all this was the parent's.
        let Some(all) = self.threads() else { return };
        SAMPLING.store(false, Ordering::Release);
        if let Some(threads) = &mut *all.lock() {
            threads.stop();
        }
        self.kept.retired.extend(SESSION.replace(None));
        SESSION.reclaim(&mut self.kept.retired);
    }

    /// The process's threads, as long as this sampler is the latest.
    fn threads(&self) -> Option<&'static Mutex<Option<Threads>>> {
        (LATEST.load(Ordering::Acquire) == self.id).then(threads).flatten()
    }

    fn note_cpu(&mut self) {
        if self.running {
            self.cpu = timer::process_cpu_time().saturating_sub(self.cpu_at_start);
        }
    }

    fn publish_code(&mut self) {
        let session = Session {
            code: self.kept.modules.code_map(),
            unwinder: self.options.unwinder,
            spans: self.options.spans,
            max_depth: self.options.max_depth as u16,
            max_weight: self.options.frequency,
            period: self.period().as_nanos() as u64,
        };
        self.kept.retired.extend(SESSION.replace(Some(Box::new(session))));
    }

    /// While another handler is in ours' place, our ticks would go to it: the clocks rest.
    fn look_for_the_handler(&mut self, all: &Mutex<Option<Threads>>) {
        let replaced = !signal::still_installed();
        if replaced == std::mem::replace(&mut self.stats.handler_replaced, replaced) {
            return;
        }
        if replaced {
            if let Some(threads) = &mut *all.lock() {
                threads.stop();
            }
        } else {
            // What is refused is counted, and tried again at each look.
            let _ = self.start_clocks(all);
            self.strangers = Strangers::new(self.options.frequency);
        }
    }

    fn look_for_threads(&mut self, all: &Mutex<Option<Threads>>, sink: &mut dyn FnMut(&Sample<'_>)) {
        let ended = all.lock().as_mut().map(Threads::ended).unwrap_or_default();
        for thread in &ended {
            self.drain_thread(*thread, sink);
        }
        let lost = self.stats();
        let charged = lost.weight + lost.lost_ring_full_weight + lost.excess_weight;
        let follow = self.strangers.look(timer::process_cpu_time(), charged, lost.threads * lost.divider);
        let found = all.lock().as_mut().map(|threads| {
            threads.release(&ended);
            threads.retry();
            if let Some(follow) = follow {
                threads.follow_strangers(follow);
            }
            (threads.unknown_stacks(), threads.ticking())
        });
        let (unknown, sampled) = found.unzip();
        if let Some(unknown) = unknown.filter(|unknown| !unknown.is_empty()) {
            // Read without the lock: a thread that publishes for the first time waits for it.
            let mappings = stack::mappings();
            if let Some(threads) = &mut *all.lock() {
                threads.find_stacks(&unknown, &mappings);
            }
        }
        // All of those live, so if there are no more, there is none to find.
        if sampled != threads::count() {
            // Without the list, threads are still found when they publish.
            let tids = threads::list().unwrap_or_default();
            if let Some(threads) = &mut *all.lock() {
                threads.discover(&tids);
            }
        }
    }

    fn drain_thread(&mut self, thread: Thread, sink: &mut dyn FnMut(&Sample<'_>)) {
        let ring = &STATES[thread.index].ring;
        while let Some(tag) = ring.pop(&mut self.words) {
            let Some(record) = Record::read(&self.words, tag) else { continue };
            let Record { weight, span, mut frames, mut end, no_headroom } = record;
            if self.options.unwinder == Unwinder::FramePointers {
                (frames, end) = until_entry(frames, end);
                let code = self.kept.modules.leading_code(frames);
                if self.roots.ends(code) {
                    end = End::Entry;
                } else if code.len() < frames.len() {
                    end = End::NoModule;
                }
                frames = code;
            }
            self.stats.samples += 1;
            self.stats.weight += u64::from(weight);
            let counted = match end {
                _ if no_headroom => &mut self.stats.no_headroom,
                End::Entry => &mut self.stats.reached_entry,
                End::TooDeep => &mut self.stats.too_deep,
                End::NoModule => &mut self.stats.no_module,
                End::NoRule => &mut self.stats.no_rule,
                End::BadRead => &mut self.stats.bad_read,
                End::NoProgress => &mut self.stats.no_progress,
            };
            *counted += 1;
            sink(&Sample {
                #[cfg(any(test, feature = "bench-internals"))]
                tid: thread.tid,
                weight,
                span,
                frames,
                truncated: end != End::Entry,
            });
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop();
        *KEPT.lock() = Some(std::mem::take(&mut self.kept));
    }
}

/// The sum of a counter over all threads, unknown ones included.
fn total(threads: &Threads, counter: fn(&ThreadState) -> &AtomicU64) -> u64 {
    let states = threads.states().iter().chain(&STATES[MAX_THREADS..]);
    states.map(|state| counter(state).load(Ordering::Relaxed)).sum()
}

/// How long `rate` samples a second of `max_depth` frames each take to fill half a ring.
fn pause(rate: f64, max_depth: usize) -> Duration {
    let samples = ring::WORDS / 2 / (1 + handler::most_words(max_depth));
    Duration::from_secs_f64(samples as f64 / rate)
}

/// Totals of what the threads count.
#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    samples: u64,
    weight: u64,
    excess: u64,
    nested: u64,
    without_state: u64,
    clock_failures: u64,
}

impl Lost {
    fn of(threads: &Threads) -> Self {
        let total = |counter| total(threads, counter);
        Self {
            samples: total(|state| &state.lost),
            weight: total(|state| &state.lost_weight),
            excess: total(|state| &state.excess_weight),
            nested: total(|state| &state.nested),
            without_state: threads.without_state(),
            clock_failures: threads.clock_failures(),
        }
    }

    fn since(&self, before: &Self, stats: &mut SamplerStats) {
        stats.lost_ring_full = self.samples - before.samples;
        stats.lost_ring_full_weight = self.weight - before.weight;
        stats.excess_weight = self.excess - before.excess;
        stats.nested = self.nested - before.nested;
        stats.threads_refused = self.without_state - before.without_state;
        stats.timer_failures = self.clock_failures - before.clock_failures;
    }
}
