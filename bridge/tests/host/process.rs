//! Forks, execs, other profilers that come later, and calls that must not be interrupted.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracerProvider;
use spanflame::{Clock, Scope, UnlabelledCpu};

use crate::forked::forked;
use crate::support::{assert_charged, builder, burn, finish, in_child, process_cpu};

const CLOCKS: [Clock; 3] = [Clock::ThreadTimers, Clock::Perf, Clock::ProcessTimer];

#[test]
fn a_forked_child_drops_an_inherited_profiler_without_waiting() {
    in_child("process::a_forked_child_drops_an_inherited_profiler_without_waiting", || {
        for clock in CLOCKS {
            let mut profiler = Some(builder(1000, clock).start().expect("starts"));
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        burn(Duration::from_millis(5));
                    }
                });
                burn(Duration::from_millis(300));
                let parents = profiler.as_ref().expect("there");
                parents.flush(Duration::from_secs(60)).expect("delivered");
                assert_ne!(parents.unlabelled(), UnlabelledCpu::default());
                for _ in 0..2 {
                    burn(Duration::from_millis(20));
                    let status = forked(|| {
                        let own = profiler.as_ref().expect("there");
                        let at_once = Instant::now();
                        let quiet = own.flush(Duration::from_secs(60)).is_ok()
                            && !own.stats().running
                            && own.unlabelled() == UnlabelledCpu::default();
                        drop(profiler.take());
                        // Nothing is waited for, where dropping a profiler that runs may take its time.
                        let fast = at_once.elapsed() < Duration::from_secs(4);
                        burn(Duration::from_millis(10));
                        // It may start one of its own.
                        let own = builder(1000, clock).start();
                        burn(Duration::from_millis(30));
                        quiet && fast && own.is_ok_and(|own| own.stats().running)
                    });
                    assert_eq!(status, 0);
                }
                done.store(true, Ordering::Relaxed);
            });
            let stats = finish(profiler.as_ref().expect("the parent's"));
            assert!(stats.samples > 10, "{clock:?}: the parent samples on: {stats:?}");
        }
    });
}

#[test]
fn a_child_forked_among_spans_starts_spans_and_a_profiler_of_its_own() {
    in_child("process::a_child_forked_among_spans_starts_spans_and_a_profiler_of_its_own", || {
        let profiler =
            builder(100, Clock::Auto).scope(Scope::All).attribute_label("request").start().expect("starts");
        let provider = SdkTracerProvider::builder().with_span_processor(profiler.span_processor()).build();
        let tracer = provider.tracer("test");
        let start = |name: String| {
            let span = tracer.span_builder(name).with_attributes([KeyValue::new("request", "r")]);
            span.start_with_context(&tracer, &Context::new()).end();
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (start, done) = (&start, &done);
                // Each name is new, so it is added under the lock.
                let names = (0..).map(move |i| format!("{thread} {i}"));
                scope.spawn(move || names.take_while(|_| !done.load(Ordering::Relaxed)).for_each(start));
            }
            for round in 0..10 {
                let status = forked(|| {
                    start(format!("before {round}"));
                    let own = builder(100, Clock::Auto).scope(Scope::All).attribute_label("request").start();
                    start(format!("after {round}"));
                    own.is_ok_and(|own| own.stats().running && own.stats().scope == Scope::All)
                });
                assert_eq!(status, 0);
            }
            done.store(true, Ordering::Relaxed);
        });
        finish(&profiler);
    });
}

#[test]
fn a_program_that_is_replaced_is_not_killed_by_a_late_signal() {
    in_child("process::a_program_that_is_replaced_is_not_killed_by_a_late_signal", || {
        let loops = ["-c", "i=0; while [ $i -lt 40000 ]; do i=$((i+1)); done"];
        for clock in CLOCKS {
            let profiler = builder(1000, clock).start().expect("starts");
            // Before Linux 6.4 the process's timer is of the kind that outlives its program: that is documented.
            for _ in 0..2 {
                burn(Duration::from_millis(10));
                // A child that is profiled itself, then replaced by another program.
                let status = forked(|| {
                    let own = builder(1000, clock).start();
                    burn(Duration::from_millis(30));
                    let error = Command::new("/bin/sh").args(loops).exec();
                    drop((own, error));
                    false
                });
                assert_eq!(status, 0);
                let spawned = Command::new("/bin/sh").args(loops).status().expect("runs");
                assert!(spawned.success(), "{clock:?}: {spawned}");
            }
            finish(&profiler);
        }
    });
}

