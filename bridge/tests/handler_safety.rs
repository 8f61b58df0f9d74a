//! The signal handler in hostile surroundings: no allocation, errno untouched, tiny stacks, forks, libraries that come
//! and go, unwinding and an allocator under load. One sampler runs per process, so these tests take turns.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code)] // a counting allocator, fork, dlopen, forged signals

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CString, c_void};
use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use parking_lot::Mutex;
use spanflame::bench_support::{self, Sampler};
use spanflame::{Clock, Profiler, Scope};

#[path = "common/forked.rs"]
mod forked;
#[path = "common/nowhere.rs"]
mod nowhere;

use forked::forked;
use nowhere::Nowhere;

/// Counts what each thread allocates and frees.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: passes every call on to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TURN: Mutex<()> = Mutex::new(());

/// The kernel's `siginfo_t` of a timer, at its full size.
#[repr(C)]
struct TimerInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    timer: i32,
    overrun: i32,
    value: usize,
    rest: [u64; 12],
}

/// Sends the calling thread what its timer would; it has arrived on return.
fn tick(value: usize) {
    let mut info = TimerInfo {
        signal: libc::SIGPROF,
        errno: 0,
        code: libc::SI_TIMER,
        padding: 0,
        timer: 0,
        overrun: 2,
        value,
        rest: [0; 12],
    };
    // SAFETY: takes no arguments.
    let pid = unsafe { libc::getpid() };
    // SAFETY: takes no arguments.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    // SAFETY: `info` is a siginfo_t of the kernel's layout and size, and the thread is the caller.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, libc::SIGPROF, &raw mut info) };
    assert_eq!(result, 0);
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[inline(never)]
fn burn(time: Duration) {
    let until = cpu_time() + time;
    let mut x = 1u64;
    while cpu_time() < until {
        for _ in 0..10_000 {
            x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

#[inline(never)]
fn at_depth(depth: u32, run: &mut dyn FnMut()) -> u32 {
    if depth == 0 {
        run();
        return 0;
    }
    black_box(at_depth(black_box(depth - 1), run)) + 1
}

#[test]
fn the_handler_neither_allocates_nor_touches_errno() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(100, 128).expect("starts");
    let value = bench_support::signal_value().expect("registered");
    bench_support::publish(sampler.span(42).expect("room"));
    for depth in [0, 10, 60, 200] {
        sampler.drain();
        // SAFETY: takes no arguments.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the calling thread's errno is always there.
        let errno = unsafe { &mut *errno };
        *errno = 12_345;
        let before = CALLS.with(Cell::get);
        at_depth(depth, &mut || (0..20).for_each(|_| tick(value)));
        assert_eq!(CALLS.with(Cell::get), before, "allocations at depth {depth}");
        assert_eq!(*errno, 12_345);
        let mut whole = 0;
        sampler.drain_into(&mut |sample| {
            if sample.weight == 3 && sample.span_id == Some(42) {
                assert!(sample.frames.len() > depth as usize || sample.truncated);
                whole += 1;
            }
        });
        assert_eq!(whole, 20, "{}", sampler.stats());
    }
    // A full ring is no reason for anything else either.
    let before = CALLS.with(Cell::get);
    at_depth(100, &mut || (0..200).for_each(|_| tick(value)));
    assert_eq!(CALLS.with(Cell::get), before);
    assert!(!sampler.stats().contains("lost_ring_full: 0,"), "{}", sampler.stats());
    bench_support::publish(0);
}

#[test]
fn no_clock_s_signal_allocates_or_touches_errno_with_and_without_known_stack_bounds() {
    let _turn = TURN.lock();
    for clock in [Clock::ThreadTimers, Clock::Perf, Clock::ProcessTimer] {
        let mut sampler = Sampler::start_by(1000, 128, clock).expect("starts");
        for registers in [true, false] {
            // Who never publishes is found by the scan, so the first samples ask the kernel about each page.
            let thread = std::thread::spawn(move || {
                if registers {
                    bench_support::publish(0);
                }
                // SAFETY: takes no arguments.
                let errno = unsafe { libc::__errno_location() };
                // SAFETY: the calling thread's errno is always there.
                unsafe { errno.write(12_345) };
                let before = CALLS.with(Cell::get);
                burn(Duration::from_millis(600));
                // SAFETY: as above.
                (CALLS.with(Cell::get) - before, unsafe { errno.read() }, bench_tid())
            });
            let mut whole = std::collections::HashMap::new();
            while !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
                sampler.drain_into(&mut |sample| {
                    *whole.entry((sample.tid, sample.truncated)).or_insert(0u32) += 1;
                });
            }
            let (calls, errno, tid) = thread.join().expect("burns");
            sampler.drain_into(&mut |sample| {
                *whole.entry((sample.tid, sample.truncated)).or_insert(0u32) += 1;
            });
            assert_eq!((calls, errno), (0, 12_345), "{clock:?}");
            assert!(whole.get(&(tid, false)).is_some_and(|samples| *samples > 10), "{clock:?}: {whole:?}");
        }
    }
}

fn bench_tid() -> i32 {
    // SAFETY: takes no arguments.
    (unsafe { libc::syscall(libc::SYS_gettid) }) as i32
}

#[test]
fn a_thread_with_the_smallest_stack_survives() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(1000, 128).expect("starts");
    let mut samples = 0;
    for publishes in [true, false] {
        let thread = std::thread::Builder::new().stack_size(16 * 1024).spawn(move || {
            if publishes {
                bench_support::publish(0);
            }
            burn(Duration::from_millis(400));
        });
        let thread = thread.expect("spawned");
        while !thread.is_finished() {
            samples += sampler.drain();
            std::thread::sleep(Duration::from_millis(10));
        }
        thread.join().expect("survives");
    }
    samples += sampler.drain();
    assert!(samples > 0, "they were sampled");
}

#[test]
fn a_forked_child_burns_unharmed_and_may_sample_for_itself() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(1000, 128).expect("starts");
    bench_support::publish(sampler.span(7).expect("room"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bench_support::publish(0);
                burn(Duration::from_millis(5));
            }
        });
        for round in 0..20 {
            burn(Duration::from_millis(5));
            let status = forked(|| {
                bench_support::publish(1);
                burn(Duration::from_millis(30));
                let nothing = sampler.drain() == 0;
                sampler.stop();
                let mut again = round % 2 == 0;
                if !again && let Ok(mut own) = Sampler::start(1000, 128) {
                    bench_support::publish(own.span(8).unwrap_or_default());
                    burn(Duration::from_millis(100));
                    let (mut labelled, mut other) = (0, 0);
                    own.drain_into(&mut |sample| match sample.span_id {
                        Some(8) => labelled += 1,
                        _ => other += 1,
                    });
                    again = labelled > 0 && other <= labelled;
                }
                nothing && again
            });
            assert_eq!(status, 0, "in round {round}");
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut samples = 0;
    sampler.drain_into(&mut |_| samples += 1);
    assert!(samples > 0, "the parent samples on");
    bench_support::publish(0);
}

