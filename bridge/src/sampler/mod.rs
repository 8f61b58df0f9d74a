//! The sampler: CPU stacks of every thread, each stamped with the span that was active at that instant.
//!
//! A CPU timer per thread raises SIGPROF on that thread; the handler reads the registers, the thread's label slot
//! and the stack, and leaves a record in the thread's ring. [`Sampler::drain`] empties the rings on the collector's
//! thread and is also where threads and modules are looked for. Nothing here symbolizes, aggregates or logs.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod live;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[path = "unsupported.rs"]
mod live;
mod quality;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use live::label;
pub(crate) use live::{Sampler, at_fork, publish, register, thread_cpu_time, thread_id};
#[cfg(all(
    feature = "bench-internals",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use live::{handler, signal_value};
pub(crate) use quality::{Complaint, complaint};

pub(crate) use crate::config::Clock as ClockChoice;
use crate::config::Unwinder;
use crate::spans::{SpanRecord, SpanTable};

/// The deepest stack a sample can hold, in frames.
pub(crate) const MAX_DEPTH: usize = 256;

/// Held by every test of this crate that starts a sampler: one runs per process.
#[cfg(test)]
pub(crate) static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// How to sample.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Samples per second of CPU time, 1 to 1000.
    pub(crate) frequency: u32,
    /// Where the keys given to [`publish`] are looked up.
    pub(crate) spans: &'static SpanTable,
    /// Frames kept of each stack, innermost first; at most [`MAX_DEPTH`].
    pub(crate) max_depth: usize,
    /// What makes threads be sampled.
    pub(crate) clock: ClockChoice,
    /// The share of the process's CPU time that sampling may cost, for the choice of a clock. `None` for any.
    pub(crate) cpu_budget: Option<f64>,
    /// How stacks are walked.
    pub(crate) unwinder: Unwinder,
}

impl Options {
    /// Stacks of up to 128 frames at `frequency` samples per second of CPU time.
    pub(crate) fn new(frequency: u32, spans: &'static SpanTable) -> Self {
        Self {
            frequency,
            spans,
            max_depth: 128,
            clock: ClockChoice::Auto,
            cpu_budget: Some(0.01),
            unwinder: Unwinder::Tables,
        }
    }
}

/// Why sampling cannot start, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SamplerError {
    /// Not a platform that the sampler knows.
    #[cfg(any(test, not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))))]
    #[error(
        "CPU sampling is supported on Linux on x86-64 and aarch64 only; spans still flow, without profiles"
    )]
    Unsupported,
    /// One sampler per process.
    #[error("a sampler is already running in this process; stop it before starting another")]
    AlreadyRunning,
    /// `frequency` out of range.
    #[error("frequency {0} Hz is out of range; use 1 to 1000")]
    Frequency(u32),
    /// Someone else's process-wide profiling timer is armed.
    #[error(
        "another CPU profiler is running: its process-wide profiling timer (ITIMER_PROF) is armed; \
         stop it first (pprof, pyroscope's backend-pprof-rs and gperftools use that timer)"
    )]
    OtherTimer,
    /// Someone else put their handler over ours; chaining to it could loop.
    #[error(
        "another component replaced this profiler's SIGPROF handler after it was installed; \
         run one CPU profiler per process"
    )]
    HandlerReplaced,
    /// The kernel refused the signal handler.
    #[error("cannot install the SIGPROF handler: {0}")]
    Handler(#[source] std::io::Error),
    /// The kernel would not say which threads there are.
    #[error("cannot list this process's threads in /proc/self/task: {0}; mount /proc where the process runs")]
    Threads(#[source] std::io::Error),
    /// Too many generations of processes without a new program.
    #[error(
        "this process was forked from one that was itself forked, more than fifteen times in a row: sample in one of its \
         ancestors, or start the program anew (exec)"
    )]
    Forks,
    /// No thread could be given a timer.
    #[error(
        "cannot create a CPU timer: {0}; check RLIMIT_SIGPENDING (ulimit -i) and seccomp rules for timer_create and \
         setitimer"
    )]
    Timer(#[source] std::io::Error),
}

/// The clock in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClockInUse {
    /// Its name, for people.
    pub(crate) name: &'static str,
    /// Why it is this one.
    pub(crate) why: String,
    /// Whether another one was asked for.
    pub(crate) instead: bool,
}

/// What sampling has cost and found since the sampler started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    /// Signals that threads were interrupted by.
    pub(crate) signals: u64,
    /// What one of them costs, delivery and handler together.
    pub(crate) per_signal: Duration,
    /// CPU time that the process has used.
    pub(crate) cpu: Duration,
}

/// One drained sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample<'a> {
    /// The thread it was taken on.
    #[cfg(any(test, feature = "bench-internals"))]
    pub(crate) tid: i32,
    /// Sampling periods of CPU time that it stands for, at least 1.
    pub(crate) weight: u32,
    /// The span that was active on the thread, if any.
    pub(crate) span: Option<SpanRecord>,
    /// Innermost first: the exact program counter, then return addresses: one or more bytes past the instruction that the
    /// frame is at. Of a frame that another signal's handler interrupted, one byte past.
    pub(crate) frames: &'a [u64],
    /// Whether the walk ended before the thread's entry.
    pub(crate) truncated: bool,
}

