//! What only assembly can say, and where the kernel's structures keep registers: one module per architecture, each with
//! the same few functions.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use self::aarch64::{control_block, cycles, here, interrupted, raw_call, stack_pointer};
#[cfg(target_arch = "x86_64")]
pub(crate) use self::x86_64::{control_block, cycles, here, interrupted, raw_call, stack_pointer};
