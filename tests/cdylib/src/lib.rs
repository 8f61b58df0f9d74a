//! A plugin with the profiler inside, for a program that knows nothing of it. Every thread-local value of such a library
//! is looked up through the loader.
#![allow(unsafe_code)] // unmangled names, to be found by `dlsym`

use std::hint::black_box;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracerProvider, SimpleSpanProcessor, SpanData, SpanExporter};
use parking_lot::Mutex;
use spanflame::{ExportError, Profile, ProfileExporter, Profiler, Stats};

/// What runs between start and stop.
struct Plugin {
    profiler: Profiler,
    provider: SdkTracerProvider,
}

static PLUGIN: Mutex<Option<Plugin>> = Mutex::new(None);

/// Takes everything and keeps nothing.
#[derive(Debug)]
struct Nowhere;

impl ProfileExporter for Nowhere {
    fn export(&mut self, _profile: &Profile) -> Result<(), ExportError> {
        Ok(())
    }
}

impl SpanExporter for Nowhere {
    async fn export(&self, _spans: Vec<SpanData>) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

fn with<T>(act: impl FnOnce(&mut Option<Plugin>) -> T) -> T {
    act(&mut PLUGIN.lock())
}

/// Starts the profiler; 0 if it does not.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_plugin_start() -> u64 {
    let started = Profiler::builder().exporter(Nowhere).enabled(true).cpu_budget(None).start();
    let Ok(profiler) = started else { return 0 };
    let processor = profiler.wrap(SimpleSpanProcessor::new(Nowhere));
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    with(|plugin| *plugin = Some(Plugin { profiler, provider }));
    1
}

/// Burns so many milliseconds of the calling thread's CPU time in a span.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_plugin_burn(millis: u64) -> u64 {
    let Some(tracer) = with(|plugin| plugin.as_ref().map(|plugin| plugin.provider.tracer("plugin"))) else {
        return 0;
    };
    let span = tracer.start("work");
    let _current = Context::current_with_span(span).attach();
    let until = cpu_time() + Duration::from_millis(millis);
    let mut state = millis | 1;
    while cpu_time() < until {
        for _ in 0..5_000 {
            state = black_box(state.rotate_left(7) ^ millis);
        }
    }
    1
}

/// Milliseconds of CPU time that were charged to spans so far.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_plugin_charged() -> u64 {
    stat(|stats| stats.labelled_cpu_time)
}

/// Milliseconds of CPU time that samples stand for so far.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_plugin_sampled() -> u64 {
    stat(|stats| stats.cpu_time)
}

fn stat(of: impl FnOnce(Stats) -> Duration) -> u64 {
    with(|plugin| plugin.as_ref().map_or(0, |plugin| of(plugin.profiler.stats()).as_millis() as u64))
}

/// Stops the profiler; 0 if there was none or it did not end well.
#[unsafe(no_mangle)]
pub extern "C" fn spanflame_plugin_stop() -> u64 {
    let Some(Plugin { profiler, provider }) = with(Option::take) else { return 0 };
    let spans = provider.shutdown();
    let profiles = profiler.shutdown(Duration::from_secs(60));
    u64::from(spans.is_ok() && profiles.is_ok())
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