#[test]
fn a_forked_child_of_a_profiled_process_tags_no_span() {
    let _turn = TURN.lock();
    let profiler =
        Profiler::builder().exporter(Nowhere).scope(Scope::All).enabled(true).start().expect("starts");
    let spans = InMemorySpanExporter::default();
    let processor = profiler.wrap(SimpleSpanProcessor::new(spans.clone()));
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer("test");
    let attributes = || {
        spans.reset();
        tracer.start("work").end();
        spans.get_finished_spans().map_or(usize::MAX, |spans| spans[0].attributes.len())
    };
    assert_eq!(attributes(), 1);
    assert_eq!(forked(|| attributes() == 0), 0);
    assert_eq!(attributes(), 1, "the parent goes on");
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
}

#[test]
fn refused_timers_are_counted_and_nothing_else_suffers() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(100, 128).expect("starts");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills `limit`.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &mut limit) }, 0);
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: only lowers this process's soft limit; raised again below.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) }, 0);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                bench_support::publish(1);
                burn(Duration::from_millis(5));
            });
        }
    });
    sampler.drain();
    // SAFETY: restores what was there.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
    let stats = sampler.stats();
    let failures =
        stats.split("timer_failures: ").nth(1).and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    // The test runner may start threads of its own meanwhile.
    assert!(failures >= Some(5), "{stats}");
}