#[test]
fn a_child_that_a_raw_clone_makes_lives_unharmed_and_unprofiled() {
    in_child("process::a_child_that_a_raw_clone_makes_lives_unharmed_and_unprofiled", || {
        for clock in CLOCKS {
            let profiler = builder(1000, clock).start().expect("starts");
            for _ in 0..5 {
                burn(Duration::from_millis(20));
                // What `fork` does, but nobody is told of it. The stack pointer is the parent's.
                let (flags, none) = (libc::SIGCHLD as libc::c_ulong, 0 as libc::c_ulong);
                // SAFETY: a copy of the process with one thread, which computes and leaves by _exit.
                match unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) } {
                    0 => {
                        spanflame::register_thread();
                        burn(Duration::from_millis(60));
                        // SAFETY: ends the child at once.
                        unsafe { libc::_exit(0) };
                    }
                    child => {
                        let mut status = 0;
                        // SAFETY: fills `status`.
                        let waited = unsafe { libc::waitpid(child as i32, &mut status, 0) };
                        assert_eq!((waited, status), (child as i32, 0), "{clock:?}");
                    }
                }
            }
            burn(Duration::from_millis(400));
            let stats = finish(&profiler);
            assert!(stats.samples > 10, "{clock:?}: the parent samples on: {stats:?}");
        }
    });
}

extern "C" fn count_theirs(_signal: libc::c_int) {
    THEIRS.fetch_add(1, Ordering::Relaxed);
}

static THEIRS: AtomicU64 = AtomicU64::new(0);

#[test]
fn another_profiler_s_timer_is_not_taken_for_ours() {
    in_child("process::another_profiler_s_timer_is_not_taken_for_ours", || {
        let handler = count_theirs as *const () as libc::sighandler_t;
        // SAFETY: the handler only counts.
        assert_ne!(unsafe { libc::signal(libc::SIGPROF, handler) }, libc::SIG_ERR);
        // The process's timer is armed, so its signals are expected.
        let profiler = builder(100, Clock::ProcessTimer).start().expect("starts");
        let before = process_cpu();
        let time = libc::timeval { tv_sec: 0, tv_usec: 10_000 };
        let timer = libc::itimerval { it_interval: time, it_value: time };
        // SAFETY: a valid value, and its signal has a handler.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) }, 0);
        burn(Duration::from_millis(1000));
        let used = process_cpu() - before;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !profiler.stats().other_profiler {
            // Where our own timer is of that kind, setting another one has replaced it.
            if Instant::now() > deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let stats = finish(&profiler);
        assert!(THEIRS.load(Ordering::Relaxed) > 20, "it gets its signals");
        assert_charged(&stats, used, 0.75, 1.2);
    });
}

#[test]
fn a_profiler_that_comes_later_is_noticed() {
    in_child("process::a_profiler_that_comes_later_is_noticed", || {
        let profiler = builder(100, Clock::Auto).start().expect("starts");
        assert!(!profiler.stats().other_profiler);
        let set = |seconds| {
            let time = |tv_sec| libc::timeval { tv_sec, tv_usec: 0 };
            let timer = libc::itimerval { it_interval: time(seconds), it_value: time(seconds) };
            // SAFETY: a valid value, and its signal has a handler.
            assert_eq!(unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) }, 0);
        };
        for (seconds, armed) in [(3600, true), (0, false)] {
            set(seconds);
            let deadline = Instant::now() + Duration::from_secs(60);
            while profiler.stats().other_profiler != armed {
                assert!(Instant::now() < deadline, "{:?}", profiler.stats());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        finish(&profiler);
    });
}

#[test]
fn calls_that_wait_are_not_interrupted() {
    in_child("process::calls_that_wait_are_not_interrupted", || {
        for clock in CLOCKS {
            let profiler = builder(1000, clock).start().expect("starts");
            let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
            let file = tempfile::NamedTempFile::new().expect("a file");
            let done = AtomicBool::new(false);
            let interrupted = |result: i32| {
                result < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
            };
            let count = std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            burn(Duration::from_millis(5));
                        }
                    });
                }
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        writer.write_all(&[1]).expect("writes");
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
                let waits = scope.spawn(|| {
                    // SAFETY: takes no pointers.
                    let poll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
                    let lock = File::open(file.path()).expect("opens");
                    let (mut interruptions, mut bytes) = (0, 0);
                    let mut buffer = [0];
                    while bytes < 200 {
                        // `read_exact` would hide an interruption.
                        bytes += reader.read(&mut buffer).expect("never interrupted");
                        let mut event = libc::epoll_event { events: 0, u64: 0 };
                        // SAFETY: `event` has room for the one event asked for.
                        interruptions +=
                            u32::from(interrupted(unsafe { libc::epoll_wait(poll, &mut event, 1, 3) }));
                        // SAFETY: the file is open.
                        interruptions +=
                            u32::from(interrupted(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }));
                        burn(Duration::from_micros(500));
                    }
                    // SAFETY: from above, closed once.
                    unsafe { libc::close(poll) };
                    interruptions
                });
                let count = waits.join().expect("waits");
                done.store(true, Ordering::Relaxed);
                count
            });
            let stats = finish(&profiler);
            assert!(stats.samples > 10, "{stats:?}");
            // The kernel never restarts epoll_wait; a signal that reaches the thread as it goes to wait is its right.
            assert!(count <= 8, "{count} of 200 waits were interrupted by {}", stats.clock);
        }
    });
}
