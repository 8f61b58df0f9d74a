//! What became of every sample: counters that the background threads write and [`Stats`], which anyone may read.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Scope;
use crate::deadline::Deadline;
use crate::export::unlabelled::Unlabelled;
use crate::sampler::{self, SamplerStats};

/// A snapshot of a profiler's doings since it started.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Whether it samples now.
    pub running: bool,
    /// Samples taken and counted into a profile.
    pub samples: u64,
    /// Those of them that carry a span.
    pub labelled: u64,
    /// CPU time that the samples stand for.
    pub cpu_time: Duration,
    /// CPU time of those that carry a span.
    pub labelled_cpu_time: Duration,
    /// CPU time of the process that no sample stands for, and that is on no thread and in no span: of threads that block
    /// SIGPROF or that ended before a tick met them, and of all while the profiler's handler is replaced. To a period of
    /// each thread; [`Lost::excess_cpu_time`] comes on top.
    pub uncharged_cpu_time: Duration,
    /// What was lost, by cause.
    pub lost: Lost,
    /// What samples say less exactly than their spans do.
    pub folded: Folded,
    /// Profiles delivered; under a `pyroscope` agent, handed over to it. A window with many different stacks becomes
    /// several.
    pub profiles: u64,
    /// Compressed bytes of the delivered profiles.
    pub profile_bytes: u64,
    /// Deliveries that failed and are or were tried again.
    pub retries: u64,
    /// Compressed bytes that wait for delivery now.
    pub queued_bytes: u64,
    /// Samples asked for per second of CPU time.
    pub frequency: u32,
    /// Samples really taken per second of CPU time: the kernel's tick may allow fewer than asked for, and each
    /// then counts for more. Zero until there are any.
    pub effective_frequency: f64,
    /// Periods from one sample to the next: more than one while the rate is lowered to keep to the CPU budget.
    pub rate_divider: u32,
    /// What profiling cost of late, as a share of the CPU time that the process used: samples and background threads.
    /// Estimated; zero until the process has used a second.
    pub overhead: f64,
    /// What one sample costs the thread that is sampled, as measured here.
    pub sample_cost: Duration,
    /// What triggers samples.
    pub clock: &'static str,
    /// Why it is this clock.
    pub clock_reason: String,
    /// How stacks are walked.
    pub unwinder: &'static str,
    /// Share of stacks that were followed to their thread's entry, 0 to 1. Zero until there are any.
    pub complete_stacks: f64,
    /// The stacks of two threads, walked when the profiler started: what to expect of
    /// [`complete_stacks`](Self::complete_stacks) before there are samples.
    pub self_test: SelfTest,
    /// Stacks that were not followed to their thread's entry, by cause.
    pub truncated: Truncated,
    /// The unwind tables in use. All zero when stacks are walked along frame pointers.
    pub unwind_tables: UnwindTables,
    /// The scope in force: [`Scope::Root`] or [`Scope::All`], or [`Scope::Auto`] when no span is tagged.
    pub scope: Scope,
    /// What tells threads which span they work for.
    pub label_source: LabelSource,
    /// Whether another component has put its SIGPROF handler over the profiler's. Until that ends, no sample is taken
    /// and no span tagged.
    pub handler_replaced: bool,
    /// Whether another profiler's process-wide profiling timer (`ITIMER_PROF`) is armed.
    pub other_profiler: bool,
    /// Samples of threads that ended, or may have, before they were found.
    pub unregistered: u64,
    /// Threads sampled now.
    pub threads: u32,
    /// Distinct addresses whose symbols are kept.
    pub symbols: u64,
}

