//! Span profiles for Rust services.

mod sampler;
mod spans;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unwind;