#[test]
fn a_program_that_is_replaced_while_sampled_is_not_killed_by_a_late_signal() {
    let _turn = TURN.lock();
    for _ in 0..10 {
        let status = forked(|| {
            let sampler = Sampler::start(1000, 64);
            burn(Duration::from_millis(20));
            let error = Command::new("/bin/sh")
                .args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])
                .exec();
            drop((sampler, error));
            false
        });
        assert_eq!(status, 0);
    }
}

/// Libraries of libc's own that programs do not use: loading them does nothing else.
const LIBRARIES: [&str; 5] =
    ["libanl.so.1", "libthread_db.so.1", "libnsl.so.1", "libBrokenLocale.so.1", "libmvec.so.1"];

fn open(name: &str) -> *mut c_void {
    let name = CString::new(name).expect("no zero byte");
    // SAFETY: a library of libc's own, without constructors that matter.
    unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }
}

fn close(library: *mut c_void) {
    // SAFETY: from `open`, closed once.
    assert_eq!(unsafe { libc::dlclose(library) }, 0);
}

fn load_and_unload(name: &str) -> bool {
    let library = open(name);
    if !library.is_null() {
        close(library);
    }
    !library.is_null()
}

#[test]
fn a_library_is_known_soon_after_it_is_loaded_and_for_a_while_after_it_is_unloaded() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(100, 64).expect("starts");
    let look = |sampler: &mut Sampler| {
        std::thread::sleep(Duration::from_millis(120));
        sampler.drain();
        let known = sampler.modules();
        (known.len(), sampler.table_size().1)
    };
    let (before, text_before) = look(&mut sampler);
    let (name, library) = LIBRARIES
        .iter()
        .map(|name| (name, open(name)))
        .find(|(_, library)| !library.is_null())
        .expect("libc has one");
    let (during, text_during) = look(&mut sampler);
    assert!(during > before && text_during > text_before, "{name}");
    close(library);
    let (after, text_after) = look(&mut sampler);
    assert_eq!((after, text_after), (during, text_before), "{name}");
    // The same library again is the same module again.
    assert!(load_and_unload(name));
    assert_eq!(look(&mut sampler).0, during);
}

#[inline(never)]
fn panics(depth: u32) -> u32 {
    if depth == 0 {
        std::panic::resume_unwind(Box::new(7u32));
    }
    black_box(panics(black_box(depth - 1))) + 1
}

#[test]
fn a_storm_of_panics_libraries_and_allocations_does_no_harm() {
    let _turn = TURN.lock();
    let seconds =
        std::env::var("SPANFLAME_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut sampler = Sampler::start(1000, 128).expect("starts");
    let until = Instant::now() + Duration::from_secs(seconds);
    let (caught, loads, traces) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (mut samples, mut truncated, mut weight) = (0u64, 0u64, 0u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < until {
                bench_support::publish(3);
                assert!(std::panic::catch_unwind(|| panics(20)).is_err());
                bench_support::publish(0);
                caught.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while Instant::now() < until {
                for name in LIBRARIES {
                    loads.fetch_add(u64::from(load_and_unload(name)), Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            let mut size = 1usize;
            while Instant::now() < until {
                size = size.wrapping_mul(75).wrapping_add(74) % 65_537;
                kept.push(vec![1; size]);
                if kept.len() > 100 {
                    kept.swap_remove(size % 100);
                }
            }
        });
        scope.spawn(|| {
            while Instant::now() < until {
                drop(black_box(std::backtrace::Backtrace::force_capture()));
                traces.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while Instant::now() < until {
                std::thread::spawn(|| burn(Duration::from_micros(300))).join().expect("burns");
            }
        });
        while Instant::now() < until {
            sampler.drain_into(&mut |sample| {
                samples += 1;
                truncated += u64::from(sample.truncated);
                weight += u64::from(sample.weight);
            });
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    println!(
        "{samples} samples, {weight} periods, {truncated} truncated; {caught:?} panics, {loads:?} loads, {traces:?} traces"
    );
    println!("{}", sampler.stats());
    assert!(caught.into_inner() > 0 && loads.into_inner() > 0 && traces.into_inner() > 0);
    assert!(
        samples > 0 && truncated * 10 < samples,
        "{truncated} of {samples} truncated: {}",
        sampler.stats()
    );
}
