//! The profiler: starts and stops the sampler and the background threads, and hands out what the user's tracer
//! provider needs. One runs per process at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::aggregate::Editor;
use crate::aggregate::collector::{Collector, Command};
use crate::config::{Config, Destination, ProfilerBuilder, Scope, Unwinder};
use crate::context;
use crate::deadline;
use crate::error::{ConfigError, FlushError, StartError};
use crate::export::encoder::{Encoder, Policy};
use crate::export::file::FileExporter;
use crate::export::unlabelled::UnlabelledCpu;
use crate::export::worker::{Announce, Worker};
use crate::export::{ProfileExporter, Receiver as ReceivingEnd};
use crate::governor::Governor;
use crate::labels::ProfileLabels;
use crate::live::{self, Charge, Live, Tagging};
use crate::log;
use crate::processor::{NoProcessor, SpanProfileProcessor};
use crate::sampler::{self, ClockInUse, Options, Sampler, SamplerError, SamplerStats};
use crate::stats::{Counters, Folded, LabelSource, Lost, SelfTest, Stats, Truncated, UnwindTables, ratio};

/// Whether forked children are told to leave spans alone.
static FORKS_FOLLOWED: AtomicBool = AtomicBool::new(false);

/// How long dropping a profiler may take.
const DROP_TIMEOUT: Duration = Duration::from_secs(5);

/// Samples this process's CPU use and knows for every sample which span it belongs to. Stops when dropped.
///
/// ```no_run
/// use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
/// # use opentelemetry_sdk::trace::InMemorySpanExporter;
/// # let exporter = InMemorySpanExporter::default();
///
/// let profiler = spanflame::Profiler::builder().server_address("http://127.0.0.1:4040").start()?;
/// let provider = SdkTracerProvider::builder()
///     .with_span_processor(profiler.wrap(BatchSpanProcessor::builder(exporter).build()))
///     .build();
/// # Ok::<(), spanflame::StartError>(())
/// ```
#[must_use = "profiling stops when the profiler is dropped"]
#[derive(Debug)]
pub struct Profiler {
    /// `None` when profiling is disabled.
    running: Option<Arc<Running>>,
}

struct Running {
    charge: Charge,
    live: &'static Live,
    counters: Arc<Counters>,
    labels: Arc<ProfileLabels>,
    frequency: u32,
    clock: ClockInUse,
    /// The process that it was started in: a forked child has a copy, without the threads behind it.
    process: u32,
    /// What the process's counters of spans stood at then.
    before: SpansLost,
    unwinder: Unwinder,
    commands: Mutex<Sender<Command>>,
    stopped: AtomicBool,
}

/// Spans without a label, since the process began.
struct SpansLost {
    evicted: u64,
    refused: u64,
}

impl SpansLost {
    fn so_far(live: &Live) -> Self {
        Self { evicted: live.table.evicted(), refused: live.attribute_refused.load(Ordering::Relaxed) }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("frequency", &self.frequency).finish_non_exhaustive()
    }
}

impl ProfilerBuilder {
    /// Starts profiling.
    ///
    /// Whether the server can be reached makes no difference: profiles wait for it, within bounds.
    ///
    /// # Errors
    /// On a setting that cannot be used, on a second profiler in the same process, where the kernel refuses what
    /// sampling needs, and on other platforms than Linux on x86-64 and aarch64. Spans are never affected.
    pub fn start(self) -> Result<Profiler, StartError> {
        self.start_on(PLATFORM)
    }

    pub(crate) fn start_on(self, platform: Platform) -> Result<Profiler, StartError> {
        let mut config = self.resolve(&|name| std::env::var_os(name))?;
        if !config.enabled {
            tracing::info!("profiling is disabled");
            return Ok(Profiler { running: None });
        }
        supported(platform)?;
        let (exporter, destination) = match config.exporter.take() {
            Some(exporter) => (exporter, "custom exporter".to_owned()),
            None => exporter(std::mem::take(&mut config.destination))?,
        };
        Profiler::start(config, Some(exporter), &destination)
    }

