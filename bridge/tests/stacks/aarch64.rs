//! Functions for aarch64 whose instructions are known one by one.

use std::arch::global_asm;

global_asm!(
    r#"
    .macro spanflame_function name
        .globl \name
        .hidden \name
        .type \name, @function
        \name:
        .cfi_startproc
    .endm
    .macro spanflame_end name
        .cfi_endproc
        \name\()_end:
        .size \name, . - \name
        .globl \name\()_end
        .hidden \name\()_end
    .endm
    .macro spanflame_record
        stp x29, x30, [sp, #-16]!
        .cfi_def_cfa_offset 16
        .cfi_offset x29, -16
        .cfi_offset x30, -8
        mov x29, sp
    .endm
    .macro spanflame_return
        ldp x29, x30, [sp], #16
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        ret
    .endm

    .text
    .p2align 4
    spanflame_function spanflame_leaf
        2: subs x0, x0, #1
        b.ne 2b
        ret
    spanflame_end spanflame_leaf

    // Directly before the trap, with a frame that no caller of the trap has.
    spanflame_function spanflame_before_trap
        sub sp, sp, #4096
        .cfi_def_cfa_offset 4096
        udf #0
    spanflame_end spanflame_before_trap
    spanflame_function spanflame_trap
        udf #0
        ret
    spanflame_end spanflame_trap
    spanflame_function spanflame_trap_caller
        spanflame_record
        bl spanflame_trap
        spanflame_return
    spanflame_end spanflame_trap_caller

    spanflame_function spanflame_stub_calls
        stp x29, x30, [sp, #-32]!
        .cfi_def_cfa_offset 32
        .cfi_offset x29, -32
        .cfi_offset x30, -24
        str x19, [sp, #16]
        .cfi_offset x19, -16
        mov x19, x0
        3: mov w0, #-1
        bl abs
        subs x19, x19, #1
        b.ne 3b
        ldr x19, [sp, #16]
        ldp x29, x30, [sp], #32
        .cfi_def_cfa_offset 0
        .cfi_restore x29
        .cfi_restore x30
        ret
    spanflame_end spanflame_stub_calls

    spanflame_function spanflame_chain_inner
        spanflame_record
        4: subs x0, x0, #1
        b.ne 4b
        spanflame_return
    spanflame_end spanflame_chain_inner
    spanflame_function spanflame_chain_middle
        spanflame_record
        bl spanflame_chain_inner
        spanflame_return
    spanflame_end spanflame_chain_middle
    spanflame_function spanflame_chain_outer
        spanflame_record
        bl spanflame_chain_middle
        spanflame_return
    spanflame_end spanflame_chain_outer

    spanflame_function spanflame_any_frame_pointer
        spanflame_record
        mov x29, x0
        5: subs x1, x1, #1
        b.ne 5b
        spanflame_return
    spanflame_end spanflame_any_frame_pointer
    "#
);

/// Linkers describe no stubs on this architecture.
pub(crate) const WHOLE_STACKS_WITH_STUBS: f64 = 0.0;

/// Signal handlers return into the kernel's code, which describes itself; an emulated kernel has none.
pub(crate) fn signal_frames_are_described() -> bool {
    // SAFETY: asks for a value of the process's auxiliary vector.
    (unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) }) != 0
}

/// After the four bytes of `udf`.
pub(crate) fn step_over_the_trap(context: &mut libc::ucontext_t) {
    context.uc_mcontext.pc += 4;
}