/// All that matters, in one line.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.frequency == 0 {
            return f.write_str("profiling is disabled");
        }
        let in_spans = 100.0 * self.labelled_cpu_time.as_secs_f64() / self.cpu_time.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} samples, {:.2} s of cpu, {in_spans:.0} % in spans; {:.1} of {} Hz by {}, {} threads; {:.0} % of stacks \
             complete by {}; scope {:?}; {} profiles of {} bytes delivered, {} bytes wait, {} retries; lost",
            self.samples,
            self.cpu_time.as_secs_f64(),
            self.effective_frequency,
            self.frequency,
            self.clock,
            self.threads,
            100.0 * self.complete_stacks,
            self.unwinder,
            self.scope,
            self.profiles,
            self.profile_bytes,
            self.queued_bytes,
            self.retries,
        )?;
        let mut lost = self.lost.causes().into_iter().filter(|(_, count)| *count > 0).peekable();
        if lost.peek().is_none() {
            f.write_str(" nothing")?;
        }
        for (cause, count) in lost {
            write!(f, " {cause}={count}")?;
        }
        for (fact, holds) in [
            ("spans are not followed", self.label_source == LabelSource::None),
            ("another SIGPROF handler is in the way", self.handler_replaced),
            ("much of the process's cpu is on no thread: see uncharged_cpu_time", self.is_much_uncharged()),
            ("stopped", !self.running),
        ] {
            if holds {
                write!(f, "; {fact}")?;
            }
        }
        Ok(())
    }
}

impl Stats {
    /// Whether so much is on no thread that the shares of the others mislead.
    fn is_much_uncharged(&self) -> bool {
        const MUCH: f64 = 0.1;
        /// Little time says nothing: it comes in whole periods.
        const ENOUGH: Duration = Duration::from_secs(1);
        let uncharged = self.uncharged_cpu_time;
        uncharged > ENOUGH && uncharged > (self.cpu_time + uncharged).mul_f64(MUCH)
    }
}

/// What tells threads which span they work for, so that samples carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LabelSource {
    /// OpenTelemetry's context: whatever is current counts.
    Observer,
    /// Another component has OpenTelemetry's context observer slot. What was attached with [`attach`](crate::attach),
    /// [`SpanProfileExt`](crate::SpanProfileExt), [`in_current_context`](crate::in_current_context) or
    /// `SpanProfileLayer` counts, and nothing else. From the first use of one of them on.
    Wrappers,
    /// Another component has the slot, and
    /// [`label_at_start`](crate::ProfilerBuilder::label_at_start) is on: a span counts on the thread that has started
    /// it.
    Start,
    /// Another component has the slot, and nothing else labels threads, or profiling is disabled: profiles carry no
    /// spans, and no span is tagged.
    #[default]
    None,
}

/// Samples and spans that did not make it into a delivered profile, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// Samples: a thread took them faster than they were collected.
    pub ring_full: u64,
    /// Samples: the window held too many different stacks or spans already.
    pub window_full: u64,
    /// Samples: their window could not be handed on, as the exporter was busy with earlier ones.
    pub exporter_busy: u64,
    /// Samples: no more room to wait for the server; the oldest go first.
    pub queue_full: u64,
    /// Samples: the server refused their profile.
    pub rejected: u64,
    /// Samples: the profiler was stopped before their profile could be delivered.
    pub shutdown: u64,
    /// Samples: their profile could not be made.
    pub failed: u64,
    /// Samples that are in a profile without their span: the window held 32,768 different ones already. Not
    /// among [`samples`](Self::samples).
    pub labels_dropped: u64,
    /// Spans that lost their place among the live ones, or got none; their later samples carry no span.
    pub spans_evicted: u64,
    /// Spans that had no room for the attribute `pyroscope.profile.id`; their samples carry no span.
    pub attribute_refused: u64,
    /// Threads that could not be sampled because 8192 others were, or for want of memory. Each is tried again.
    pub threads_refused: u64,
    /// Threads that the kernel refused the clock in use (`RLIMIT_SIGPENDING`, open files, seccomp). They are sampled by
    /// the next best clock, and tried again.
    pub timers_refused: u64,
    /// Samples: a signal arrived while the thread still took another.
    pub nested: u64,
    /// CPU time that no sample stands for: a thread blocked the signal for more than a second of its CPU time, and one
    /// stack cannot stand for all of that.
    pub excess_cpu_time: Duration,
}

