//! x86-64.
#![allow(unsafe_code)] // assembly

use std::arch::asm;

use crate::unwind::Registers;

/// The registers at which a signal interrupted its thread.
#[inline]
pub(crate) fn interrupted(context: &libc::ucontext_t) -> Registers {
    let registers = &context.uc_mcontext.gregs;
    Registers {
        ip: registers[libc::REG_RIP as usize] as u64,
        sp: registers[libc::REG_RSP as usize] as u64,
        fp: registers[libc::REG_RBP as usize] as u64,
        lr: 0,
    }
}

/// The registers in the function that this is inlined into.
#[inline(always)]
pub(crate) fn here() -> Registers {
    let (ip, sp, fp): (u64, u64, u64);
    // SAFETY: copies registers.
    unsafe {
        asm!(
            "lea {ip}, [rip]",
            "mov {sp}, rsp",
            "mov {fp}, rbp",
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
    // SAFETY: reads the word that the thread-local storage ABI puts at fs:0.
    unsafe { asm!("mov {}, fs:[0]", out(reg) address, options(nostack, readonly, preserves_flags)) };
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
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            lateout("rcx") _,
            lateout("r11") _,
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
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Cycles of the processor's invariant counter since some moment. Its rate is for the caller to find out.
#[inline]
pub(crate) fn cycles() -> u64 {
    // SAFETY: reads a counter; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}
