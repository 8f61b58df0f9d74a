//! Child processes, CPU to burn, and a profiler that keeps its profiles to itself.

use std::hint::black_box;
use std::io;
use std::process::{Command, Output};
use std::time::Duration;

use parking_lot::Mutex;
use spanflame::{Clock, Profiler, ProfilerBuilder, Stats};

use crate::nowhere::Nowhere;

/// Set in a child, to the name of the test that it is to run.
const CHILD: &str = "SPANFLAME_TEST_CHILD";

/// Runs `body` in a process of its own: the test `name` of this program again, which is the caller's own.
pub(crate) fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return body();
    }
    let output = child(name);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    assert!(text.contains("1 passed"), "no such test: {text}");
}

/// The output of the test `name` in a process of its own.
pub(crate) fn child(name: &str) -> Output {
    let exe = std::env::current_exe().expect("a running program has a path");
    Command::new(exe)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .expect("runs again")
}

/// Whether this is the child that [`child`] started for `name`.
pub(crate) fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|child| child == name)
}

/// A profiler without a limit to its cost: what the machine does meanwhile shall not change the rate.
pub(crate) fn builder(frequency: u32, clock: Clock) -> ProfilerBuilder {
    Profiler::builder().exporter(Nowhere).frequency(frequency).clock(clock).cpu_budget(None).enabled(true)
}

/// Stops it, and gives its last statistics.
pub(crate) fn finish(profiler: &Profiler) -> Stats {
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    profiler.stats()
}

/// CPU time of a clock of this process.
fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of the whole process.
pub(crate) fn process_cpu() -> Duration {
    cpu(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Burns that much CPU time of the calling thread.
#[inline(never)]
pub(crate) fn burn(time: Duration) {
    let now = || cpu(libc::CLOCK_THREAD_CPUTIME_ID);
    let until = now() + time;
    let mut x = 1u64;
    while now() < until {
        for _ in 0..5_000 {
            x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// `threads` threads at a time that burn so much each.
pub(crate) fn burn_on(threads: usize, each: Duration) {
    // On a busy machine the first would have ended before the last begin. Were one not to begin at all, none would wait.
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        let closed = gate.lock();
        for _ in 0..threads {
            scope.spawn(|| {
                drop(gate.lock());
                burn(each);
            });
        }
        drop(closed);
    });
}

/// Asserts that what was charged is what was used, and prints it.
pub(crate) fn assert_charged(stats: &Stats, used: Duration, low: f64, high: f64) {
    let ratio = stats.cpu_time.as_secs_f64() / used.as_secs_f64();
    println!("{}: {ratio:.3} of {used:?} in {} samples; {}", stats.clock, stats.samples, stats.clock_reason);
    assert!((low..=high).contains(&ratio), "{ratio:.3} of {used:?}: {stats:?}");
}

/// Asserts that what was not charged is told.
pub(crate) fn assert_told(stats: &Stats, used: Duration) {
    let told = (stats.cpu_time + stats.uncharged_cpu_time).as_secs_f64() / used.as_secs_f64();
    assert!(told >= 0.9, "{told:.3} of {used:?}: {stats:?}");
}

/// Has the kernel refuse one system call to every thread of this process from now on, with EPERM.
pub(crate) fn deny(call: libc::c_long) {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: sets a flag of this process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    const ALL_THREADS: libc::c_ulong = 1;
    // SAFETY: the program is live and as long as it says.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, ALL_THREADS, &raw const program)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Lowers a soft limit of this process.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, to: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills `limit`.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limit) }, 0);
    limit.rlim_cur = to;
    // SAFETY: a valid limit.
    assert_eq!(unsafe { libc::setrlimit(resource, &limit) }, 0);
}