/// Texts that bounds have replaced with `other`. Each span counts once in each profile window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folded {
    /// Spans whose name was one too many, see [`max_span_names`](crate::ProfilerBuilder::max_span_names).
    pub span_names: u64,
    /// Spans whose combination of label values was one too many, see
    /// [`attribute_label`](crate::ProfilerBuilder::attribute_label).
    pub labels: u64,
    /// Panics of the [`span_name_normalizer`](crate::ProfilerBuilder::span_name_normalizer): at most one for each
    /// profile window.
    pub normalizer_panics: u64,
}

/// Stacks that were not followed to their thread's entry, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Truncated {
    /// No room on the thread's stack for a walk: the program counter alone was kept.
    pub no_headroom: u64,
    /// More frames than are kept.
    pub too_deep: u64,
    /// An address in no known module, as generated code has.
    pub no_module: u64,
    /// An address without an unwind rule.
    pub no_rule: u64,
    /// A rule that points outside the thread's stack.
    pub bad_read: u64,
    /// A rule that does not lead towards the thread's entry.
    pub no_progress: u64,
}

/// Stacks walked when the profiler started: the starting thread's and a new thread's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelfTest {
    /// How many were walked.
    pub stacks: u32,
    /// How many of them were followed to their thread's entry.
    pub complete: u32,
}

/// Unwind rules compiled from the `.eh_frame` of loaded modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnwindTables {
    /// Modules with a table.
    pub modules: u32,
    /// Memory of all tables, in bytes.
    pub bytes: u64,
    /// Rows of `.eh_frame` that no rule can express; a stack that meets one ends there, as [`Truncated::no_rule`]. The
    /// log says at debug level how many each module has.
    pub rows_not_expressible: u64,
}

impl Lost {
    /// Samples lost, all causes together.
    pub fn samples(&self) -> u64 {
        self.ring_full
            + self.window_full
            + self.exporter_busy
            + self.queue_full
            + self.rejected
            + self.shutdown
            + self.failed
            + self.nested
    }
}

impl Lost {
    /// Every cause with its count; [`excess_cpu_time`](Self::excess_cpu_time) in milliseconds.
    fn causes(&self) -> [(&'static str, u64); 14] {
        // Named one by one, so that no cause is forgotten.
        let Self {
            ring_full,
            window_full,
            exporter_busy,
            queue_full,
            rejected,
            shutdown,
            failed,
            labels_dropped,
            spans_evicted,
            attribute_refused,
            threads_refused,
            timers_refused,
            nested,
            excess_cpu_time,
        } = *self;
        [
            ("ring_full", ring_full),
            ("window_full", window_full),
            ("exporter_busy", exporter_busy),
            ("queue_full", queue_full),
            ("rejected", rejected),
            ("shutdown", shutdown),
            ("failed", failed),
            ("labels_dropped", labels_dropped),
            ("spans_evicted", spans_evicted),
            ("attribute_refused", attribute_refused),
            ("threads_refused", threads_refused),
            ("timers_refused", timers_refused),
            ("nested", nested),
            ("excess_cpu_ms", u64::try_from(excess_cpu_time.as_millis()).unwrap_or(u64::MAX)),
        ]
    }
}

/// Written by the background threads, never by a sampled one.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) samples: Count,
    pub(crate) labelled: Count,
    pub(crate) complete: Count,
    pub(crate) weight: Count,
    pub(crate) labelled_weight: Count,
    pub(crate) window_full: Count,
    pub(crate) labels_dropped: Count,
    pub(crate) exporter_busy: Count,
    pub(crate) queue_full: Count,
    pub(crate) rejected: Count,
    pub(crate) shutdown: Count,
    pub(crate) failed: Count,
    pub(crate) profiles: Count,
    pub(crate) profile_bytes: Count,
    pub(crate) retries: Count,
    pub(crate) queued_bytes: Count,
    pub(crate) symbols: Count,
    /// By call site, since the start.
    pub(crate) unlabelled: Mutex<Unlabelled>,
    pub(crate) folded_names: Count,
    pub(crate) folded_labels: Count,
    pub(crate) normalizer_panics: Count,
    /// As of the last drain.
    pub(crate) sampler: Mutex<SamplerStats>,
    pub(crate) governed: Mutex<Governed>,
    pub(crate) background: Background,
    pub(crate) deadline: Deadline,
}

