//! Carries labels to threads where OpenTelemetry's context observer is another component's: a guard, a future wrapper,
//! a closure wrapper, a `tracing` layer, and labels at the start of a span.
//!
//! One stack decides what a thread's label is: OpenTelemetry's, where we observe it, else the thread's own in
//! [`stack`]. So each carrier attaches the context, and only where nobody tells us of that labels the thread, too.
//! Nothing here logs: carriers work inside other libraries' callbacks.

mod future;
#[cfg(feature = "tracing-layer")]
mod layer;
mod stack;
pub(crate) mod start;

use opentelemetry::Context;

pub use self::future::{SpanProfileExt, WithSpanProfile};
#[cfg(feature = "tracing-layer")]
pub use self::layer::SpanProfileLayer;
use crate::context;
use crate::live::{self, Live};
use crate::spans::SpanKey;

/// Makes `cx` the current context of this thread and its span the one that samples count for, until the guard is
/// dropped: [`Context::attach`] that also works where another component has OpenTelemetry's context observer slot.
///
/// Where the slot is the profiler's, this is [`Context::attach`] and nothing more. As there, do not hold the guard
/// across an `.await`: use [`SpanProfileExt::with_span_profile`].
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
/// # let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
///
/// let tracer = provider.tracer("shop");
/// let cx = Context::current_with_span(tracer.start("resize"));
/// {
///     let _active = spanflame::attach(cx.clone());
///     // The CPU time used here counts for the span.
/// }
/// cx.span().end();
/// ```
#[inline]
pub fn attach(cx: Context) -> ContextGuard {
    let label = (!live::observed()).then(|| {
        live::labelled_by(live::WRAPPERS);
        stack::push(Live::existing().map_or(SpanKey::NONE, |live| context::key(live, &cx)))
    });
    ContextGuard { _label: label.flatten(), _attached: cx.attach() }
}

/// Detaches what [`attach`] has attached when it is dropped; the context before it is current again.
///
/// Guards may be dropped in any order: one that is not the latest changes nothing until the later ones are dropped.
#[must_use = "the context is detached when the guard is dropped"]
#[derive(Debug)]
pub struct ContextGuard {
    _label: Option<stack::Entry>,
    /// Also keeps the guard on its thread.
    _attached: opentelemetry::ContextGuard,
}

/// Takes the current context along to wherever `work` is called: a blocking task, another thread, a thread pool.
///
/// ```
/// # #[tokio::main]
/// # async fn main() {
/// tokio::task::spawn_blocking(spanflame::in_current_context(|| {
///     // The CPU time used here counts for the span that spawned it.
/// }))
/// .await
/// .expect("it does not panic");
///
/// std::thread::spawn(spanflame::in_current_context(|| { /* here, too */ })).join().expect("it does not panic");
///
/// rayon::spawn(spanflame::in_current_context(|| { /* and here */ }));
/// # }
/// ```
///
/// What runs more than once, as a closure of a parallel iterator does, attaches for itself:
///
/// ```
/// use opentelemetry::Context;
/// use rayon::prelude::*;
///
/// let cx = Context::current();
/// let total: u64 = (0..1_000u64)
///     .into_par_iter()
///     .map_init(|| spanflame::attach(cx.clone()), |_active, n| n * n)
///     .sum();
/// # assert_eq!(total, 332_833_500);
/// ```
pub fn in_current_context<F, R>(work: F) -> impl FnOnce() -> R
where
    F: FnOnce() -> R,
{
    let cx = Context::current();
    move || {
        let _active = attach(cx);
        work()
    }
}