    /// Starts sampling on behalf of a `pyroscope` agent: give the backend to the agent's builder in place of its
    /// own, and a span processor of the profiler to the tracer provider. The agent decides where and when profiles
    /// are pushed, and as which application: a profile covers the time since the agent's last report, usually ten seconds,
    /// but more if the agent is held up. The upload interval and its limit do not apply.
    ///
    /// [`Scope::Auto`] is [`Scope::Root`] here, as the agent does not say what its server is.
    ///
    /// # Errors
    /// As [`start`](Self::start). A disabled profiler gives a backend whose profiles are empty.
    #[cfg(feature = "pyroscope")]
    pub fn pyroscope_backend(
        self,
    ) -> Result<
        (Profiler, pyroscope::backend::BackendImpl<pyroscope::backend::BackendUninitialized>),
        StartError,
    > {
        use crate::export::pyroscope::{Connection, SpanBackend};

        let config = self.resolve(&|name| std::env::var_os(name))?;
        if !config.enabled {
            tracing::info!("profiling is disabled");
            return Ok((Profiler { running: None }, SpanBackend::for_agent(None)));
        }
        supported(PLATFORM)?;
        let profiler = Profiler::start(config, None, "pyroscope agent")?;
        let connection = profiler.running.as_ref().map(|running| Connection {
            commands: running.commands.lock().clone(),
            counters: running.counters.clone(),
        });
        Ok((profiler, SpanBackend::for_agent(connection)))
    }
}

/// An operating system and a processor architecture, as `std::env::consts` names them.
#[derive(Clone, Copy)]
pub(crate) struct Platform {
    os: &'static str,
    arch: &'static str,
}

/// What this was compiled for.
const PLATFORM: Platform = Platform { os: std::env::consts::OS, arch: std::env::consts::ARCH };

fn supported(Platform { os, arch }: Platform) -> Result<(), StartError> {
    match (os, arch) {
        ("linux", "x86_64" | "aarch64") => Ok(()),
        _ => Err(StartError::Unsupported { os, arch }),
    }
}

