//! Span profiles for Rust services.
//!
//! Open a trace in Grafana, press *Profiles for this span*, and see the flame graph of the CPU time that this very span
//! used. This crate is the half that runs inside your service:
//!
//! - a span processor puts `pyroscope.profile.id` on your OpenTelemetry spans;
//! - a sampler takes CPU stacks, each stamped with the span that was *active on that thread at that instant*: across
//!   `.await`, worker threads and nested spans;
//! - an exporter pushes them as pprof to a Spanflame or Grafana Pyroscope server.
//!
//! Linux on x86-64, and on aarch64, where it compiles and its unwind rules are checked against real libraries, but has not
//! been run yet. Elsewhere the crate compiles, `start()` says that it is unsupported, and spans flow as before.
//!
//! # Quick start
//!
//! ## One call
//!
//! Wrap the span processor that you already have. Settings come from the environment.
//!
//! ```rust,no_run
//! use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
//! # use opentelemetry_sdk::trace::InMemorySpanExporter;
//! # fn main() {
//! # let exporter = InMemorySpanExporter::default();
//! let provider = SdkTracerProvider::builder()
//!     .with_span_processor(spanflame::profile_spans(BatchSpanProcessor::builder(exporter).build()))
//!     .build();
//! // At the end: delivers the last spans and the last profile.
//! provider.shutdown().ok();
//! # }
//! ```
//!
//! It never fails: if profiling cannot start, the reason is logged through `tracing` and spans are not affected.
//!
//! ## `tracing`
//!
//! Nothing more to do. `tracing-opentelemetry` 0.32 and later activates a span's context whenever it is entered, and
//! `#[instrument]` and `.instrument(span)` enter it on every poll.
//!
//! ```rust,no_run
//! use opentelemetry::trace::TracerProvider as _;
//! use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
//! use tracing_subscriber::layer::SubscriberExt as _;
//! # use opentelemetry_sdk::trace::InMemorySpanExporter;
//! # fn main() {
//! # let exporter = InMemorySpanExporter::default();
//! let provider = SdkTracerProvider::builder()
//!     .with_span_processor(spanflame::profile_spans(BatchSpanProcessor::builder(exporter).build()))
//!     .build();
//! let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
//! let subscriber = tracing_subscriber::registry().with(layer);
//! # drop(subscriber);
//! # }
//! ```
//!
//! Keep the layer's context activation on (it is by default), or add a
//! [`SpanProfileLayer`](#where-another-component-observes-contexts).
//!
//! ## Plain OpenTelemetry
//!
//! A span has a profile while its context is current: `in_span` sees to that for a closure, [`attach`] for a scope,
//! [`with_span_profile`](SpanProfileExt::with_span_profile) for a future. OpenTelemetry's own `attach` and
//! `with_context` do as well.
//!
//! ```rust
//! use opentelemetry::Context;
//! use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
//! use spanflame::SpanProfileExt as _;
//! # use opentelemetry_sdk::trace::SdkTracerProvider;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let provider = SdkTracerProvider::builder().build();
//! let tracer = provider.tracer("shop");
//! tracer.in_span("read", |_cx| { /* counts for "read" */ });
//!
//! let cx = Context::current_with_span(tracer.start("resize"));
//! {
//!     let _active = spanflame::attach(cx.clone());
//!     // Counts for "resize".
//! }
//! async { /* counts for "resize", on whichever thread */ }.with_span_profile(cx.clone()).await;
//! cx.span().end();
//! # }
//! ```
//!
//! ## A guard, settings in code, several processors
//!
//! ```rust,no_run
//! use std::time::Duration;
//! use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};
//! # use opentelemetry_sdk::trace::InMemorySpanExporter;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let exporter = InMemorySpanExporter::default();
//! let profiler = spanflame::Profiler::builder()
//!     .server_address("http://127.0.0.1:4040")
//!     .service_name("checkout")
//!     .label("region", "eu")
//!     .frequency(100)
//!     .start()?;
//!
//! let provider = SdkTracerProvider::builder()
//!     .with_span_processor(profiler.wrap(BatchSpanProcessor::builder(exporter).build()))
//!     .build();
//!
//! println!("{:?}", profiler.stats());
//! profiler.shutdown(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Profiler::span_processor`] is a processor to add beside others, where wrapping is not possible. The SDK then copies
//! each span once more when it ends.
//!
//! ## Beside a `pyroscope` agent
//!
//! With the feature `pyroscope`, change the agent's backend. The agent goes on pushing, under its own application name
//! and tags; samples now carry spans.
//!
//! ```rust,no_run
//! # #[cfg(feature = "pyroscope")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use pyroscope::pyroscope::PyroscopeAgentBuilder;
//!
//! let (profiler, backend) = spanflame::Profiler::builder().frequency(100).pyroscope_backend()?;
//! let url = "http://127.0.0.1:4040";
//! let agent = PyroscopeAgentBuilder::new(url, "checkout", 100, "spanflame", "0.1.0", backend).build()?.start()?;
//! // … and at the end:
//! agent.stop()?.shutdown();
//! # drop(profiler);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "pyroscope"))]
//! # fn main() {}
//! ```
//!
//! At the end, stop the agent first: its last report takes the last samples. Leave the agent's feature `backend-pprof-rs`
//! out: two samplers in one process disturb each other.
//!
//! # Work that leaves its task
//!
//! Labels follow OpenTelemetry's context. `spawn_blocking`, `std::thread::spawn` and rayon do not carry it, so what
//! runs there belongs to no span, unless you take it along:
//!
//! ```rust
//! use spanflame::in_current_context;
//! # #[tokio::main]
//! # async fn main() -> Result<(), tokio::task::JoinError> {
//! tokio::task::spawn_blocking(in_current_context(|| {
//!     // The CPU time used here counts for the span.
//! }))
//! .await?;
//!
//! let thread = std::thread::spawn(in_current_context(|| { /* so does this */ }));
//! # thread.join().expect("no panic");
//!
//! rayon::spawn(in_current_context(|| { /* and this */ }));
//! # Ok(())
//! # }
//! ```
//!
//! A closure that runs many times attaches the context itself:
//!
//! ```rust
//! use opentelemetry::Context;
//! use rayon::prelude::*;
//!
//! let cx = Context::current();
//! let thumbnails: Vec<String> = ["a.png", "b.png"]
//!     .par_iter()
//!     .map_init(|| spanflame::attach(cx.clone()), |_active, file| file.to_uppercase())
//!     .collect();
//! # assert_eq!(thumbnails, ["A.PNG", "B.PNG"]);
//! ```
//!
//! For a task of its own, [`with_current_span_profile`](SpanProfileExt::with_current_span_profile), or with `tracing`,
//! `.instrument(Span::current())`.
//!
//! [`Profiler::unlabelled`] says how much CPU time runs in no span and where it begins; so do the comments of each
//! profile, and one warning if it is most of it.
//!
//! # Where another component observes contexts
//!
//! OpenTelemetry has one context observer slot per process. If another component took it first, the profiler says so in
//! its log, [`Stats::label_source`] is not [`LabelSource::Observer`], and what labels threads is what your code attaches
//! through this crate. Where the slot is the profiler's, all of it works the same and costs nothing extra, so it need
//! not be taken out again.
//!
//! - For a scope, [`attach`] in place of `Context::attach`; for a future,
//!   [`with_span_profile`](SpanProfileExt::with_span_profile) in place of `with_context`:
//!
//!   ```rust
//!   use opentelemetry::Context;
//!   use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
//!   use spanflame::SpanProfileExt as _;
//!   # use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
//!
//!   async fn checkout(tracer: &SdkTracer) {
//!       let cx = Context::current_with_span(tracer.start("checkout"));
//!       async {
//!           let cx = Context::current_with_span(tracer.start("price"));
//!           let _active = spanflame::attach(cx);
//!           // Synchronous work; the guard is gone before the next `.await`.
//!       }
//!       .with_span_profile(cx.clone())
//!       .await;
//!       cx.span().end();
//!   }
//!   # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
//!   # runtime.block_on(checkout(&SdkTracerProvider::builder().build().tracer("shop")));
//!   ```
//! - With `tracing`, `SpanProfileLayer` of the feature `tracing-layer`, after OpenTelemetry's layer. It also serves
//!   where that was told `with_context_activation(false)`:
//!
//!   ```rust
//!   # #[cfg(feature = "tracing-layer")]
//!   # fn main() {
//!   # use opentelemetry::trace::TracerProvider as _;
//!   # use tracing_subscriber::layer::SubscriberExt as _;
//!   # let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
//!   let subscriber = tracing_subscriber::registry()
//!       .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("shop")))
//!       .with(spanflame::SpanProfileLayer::new());
//!   # drop(subscriber);
//!   # }
//!   # #[cfg(not(feature = "tracing-layer"))]
//!   # fn main() {}
//!   ```
//! - [`label_at_start`](ProfilerBuilder::label_at_start) where the code cannot be changed and is synchronous: a span
//!   labels the thread that starts it. It is wrong for asynchronous code.
//!
//! Spans are tagged from the first use of one of these on. Work in a span that none of them carries counts for the span
//! around it that one does, or for none.
//!
//! # Which spans have profiles
//!
//! | scope | `pyroscope.profile.id` on | a sample counts for |
//! |---|---|---|
//! | `root` | local roots: spans without a parent in this process | the local root |
//! | `all` | every sampled span | the innermost active span |
//! | `auto` (default) | as `all` on a Spanflame server, which adds children up into their parents; as `root` elsewhere and until the server has answered | |
//!
//! Only sampled spans are tagged and only tagged spans are labels, so *Profiles for this span* leads to a profile
//! whenever the span used enough CPU time to be sampled.
//!
//! # What it costs
//!
//! - A sample runs a signal handler on the sampled thread: no lock, no allocation, and no system call once the thread's
//!   stack is known. Until then, which is a fraction of a second on a thread that has not met a span, the kernel is asked
//!   about each page of it. At the default 100 Hz that is at most 100 times per second of CPU time and thread.
//! - Making a context with a span: a look-up and one small allocation. Attaching and detaching it: one look at what was
//!   found and one store; a thread's first time registers it, under a lock.
//! - Starting and ending a span: an attribute and an entry in a fixed table. With span names on (the default), also a
//!   copy of each tagged span's data at its start, as the SDK offers no other way to read its name;
//!   `SPANFLAME_SPAN_NAMES=off` saves it.
//! - Two background threads, a fixed 2 MB table of live spans, and at most 10 MB of symbols of the addresses that were
//!   seen. Symbols are read on a third thread, which ends with that and takes its memory along.
//! - While the server is away: at most 8 MB of compressed profiles wait, the oldest go first, everything dropped is
//!   counted in [`Stats::lost`]. Nothing that is sampled ever waits for it.
//!
//! # Limits
//!
//! - **Short spans.** At 100 Hz a span needs about 10 ms of CPU time for one sample on average, 50 ms for a picture.
//!   Spans that are short but many add up by name, not by id. A higher `frequency` helps up to the kernel's tick (often
//!   250 Hz): beyond it samples do not get more frequent, they only count for less or more.
//!   [`Stats::effective_frequency`] says what is reached.
//! - **CPU time only.** A span that waits uses no CPU and has no samples.
//! - **A span that is started but never made current** has no samples.
//! - **A context guard held across `.await`** on a `LocalSet` or in `block_on` leaks into other tasks of that thread;
//!   use `with_context` or `instrument`.
//! - **One observer.** OpenTelemetry has a single context observer slot per process. If another component took it
//!   first, contexts have to be attached [through this crate](#where-another-component-observes-contexts); until then
//!   no span is tagged and no sample labelled.
//! - **Work stealing.** A rayon job that waits for others may run a stolen one meanwhile. One that attaches nothing
//!   counts for the span of the job that waits.
//! - **The attribute limit.** A span at its limit cannot be tagged. With span names on it is then left out and counted in
//!   [`Lost::attribute_refused`]. With `SPANFLAME_SPAN_NAMES=off` that is not looked at: its samples are labelled,
//!   but nothing in the trace leads to them.
//! - **Long span names** are cut at 256 bytes.
//! - **Names of inlined functions** have no type in their path, and inlined async functions no name, where the binary has
//!   line tables only. `debug = "limited"` in the profile has them.
//! - **Another handler for SIGPROF** put over the profiler's stops its samples. It says so in the log and in
//!   [`Stats::handler_replaced`], and tags no span until its handler is back.
//! - **A forked child** that does not call `exec` is not profiled, and its spans are not tagged, until it starts a
//!   profiler of its own.
//!
//! Every setting and its variable: [`ProfilerBuilder`].

