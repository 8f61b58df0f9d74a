//! Span profiles for Rust services.

#[cfg(all(feature = "bench-internals", target_os = "linux", target_arch = "x86_64"))]
#[doc(hidden)]
pub mod bench_support;
mod sampler;
mod spans;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unwind;
