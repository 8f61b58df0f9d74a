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

use crate::live::Live;
use crate::sampler;
use crate::spans::{self, SpanKey, SpanRecord};

/// What the observer finds in a context without a look-up. Immutable; lives as long as the context.
pub(crate) struct View {
    key: SpanKey,
    /// A copy, so that a child can inherit from a parent that has already ended.
    pub(crate) record: SpanRecord,
}

impl View {
    /// The view of `cx`, if its span is one of ours.
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
        if !cx.has_active_span() {
            return None;
        }
        let (key, record) = find(self.live, cx.span().span_context())?;
        Some(Arc::new(View { key, record }))
    }
}

/// Takes the process's observer slot, at the first call. Whether it is ours; it stays so, or not, for good.
pub(crate) fn install(live: &'static Live) -> bool {
    static OURS: OnceLock<bool> = OnceLock::new();
    *OURS.get_or_init(|| {
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
    })
}