mod aggregate;
#[cfg(all(
    feature = "bench-internals",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[doc(hidden)]
pub mod bench_support;
mod carrier;
mod config;
mod context;
mod deadline;
mod error;
mod export;
#[cfg(all(fuzzing, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[doc(hidden)]
pub mod fuzzing;
mod governor;
mod labels;
mod live;
mod log;
#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod model_test;
mod processor;
mod profiler;
mod sampler;
mod spans;
mod stats;
mod symbolize;
mod sync;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sys;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unwind;

#[cfg(feature = "tracing-layer")]
pub use carrier::SpanProfileLayer;
pub use carrier::{ContextGuard, SpanProfileExt, WithSpanProfile, attach, in_current_context};
pub use config::{Clock, ProfilerBuilder, Scope, SpanNames, TraceIdLabel, Unwinder};
pub use error::{ConfigError, FlushError, StartError};
pub use export::file::FileExporter;
#[cfg(feature = "push")]
pub use export::push::PyroscopeExporter;
pub use export::unlabelled::{CallSite, UnlabelledCpu};
pub use export::{ExportError, Profile, ProfileExporter, Receiver};
pub use processor::{NoProcessor, PROFILE_ID, SpanProfileProcessor};
pub use profiler::{Profiler, profile_spans, register_thread};
pub use stats::{Folded, LabelSource, Lost, SelfTest, Stats, Truncated, UnwindTables};