/// What the governor found at its last look.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Governed {
    pub(crate) overhead: f64,
    pub(crate) per_sample: Duration,
}

/// The profiler's own threads, and what they cost.
#[derive(Default)]
pub(crate) struct Background(Mutex<Threads>);

#[derive(Default)]
struct Threads {
    running: Vec<i32>,
    /// CPU time of those that have ended.
    ended: Duration,
}

/// While it lives, its thread is one of the profiler's.
pub(crate) struct Entered<'a> {
    background: &'a Background,
    thread: i32,
}

impl Background {
    /// Counts the calling thread, which must be the one to drop what is returned as it ends.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let thread = sampler::thread_id();
        self.0.lock().running.push(thread);
        Entered { background: self, thread }
    }

    /// CPU time used by all of them, those that have ended included.
    pub(crate) fn cpu_time(&self) -> Duration {
        let threads = self.0.lock();
        threads.ended + threads.running.iter().map(|tid| sampler::thread_cpu_time(*tid)).sum::<Duration>()
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut threads = self.background.0.lock();
        threads.running.retain(|tid| *tid != self.thread);
        threads.ended += sampler::thread_cpu_time(self.thread);
    }
}

/// A number that one thread changes and any may read.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn what_a_thread_of_the_profiler_s_has_used_counts_after_its_end() {
        const EACH: Duration = Duration::from_millis(50);
        let background = Background::default();
        for threads in 1..=3 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let entered = background.enter();
                    while sampler::thread_cpu_time(entered.thread) < EACH {}
                });
            });
            assert!(background.cpu_time() >= threads * EACH, "{:?}", background.cpu_time());
        }
    }

    #[test]
    fn stats_are_one_line_that_names_every_cause() {
        let mut stats = Stats {
            running: true,
            samples: 250,
            labelled: 200,
            cpu_time: Duration::from_millis(2500),
            labelled_cpu_time: Duration::from_millis(2000),
            uncharged_cpu_time: Duration::from_millis(1000),
            lost: Lost::default(),
            folded: Folded::default(),
            profiles: 3,
            profile_bytes: 4096,
            retries: 1,
            queued_bytes: 0,
            frequency: 100,
            effective_frequency: 100.0,
            rate_divider: 1,
            overhead: 0.0,
            sample_cost: Duration::ZERO,
            clock: "thread CPU timers",
            clock_reason: "asked for".to_owned(),
            unwinder: "precompiled .eh_frame tables",
            complete_stacks: 0.99,
            self_test: SelfTest { stacks: 2, complete: 2 },
            truncated: Truncated::default(),
            unwind_tables: UnwindTables::default(),
            scope: Scope::Root,
            label_source: LabelSource::Observer,
            handler_replaced: false,
            other_profiler: false,
            unregistered: 0,
            threads: 4,
            symbols: 10,
        };
        assert_eq!(
            stats.to_string(),
            "250 samples, 2.50 s of cpu, 80 % in spans; 100.0 of 100 Hz by thread CPU timers, 4 threads; 99 % of stacks \
             complete by precompiled .eh_frame tables; scope Root; 3 profiles of 4096 bytes delivered, 0 bytes wait, \
             1 retries; lost nothing"
        );
        stats.lost = Lost { ring_full: 7, excess_cpu_time: Duration::from_millis(20), ..Lost::default() };
        stats.label_source = LabelSource::None;
        assert!(
            stats.to_string().ends_with("lost ring_full=7 excess_cpu_ms=20; spans are not followed"),
            "{stats}"
        );
        stats.uncharged_cpu_time = Duration::from_millis(1001);
        assert!(stats.to_string().ends_with("is on no thread: see uncharged_cpu_time"), "{stats}");
        let numbers = stats.lost.causes().map(|(cause, _)| cause);
        assert_eq!(numbers.iter().collect::<std::collections::HashSet<_>>().len(), numbers.len());
    }
}
