//! Living with others who want SIGPROF. One test: what is installed when is a matter of the whole process.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code)] // signal handlers

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use spanflame::bench_support::Sampler;
use spanflame::{Profiler, Scope};

#[path = "common/nowhere.rs"]
mod nowhere;

use nowhere::Nowhere;

static THEIRS: AtomicU64 = AtomicU64::new(0);

extern "C" fn with_info(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    if !info.is_null() {
        THEIRS.fetch_add(1, Ordering::Relaxed);
    }
}

fn install(action: usize, flags: c_int) {
    // SAFETY: zero is a valid sigaction.
    let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
    new.sa_sigaction = action;
    new.sa_flags = flags;
    // SAFETY: a valid action.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &new, std::ptr::null_mut()) }, 0);
}

fn raise() {
    // SAFETY: the signal has a handler.
    assert_eq!(unsafe { libc::raise(libc::SIGPROF) }, 0);
}

fn theirs() -> u64 {
    THEIRS.load(Ordering::Relaxed)
}

fn burn_until_sampled(sampler: &mut Sampler) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while sampler.drain() == 0 {
        assert!(Instant::now() < deadline, "no sample: {}", sampler.stats());
        (0..1_000_000u64).for_each(|i| {
            black_box(i);
        });
    }
}

/// Burns that much CPU time of the calling thread.
fn burn(time: Duration) {
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let until = now() + time;
    while now() < until {
        (0..10_000u64).for_each(|i| {
            black_box(i);
        });
    }
}

/// A profiler whose handler is replaced while it runs says so and tags no span, until the handler is back.
fn a_handler_over_a_running_profiler_s_is_reported() {
    let profiler =
        Profiler::builder().exporter(Nowhere).scope(Scope::All).enabled(true).start().expect("starts");
    let spans = InMemorySpanExporter::default();
    let processor = profiler.wrap(SimpleSpanProcessor::new(spans.clone()));
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer("test");
    let tagged = || {
        spans.reset();
        tracer.start("work").end();
        let spans = spans.get_finished_spans().expect("kept");
        spans[0].attributes.iter().any(|attribute| attribute.key.as_str() == "pyroscope.profile.id")
    };
    let wait_for = |replaced: bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while profiler.stats().handler_replaced != replaced || tagged() == replaced {
            assert!(Instant::now() < deadline, "not noticed: {:?}", profiler.stats());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(false);
    assert_eq!(profiler.stats().scope, Scope::All);
    // SAFETY: zero is a valid sigaction.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only asks, and fills `ours`.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, std::ptr::null(), &mut ours) }, 0);
    install(with_info as *const () as usize, libc::SA_SIGINFO);
    wait_for(true);
    assert_eq!(profiler.stats().scope, Scope::Auto, "no span is tagged");
    // The other one is spared our ticks. Those that were under way may still arrive, one for each thread.
    let before = theirs();
    burn(Duration::from_millis(400));
    let strays = theirs() - before;
    assert!(
        strays <= u64::from(profiler.stats().threads) + 8,
        "{strays} ticks of a profiler that is in the way"
    );
    // SAFETY: what was there before.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &ours, std::ptr::null_mut()) }, 0);
    wait_for(false);
    let (samples, deadline) = (profiler.stats().samples, Instant::now() + Duration::from_secs(30));
    while profiler.stats().samples == samples {
        assert!(Instant::now() < deadline, "samples are taken again: {:?}", profiler.stats());
        burn(Duration::from_millis(50));
    }
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
}

#[test]
fn others_get_their_signals_and_are_told_apart() {
    // Before us, someone had a handler: it gets what is not ours, even while we are stopped.
    install(with_info as *const () as usize, libc::SA_SIGINFO);
    let mut sampler = Sampler::start(1000, 64).expect("starts over a handler whose timer is not armed");
    assert!(sampler.stats().contains("chained: true"), "{}", sampler.stats());
    raise();
    assert_eq!(theirs(), 1);
    burn_until_sampled(&mut sampler);
    assert_eq!(theirs(), 1, "our own signals stay ours");
    sampler.stop();
    raise();
    assert_eq!(theirs(), 2);
    drop(sampler);

    // The process-wide timer of another profiler: it would see none of its signals as its own.
    let hour = libc::timeval { tv_sec: 3600, tv_usec: 0 };
    let off = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let timer = |value| {
        let timer = libc::itimerval { it_interval: off, it_value: value };
        // SAFETY: a valid value, and its signal has a handler.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) }, 0);
    };
    timer(hour);
    let error = Sampler::start(100, 64).err().expect("refused");
    assert!(error.contains("ITIMER_PROF"), "{error}");
    timer(off);
    Sampler::start(100, 64).expect("starts once that is over").stop();

    // Someone puts their handler over ours while we sample, and again while we do not.
    let mut sampler = Sampler::start(100, 64).expect("starts");
    install(with_info as *const () as usize, libc::SA_SIGINFO);
    std::thread::sleep(Duration::from_millis(150));
    sampler.drain();
    assert!(sampler.stats().contains("handler_replaced: true"), "{}", sampler.stats());
    drop(sampler);
    let error = Sampler::start(100, 64).err().expect("refused");
    assert!(error.contains("replaced"), "{error}");

    // They leave, as profilers do: by having the signal ignored.
    install(libc::SIG_IGN, 0);
    let mut sampler = Sampler::start(1000, 64).expect("starts again");
    assert!(sampler.stats().contains("chained: false"), "{}", sampler.stats());
    burn_until_sampled(&mut sampler);
    let before = theirs();
    raise();
    assert_eq!(theirs(), before, "nobody is left to pass it on to");
    drop(sampler);
    raise();

    a_handler_over_a_running_profiler_s_is_reported();
}