/// A loaded module, as samples refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// First address of its executable segments.
    pub(crate) start: u64,
    /// One past their last address.
    pub(crate) end: u64,
    /// Address in memory minus address in the file's own numbering.
    pub(crate) bias: u64,
    /// Offset in the file of what is mapped at `start`.
    pub(crate) file_offset: u64,
    /// The file; `[vdso]` for the kernel's.
    pub(crate) path: Arc<Path>,
    /// GNU build id, empty when the module has none.
    pub(crate) build_id: Arc<[u8]>,
    /// Whether it has been unloaded since. Samples of the last minute may still refer to it; a loaded module at the
    /// same address comes first in [`Sampler::modules`].
    pub(crate) unloaded: bool,
}

/// How many stacks were walked when sampling started, and how many of them to their thread's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SelfTest {
    pub(crate) stacks: u32,
    pub(crate) complete: u32,
}

/// What became of the samples, since the process began unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SamplerStats {
    /// Samples drained.
    pub(crate) samples: u64,
    /// Sampling periods that the drained samples stand for.
    pub(crate) weight: u64,
    /// Samples lost because their thread's ring was full.
    pub(crate) lost_ring_full: u64,
    /// Sampling periods lost with them.
    pub(crate) lost_ring_full_weight: u64,
    /// Sampling periods cut off samples that claimed more than a second of CPU time at once.
    pub(crate) excess_weight: u64,
    /// CPU time of the process that none of those stands for: of threads that block the signal, or that ended between two
    /// ticks. What was charged may be a period early or late.
    pub(crate) uncharged: Duration,
    /// Signals that arrived while the same thread was in the handler.
    pub(crate) nested: u64,
    /// Threads that could not be followed because 8192 others are, or for want of memory; tried again at each look.
    pub(crate) threads_refused: u64,
    /// Threads with a running timer now.
    pub(crate) threads: u32,
    /// Threads whose own clock the kernel refused (RLIMIT_SIGPENDING, seccomp, open files); tried again at each look for
    /// threads.
    pub(crate) timer_failures: u64,
    /// Samples of threads that ended, or may have, before they were found.
    pub(crate) strangers: u64,
    /// Samples of the program counter alone, as the thread's stack had no room for more.
    pub(crate) no_headroom: u64,
    /// Whether another profiler's process-wide profiling timer is armed.
    pub(crate) other_timer: bool,
    /// Periods from one signal to the next; more than one while the rate is lowered.
    pub(crate) divider: u32,
    /// How stacks are walked.
    pub(crate) unwinder: Unwinder,
    /// The walks made at the start.
    pub(crate) self_test: SelfTest,
    /// Stacks that reached the thread's entry.
    pub(crate) reached_entry: u64,
    /// Stacks cut at the depth limit.
    pub(crate) too_deep: u64,
    /// Stacks that left the known modules, as in generated code.
    pub(crate) no_module: u64,
    /// Stacks that met an address without an unwind rule.
    pub(crate) no_rule: u64,
    /// Stacks that pointed outside the thread's stack.
    pub(crate) bad_read: u64,
    /// Stacks that did not move towards the thread's entry.
    pub(crate) no_progress: u64,
    /// Whether a handler was there before ours; signals that are not ours are passed on to it.
    pub(crate) chained: bool,
    /// Whether someone else has put their handler over ours: samples stop until that ends.
    pub(crate) handler_replaced: bool,
    /// Modules with an unwind table now.
    pub(crate) modules: u32,
    /// Memory of all unwind tables, in bytes.
    pub(crate) table_bytes: u64,
    /// Text that they cover, in bytes.
    pub(crate) text_bytes: u64,
    /// Unwind rows that no table rule can express; a stack that meets one ends there.
    pub(crate) rows_not_expressible: u64,
}

/// What other platforms get, compiled here as well so that it cannot fall behind.
#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unsupported;

#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    #[test]
    fn the_sampler_of_other_platforms_has_the_same_interface_and_refuses() {
        let table: &'static SpanTable = Box::leak(Box::new(SpanTable::new(1024)));
        let started = unsupported::Sampler::start(Options::new(100, table));
        assert!(matches!(started, Err(SamplerError::Unsupported)));
        extern "C" fn child() {}
        assert!(matches!(unsupported::at_fork(child), Err(SamplerError::Unsupported)));
        unsupported::publish(crate::spans::SpanKey::NONE);
        unsupported::register();
        assert_eq!(unsupported::thread_cpu_time(unsupported::thread_id()), Duration::ZERO);
        type Of<S> = (
            fn(&mut S, &mut dyn FnMut(&Sample<'_>)),
            fn(&S) -> Duration,
            fn(&S) -> Arc<[Module]>,
            fn(&S) -> SamplerStats,
            fn(&S) -> Vec<(Arc<Path>, u32)>,
            fn(&mut S),
            fn(&S) -> ClockInUse,
            fn(&mut S) -> Spent,
            fn(&mut S, u32),
        );
        let _: Of<Sampler> = (
            Sampler::drain,
            Sampler::pause,
            Sampler::modules,
            Sampler::stats,
            Sampler::not_expressible,
            Sampler::stop,
            Sampler::clock,
            Sampler::spent,
            Sampler::set_divider,
        );
        use unsupported::Sampler as Other;
        let _: Of<Other> = (
            Other::drain,
            Other::pause,
            Other::modules,
            Other::stats,
            Other::not_expressible,
            Other::stop,
            Other::clock,
            Other::spent,
            Other::set_divider,
        );
    }
}
