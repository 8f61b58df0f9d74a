//! What the profiler meets on its host: clocks that are refused, limits, threads that come and go, forks and execs. Each
//! test body runs in a child process of its own, as limits and filters cannot be taken back.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code)] // seccomp, rlimits

mod clocks;
#[path = "../common/forked.rs"]
mod forked;
#[path = "../common/nowhere.rs"]
mod nowhere;
mod process;
mod stacks;
mod support;