fn follow_forks() -> Result<(), StartError> {
    // No lock, as a fork may come in between; one profiler starts at a time.
    if !FORKS_FOLLOWED.load(Ordering::Relaxed) {
        sampler::at_fork(live::forked).map_err(|error| StartError::Sampler(Box::new(error)))?;
        FORKS_FOLLOWED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

fn exporter(destination: Destination) -> Result<(Box<dyn ProfileExporter>, String), ConfigError> {
    if let Some(directory) = destination.profile_dir {
        return Ok((Box::new(FileExporter::new(&directory)), directory));
    }
    #[cfg(feature = "push")]
    {
        let address = destination.server_address.clone();
        Ok((Box::new(crate::export::push::PyroscopeExporter::new(destination)), address))
    }
    #[cfg(not(feature = "push"))]
    Err(ConfigError::new(
        "exporter",
        "an exporter or SPANFLAME_PROFILE_DIR, as the crate was built without its `push` feature",
        "",
    ))
}

impl Profiler {
    /// Settings to start from.
    pub fn builder() -> ProfilerBuilder {
        ProfilerBuilder::default()
    }

    /// Starts with an exporter, or without: then profiles are made on demand.
    fn start(
        config: Config,
        exporter: Option<Box<dyn ProfileExporter>>,
        destination: &str,
    ) -> Result<Self, StartError> {
        let live = Live::get();
        let options = Options {
            clock: config.clock,
            cpu_budget: config.cpu_budget,
            unwinder: config.unwinder,
            ..Options::new(config.frequency, &live.table)
        };
        let sampler = Sampler::start(options).map_err(|error| match error {
            SamplerError::AlreadyRunning => StartError::AlreadyRunning,
            other => StartError::Sampler(Box::new(other)),
        })?;
        let clock = sampler.clock();
        if clock.instead {
            let ClockInUse { name, why, .. } = clock.clone();
            log::when_heard(move || {
                tracing::warn!(clock = name, reason = why, "not the clock that was asked for")
            });
        }
        follow_forks()?;
        context::install(live);
        live::set_label_at_start(config.label_at_start);
        let counters = Arc::new(Counters::default());
        let SamplerStats { unwinder, self_test, .. } = sampler.stats();
        *counters.sampler.lock() = SamplerStats { unwinder, self_test, ..SamplerStats::default() };
        let labels = Arc::new(ProfileLabels::new(config.identity, config.resource.as_ref()));
        let upload_interval = exporter.is_some().then_some(config.upload_interval);
        let (commands, inbox) = channel();
        let (jobs, queue) = channel();

        live.set_wording(config.span_names, config.max_span_names, config.label_keys);
        let editor = Editor::new(live.label_sets(), config.max_span_names, config.span_name_normalizer);
        let charge = live.take_charge();
        let policy = Policy {
            charge,
            scope: config.scope,
            trace_ids: config.trace_ids,
            receiver: ReceivingEnd::default(),
        };
        policy.apply();
        let running = Running {
            charge,
            live,
            counters: counters.clone(),
            labels: labels.clone(),
            frequency: config.frequency,
            clock,
            process: std::process::id(),
            before: SpansLost::so_far(live),
            unwinder: config.unwinder,
            commands: Mutex::new(commands),
            stopped: AtomicBool::new(false),
        };
        let running = Arc::new(running);
        let announce = announcement(running.clone(), destination.to_owned(), upload_interval);
        // From here on, failing drops this, which undoes what was done.
        let profiler = Self { running: Some(running) };

        let counted = counters.clone();
        spawn("spanflame-export", move || {
            let entered = counted.clone();
            let _entered = entered.background.enter();
            // Made here, as symbolization keeps to one thread.
            let encoder = Encoder::new(policy, counted);
            match exporter {
                Some(exporter) => Worker::new(encoder, exporter, labels, announce).run(&queue),
                #[cfg(feature = "pyroscope")]
                None => {
                    announce(None);
                    encoder.serve(&queue);
                }
                #[cfg(not(feature = "pyroscope"))]
                None => {}
            }
        })?;
        let governor = Governor::new(config.cpu_budget, config.frequency);
        let collector = Collector::new(sampler, charge, counters, editor, governor, upload_interval, jobs);
        spawn("spanflame-collect", move || collector.run(&inbox))?;

        Ok(profiler)
    }

    /// Wraps the span processor that exports spans: the recommended way to connect a tracer provider. The provider's
    /// `force_flush` then flushes profiles, too; its `shutdown` does not stop the profiler, which is the caller's.
    pub fn wrap<P>(&self, processor: P) -> SpanProfileProcessor<P> {
        SpanProfileProcessor::new(processor, self)
    }

    /// A span processor to add to a tracer provider beside others. The provider flushes profiles with it as with
    /// [`wrap`](Self::wrap).
    pub fn span_processor(&self) -> SpanProfileProcessor<NoProcessor> {
        self.wrap(NoProcessor)
    }

    pub(crate) fn labels(&self) -> Option<Arc<ProfileLabels>> {
        self.running.as_ref().map(|running| running.labels.clone())
    }

    /// What became of the samples so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.running.as_deref().map_or_else(disabled_stats, Self::stats_of)
    }

    fn stats_of(running: &Running) -> Stats {
        if running.is_a_copy() {
            return disabled_stats();
        }
        let Running { live, counters, frequency, before, .. } = running;
        let spans = SpansLost::so_far(live);
        let sampler = *counters.sampler.lock();
        let governed = *counters.governed.lock();
        let period = Duration::from_secs(1) / *frequency;
        let cpu_time = |weight: u64| Duration::from_nanos((period.as_nanos() as u64).saturating_mul(weight));
        let (samples, weight) = (counters.samples.get(), counters.weight.get());
        Stats {
            running: !running.stopped.load(Ordering::Relaxed),
            samples,
            labelled: counters.labelled.get(),
            cpu_time: cpu_time(weight),
            labelled_cpu_time: cpu_time(counters.labelled_weight.get()),
            uncharged_cpu_time: sampler.uncharged,
            lost: Lost {
                ring_full: sampler.lost_ring_full,
                window_full: counters.window_full.get(),
                labels_dropped: counters.labels_dropped.get(),
                exporter_busy: counters.exporter_busy.get(),
                queue_full: counters.queue_full.get(),
                rejected: counters.rejected.get(),
                shutdown: counters.shutdown.get(),
                failed: counters.failed.get(),
                spans_evicted: spans.evicted.saturating_sub(before.evicted),
                attribute_refused: spans.refused.saturating_sub(before.refused),
                threads_refused: sampler.threads_refused,
                timers_refused: sampler.timer_failures,
                nested: sampler.nested,
                excess_cpu_time: cpu_time(sampler.excess_weight),
            },
            folded: Folded {
                span_names: counters.folded_names.get(),
                labels: counters.folded_labels.get(),
                normalizer_panics: counters.normalizer_panics.get(),
            },
            profiles: counters.profiles.get(),
            profile_bytes: counters.profile_bytes.get(),
            retries: counters.retries.get(),
            queued_bytes: counters.queued_bytes.get(),
            frequency: *frequency,
            effective_frequency: f64::from(*frequency) * ratio(samples, weight),
            rate_divider: sampler.divider.max(1),
            overhead: governed.overhead,
            sample_cost: governed.per_sample,
            clock: running.clock.name,
            clock_reason: running.clock.why.clone(),
            unwinder: match running.unwinder {
                Unwinder::Tables => "precompiled .eh_frame tables",
                Unwinder::FramePointers => "frame pointers",
            },
            complete_stacks: ratio(counters.complete.get(), samples),
            self_test: SelfTest { stacks: sampler.self_test.stacks, complete: sampler.self_test.complete },
            truncated: Truncated {
                no_headroom: sampler.no_headroom,
                too_deep: sampler.too_deep,
                no_module: sampler.no_module,
                no_rule: sampler.no_rule,
                bad_read: sampler.bad_read,
                no_progress: sampler.no_progress,
            },
            unwind_tables: UnwindTables {
                modules: if running.unwinder == Unwinder::Tables { sampler.modules } else { 0 },
                bytes: sampler.table_bytes,
                rows_not_expressible: sampler.rows_not_expressible,
            },
            scope: match live.tagging() {
                Tagging::Off => Scope::Auto,
                Tagging::Root => Scope::Root,
                Tagging::All => Scope::All,
            },
            label_source: live::label_source(),
            handler_replaced: sampler.handler_replaced,
            other_profiler: sampler.other_timer,
            unregistered: sampler.strangers,
            threads: sampler.threads,
            symbols: counters.symbols.get(),
        }
    }

    /// CPU time that ran in no span, and where: windows delivered or waiting for it count, the current one does not yet.
    #[must_use]
    pub fn unlabelled(&self) -> UnlabelledCpu {
        let Some(running) = self.running.as_ref().filter(|running| !running.is_a_copy()) else {
            return UnlabelledCpu::default();
        };
        let period = Duration::from_secs(1) / running.frequency;
        running.counters.unlabelled.lock().report(period)
    }

    /// Ends the current window, and waits until it and all before it are delivered.
    ///
    /// # Errors
    /// When that takes longer than `timeout`, or the receiving end cannot be reached: what is not delivered then
    /// waits on. Also when it has refused a profile since the last flush: that one is lost.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        self.running.as_ref().map_or(Ok(()), |running| running.flush(timeout))
    }

    /// Stops sampling, delivers what is left, and waits for that. Spans that start later are left alone.
    /// Does nothing the second time.
    ///
    /// # Errors
    /// When that takes longer than `timeout`, or the receiving end cannot be reached or has refused a profile since
    /// the last flush. What is not delivered then is lost, and counted.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), FlushError> {
        let Some(running) = self.running.as_ref().filter(|running| !running.is_a_copy()) else {
            return Ok(());
        };
        if running.stopped.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        running.charge.end();
        running.counters.deadline.set(deadline::after(timeout));
        let (reply, outcome) = channel();
        running.send(Command::Stop(reply))?;
        wait(&outcome, timeout)
    }

    /// A way to flush what this profiler has, as long as it runs.
    pub(crate) fn flusher(&self) -> Flusher {
        Flusher(self.running.as_ref().map(Arc::downgrade).unwrap_or_default())
    }

    pub(crate) fn stop_or_log(&self, timeout: Duration) {
        if let Err(error) = self.shutdown(timeout) {
            tracing::warn!(%error, "profiles were lost at shutdown");
        }
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        if self.running.as_ref().is_some_and(|running| running.is_a_copy()) {
            // The other end of its channel is gone, perhaps in the middle of something: nothing of it may be touched.
            std::mem::forget(self.running.take());
            return;
        }
        self.stop_or_log(DROP_TIMEOUT);
    }
}

