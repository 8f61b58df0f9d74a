//! The part of a benchmark that runs inside the measured process, the same source for every profiler.
//!
//! A profiler under test is a [`Subject`] in a process of its own (two of the peers cannot even be linked into
//! one program). [`serve`] answers [`Request`]s from standard input with one JSON line each, so the side that
//! compares can keep all processes alive and interleave their rounds. This crate measures; it does not compare
//! and does not know any profiler.

mod measurement;
mod protocol;

pub use measurement::Measurement;
pub use protocol::{
    Attribution, Cost, Delivery, HandlerStack, HandlerTime, Overhead, Profile, Request, Storm, Subject,
    WeightedStack,
};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod busy;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod chain;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod clock;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod evict;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod overhead;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod serve;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod signal;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stack;
mod stats;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod storm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod upkeep;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use clock::{process_cpu, thread_cpu};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use serve::serve;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use signal::{Forged, set_interval_timer};
pub use stats::{median, time_per_call, trimmed_mean};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use upkeep::{cpu_per_window, cpu_to_start, peak_resident_memory, resident_memory};
