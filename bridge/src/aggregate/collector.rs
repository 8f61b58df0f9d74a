//! The collector thread: empties the sampler's rings ten times a second and ends a window at each upload interval.
//! It never waits for anyone: while more waits for the exporter's thread than may, a window goes on; one that would go on
//! for more than 15 seconds is counted as lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::Context;

use super::times::Times;
use super::{Added, Aggregator, Editor, Folds, Limits, SpanLabel, Window};
use crate::error::FlushError;
#[cfg(feature = "pyroscope")]
use crate::export::pprof::Encoded;
use crate::governor::{Governor, Totals};
use crate::live::{Charge, Live};
use crate::sampler::{self, Sampler, SamplerStats};
use crate::stats::{Counters, Governed, ratio};

/// How often the rings are emptied, at least: more often where the sampler says that they fill faster.
pub(super) const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How often a changed rate is told, at most.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Windows that may wait for the exporter's thread, and flushes.
const WAITING: usize = 16;
/// Memory that waiting windows may take together. A single one may always wait.
const WAITING_BYTES: usize = 8 << 20;

/// What the collector can be asked to do.
pub(crate) enum Command {
    /// End the window now and deliver everything; what is not delivered by then waits on.
    Flush { deadline: Instant, reply: Reply },
    /// End the window now and hand its profiles over.
    #[cfg(feature = "pyroscope")]
    Take(Profiles),
    /// Stop sampling, then as [`Flush`](Self::Flush), and end. What is not delivered by the profiler's deadline is
    /// lost.
    Stop(Reply),
}

/// Where the outcome of a flush is awaited. Dropped without one if the thread that was to answer is gone.
pub(crate) type Reply = Sender<Result<(), FlushError>>;

/// Where the profiles of a window are awaited.
#[cfg(feature = "pyroscope")]
pub(crate) type Profiles = Sender<Vec<Encoded>>;

/// What waits for the exporter's thread.
#[derive(Default)]
struct Queue {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place in a queue; free again when dropped.
pub(crate) struct Place {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Queue {
    /// A place, if there is one. Only one thread asks.
    fn place(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let (count, waiting) = (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if count >= WAITING || count > 0 && waiting + bytes > WAITING_BYTES {
            return None;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Place { queue: self.clone(), bytes })
    }
}

#[cfg(test)]
impl Place {
    /// In a queue of its own.
    pub(crate) fn for_test() -> Self {
        Arc::<Queue>::default().place(0).expect("an empty queue")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.count.fetch_sub(1, Ordering::Relaxed);
        self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A window on its way. If the exporter's thread ends before it has done with it, its samples count as lost.
pub(crate) struct Handed {
    window: Box<Window>,
    counters: Arc<Counters>,
    arrived: bool,
    _place: Option<Place>,
}

impl Handed {
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    #[cfg(test)]
    pub(crate) fn for_test(window: Window) -> Self {
        let (window, counters) = (Box::new(window), Arc::default());
        Self { window, counters, arrived: false, _place: Some(Place::for_test()) }
    }

    /// From here on, whoever took it counts.
    pub(crate) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if !self.arrived {
            self.counters.failed.add(self.window.rows.samples());
        }
    }
}

/// What the exporter's thread is given.
pub(crate) enum Job {
    Window(Handed),
    #[cfg(feature = "pyroscope")]
    Encode(Handed, Profiles),
    Flush {
        deadline: Instant,
        reply: Reply,
        place: Place,
    },
    Stop(Reply),
}

/// What was said of the rate: one that swings must not fill the log, and where it comes to rest must be told.
struct Rate {
    divider: u32,
    told: u32,
    when: Option<Instant>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { divider: 1, told: 1, when: None }
    }
}

impl Rate {
    /// Whether it has changed since it was told last, and may be told now; takes it for told then.
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let may = self.when.is_none_or(|when| now.saturating_duration_since(when) >= TELL_EVERY);
        let due = may && self.told != self.divider;
        if due {
            (self.told, self.when) = (self.divider, Some(now));
        }
        due
    }
}

/// Once this thread ends, even by a panic, no sample is counted any more, so no span may be tagged.
struct EndsCharge(Charge);

impl Drop for EndsCharge {
    fn drop(&mut self) {
        self.0.end();
    }
}

pub(crate) struct Collector {
    sampler: Sampler,
    live: &'static Live,
    counters: Arc<Counters>,
    aggregator: Aggregator,
    period: Duration,
    /// `None` when windows are only handed over on demand.
    upload_interval: Option<Duration>,
    exporter: Sender<Job>,
    windows: Arc<Queue>,
    flushes: Arc<Queue>,
    charge: EndsCharge,
    times: Times,
    before: SamplerStats,
    folds_before: Folds,
    window_full: u64,
    labels_dropped: u64,
    governor: Governor,
    /// Signals charged so far, and what they cost at the price of their time.
    sampling: (u64, Duration),
    rate: Rate,
    /// Whether stacks were said to be cut short.
    complained: bool,
}

impl Collector {
    pub(crate) fn new(
        sampler: Sampler,
        charge: Charge,
        counters: Arc<Counters>,
        editor: Editor,
        governor: Governor,
        upload_interval: Option<Duration>,
        exporter: Sender<Job>,
    ) -> Self {
        let before = sampler.stats();
        Self {
            sampler,
            live: charge.live(),
            counters,
            aggregator: Aggregator::new(Limits::default(), editor),
            period: Duration::from_secs(1) / governor.frequency(),
            upload_interval,
            exporter,
            windows: Arc::default(),
            flushes: Arc::default(),
            charge: EndsCharge(charge),
            times: Times::new(
                upload_interval.unwrap_or_default(),
                Instant::now(),
                SystemTime::now(),
                random_fraction(),
            ),
            before,
            folds_before: Folds::default(),
            window_full: 0,
            labels_dropped: 0,
            governor,
            sampling: (0, Duration::ZERO),
            rate: Rate::default(),
            complained: false,
        }
    }

