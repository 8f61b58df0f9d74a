//! POSIX timers on a thread's CPU clock, by raw system calls: libc's wrappers allocate, and hide the kernel's ids.
#![allow(unsafe_code)] // system calls

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// A timer of this process that signals one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer(pub(crate) i32);

/// The kernel's number for the CPU clock of thread `tid`.
fn cpu_clock(tid: i32) -> libc::clockid_t {
    const PER_THREAD: i32 = 4;
    const SCHEDULED: i32 = 2;
    (!tid << 3) | PER_THREAD | SCHEDULED
}

/// A disarmed timer on the CPU clock of thread `tid` of this process, that will send it `signal` with `value`.
pub(crate) fn create(tid: i32, signal: i32, value: usize) -> io::Result<Timer> {
    create_on(cpu_clock(tid), libc::SIGEV_THREAD_ID, tid, signal, value)
}

/// A disarmed timer on the CPU clock of this process, that will send it `signal` with `value`. From Linux 6.4 on the
/// thread that runs then gets it, earlier the main thread.
pub(crate) fn create_for_process(signal: i32, value: usize) -> io::Result<Timer> {
    create_on(libc::CLOCK_PROCESS_CPUTIME_ID, libc::SIGEV_SIGNAL, 0, signal, value)
}

fn create_on(clock: libc::clockid_t, notify: i32, tid: i32, signal: i32, value: usize) -> io::Result<Timer> {
    // SAFETY: a plain C structure for which zero is a valid value.
    let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.sigev_value.sival_ptr = value as *mut libc::c_void;
    event.sigev_signo = signal;
    event.sigev_notify = notify;
    event.sigev_notify_thread_id = tid;
    let mut id = 0i32;
    // SAFETY: both pointers are to live values of the types that the kernel expects.
    match unsafe { libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut id) } {
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

    /// Disarms the timer; it stays.
    pub(crate) fn disarm(self) {
        // A timer of ours can be set.
        let _ = self.arm(Duration::ZERO, false, Duration::ZERO);
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

/// The interval of the process-wide profiling timer, whoever armed it; `None` while it is not armed.
pub(crate) fn process_timer() -> Option<Duration> {
    let mut times = MaybeUninit::<libc::itimerval>::zeroed();
    // SAFETY: the kernel fills `times` or leaves it zeroed.
    unsafe { libc::getitimer(libc::ITIMER_PROF, times.as_mut_ptr()) };
    // SAFETY: zeroed or filled: valid either way.
    let times = unsafe { times.assume_init() };
    let armed = times.it_value.tv_sec != 0 || times.it_value.tv_usec != 0;
    armed.then(|| {
        Duration::from_secs(times.it_interval.tv_sec as u64)
            + Duration::from_micros(times.it_interval.tv_usec as u64)
    })
}

/// Arms the process-wide profiling timer, or disarms it with a period of zero.
pub(crate) fn set_process_timer(period: Duration) -> io::Result<()> {
    let time =
        libc::timeval { tv_sec: period.as_secs() as libc::time_t, tv_usec: period.subsec_micros().into() };
    let times = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: `times` is live; the old setting is not asked for.
    match unsafe { libc::setitimer(libc::ITIMER_PROF, &times, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// CPU time that thread `tid` of this process has used; `None` once it is gone.
pub(crate) fn cpu_time(tid: i32) -> Option<Duration> {
    clock_time(cpu_clock(tid))
}

/// CPU time that this process has used.
pub(crate) fn process_cpu_time() -> Duration {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default()
}

fn clock_time(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    (result == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// How often the kernel looks at CPU timers: the resolution of its coarse clock.
pub(crate) fn kernel_tick() -> Duration {
    const USUAL: Duration = Duration::from_millis(4);
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    let result = unsafe { libc::clock_getres(libc::CLOCK_REALTIME_COARSE, &mut time) };
    let tick = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
    if result == 0 && !tick.is_zero() { tick } else { USUAL }
}

/// Whether signals of the process's CPU timers go to the thread that runs: from Linux 6.4 on.
pub(crate) fn process_timers_hit_the_running_thread() -> bool {
    let mut name = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the kernel fills `name` or leaves it zeroed.
    unsafe { libc::uname(name.as_mut_ptr()) };
    // SAFETY: zeroed or filled: valid either way.
    let name = unsafe { name.assume_init() };
    let release: String =
        name.release.iter().map(|c| char::from(c.to_ne_bytes()[0])).take_while(|c| *c != '\0').collect();
    at_least(&release, (6, 4))
}

fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    matches!(version, (Some(major), Some(minor)) if (major, minor) >= wanted)
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec { tv_sec: duration.as_secs() as libc::time_t, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert!(
            at_least("6.18.44-generic", (6, 4)) && at_least("6.4.0", (6, 4)) && at_least("7.0-rc1", (6, 4))
        );
        assert!(!at_least("6.1.0-18-amd64", (6, 4)) && !at_least("5.15.0", (6, 4)) && !at_least("", (6, 4)));
        assert!(kernel_tick() >= Duration::from_micros(100));
    }

    #[test]
    fn a_threads_cpu_time_is_known_while_it_lives() {
        let own = cpu_time(crate::sys::thread::id()).expect("alive");
        let again = Duration::from_nanos(crate::sys::thread::own_cpu_time().expect("allowed"));
        assert!(again >= own && process_cpu_time() >= own);
        assert_eq!(cpu_time(i32::MAX - 1), None);
        assert_eq!(crate::sys::thread::own_id(), crate::sys::thread::id());
    }
}
