//! What the comparing side may ask of a measured process.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One line on the measured process's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Start the profiler. Answered with `()`.
    Start {
        /// Samples per second of CPU time.
        hz: u32,
        /// Whether its sampler alone is wanted, where the profiler has such a thing.
        bare: bool,
    },
    /// Time the installed handler's body. Answered with [`HandlerTime`].
    Handler {
        /// Depth of the interrupted stack.
        frames: usize,
        /// Whether caches are emptied before each signal.
        cold: bool,
        /// Signals to take the median of.
        signals: usize,
    },
    /// Deliver forged signals, to be counted from outside. Answered with `()`.
    Raise {
        /// Depth of the interrupted stack.
        frames: usize,
        /// How many.
        signals: usize,
        /// Whether an empty handler stands in for the profiler's.
        empty: bool,
    },
    /// Burn CPU, then stop the profiler and compare. Answered with [`Delivery`].
    Deliver {
        /// Busy threads.
        threads: usize,
        /// For how long.
        millis: u64,
    },
    /// Work with the profiler off, on, off. Answered with [`Overhead`].
    Overhead {
        /// Samples per second of CPU time while on.
        hz: u32,
        /// Rounds of three segments.
        rounds: usize,
        /// Length of a segment.
        segment_millis: u64,
    },
    /// The same, with the profiler stopped and started anew, and given a while to settle. Answered with [`Overhead`].
    OverheadOfRestarts {
        /// Samples per second of CPU time asked for.
        hz: u32,
        /// Rounds of three segments.
        rounds: usize,
        /// Length of a segment.
        segment_millis: u64,
        /// Time from each start to its segment.
        settle_millis: u64,
    },
    /// Measure the handler's stack. Answered with [`HandlerStack`].
    Stack {
        /// Depth of the interrupted stack.
        frames: usize,
        /// Signals to take the deepest of, the profiler's first included.
        signals: usize,
    },
    /// Take signals on a thread with a small stack. Answered with `()`, if at all.
    SmallStack {
        /// Size of its stack, in bytes.
        bytes: usize,
    },
    /// Run CPU-bound spans of one length. Answered with the number of samples in each, a list.
    Spans {
        /// Samples per second of CPU time.
        hz: u32,
        /// CPU time of each span.
        micros: u64,
        /// How many spans.
        trials: usize,
    },
    /// Run interleaved spans and check whose samples are whose. Answered with [`Attribution`].
    Attribute {
        /// Samples to compare at least.
        samples: u64,
    },
    /// Panic, load libraries and allocate. Answered with [`Storm`], if at all.
    Storm {
        /// For how long.
        seconds: u64,
        /// The library to load: `spanflame-soak-plugin`.
        library: PathBuf,
    },
    /// Time an operation that only this subject knows. Answered with [`Cost`].
    Cost {
        /// Its name.
        what: String,
        /// Calls to take the median of.
        iterations: u64,
    },
}

/// Time spent in the handler's body.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HandlerTime {
    /// Median nanoseconds, with an empty handler's time taken off.
    pub body_ns: f64,
    /// Median nanoseconds between the wrapper's two clock reads around an empty handler.
    pub empty_ns: f64,
}

/// Stack used by a signal.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HandlerStack {
    /// Bytes below the interrupted frame, the kernel's frame included.
    pub bytes: usize,
    /// The same with an empty handler.
    pub empty_bytes: usize,
}

/// What a profiler reported for threads whose CPU time is known.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// CPU time reported ÷ CPU time used by the process.
    pub accounted: f64,
    /// Half the L1 distance between the threads' shares of samples and of CPU time.
    pub misallocated: f64,
    /// Signals that became samples, per second of CPU time used: the effective rate.
    pub signals_per_cpu_second: f64,
}

/// CPU time per unit of work with the profiler on against off.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Overhead {
    /// Trimmed mean of on ÷ off − 1.
    pub slowdown: f64,
    /// Its standard error.
    pub error: f64,
    /// Signals handled while on.
    pub signals: u64,
    /// The workers' CPU seconds while on.
    pub cpu_seconds: f64,
    /// Median nanoseconds in the handler's body, as the working program met it.
    pub handler_ns: f64,
}