    /// The thread's body: until told to stop, or until nobody can tell any more.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        let counters = self.counters.clone();
        let _entered = counters.background.enter();
        // Nothing that this thread does is anyone's telemetry.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        loop {
            match commands.recv_timeout(self.sampler.pause().min(DRAIN_EVERY)) {
                Err(RecvTimeoutError::Timeout) => self.drain(),
                Ok(Command::Flush { deadline, reply }) => {
                    self.drain();
                    if let Some(place) = self.flushes.place(0)
                        && (self.upload_interval.is_none() || self.hand_over_window())
                    {
                        self.send(Job::Flush { deadline, reply, place });
                    } else {
                        // More waits than the exporter takes in. Whoever asked may have stopped waiting.
                        let _ = reply.send(Err(FlushError::Export("the exporter is busy".to_owned())));
                    }
                }
                #[cfg(feature = "pyroscope")]
                Ok(Command::Take(reply)) => {
                    self.drain();
                    let window = self.cut();
                    let window = self.hand(window, None);
                    self.send(Job::Encode(window, reply));
                }
                Ok(Command::Stop(reply)) => {
                    self.stop();
                    let Self { sampler, exporter, .. } = self;
                    // Whoever awaits the reply may start another profiler at once.
                    drop(sampler);
                    // The exporter's thread has ended only by a panic; then there is nobody to tell.
                    let _ = exporter.send(Job::Stop(reply));
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
            let now = Instant::now();
            let is_due = self.upload_interval.is_some() && self.times.is_due(now);
            if is_due && !self.hand_over_window() && self.times.is_over(now) {
                self.lose_window();
            }
        }
    }

    fn stop(&mut self) {
        // A last look for threads that ended.
        self.drain();
        self.sampler.stop();
        self.drain();
        if !self.hand_over_window() {
            self.lose_window();
        }
    }

    fn drain(&mut self) {
        self.live.table.advance();
        let Self { sampler, aggregator, counters, window_full, labels_dropped, .. } = self;
        sampler.drain(&mut |sample| {
            let mut span = sample.span.as_ref().map(SpanLabel::from);
            match aggregator.add(sample.frames, span, sample.weight) {
                Added::Whole => {}
                Added::WithoutSpan => {
                    counters.labels_dropped.add(1);
                    *labels_dropped += 1;
                    span = None;
                }
                Added::Nothing => {
                    counters.window_full.add(1);
                    *window_full += 1;
                    return;
                }
            }
            counters.samples.add(1);
            counters.weight.add(u64::from(sample.weight));
            if !sample.truncated {
                counters.complete.add(1);
            }
            if span.is_some() {
                counters.labelled.add(1);
                counters.labelled_weight.add(u64::from(sample.weight));
            }
        });
        let folds = self.aggregator.folds();
        self.counters.folded_names.set(folds.names);
        self.counters.folded_labels.set(folds.labels);
        self.counters.normalizer_panics.set(folds.panics);
        // What the samples refer to has been read.
        self.live.label_sets().tidy(|| self.live.table.label_sets());
        self.govern();
        let stats = self.sampler.stats();
        let before = std::mem::replace(&mut *self.counters.sampler.lock(), stats);
        self.tell(&before, &stats);
    }