/// Flushes a profiler that belongs to someone else.
#[derive(Debug, Default)]
pub(crate) struct Flusher(Weak<Running>);

impl Flusher {
    /// Nothing where the profiler was stopped, which delivered everything.
    pub(crate) fn flush_or_log(&self, timeout: Duration) {
        match self.0.upgrade().map(|running| running.flush(timeout)) {
            None | Some(Ok(()) | Err(FlushError::Stopped)) => {}
            Some(Err(error)) => tracing::warn!(%error, "profiles were not flushed"),
        }
    }
}

impl Running {
    fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.is_a_copy() {
            return Ok(());
        }
        if self.stopped.load(Ordering::Acquire) {
            return Err(FlushError::Stopped);
        }
        let (reply, outcome) = channel();
        self.send(Command::Flush { deadline: deadline::after(timeout), reply })?;
        wait(&outcome, timeout)
    }

    /// Whether this is what a forked child inherited. There is nothing to stop, deliver or count then: all that went on
    /// goes on in the parent.
    fn is_a_copy(&self) -> bool {
        self.process != std::process::id()
    }

    fn send(&self, command: Command) -> Result<(), FlushError> {
        self.commands.lock().send(command).map_err(|_| FlushError::Stopped)
    }
}

/// The line that says how profiling goes, for when the receiving end has been asked what it is.
fn announcement(running: Arc<Running>, destination: String, upload_interval: Option<Duration>) -> Announce {
    Box::new(move |server| {
        log::when_heard(move || {
            let stats = Profiler::stats_of(&running);
            tracing::info!(
                label_source = ?stats.label_source,
                clock = stats.clock,
                clock_reason = stats.clock_reason,
                frequency = stats.frequency,
                unwinder = stats.unwinder,
                complete_stacks = %format_args!("{} of {}", stats.self_test.complete, stats.self_test.stacks),
                scope = ?stats.scope,
                ?upload_interval,
                destination,
                server = server.as_deref().unwrap_or("no answer yet"),
                service = %running.labels.service_name(),
                "profiling"
            );
            match stats.label_source {
                LabelSource::None => tracing::error!(
                    "another component has opentelemetry's context observer slot, so contexts cannot be followed: \
                     profiles carry no spans and no span is tagged until spanflame's attach, with_span_profile, \
                     in_current_context or SpanProfileLayer is used. or start the profiler before that component"
                ),
                LabelSource::Start => tracing::warn!(
                    "another component has opentelemetry's context observer slot; as asked for, spans label the \
                     threads that start them, which is wrong for asynchronous code"
                ),
                LabelSource::Observer | LabelSource::Wrappers => {}
            }
        });
    })
}