impl Overhead {
    /// Batches of equal size as one: the mean of their means.
    #[must_use]
    pub fn pool(batches: &[Self]) -> Self {
        let n = batches.len() as f64;
        Self {
            slowdown: batches.iter().map(|b| b.slowdown).sum::<f64>() / n,
            error: batches.iter().map(|b| b.error.powi(2)).sum::<f64>().sqrt() / n,
            signals: batches.iter().map(|b| b.signals).sum(),
            cpu_seconds: batches.iter().map(|b| b.cpu_seconds).sum(),
            handler_ns: batches.iter().map(|b| b.handler_ns).sum::<f64>() / n,
        }
    }

    /// Microseconds of CPU that one sample added, and the standard error.
    pub fn micros_per_signal(&self) -> (f64, f64) {
        let scale = self.cpu_seconds * 1e6 / (self.signals.max(1) as f64);
        (self.slowdown * scale, self.error * scale)
    }
}

/// Samples of interleaved spans, whose functions tell which span they belong to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Attribution {
    /// Samples in a span's burn function.
    pub samples: u64,
    /// Those of them that carry another span.
    pub wrong: u64,
    /// Those of them that carry none.
    pub unlabelled: u64,
    /// Samples that never reached a profile.
    pub lost: u64,
    /// Spans that ran.
    pub spans: u64,
}

/// A storm that was survived.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Storm {
    /// Panics thrown and caught.
    pub panics: u64,
    /// Libraries loaded, run and unloaded.
    pub loads: u64,
    /// Thousands of allocations.
    pub allocations: u64,
}

/// Cost of a named operation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Median nanoseconds of one call.
    pub ns: f64,
}

/// One distinct stack of a stopped profiler's profile.
#[derive(Clone, Debug)]
pub struct WeightedStack {
    /// Demangled function names.
    pub functions: Vec<String>,
    /// CPU time the profiler gives it.
    pub nanos: u64,
}

/// All that a stopped profiler saw.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Every distinct stack.
    pub stacks: Vec<WeightedStack>,
    /// Signals that became samples; each may stand for more than one sampling period.
    pub signals: u64,
}

/// A profiler under test.
pub trait Subject: Sized + Send + Sync {
    /// Starts sampling the whole process; `bare` asks for the sampler alone, for timing its handler.
    fn start(hz: u32, bare: bool) -> Result<Self>;

    /// What the handler expects as `si_value` in a signal for the calling thread.
    fn signal_value(&self) -> Result<usize> {
        Ok(0)
    }

    /// Is told of the handler that now stands before its own and calls it.
    fn accept_wrapper(&self, _handler: usize) {}

    /// Throws away the samples that are pending, outside any timing, and tells how many there were.
    fn discard(&self) -> u64 {
        0
    }

    /// Stops the clock if it is one for the whole process, or lets it run again at `hz`.
    fn set_clock(&mut self, running: bool, hz: u32) -> Result<()>;

    /// Stops the profiler and hands over what it saw.
    fn stop(self) -> Result<Profile>;

    /// Stops the profiler, or starts one anew at `hz`; tells the rate that the stopped one reached.
    fn restart(&mut self, _running: bool, _hz: u32) -> Result<f64> {
        bail!("this subject is not restarted")
    }

    /// Runs `trials` spans of `micros` microseconds of CPU each, and counts the samples in each.
    fn spans(_hz: u32, _micros: u64, _trials: usize) -> Result<Vec<u64>> {
        bail!("this subject has no spans")
    }

    /// Runs interleaved spans under this profiler.
    fn attribute(_samples: u64) -> Result<Attribution> {
        bail!("this subject has no spans")
    }

    /// Times an operation that only this profiler has; `subject` is `None` before [`Request::Start`].
    fn cost(_subject: Option<&Self>, what: &str, _iterations: u64) -> Result<f64> {
        bail!("this subject has no operation {what}")
    }
}
