//! Follows the OpenTelemetry context: whenever one is attached or detached on a thread, the thread's label slot is
//! told which span is active now.
//!
//! The callbacks run inside the context's own borrow, on every poll of every instrumented future. They read the two
//! contexts they are given and store one word: no logging and no call back into the context API ever, and no lock and
//! no allocation after a thread's first publish, which registers the thread. Making a context with a span allocates
//! its view.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use opentelemetry::Context;
use opentelemetry::context::{ContextObserver, GlobalContextObserver, ObserverContextView};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::live::{self, Live};
use crate::sampler;
use crate::spans::{self, SpanKey, SpanRecord};

/// What the observer finds in a context without a look-up. Immutable; lives as long as the context.
pub(crate) struct View {
    key: SpanKey,
    /// The context's own span, as far as it is one of ours. A copy, so that a child can inherit from a parent that has
    /// already ended.
    pub(crate) record: Option<SpanRecord>,
}

impl View {
    /// The view of `cx`, if it has a label.
    pub(crate) fn of(cx: &Context) -> Option<&Self> {
        cx.observer_view().as_ref()?.as_any().downcast_ref()
    }
}

impl ObserverContextView for View {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(crate) fn span_id(span: &SpanContext) -> spans::SpanId {
    spans::SpanId(u64::from_be_bytes(span.span_id().to_bytes()))
}

pub(crate) fn trace_id(span: &SpanContext) -> spans::TraceId {
    spans::TraceId(u128::from_be_bytes(span.trace_id().to_bytes()))
}

/// Finds a span that one of our processors has seen start and not yet end.
pub(crate) fn find(live: &Live, span: &SpanContext) -> Option<(SpanKey, SpanRecord)> {
    if !span.is_sampled() || span.is_remote() || !span.is_valid() {
        return None;
    }
    live.table.find(span_id(span)).filter(|(_, record)| record.trace_id == trace_id(span))
}

/// A label for contexts of one span that is not that span's: a `tracing` span's whose own context is not attached.
/// Contexts derived from one with another span leave it behind.
struct Label {
    key: SpanKey,
    /// The span of the contexts that it stands in, zero for none.
    over: spans::SpanId,
}

/// The current context, with a label of its own.
#[cfg(feature = "tracing-layer")]
pub(crate) fn labelled(key: SpanKey) -> Context {
    Context::map_current(|cx| cx.with_value(Label { key, over: span_id(cx.span().span_context()) }))
}

fn label(cx: &Context) -> Option<SpanKey> {
    let Label { key, over } = cx.get()?;
    (*over == span_id(cx.span().span_context())).then_some(*key)
}

/// What samples are to carry while `cx` is current.
pub(crate) fn key(live: &Live, cx: &Context) -> SpanKey {
    let own = || find(live, cx.span().span_context()).map(|(key, _)| key);
    label(cx).or_else(own).unwrap_or(SpanKey::NONE)
}

struct Observer {
    live: &'static Live,
}

impl Observer {
    fn publish(&self, to: &Context) {
        let key = match View::of(to) {
            Some(view) => view.key,
            // Made before the observer was installed, or of a span that had not started then.
            None if to.has_active_span() => {
                find(self.live, to.span().span_context()).map_or(SpanKey::NONE, |(key, _)| key)
            }
            None => SpanKey::NONE,
        };
        sampler::publish(key);
    }
}

impl ContextObserver for Observer {
    fn on_context_enter(&self, _from: &Context, to: &Context) {
        self.publish(to);
    }

    fn on_context_exit(&self, _from: &Context, to: &Context) {
        self.publish(to);
    }

    fn make_view(&self, cx: &Context) -> Option<Arc<dyn ObserverContextView>> {
        let own = if cx.has_active_span() { find(self.live, cx.span().span_context()) } else { None };
        let key = label(cx).or(own.map(|(key, _)| key))?;
        Some(Arc::new(View { key, record: own.map(|(_, record)| record) }))
    }
}

/// Takes the process's observer slot, at the first call, and says so if it is ours; it stays so, or not, for good.
pub(crate) fn install(live: &'static Live) {
    static OURS: OnceLock<bool> = OnceLock::new();
    let ours = *OURS.get_or_init(|| {
        GlobalContextObserver::set(Arc::new(Observer { live }));
        // The slot does not say who has it. A context around a span that only we know gets our view or none.
        let probe = SpanRecord {
            span_id: spans::SpanId(u64::MAX),
            trace_id: spans::TraceId(u128::MAX),
            ..SpanRecord::default()
        };
        live.table.insert(&probe);
        let span = SpanContext::new(
            TraceId::from_bytes([0xff; 16]),
            SpanId::from_bytes([0xff; 8]),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let ours = View::of(&Context::new().with_remote_span_context(span)).is_some();
        live.table.remove(probe.span_id);
        ours
    });
    if ours {
        live::labelled_by(live::OBSERVER);
    }
}
