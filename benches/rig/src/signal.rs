//! Stands before the profiler's signal handler: forges its signals and times its body.
#![allow(unsafe_code)] // signal actions, a raw system call, the profiler's handler called by address

use crate::clock::cycles;
use anyhow::{Result, bail};
use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Timings kept between two calls of [`take_timings`].
const KEPT: usize = 4096;

static INNER: AtomicUsize = AtomicUsize::new(0);
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static TIMINGS: [AtomicU64; KEPT] = [const { AtomicU64::new(0) }; KEPT];

/// The wrapper. Unmangled, since callgrind is told to count inside this function alone.
#[unsafe(no_mangle)]
extern "C" fn spanflame_bench_handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: only `Wrapped` stores here, and only addresses of handlers.
    let inner: Handler = unsafe { std::mem::transmute(INNER.load(Relaxed)) };
    let start = cycles();
    inner(signal, info, context);
    let elapsed = cycles() - start;
    let index = HANDLED.fetch_add(1, Relaxed);
    TIMINGS[index % KEPT].store(elapsed, Relaxed);
}

extern "C" fn empty(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// The profiler's own `SIGPROF` handler, with the wrapper in front of it.
pub(crate) struct Wrapped {
    handler: usize,
}

impl Wrapped {
    /// Takes over whatever handler the profiler has installed.
    pub(crate) fn install() -> Result<Self> {
        // SAFETY: all-zero bytes are a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only reads the present action into a valid place.
        unsafe { libc::sigaction(libc::SIGPROF, std::ptr::null(), &mut action) };
        let handler = action.sa_sigaction;
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            bail!("the profiler has installed no SIGPROF handler");
        }
        if handler != spanflame_bench_handler as *const () as usize {
            INNER.store(handler, Relaxed);
            action.sa_sigaction = spanflame_bench_handler as *const () as usize;
            action.sa_flags |= libc::SA_SIGINFO;
            // SAFETY: the wrapper has the signature that SA_SIGINFO asks for.
            unsafe { libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()) };
        }
        Ok(Self { handler: INNER.load(Relaxed) })
    }

    /// The wrapper's address.
    pub(crate) fn address(&self) -> usize {
        spanflame_bench_handler as *const () as usize
    }

    /// Puts an empty handler behind the wrapper, or the profiler's again.
    pub(crate) fn set_empty(&self, is_empty: bool) {
        INNER.store(if is_empty { empty as *const () as usize } else { self.handler }, Relaxed);
    }
}

/// How many signals the wrapper has seen.
pub(crate) fn handled() -> u64 {
    HANDLED.load(Relaxed) as u64
}

/// The last `count` timings in cycles.
pub(crate) fn take_timings(count: usize) -> Vec<u64> {
    let end = HANDLED.load(Relaxed);
    (end.saturating_sub(count.min(KEPT))..end).map(|index| TIMINGS[index % KEPT].load(Relaxed)).collect()
}

/// A signal like the one a thread's CPU timer sends, for the thread that made this.
pub struct Forged {
    process: i32,
    thread: i64,
    info: [u64; 16],
}

impl Forged {
    /// For the calling thread; `value` is what the handler finds in `si_value`.
    pub fn new(value: usize) -> Self {
        const SI_TIMER: i32 = -2;
        let mut info = [0; 16];
        // The kernel's layout: signo, errno, code, padding; then timer id, overrun, value.
        info[0] = libc::SIGPROF as u64;
        info[1] = u64::from(SI_TIMER as u32);
        info[3] = value as u64;
        // SAFETY: has no arguments and cannot fail.
        let process = unsafe { libc::getpid() };
        // SAFETY: as above.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        Self { process, thread, info }
    }

    /// Sends it. On the thread that it is for, it is handled before this returns. Inlined, without libc, so that it
    /// adds no frame.
    #[inline(always)]
    pub fn send(&self) {
        // SAFETY: rt_tgsigqueueinfo to a thread of this process; `info` outlives the call.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") libc::SYS_rt_tgsigqueueinfo => _,
                in("rdi") i64::from(self.process),
                in("rsi") self.thread,
                in("rdx") i64::from(libc::SIGPROF),
                in("r10") self.info.as_ptr(),
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
    }
}

/// Waits until more than `seen` signals are handled. Only an emulator that holds a thread's signal back until
/// its next system call needs this; inlined, without libc, so that it adds no frame.
#[inline(always)]
pub(crate) fn settle(seen: u64) {
    while handled() == seen {
        // SAFETY: sched_yield has no arguments.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") libc::SYS_sched_yield => _,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
    }
}

/// Blocks the profiling signal on the calling thread, or lets it through again.
pub(crate) fn set_blocked(is_blocked: bool) {
    let how = if is_blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: all-zero bytes are a valid, empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set.
    unsafe { libc::sigaddset(&mut set, libc::SIGPROF) };
    // SAFETY: `set` is valid, and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
}

/// Arms the process's interval timer, the clock of both peers, or disarms it.
pub fn set_interval_timer(hz: Option<u32>) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: hz.map_or(0, |hz| 1_000_000 / i64::from(hz)) };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: `timer` is a valid setting; the handler of the signal is installed.
    unsafe { libc::syscall(libc::SYS_setitimer, libc::ITIMER_PROF, &raw const timer, 0) };
}
