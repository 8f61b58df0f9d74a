//! Walking stacks. From precompiled tables: `.eh_frame` becomes sorted rows ahead of time, off the sampled threads, and a
//! walk is a table look-up and two stack reads per frame. Or along frame pointers, where code is built with them. Pure
//! code over bytes and a memory trait: no system calls, no `unsafe`, and nothing that [`walk`] or [`follow`] reaches may
//! allocate, lock or panic.

mod arch;
mod compile;
mod frame_pointers;
mod rule;
mod table;
mod walk;

#[cfg(test)]
pub(crate) mod oracle;
#[cfg(test)]
mod tests;

pub(crate) use arch::Native;
#[cfg(any(test, fuzzing))]
pub(crate) use arch::{Aarch64, Architecture, X86_64};
pub(crate) use compile::{Code, compile, section_len};
#[cfg(any(test, fuzzing))]
pub(crate) use frame_pointers::Upwards;
pub(crate) use frame_pointers::{Records, follow, until_entry};
pub(crate) use table::{CodeMap, LoadedTable, Table};
pub(crate) use walk::{End, Memory, Registers, walk};
