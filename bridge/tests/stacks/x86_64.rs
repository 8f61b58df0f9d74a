//! Functions for x86-64 whose instructions are known one by one.

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

    .text
    .p2align 4
    spanflame_function spanflame_leaf
        2: dec rdi
        jnz 2b
        ret
    spanflame_end spanflame_leaf

    # Directly before the trap, with a frame that no caller of the trap has.
    spanflame_function spanflame_before_trap
        sub rsp, 4096
        .cfi_adjust_cfa_offset 4096
        ud2
    spanflame_end spanflame_before_trap
    spanflame_function spanflame_trap
        ud2
        ret
    spanflame_end spanflame_trap
    spanflame_function spanflame_trap_caller
        push rbx
        .cfi_adjust_cfa_offset 8
        call spanflame_trap
        pop rbx
        .cfi_adjust_cfa_offset -8
        ret
    spanflame_end spanflame_trap_caller

    spanflame_function spanflame_stub_calls
        push rbx
        .cfi_adjust_cfa_offset 8
        mov rbx, rdi
        3: mov edi, -1
        call abs@PLT
        dec rbx
        jnz 3b
        pop rbx
        .cfi_adjust_cfa_offset -8
        ret
    spanflame_end spanflame_stub_calls

    spanflame_function spanflame_chain_inner
        push rbp
        mov rbp, rsp
        4: dec rdi
        jnz 4b
        pop rbp
        ret
    spanflame_end spanflame_chain_inner
    spanflame_function spanflame_chain_middle
        push rbp
        mov rbp, rsp
        call spanflame_chain_inner
        pop rbp
        ret
    spanflame_end spanflame_chain_middle
    spanflame_function spanflame_chain_outer
        push rbp
        mov rbp, rsp
        call spanflame_chain_middle
        pop rbp
        ret
    spanflame_end spanflame_chain_outer

    spanflame_function spanflame_any_frame_pointer
        push rbp
        mov rbp, rdi
        5: dec rsi
        jnz 5b
        pop rbp
        ret
    spanflame_end spanflame_any_frame_pointer
    "#
);

/// All of its stubs are described.
pub(crate) const WHOLE_STACKS_WITH_STUBS: f64 = 0.95;

/// The C library returns from signals through code of its own, which is described.
pub(crate) fn signal_frames_are_described() -> bool {
    true
}

/// After the two bytes of `ud2`.
pub(crate) fn step_over_the_trap(context: &mut libc::ucontext_t) {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] += 2;
}
