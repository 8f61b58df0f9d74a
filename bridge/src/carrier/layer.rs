//! A `tracing` layer that labels threads with the OpenTelemetry spans of the `tracing` spans they enter.
//!
//! Runs inside the subscriber's callbacks: it logs nothing, and holds neither a span's extensions nor a borrow of its
//! own while it calls out, to `tracing-opentelemetry` or to a context's destructor.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tracing::dispatcher::WeakDispatch;
use tracing::span::Id;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

use super::{ContextGuard, attach, stack};
use crate::context;
use crate::live::{self, Live, Tagging};
use crate::spans::{SpanId, SpanKey, TraceId};

/// Spans that a thread is in at once, as far as they are followed.
const MAX_DEPTH: usize = u16::MAX as usize;

/// Follows `tracing` spans where the context observer cannot: where another component has its slot, or where
/// `tracing-opentelemetry` was told `with_context_activation(false)`.
///
/// Put it after the OpenTelemetry layer. Where nothing is amiss it is not needed and changes nothing.
///
/// ```
/// use opentelemetry::trace::TracerProvider as _;
/// use tracing_subscriber::layer::SubscriberExt as _;
/// # let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
///
/// let subscriber = tracing_subscriber::registry()
///     .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("shop")).with_context_activation(false))
///     .with(spanflame::SpanProfileLayer::new());
/// # tracing::subscriber::with_default(subscriber, || tracing::info_span!("checkout").in_scope(|| ()));
/// ```
///
/// A span starts at its first enter at the latest, as it does with context activation: before that it has no id to
/// label samples with. `set_parent` comes too late from then on.
#[derive(Debug)]
pub struct SpanProfileLayer {
    /// Tells its entries from those of other subscribers on the same thread, which number their spans alike.
    number: u64,
    /// The subscriber that it is a part of, through which OpenTelemetry's layer is reached.
    dispatch: OnceLock<WeakDispatch>,
}

impl SpanProfileLayer {
    /// A layer to add to a subscriber that has a `tracing-opentelemetry` layer. Without one it does nothing.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        live::labelled_by(live::WRAPPERS);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), dispatch: OnceLock::new() }
    }
}

impl Default for SpanProfileLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a `tracing` span is to OpenTelemetry, found once and kept with it. `None` if its layer does not know it.
#[derive(Clone, Copy)]
struct Known(Option<Exported>);

#[derive(Clone, Copy)]
struct Exported {
    span_id: SpanId,
    trace_id: TraceId,
    key: SpanKey,
}

/// What is undone at exit.
enum Held {
    /// The span's context is current and observed.
    Nothing,
    /// The span's context is current, and nobody tells us.
    Label { _entry: Option<stack::Entry> },
    /// Something else is current.
    Context { _guard: ContextGuard },
}

struct Entered {
    layer: u64,
    span: Id,
    held: Held,
}

/// The spans that a thread is in, latest last.
struct Inside(RefCell<Vec<Entered>>);

impl Drop for Inside {
    fn drop(&mut self) {
        // The thread ends inside a span. OpenTelemetry's own stack may be gone already, and both go with the thread.
        self.0.take().into_iter().for_each(std::mem::forget);
    }
}

thread_local! {
    static INSIDE: Inside = {
        // First, so that it is there as long as this.
        Context::map_current(|_| ());
        Inside(RefCell::default())
    };
}

impl SpanProfileLayer {
    fn dispatch(&self) -> Option<Dispatch> {
        if let Some(dispatch) = self.dispatch.get() {
            return dispatch.upgrade();
        }
        // In an `Option` or a `Vec` of layers it is not told. The thread's subscriber is the one, if it is in there.
        let default = tracing::dispatcher::get_default(Dispatch::clone);
        default.downcast_ref::<Self>().filter(|layer| layer.number == self.number)?;
        let _ = self.dispatch.set(default.downgrade());
        Some(default)
    }

