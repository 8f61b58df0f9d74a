//! 64-bit Arm.
#![allow(unsafe_code)] // assembly

use std::arch::asm;

use crate::unwind::Registers;

/// The registers at which a signal interrupted its thread.
#[inline]
pub(crate) fn interrupted(context: &libc::ucontext_t) -> Registers {
    let machine = &context.uc_mcontext;
    Registers { ip: machine.pc, sp: machine.sp, fp: machine.regs[29], lr: machine.regs[30] }
}

/// The registers in the function that this is inlined into. The link register is left out: nobody can say whether it
/// still holds the return address.
#[inline(always)]
pub(crate) fn here() -> Registers {
    let (ip, sp, fp): (u64, u64, u64);
    // SAFETY: copies registers.
    unsafe {
        asm!(
            "adr {ip}, .",
            "mov {sp}, sp",
            "mov {fp}, x29",
            ip = out(reg) ip,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    Registers { ip, sp, fp, lr: 0 }
}

/// The address of the calling thread's control block.
#[inline]
pub(crate) fn control_block() -> u64 {
    let address: u64;
    // SAFETY: reads the register that the thread-local storage ABI gives to the thread pointer.
    unsafe { asm!("mrs {}, tpidr_el0", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// A system call. Async-signal-safe, unlike libc's wrappers: errno stays as it is.
///
/// # Safety
/// The call must be sound with these arguments.
#[inline]
pub(crate) unsafe fn raw_call(number: libc::c_long, arguments: [u64; 4]) -> i64 {
    let [first, second, third, fourth] = arguments;
    let result: i64;
    // SAFETY: the kernel's calling convention; the caller answers for the arguments.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            options(nostack),
        );
    }
    result
}

/// How far the calling thread's stack reaches now.
#[inline]
pub(crate) fn stack_pointer() -> u64 {
    let sp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Cycles of the processor's virtual counter since some moment. Its rate is for the caller to find out.
#[inline]
pub(crate) fn cycles() -> u64 {
    let count: u64;
    // SAFETY: reads a counter that Linux lets every program read.
    unsafe { asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags)) };
    count
}