fn wait(outcome: &Receiver<Result<(), FlushError>>, timeout: Duration) -> Result<(), FlushError> {
    match outcome.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(FlushError::TimedOut(timeout)),
        // A thread that was to answer has ended.
        Err(RecvTimeoutError::Disconnected) => Err(FlushError::Stopped),
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(drop).map_err(StartError::Thread)
}

fn disabled_stats() -> Stats {
    Stats {
        running: false,
        samples: 0,
        labelled: 0,
        cpu_time: Duration::ZERO,
        labelled_cpu_time: Duration::ZERO,
        uncharged_cpu_time: Duration::ZERO,
        lost: Lost::default(),
        folded: Folded::default(),
        profiles: 0,
        profile_bytes: 0,
        retries: 0,
        queued_bytes: 0,
        frequency: 0,
        effective_frequency: 0.0,
        rate_divider: 1,
        overhead: 0.0,
        sample_cost: Duration::ZERO,
        clock: "none",
        clock_reason: String::new(),
        unwinder: "none",
        complete_stacks: 0.0,
        self_test: SelfTest::default(),
        truncated: Truncated::default(),
        unwind_tables: UnwindTables::default(),
        scope: Scope::Auto,
        label_source: LabelSource::None,
        handler_replaced: false,
        other_profiler: false,
        unregistered: 0,
        threads: 0,
        symbols: 0,
    }
}

