//! The sampler's insides for benchmarks and for tests that need a process of their own. Not part of the public
//! interface: anything here may change at any time.

use std::ffi::{c_int, c_void};
use std::path::PathBuf;

use crate::config::Clock;
pub use crate::config::Unwinder;
use crate::sampler::{self, Options};
use crate::spans::{SpanId, SpanKey, SpanRecord, SpanTable, TraceId};
use crate::symbolize::Symbolizer;

/// The signature of a handler installed with `SA_SIGINFO`.
pub type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The signal handler.
pub fn handler() -> Handler {
    sampler::handler()
}

/// Lets the handler at this address, which calls the sampler's, stand in its place. Without that a sampler whose handler
/// is replaced stops its clocks.
pub fn accept_wrapper(handler: usize) {
    crate::sys::signal::accept_wrapper(handler);
}

/// What a timer of the calling thread carries as `si_value`. Registers the thread, so sampling must be on.
///
/// Together with `SI_TIMER` as the code, `rt_tgsigqueueinfo` makes a signal that is taken for a timer's.
pub fn signal_value() -> Option<usize> {
    publish(0);
    sampler::signal_value()
}

/// Publishes a key from [`Sampler::span`], or 0 for no span, as the calling thread's label.
#[inline]
pub fn publish(key: u64) {
    sampler::publish(SpanKey(key));
}

/// A sample as the collector sees it.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The thread.
    pub tid: i32,
    /// Sampling periods it stands for.
    pub weight: u32,
    /// The span's id, if one was active.
    pub span_id: Option<u64>,
    /// Program counter, then return addresses.
    pub frames: &'a [u64],
    /// Whether the walk ended before the thread's entry.
    pub truncated: bool,
}

/// Symbols, as the exporter's thread looks them up.
pub struct Symbols(Symbolizer);

impl Symbols {
    /// Nothing known yet.
    #[allow(clippy::new_without_default)] // it is no value, and nobody needs one
    pub fn new() -> Self {
        Self(Symbolizer::new())
    }

    /// Looks up addresses of the sampler's modules until all is known of them; gives back how many frames they are,
    /// inlined ones included.
    pub fn look_up(&mut self, sampler: &Sampler, addresses: &[u64]) -> usize {
        let modules = sampler.inner.modules();
        self.0.symbolize(&modules, addresses);
        while self.0.rest() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.0.symbolize(&modules, addresses).iter().map(|location| location.lines.len()).sum()
    }

    /// Looks up names alone; gives back how many were found.
    pub fn names_alone(sampler: &Sampler, addresses: &[u64]) -> usize {
        Symbolizer::names_alone(&sampler.inner.modules(), addresses)
    }
}

/// A running sampler with a span table of its own.
pub struct Sampler {
    inner: sampler::Sampler,
    spans: &'static SpanTable,
}

impl Sampler {
    /// Starts sampling at `frequency` samples per second of CPU time, keeping stacks of up to `max_depth` frames.
    pub fn start(frequency: u32, max_depth: usize) -> Result<Self, String> {
        Self::start_with(frequency, max_depth, Unwinder::Tables)
    }

    /// The same, with a choice of how stacks are walked.
    pub fn start_with(frequency: u32, max_depth: usize, unwinder: Unwinder) -> Result<Self, String> {
        Self::start_from(|spans| Options { max_depth, unwinder, ..Options::new(frequency, spans) })
    }

    /// The same, with a choice of what makes threads be sampled.
    pub fn start_by(frequency: u32, max_depth: usize, clock: Clock) -> Result<Self, String> {
        Self::start_from(|spans| Options { max_depth, clock, ..Options::new(frequency, spans) })
    }

    fn start_from(options: impl FnOnce(&'static SpanTable) -> Options) -> Result<Self, String> {
        let spans: &'static SpanTable = Box::leak(Box::new(SpanTable::new(1 << 14)));
        let inner = sampler::Sampler::start(options(spans)).map_err(|error| error.to_string())?;
        Ok(Self { inner, spans })
    }

    /// Makes a live span and gives the key to publish.
    pub fn span(&self, span_id: u64) -> Option<u64> {
        let id = SpanId(span_id);
        let record =
            SpanRecord { span_id: id, local_root: id, trace_id: TraceId(1), ..SpanRecord::default() };
        self.spans.insert(&record).map(|key| key.0)
    }

    /// Drains the rings and looks for threads and modules; gives back how many samples there were.
    pub fn drain(&mut self) -> u64 {
        let mut samples = 0;
        self.drain_into(&mut |_| samples += 1);
        samples
    }

    /// The same, and shows each sample.
    pub fn drain_into(&mut self, sink: &mut dyn FnMut(Sample<'_>)) {
        self.inner.drain(&mut |sample| {
            let sampler::Sample { tid, weight, span, frames, truncated } = *sample;
            sink(Sample { tid, weight, span_id: span.map(|span| span.span_id.0), frames, truncated });
        });
    }

    /// Every count that the sampler keeps, for people.
    pub fn stats(&self) -> String {
        format!("{:?}", self.inner.stats())
    }

    /// Bytes of unwind tables, and bytes of text that they cover.
    pub fn table_size(&self) -> (u64, u64) {
        let stats = self.inner.stats();
        (stats.table_bytes, stats.text_bytes)
    }

    /// Paths of the modules that samples may refer to, with their first address, one past the last, and bias.
    pub fn modules(&self) -> Vec<(PathBuf, u64, u64, u64)> {
        let modules = self.inner.modules();
        modules.iter().map(|m| (m.path.to_path_buf(), m.start, m.end, m.bias)).collect()
    }

    /// Stops sampling; the handler stays.
    pub fn stop(&mut self) {
        self.inner.stop();
    }
}
