//! Futures that are polled within a context.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use opentelemetry::Context;
use pin_project_lite::pin_project;

use super::attach;

pin_project! {
    /// A future that is polled within a context. Made by [`SpanProfileExt`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct WithSpanProfile<F> {
        #[pin]
        future: F,
        cx: Context,
    }
}

impl<F: Future> Future for WithSpanProfile<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _active = attach(this.cx.clone());
        this.future.poll(task)
    }
}

/// Futures whose CPU time counts for a span, on whichever thread they are polled.
///
/// As [`FutureExt::with_context`](opentelemetry::trace::FutureExt::with_context), which is enough where the profiler
/// has OpenTelemetry's context observer slot; these also work where another component has it.
///
/// ```
/// use opentelemetry::Context;
/// use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
/// use spanflame::SpanProfileExt as _;
/// # let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main_of(provider: opentelemetry_sdk::trace::SdkTracerProvider) {
///
/// let tracer = provider.tracer("shop");
/// let cx = Context::current_with_span(tracer.start("checkout"));
/// async {
///     tokio::task::yield_now().await;
///     // A task of its own does not inherit the context.
///     tokio::spawn(async { /* … */ }.with_current_span_profile()).await.expect("it does not panic");
/// }
/// .with_span_profile(cx.clone())
/// .await;
/// cx.span().end();
/// # }
/// # main_of(provider);
/// ```
pub trait SpanProfileExt: Sized {
    /// Attaches `cx` for the time of each poll.
    fn with_span_profile(self, cx: Context) -> WithSpanProfile<Self> {
        crate::live::labelled_by(crate::live::WRAPPERS);
        WithSpanProfile { future: self, cx }
    }

    /// Attaches the context that is current now for the time of each poll.
    fn with_current_span_profile(self) -> WithSpanProfile<Self> {
        self.with_span_profile(Context::current())
    }
}

impl<F: Future> SpanProfileExt for F {}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_context_is_current_during_each_poll_and_not_in_between() {
        #[derive(Debug, PartialEq)]
        struct Marked;
        let is_marked = || Context::current().get::<Marked>().is_some();
        let mut polls = 0;
        let future = std::future::poll_fn(move |_| {
            polls += 1;
            assert!(is_marked());
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        });
        let mut future = std::pin::pin!(future.with_span_profile(Context::new().with_value(Marked)));
        let mut task = std::task::Context::from_waker(Waker::noop());
        for expected in [Poll::Pending, Poll::Pending, Poll::Ready(3)] {
            assert_eq!(future.as_mut().poll(&mut task), expected);
            assert!(!is_marked());
        }
    }
}
