//! Unwinding from precompiled tables: `.eh_frame` becomes sorted rows ahead of time, off the sampled threads, and a
//! walk is a table look-up and two stack reads per frame. Pure code over bytes and a memory trait: no system calls,
//! no `unsafe`, and nothing that [`walk`] reaches may allocate, lock or panic.

mod compile;
mod rule;
mod table;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use compile::{compile, section_len};
pub(crate) use table::{CodeMap, LoadedTable, Table};
pub(crate) use walk::{End, Memory, Registers, walk};