    fn exported<S>(&self, id: &Id, subscriber: &LayerContext<'_, S>) -> Option<Exported>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let span = subscriber.span(id)?;
        let known = span.extensions().get::<Known>().copied();
        if let Some(Known(exported)) = known {
            return exported;
        }
        // While no span is tagged none has a label, and none is started for the sake of one.
        let live = Live::existing().filter(|live| live.tagging() != Tagging::Off)?;
        let dispatch = self.dispatch()?;
        // Starts the span. Its processors run in there, ours among them, which makes it known to the table.
        let cx = tracing_opentelemetry::get_otel_context(id, &dispatch);
        let exported = cx.map(|cx| {
            let own = cx.span().span_context().clone();
            Exported {
                span_id: context::span_id(&own),
                trace_id: context::trace_id(&own),
                key: context::find(live, &own).map_or(SpanKey::NONE, |(key, _)| key),
            }
        });
        span.extensions_mut().replace(Known(exported));
        exported
    }
}

impl Exported {
    fn is_current(&self) -> bool {
        Context::map_current(|cx| {
            let current = cx.span();
            let current = current.span_context();
            context::span_id(current) == self.span_id && context::trace_id(current) == self.trace_id
        })
    }

    fn enter(self) -> Held {
        if !self.is_current() {
            return Held::Context { _guard: attach(context::labelled(self.key)) };
        }
        if live::observed() { Held::Nothing } else { Held::Label { _entry: stack::push(self.key) } }
    }
}

impl<S> Layer<S> for SpanProfileLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // A layer is part of one subscriber, and that of one dispatch.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_enter(&self, id: &Id, subscriber: LayerContext<'_, S>) {
        let followed = INSIDE.try_with(|inside| inside.0.borrow().len() < MAX_DEPTH);
        if followed != Ok(true) {
            return;
        }
        let Some(exported) = self.exported(id, &subscriber) else { return };
        let entered = Entered { layer: self.number, span: id.clone(), held: exported.enter() };
        let _ = INSIDE.try_with(|inside| inside.0.borrow_mut().push(entered));
    }

    fn on_exit(&self, id: &Id, _subscriber: LayerContext<'_, S>) {
        let left = INSIDE.try_with(|inside| {
            let mut inside = inside.0.borrow_mut();
            let place =
                inside.iter().rposition(|entered| entered.layer == self.number && entered.span == *id)?;
            Some(inside.remove(place))
        });
        // Dropping a context may end a span, whose processors may use `tracing`: after the borrow.
        drop(left.ok().flatten().map(|entered| entered.held));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn subscriber() -> Dispatch {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let otel = tracing_opentelemetry::layer().with_tracer(tracer).with_context_activation(false);
        Dispatch::new(tracing_subscriber::registry().with(otel).with(SpanProfileLayer::new()))
    }

    /// How many spans the calling thread is in, as far as they are followed.
    fn depth() -> usize {
        INSIDE.with(|inside| inside.0.borrow().len())
    }

    #[test]
    fn a_thread_may_end_inside_a_span_and_leave_none_behind() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        context::install(live);
        let charge = live.take_charge();
        charge.set_tagging(Tagging::All);
        let ended = std::thread::spawn(|| {
            tracing::dispatcher::with_default(&subscriber(), || {
                let span = tracing::info_span!("entered for good");
                std::mem::forget(span.enter());
                tracing::info_span!("entered twice").in_scope(|| {
                    tracing::Span::current().in_scope(|| assert_eq!(depth(), 3));
                });
                assert_eq!(depth(), 1);
                std::mem::forget(span);
            });
        });
        assert!(ended.join().is_ok());
        charge.end();
    }

    #[test]
    fn spans_start_when_they_would_have_while_nothing_is_tagged() {
        let _turn = crate::sampler::TURN.lock();
        let charge = Live::get().take_charge();
        charge.set_tagging(Tagging::Off);
        tracing::dispatcher::with_default(&subscriber(), || {
            let span = tracing::info_span!("work");
            let _entered = span.enter();
            assert_eq!(depth(), 0);
            span.set_parent(Context::new()).expect("it has not started yet");
        });
    }
}
