//! POSIX timers on a thread's CPU clock, by raw system calls: libc's wrappers allocate, and hide the kernel's ids.
#![allow(unsafe_code)] // system calls

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// A timer of this process that signals one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer(i32);

/// The kernel's number for the CPU clock of thread `tid`.
fn cpu_clock(tid: i32) -> libc::clockid_t {
    const PER_THREAD: i32 = 4;
    const SCHEDULED: i32 = 2;
    (!tid << 3) | PER_THREAD | SCHEDULED
}

/// A disarmed timer on the CPU clock of thread `tid` of this process, that will send it `signal` with `value`.
pub(crate) fn create(tid: i32, signal: i32, value: usize) -> io::Result<Timer> {
    // SAFETY: a plain C structure for which zero is a valid value.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_value.sival_ptr = value as *mut libc::c_void;
    event.sigev_signo = signal;
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_notify_thread_id = tid;
    let mut id = 0i32;
    // SAFETY: both pointers are to live values of the types that the kernel expects.
    match unsafe { libc::syscall(libc::SYS_timer_create, cpu_clock(tid), &raw mut event, &raw mut id) } {
        0 => Ok(Timer(id)),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Timer {
    /// Arms the timer: first at `first` (of the clock itself if `absolute`, else from now), then every `period`.
    pub(crate) fn arm(self, first: Duration, absolute: bool, period: Duration) -> io::Result<()> {
        let times = libc::itimerspec { it_interval: timespec(period), it_value: timespec(first) };
        let flags = if absolute { libc::TIMER_ABSTIME } else { 0 };
        let old = std::ptr::null_mut::<libc::itimerspec>();
        // SAFETY: `times` is a live value of the type that the kernel expects, and it may be told not to fill `old`.
        match unsafe { libc::syscall(libc::SYS_timer_settime, self.0, flags, &raw const times, old) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the armed timer still runs; it does not once its thread is gone.
    pub(crate) fn runs(self) -> bool {
        let mut times = MaybeUninit::<libc::itimerspec>::zeroed();
        // SAFETY: the kernel fills `times` or leaves it zeroed.
        if unsafe { libc::syscall(libc::SYS_timer_gettime, self.0, times.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: zeroed or filled: valid either way.
        let times = unsafe { times.assume_init() };
        times.it_value.tv_sec != 0 || times.it_value.tv_nsec != 0
    }

    /// Deletes the timer and what it has pending.
    pub(crate) fn delete(self) {
        // SAFETY: no pointers; a stale id is refused.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

/// Whether the process-wide profiling timer is armed, by whomever.
pub(crate) fn process_timer_armed() -> bool {
    let mut times = MaybeUninit::<libc::itimerval>::zeroed();
    // SAFETY: the kernel fills `times` or leaves it zeroed.
    unsafe { libc::getitimer(libc::ITIMER_PROF, times.as_mut_ptr()) };
    // SAFETY: zeroed or filled: valid either way.
    let times = unsafe { times.assume_init() };
    times.it_value.tv_sec != 0 || times.it_value.tv_usec != 0
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos().into() }
}