/// Makes the profiler know the calling thread now, rather than with its first span or at the next look for threads, a
/// tenth of a second later at most. For pools whose threads may end before that:
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread()
///     .on_thread_start(spanflame::register_thread)
///     .build();
/// # drop(runtime);
/// ```
///
/// and with rayon, `ThreadPoolBuilder::new().start_handler(|_| spanflame::register_thread())`. Cheap, can be called again
/// and again, and never fails; while no profiler runs it does nothing.
pub fn register_thread() {
    sampler::register();
}

/// Profiles the spans that `processor` exports, with settings from the environment: all that a service needs to do.
///
/// Never fails. If profiling cannot start, the reason is logged and spans flow as before. The profiler stops, and
/// delivers what is left, when the tracer provider is shut down.
///
/// ```no_run
/// use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
/// # use opentelemetry_sdk::trace::InMemorySpanExporter;
/// # let exporter = InMemorySpanExporter::default();
///
/// let provider = SdkTracerProvider::builder()
///     .with_span_processor(spanflame::profile_spans(BatchSpanProcessor::builder(exporter).build()))
///     .build();
/// ```
pub fn profile_spans<P>(processor: P) -> SpanProfileProcessor<P> {
    connect(processor, Profiler::builder().start())
}

fn connect<P>(processor: P, started: Result<Profiler, StartError>) -> SpanProfileProcessor<P> {
    match started {
        Ok(profiler) => SpanProfileProcessor::owning(processor, profiler),
        Err(error) => {
            log::when_heard(
                move || tracing::error!(%error, "profiling did not start; spans are not affected"),
            );
            SpanProfileProcessor::unprofiled(processor)
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};

    use super::*;
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    use crate::spans::{SpanId, SpanRecord};

    #[test]
    fn an_answer_that_cannot_come_any_more_is_not_waited_for() {
        let (reply, outcome) = channel();
        assert_eq!(wait(&outcome, Duration::ZERO), Err(FlushError::TimedOut(Duration::ZERO)));
        drop(reply);
        assert_eq!(wait(&outcome, Duration::MAX), Err(FlushError::Stopped));
    }

    #[test]
    fn elsewhere_starting_says_why_not_and_spans_flow() {
        // No other test's profiler tags these spans.
        let _turn = crate::sampler::TURN.lock();
        Live::get().take_charge().end();
        for (os, arch) in [("macos", "aarch64"), ("linux", "riscv64"), ("windows", "x86_64")] {
            let started = Profiler::builder().enabled(true).start_on(Platform { os, arch });
            let error = started.as_ref().expect_err("refused").to_string();
            assert!(error.contains(&format!("this is {os} on {arch}")), "{error}");

            let spans = InMemorySpanExporter::default();
            let processor = connect(SimpleSpanProcessor::new(spans.clone()), started);
            let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
            provider.tracer("test").start("work").end();
            provider.force_flush().expect("nothing to wait for");
            let spans = spans.get_finished_spans().expect("kept");
            assert_eq!(spans.len(), 1);
            assert!(spans[0].attributes.is_empty(), "{:?}", spans[0].attributes);
        }
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn spans_that_an_earlier_profiler_lost_are_not_counted_again() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        let lose = || {
            live.attribute_refused.fetch_add(3, Ordering::Relaxed);
            // A span whose bucket fills up while it lives.
            let lost = SpanRecord { span_id: SpanId(0xdead), ..SpanRecord::default() };
            live.table.insert(&lost);
            live.table.crowd_out(lost.span_id);
        };
        lose();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let exporter = FileExporter::new(directory.path());
        let profiler = Profiler::builder().exporter(exporter).enabled(true).start().expect("starts");
        let lost = || (profiler.stats().lost.attribute_refused, profiler.stats().lost.spans_evicted);
        assert_eq!(lost(), (0, 0));
        lose();
        assert_eq!(lost(), (3, 1));
    }
}
