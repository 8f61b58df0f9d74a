//! Span profiles for Rust services.

mod aggregate;
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

pub use config::{ProfilerBuilder, Scope, TraceIdLabel};
pub use error::{ConfigError, FlushError, StartError};
pub use export::file::FileExporter;
#[cfg(feature = "push")]
pub use export::push::PyroscopeExporter;
pub use export::{ExportError, Profile, ProfileExporter, Receiver};
pub use processor::{NoProcessor, PROFILE_ID, SpanProfileProcessor};
pub use profiler::{Profiler, profile_spans};
pub use stats::{Lost, Stats};
