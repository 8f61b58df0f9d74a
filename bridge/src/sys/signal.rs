//! The SIGPROF handler's shell: installing it, taking the kernel's structures apart, passing foreign signals on.
#![allow(unsafe_code)] // signal handlers

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{MaybeUninit, transmute};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::arch;
use crate::unwind::Registers;

/// The signal of every timer.
pub(crate) const SIGNAL: c_int = libc::SIGPROF;

/// What is done about a timer's signal.
pub(crate) trait OnTimer {
    /// Runs in the signal handler of the thread that was interrupted at `registers`: async-signal-safe, without panics.
    /// `false` means that `value` is of no timer of ours.
    fn on_timer(value: usize, overrun: u32, registers: Registers) -> bool;

    /// The same for the signal of a clock that cannot carry a value.
    fn on_clock(origin: Origin, registers: Registers) -> bool;
}

/// Where a signal without a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The kernel itself: the process-wide profiling timer.
    Kernel,
    /// An open file with this number: a perf event.
    File(i32),
}

/// `si_code` of a file that has something to say: `POLL_IN`, `POLL_HUP` and what lies between.
const FILE: std::ops::RangeInclusive<c_int> = 1..=6;

/// The kernel's `siginfo_t` of a timer. That of a file has its number in the low half of `value`.
#[repr(C)]
struct TimerInfo {
    signal: c_int,
    errno: c_int,
    code: c_int,
    _padding: c_int,
    timer: c_int,
    overrun: c_int,
    value: usize,
}

/// The signature of a handler installed with `SA_SIGINFO`.
pub(crate) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

// The handler found when ours was installed: its address, or 0 for none, and whether it takes three arguments.
static PREVIOUS: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS_TAKES_INFO: AtomicBool = AtomicBool::new(false);
/// The address of our handler once it is installed.
static OURS: AtomicUsize = AtomicUsize::new(0);

/// How the handler came to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installed {
    /// It is, and foreign signals go to nobody or, if `chained`, to the handler that was there before.
    Yes { chained: bool },
    /// It is not: someone put another one over it.
    Replaced,
}

/// The handler that runs `H` on signals of timers; every other signal goes to the handler that was there before.
pub(crate) extern "C" fn handler<H: OnTimer>(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the kernel passes a valid siginfo_t; `TimerInfo` is its layout when the code is SI_TIMER, and the fields up
    // to the code are common to all.
    let timer = unsafe { &*info.cast::<TimerInfo>() };
    // SAFETY: the kernel passes a valid ucontext_t as third argument.
    let registers = arch::interrupted(unsafe { &*context.cast::<libc::ucontext_t>() });
    let taken = if timer.code == libc::SI_TIMER {
        H::on_timer(timer.value, timer.overrun.max(0) as u32, registers)
    } else if timer.code == libc::SI_KERNEL {
        H::on_clock(Origin::Kernel, registers)
    } else if FILE.contains(&timer.code) {
        H::on_clock(Origin::File(timer.value as i32), registers)
    } else {
        false
    };
    if taken {
        return;
    }
    pass_on(signal, info, context);
}

/// On its own, so that it can be told apart in the machine code: the one place that calls what is not ours.
#[cold]
#[inline(never)]
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.load(Ordering::Acquire);
    if previous == 0 {
        return;
    }
    if PREVIOUS_TAKES_INFO.load(Ordering::Relaxed) {
        // SAFETY: the address of a handler that was installed with SA_SIGINFO.
        let previous = unsafe { transmute::<usize, Handler>(previous) };
        previous(signal, info, context);
    } else {
        // SAFETY: the address of a handler that was installed without SA_SIGINFO.
        let previous = unsafe { transmute::<usize, extern "C" fn(c_int)>(previous) };
        previous(signal);
    }
}

/// Installs the handler unless it is installed already.
pub(crate) fn install<H: OnTimer>() -> io::Result<Installed> {
    let current = current()?;
    let ours = OURS.load(Ordering::Acquire);
    let chained = || PREVIOUS.load(Ordering::Acquire) != 0;
    if ours != 0 && current.sa_sigaction == ours {
        return Ok(Installed::Yes { chained: chained() });
    }
    let occupied = current.sa_sigaction != libc::SIG_DFL && current.sa_sigaction != libc::SIG_IGN;
    if ours != 0 && occupied {
        // It may pass foreign signals on to ours, as ours would to it.
        return Ok(Installed::Replaced);
    }
    PREVIOUS_TAKES_INFO.store(current.sa_flags & libc::SA_SIGINFO != 0, Ordering::Relaxed);
    PREVIOUS.store(if occupied { current.sa_sigaction } else { 0 }, Ordering::Release);

    let ours = handler::<H> as Handler as usize;
    // SAFETY: a plain C structure for which zero is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = ours;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is valid, and its handler is async-signal-safe.
    if unsafe { libc::sigaction(SIGNAL, &action, null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    OURS.store(ours, Ordering::Release);
    stay_loaded(ours);
    Ok(Installed::Yes { chained: chained() })
}

/// Keeps the library that holds `code` in memory for good, if it is in one: whoever closes it cannot take back the
/// handler, nor a signal that is under way.
fn stay_loaded(code: usize) {
    let mut found = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: looks an address up, and fills `found` or leaves it zeroed.
    if unsafe { libc::dladdr(code as *const c_void, found.as_mut_ptr()) } == 0 {
        return;
    }
    // SAFETY: zeroed or filled: valid either way.
    let name = unsafe { found.assume_init() }.dli_fname;
    if !name.is_null() {
        // SAFETY: the loader's own string; loads nothing anew. Of a program it finds none, which needs no keeping.
        unsafe { libc::dlopen(name, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    }
}

/// Whether the handler that was installed is still there.
pub(crate) fn still_installed() -> bool {
    current().is_ok_and(|action| action.sa_sigaction == OURS.load(Ordering::Acquire))
}

/// Takes this handler, which calls ours, for ours.
#[cfg(feature = "bench-internals")]
pub(crate) fn accept_wrapper(handler: usize) {
    OURS.store(handler, Ordering::Release);
}

/// Sends the calling thread what a timer with `value` would; it has been handled on return.
pub(crate) fn send_own(value: usize) {
    #[repr(C)]
    struct Whole {
        info: TimerInfo,
        rest: [u64; 12],
    }

    let info = TimerInfo {
        signal: SIGNAL,
        errno: 0,
        code: libc::SI_TIMER,
        _padding: 0,
        timer: 0,
        overrun: 0,
        value,
    };
    let whole = Whole { info, rest: [0; 12] };
    let (process, thread) = (std::process::id(), super::thread::id());
    // SAFETY: `whole` has the layout and the size of the kernel's siginfo_t, and the handler of the signal is ours.
    unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, SIGNAL, &raw const whole) };
}

fn current() -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks, and fills `action`.
    if unsafe { libc::sigaction(SIGNAL, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled above.
    Ok(unsafe { action.assume_init() })
}

/// Installs `H` for another signal, for good and without regard for who had it.
#[cfg(test)]
pub(crate) fn install_for_test<H: OnTimer>(signal: c_int) {
    // SAFETY: a plain C structure for which zero is a valid value.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler::<H> as Handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: `action` is valid.
    assert_eq!(unsafe { libc::sigaction(signal, &action, null_mut()) }, 0);
}
