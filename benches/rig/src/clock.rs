//! The clocks: CPU time from the kernel, cycles from the processor.
#![allow(unsafe_code)] // libc calls and the time-stamp counter

use std::arch::x86_64::{_mm_lfence, _rdtsc};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// CPU time used by the calling thread.
pub fn thread_cpu() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time used by all threads of this process, user and system.
pub fn process_cpu() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    unsafe { libc::clock_gettime(clock, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The time-stamp counter, after everything before it has finished. Fit for signal handlers.
#[inline(always)]
pub(crate) fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has both instructions.
    unsafe { _mm_lfence() };
    // SAFETY: as above.
    unsafe { _rdtsc() }
}

/// Nanoseconds per cycle, measured once over 20 ms.
pub(crate) fn nanos_per_cycle() -> f64 {
    static SCALE: OnceLock<f64> = OnceLock::new();
    *SCALE.get_or_init(|| {
        let (start, first) = (Instant::now(), cycles());
        std::thread::sleep(Duration::from_millis(20));
        let (elapsed, last) = (start.elapsed(), cycles());
        elapsed.as_nanos() as f64 / (last - first) as f64
    })
}