    /// Keeps the cost within the budget.
    fn govern(&mut self) {
        let spent = self.sampler.spent();
        let (signals, cost) = self.sampling;
        let new = spent.signals.saturating_sub(signals);
        let cost = cost + spent.per_signal.saturating_mul(new.min(u64::from(u32::MAX)) as u32);
        self.sampling = (spent.signals, cost);
        let totals =
            Totals { cpu: spent.cpu, sampling: cost, background: self.counters.background.cpu_time() };
        let changed = self.governor.look(totals);
        *self.counters.governed.lock() =
            Governed { overhead: self.governor.overhead(), per_sample: spent.per_signal };
        if let Some(divider) = changed {
            self.sampler.set_divider(divider);
            self.rate.divider = divider;
        }
        if self.rate.is_to_be_told(Instant::now()) {
            let divider = self.rate.divider;
            let frequency = 1.0 / self.period.as_secs_f64() / f64::from(divider);
            let overhead_percent = self.governor.overhead() * 100.0;
            tracing::info!(
                divider,
                frequency,
                overhead_percent,
                "sampling rate adjusted to the cpu budget: each sample counts for as much cpu time as it stands for"
            );
        }
    }

    /// Says once what has come to stand in the way of sampling, and acts on it.
    fn tell(&mut self, before: &SamplerStats, now: &SamplerStats) {
        if now.handler_replaced != before.handler_replaced {
            self.charge.0.suspend(now.handler_replaced);
            if now.handler_replaced {
                tracing::warn!(
                    "another component put its SIGPROF handler over the profiler's: no samples are taken and no spans \
                     tagged until that ends. run one CPU profiler per process"
                );
            } else {
                tracing::info!("the profiler's SIGPROF handler is back: samples are taken again");
            }
        }
        if now.timer_failures > 0 && before.timer_failures == 0 {
            tracing::warn!(
                "the kernel refused a thread the clock in use: it is sampled by the next best, at worst by the process's \
                 timer, until that succeeds. check RLIMIT_SIGPENDING (ulimit -i), the limit of open files if the clock is \
                 perf, and seccomp rules"
            );
        }
        if now.other_timer && !before.other_timer {
            tracing::warn!(
                "another CPU profiler has armed the process-wide profiling timer (ITIMER_PROF): its signals reach this \
                 profiler's handler or the other way round. run one CPU profiler per process"
            );
        }
        if now.threads_refused > 0 && before.threads_refused == 0 {
            tracing::warn!("there are more threads than can be sampled: the newest ones are not");
        }
        if !self.complained
            && let Some(complaint) = sampler::complaint(now)
        {
            self.complained = true;
            let sampler::Complaint { complete, likely_cause } = complaint;
            tracing::warn!(complete, likely_cause, "stacks often end before their thread's entry");
        }
        if now.rows_not_expressible != before.rows_not_expressible {
            for (module, rows) in self.sampler.not_expressible() {
                tracing::debug!(module = %module.display(), rows, "unwind rows without a rule: stacks end there");
            }
        }
    }

    /// Ends the window. One without samples says nothing about itself: it is not exported, so the next one does.
    fn cut(&mut self) -> Window {
        let (start, duration) = self.times.cut(Instant::now(), SystemTime::now(), random_fraction());
        let rows = self.aggregator.take();
        Window {
            start,
            duration,
            period: self.period,
            modules: self.sampler.modules(),
            notes: if rows.len() > 0 { self.notes() } else { Vec::new() },
            rows,
        }
    }

    /// Ends the window as nobody takes it.
    fn lose_window(&mut self) {
        self.times.cut(Instant::now(), SystemTime::now(), random_fraction());
        self.counters.exporter_busy.add(self.aggregator.take().samples());
    }

