//! The only modules of the sampler with `unsafe` code: thin wrappers around system calls, raw memory and signals.
//! They decide nothing; what to do with what they return is the caller's business.

pub(crate) mod arch;
pub(crate) mod modules;
pub(crate) mod pages;
pub(crate) mod perf;
pub(crate) mod published;
pub(crate) mod signal;
pub(crate) mod stack;
pub(crate) mod thread;
pub(crate) mod timer;
