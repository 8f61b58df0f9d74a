//! The kernel's software CPU clock as a perf event: a signal per period of a thread's CPU time, without any buffer.
#![allow(unsafe_code)] // system calls

use std::io;
use std::time::Duration;

/// `struct perf_event_attr` as its first version had it; the kernel takes later fields as zero.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config_1: u64,
}

const TYPE_SOFTWARE: u32 = 1;
const TASK_CLOCK: u64 = 1;
const DISABLED: u64 = 1 << 0;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const CLOSE_ON_EXEC: u64 = 1 << 3;
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const SET_PERIOD: libc::c_ulong = 0x4008_2404;
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_OWNER_TID: i32 = 0;

/// `struct f_owner_ex`
#[repr(C)]
struct Owner {
    kind: i32,
    id: i32,
}

/// An open event of one thread. Copies are the same event; whoever keeps it closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event(pub(crate) i32);

/// A disabled event that will send thread `tid` of this process `signal` after each `period` of its CPU time. Time in
/// the kernel counts, but only user code is interrupted: that much is allowed to everyone at paranoia level 2.
pub(crate) fn open(tid: i32, signal: i32, period: Duration) -> io::Result<Event> {
    let attributes = Attributes {
        kind: TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: TASK_CLOCK,
        sample_period: nanos(period),
        flags: DISABLED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR,
        wakeup_events: 1,
        ..Attributes::default()
    };
    // SAFETY: the structure is live, of the kernel's layout and of the size that it states.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, tid, -1, -1, CLOSE_ON_EXEC)
    };
    let event = Event(checked(fd)? as i32);
    match event.direct_to(tid, signal) {
        Ok(()) => Ok(event),
        Err(error) => {
            event.close();
            Err(error)
        }
    }
}

impl Event {
    fn direct_to(self, tid: i32, signal: i32) -> io::Result<()> {
        let owner = Owner { kind: F_OWNER_TID, id: tid };
        // SAFETY: `owner` is live and of the kernel's layout.
        checked(unsafe { libc::fcntl(self.0, F_SETOWN_EX, &raw const owner) }.into())?;
        // SAFETY: sets a number.
        checked(unsafe { libc::fcntl(self.0, F_SETSIG, signal) }.into())?;
        // SAFETY: sets flags.
        checked(unsafe { libc::fcntl(self.0, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) }.into())?;
        Ok(())
    }

    /// Starts it.
    pub(crate) fn enable(self) -> io::Result<()> {
        // SAFETY: the request takes no argument.
        checked(unsafe { libc::ioctl(self.0, ENABLE, 0) }.into()).map(drop)
    }

    /// Changes its period.
    pub(crate) fn set_period(self, period: Duration) -> io::Result<()> {
        let period = nanos(period);
        // SAFETY: the request reads a live 64-bit number.
        checked(unsafe { libc::ioctl(self.0, SET_PERIOD, &raw const period) }.into()).map(drop)
    }

    /// Stops it, also for a forked child that holds a copy, and closes it.
    pub(crate) fn close(self) {
        // SAFETY: the request takes no argument; on a stale number it is refused.
        unsafe { libc::ioctl(self.0, DISABLE, 0) };
        self.forget();
    }

    /// Closes this process's copy, and leaves the event to whom it belongs.
    pub(crate) fn forget(self) {
        // SAFETY: from `open`, closed once. A host that closes files which are not its own may have given the number to
        // another file since, and loses that: the kernel offers no way to tell.
        unsafe { libc::close(self.0) };
    }
}

/// How many files this process may have open.
pub(crate) fn open_files_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills `limit`.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}

fn nanos(period: Duration) -> u64 {
    period.as_nanos() as u64
}

fn checked(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