    /// What a reader of this window must know to judge it, and of those before it that were not exported.
    fn notes(&mut self) -> Vec<String> {
        let stats = self.sampler.stats();
        let before = std::mem::replace(&mut self.before, stats);
        let samples = stats.samples.saturating_sub(before.samples);
        let weight = stats.weight.saturating_sub(before.weight);
        let hertz = 1.0 / self.period.as_secs_f64() * ratio(samples, weight);
        let folds = self.aggregator.folds();
        let folds_before = std::mem::replace(&mut self.folds_before, folds);
        let since = |count: fn(&SamplerStats) -> u64| count(&stats).saturating_sub(count(&before));
        let causes = [
            ("lost.ring_full", since(|stats| stats.lost_ring_full)),
            ("lost.window_full", std::mem::take(&mut self.window_full)),
            ("lost.labels", std::mem::take(&mut self.labels_dropped)),
            ("lost.nested", since(|stats| stats.nested)),
            ("lost.excess_periods", since(|stats| stats.excess_weight)),
            ("lost.threads_refused", since(|stats| stats.threads_refused)),
            ("lost.timers_refused", since(|stats| stats.timer_failures)),
            ("lost.handler_replaced", u64::from(stats.handler_replaced)),
            ("lost.other_timer", u64::from(stats.other_timer)),
            ("truncated.no_headroom", since(|stats| stats.no_headroom)),
            ("truncated.too_deep", since(|stats| stats.too_deep)),
            ("truncated.no_module", since(|stats| stats.no_module)),
            ("truncated.no_rule", since(|stats| stats.no_rule)),
            ("truncated.bad_read", since(|stats| stats.bad_read)),
            ("truncated.no_progress", since(|stats| stats.no_progress)),
            ("folded.span_names", folds.names - folds_before.names),
            ("folded.labels", folds.labels - folds_before.labels),
            ("folded.normalizer_panics", folds.panics - folds_before.panics),
        ];
        let mut notes = vec![
            concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).to_owned(),
            format!("frequency={:.0}", 1.0 / self.period.as_secs_f64()),
            format!("clock={}", self.sampler.clock().name),
            format!("unwinder={}", stats.unwinder),
        ];
        if stats.divider > 1 {
            notes.push(format!("rate_divider={}", stats.divider));
        }
        if weight > 0 {
            notes.push(format!("effective_frequency={hertz:.1}"));
            let complete = ratio(since(|stats| stats.reached_entry), samples);
            notes.push(format!("complete_stacks={complete:.3}"));
        }
        // More than a few periods, which may be early or late.
        let uncharged = stats.uncharged.saturating_sub(before.uncharged);
        if uncharged > self.period * stats.threads.max(1) {
            notes.push(format!("uncharged_cpu_ms={}", uncharged.as_millis()));
        }
        notes.extend(causes.iter().filter(|(_, n)| *n > 0).map(|(cause, n)| format!("{cause}={n}")));
        notes
    }

    /// Ends the window, if there is a place for it among those that wait for the exporter's thread.
    fn hand_over_window(&mut self) -> bool {
        let Some(place) = self.windows.place(self.aggregator.bytes()) else { return false };
        let window = self.cut();
        if window.rows.len() > 0 {
            self.send(Job::Window(self.hand(window, Some(place))));
        }
        true
    }

    fn hand(&self, window: Window, place: Option<Place>) -> Handed {
        Handed { window: Box::new(window), counters: self.counters.clone(), arrived: false, _place: place }
    }

