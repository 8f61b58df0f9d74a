//! Facts about threads that only libc and the kernel know.
#![allow(unsafe_code)] // libc calls

use std::mem::MaybeUninit;
use std::ops::Range;

use super::arch;

/// The calling thread's id.
pub(crate) fn id() -> i32 {
    // SAFETY: no arguments, cannot fail.
    (unsafe { libc::syscall(libc::SYS_gettid) }) as i32
}

/// The calling thread's id, for signal handlers.
#[inline]
pub(crate) fn own_id() -> i32 {
    // SAFETY: takes no arguments.
    (unsafe { arch::raw_call(libc::SYS_gettid, [0; 4]) }) as i32
}

/// Nanoseconds of CPU time that the calling thread has used, for signal handlers. `None` where a filter forbids asking.
#[inline]
pub(crate) fn own_cpu_time() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (clock, into) = (libc::CLOCK_THREAD_CPUTIME_ID as u64, (&raw mut time) as u64);
    // SAFETY: the kernel fills `time`.
    let result = unsafe { arch::raw_call(libc::SYS_clock_gettime, [clock, into, 0, 0]) };
    let nanos = (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64);
    (result == 0).then_some(nanos)
}

/// The address of the calling thread's control block: glibc and musl put it at the top of the stacks they allocate.
/// Async-signal-safe: the ABI keeps it in the first word of the thread's segment.
#[inline]
pub(crate) fn control_block() -> u64 {
    arch::control_block()
}

/// The calling thread's stack. Not for signal handlers: it allocates, and reads a file on the main thread.
pub(crate) fn stack() -> Option<Range<u64>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: takes no arguments.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: initializes `attributes` when it returns 0.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: `attributes` was initialized above.
    let result = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size) };
    // SAFETY: initialized above, not used after this.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    let low = low as u64;
    (result == 0).then(|| low..low.saturating_add(size as u64))
}

/// Whether this process has a thread `tid`.
pub(crate) fn exists(tid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    (unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, 0) }) == 0
}

/// What is called at a fork.
pub(crate) type AtFork = unsafe extern "C" fn();

/// Has `before` called before every fork from now on, until the process ends, then `parent` in the parent and `child` in
/// the child.
pub(crate) fn at_fork(before: Option<AtFork>, parent: Option<AtFork>, child: AtFork) -> std::io::Result<()> {
    // SAFETY: registers plain functions that live as long as the program.
    match unsafe { libc::pthread_atfork(before, parent, Some(child)) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

/// CPU time that the calling thread has used.
#[cfg(test)]
pub(crate) fn cpu_time() -> std::time::Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: fills `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    // SAFETY: zeroed or filled: valid either way.
    let time = unsafe { time.assume_init() };
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
