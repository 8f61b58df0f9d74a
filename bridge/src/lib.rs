//! Span profiles for Rust services.

mod aggregate;
#[cfg(all(feature = "bench-internals", target_os = "linux", target_arch = "x86_64"))]
#[doc(hidden)]
pub mod bench_support;
mod config;
mod context;
mod error;
mod export;
mod labels;
mod live;
mod processor;
mod profiler;
mod sampler;
mod spans;
mod stats;
mod symbolize;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sys;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod unwind;

pub use config::{ProfilerBuilder, Scope, TraceIdLabel};
pub use error::{ConfigError, FlushError, StartError};
pub use export::file::FileExporter;
#[cfg(feature = "push")]
pub use export::push::PyroscopeExporter;
pub use export::{ExportError, Profile, ProfileExporter, Receiver};
pub use processor::{NoProcessor, PROFILE_ID, SpanProfileProcessor};
pub use profiler::{Profiler, profile_spans};
pub use stats::{Lost, Stats};