    fn send(&self, job: Job) {
        // The exporter's thread ends after this one, or by a panic; then there is nobody to tell, and windows count
        // themselves.
        let _ = self.exporter.send(job);
    }
}

/// Evenly spread over [0, 1). The standard library seeds its hash maps by the system's random numbers.
pub(crate) fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u64) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Tagging;

    #[test]
    fn what_waits_is_bounded_by_number_and_by_bytes_and_one_always_may() {
        let queue = Arc::<Queue>::default();
        let huge = queue.place(2 * WAITING_BYTES).expect("the first");
        assert!(queue.place(0).is_none());
        drop(huge);
        let mut places: Vec<Place> = (0..WAITING).map_while(|_| queue.place(1)).collect();
        assert_eq!(places.len(), WAITING);
        assert!(queue.place(0).is_none());
        places.truncate(1);
        assert!(queue.place(WAITING_BYTES).is_none());
        assert!(queue.place(WAITING_BYTES - 1).is_some());
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn collector() -> (Collector, Receiver<Job>) {
        let live = Live::get();
        let sampler = Sampler::start(sampler::Options::new(100, &live.table)).expect("the sampler starts");
        let (jobs, exporter) = std::sync::mpsc::channel();
        let editor = Editor::new(live.label_sets(), 10, None);
        let (governor, interval) = (Governor::new(None, 100), Some(Duration::from_secs(10)));
        (
            Collector::new(sampler, live.take_charge(), Arc::default(), editor, governor, interval, jobs),
            exporter,
        )
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn a_busy_exporter_is_told_from_one_that_has_ended() {
        let _turn = crate::sampler::TURN.lock();
        for is_there in [true, false] {
            let (collector, exporter) = collector();
            let exporter = is_there.then_some(exporter);
            let (commands, inbox) = std::sync::mpsc::channel();
            let mut outcomes = Vec::new();
            for _ in 0..=WAITING {
                let (reply, outcome) = std::sync::mpsc::channel();
                let command = Command::Flush { deadline: crate::deadline::after(Duration::MAX), reply };
                commands.send(command).expect("there");
                outcomes.push(outcome);
            }
            drop(commands);
            collector.run(&inbox);
            let last = outcomes.pop().expect("the one too many").recv();
            let busy = Err(FlushError::Export("the exporter is busy".to_owned()));
            assert_eq!(last.ok(), is_there.then_some(busy));
            drop(exporter);
            assert!(outcomes.iter().all(|outcome| outcome.recv().is_err()));
        }
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn what_a_window_that_is_not_exported_had_to_say_the_next_one_says() {
        let _turn = crate::sampler::TURN.lock();
        let (mut collector, exporter) = collector();
        let note = "lost.window_full=3".to_owned();
        collector.window_full = 3;
        assert!(collector.hand_over_window());
        collector.aggregator.add(&[0x1000], None, 1);
        collector.lose_window();
        assert_eq!(collector.counters.exporter_busy.get(), 1);
        for says in [true, false] {
            collector.aggregator.add(&[0x1000], None, 1);
            assert!(collector.hand_over_window());
            let Ok(Job::Window(window)) = exporter.try_recv() else { panic!("it has a sample") };
            assert_eq!(window.window().notes.contains(&note), says, "{:?}", window.window().notes);
        }
        assert!(exporter.try_recv().is_err());
    }

    #[test]
    fn what_waits_for_a_thread_that_ends_is_counted_and_what_arrived_is_not() {
        let counters = Arc::<Counters>::default();
        let handed = || {
            let mut aggregator =
                Aggregator::new(Limits::default(), Editor::new(Live::get().label_sets(), 10, None));
            assert_eq!(aggregator.add(&[1, 2], None, 1), Added::Whole);
            let window = Window {
                start: SystemTime::now(),
                duration: Duration::from_secs(1),
                period: Duration::from_millis(10),
                modules: Arc::from([]),
                rows: aggregator.take(),
                notes: Vec::new(),
            };
            Handed { window: Box::new(window), counters: counters.clone(), arrived: false, _place: None }
        };
        let (jobs, inbox) = std::sync::mpsc::channel();
        for _ in 0..3 {
            assert!(jobs.send(Job::Window(handed())).is_ok(), "somebody listens");
        }
        let Ok(Job::Window(first)) = inbox.recv() else { panic!("a window") };
        first.arrived();
        assert_eq!(counters.failed.get(), 0);
        drop(inbox);
        assert_eq!(counters.failed.get(), 2, "those that waited");
        drop(jobs.send(Job::Window(handed())));
        assert_eq!(counters.failed.get(), 3, "and the one after them");
    }

    #[test]
    fn a_rate_that_swings_is_told_once_a_minute_and_where_it_rests_in_any_case() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..200u64 {
            match second {
                10..30 => rate.divider = 2 + second as u32 % 2,
                30.. => rate.divider = 4,
                _ => {}
            }
            if rate.is_to_be_told(start + Duration::from_secs(second)) {
                told.push((second, rate.told));
            }
        }
        assert_eq!(told, [(10, 2), (70, 4)]);
    }

    #[test]
    fn a_collector_that_panics_leaves_no_span_tagged() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        let charge = live.take_charge();
        crate::context::install(live);
        charge.set_tagging(Tagging::All);
        assert_eq!(live.tagging(), Tagging::All);
        let thread = std::thread::spawn(move || {
            let _held = EndsCharge(charge);
            // A panic without the report of one.
            std::panic::resume_unwind(Box::new("collector"));
        });
        assert!(thread.join().is_err());
        assert_eq!(live.tagging(), Tagging::Off);
    }
}
