//! Which span is a local root and which has a label at all: parents of every kind, spans that are not exported, and
//! contexts from before the profiler's time.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, InMemorySpanExporter, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider,
    ShouldSample, SimpleSpanProcessor,
};
use parking_lot::Mutex;
use spanflame::{Scope, attach};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::spans::{assert_labels, assert_no_orphans, id, named, profile_id, provider};
use crate::support::{BURNERS, alone, finish, observed, profiler};

const LONG: Duration = Duration::from_millis(350);

fn span_context(trace: u128, span: u64, is_remote: bool) -> SpanContext {
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, is_remote, TraceState::NONE)
}

#[test]
fn a_local_root_is_a_span_without_a_parent_of_this_process() {
    let _turn = alone();
    let (profiler, _kept) = profiler(|builder| builder.scope(Scope::Root));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    // Where contexts are not observed, spans before the first use of it are not tagged.
    drop(attach(Context::new()));
    let foreign = SdkTracerProvider::builder().build();
    let tracer = provider.tracer("test");
    let around = |context| Context::new().with_remote_span_context(context);
    let start = |name, parent: &Context| drop(tracer.start_with_context(name, parent));

    start("of nobody", &Context::new());
    start("of remote", &around(span_context(7, 9, true)));
    start(
        "of remote that is unsampled",
        &around(SpanContext::new(
            TraceId::from(7),
            SpanId::from(9),
            TraceFlags::NOT_SAMPLED,
            true,
            TraceState::NONE,
        )),
    );
    start("of unknown", &around(span_context(7, 9, false)));
    start("of invalid", &around(SpanContext::NONE));
    start("of invalid span", &around(span_context(7, 0, false)));
    let other =
        Context::new().with_span(foreign.tracer("test").start_with_context("foreign", &Context::new()));
    start("of foreign", &other);

    let parent = Context::new().with_span(tracer.start_with_context("parent", &Context::new()));
    start("of local", &parent);
    {
        let _active = attach(parent.clone());
        start("of current", &Context::current());
        start("new root in active", &Context::new());
        drop(tracer.build(
            SpanBuilder::from_name("linked").with_links(vec![Link::with_context(span_context(7, 9, true))]),
        ));
        let suppressed = Context::enter_telemetry_suppressed_scope();
        start("suppressed", &Context::current());
        drop(suppressed);
        // A task of its own that takes a remote context along.
        start("remote in active", &around(span_context(8, 9, true)));
    }
    parent.span().end();
    start("of ended", &parent);
    start("of ended with a value", &parent.with_value(7u8));
    finish(&profiler);
    start("after the end", &Context::new());

    let spans = exporter.get_finished_spans().expect("spans");
    for (name, tagged) in [
        ("of nobody", true),
        ("of remote", true),
        ("of remote that is unsampled", true),
        ("of unknown", true),
        ("of invalid", true),
        ("of invalid span", true),
        ("of foreign", true),
        ("parent", true),
        ("of local", false),
        ("of current", false),
        ("new root in active", true),
        ("linked", false),
        ("remote in active", true),
        // What is known of a span that has ended is what the observer has left in its context.
        ("of ended", !observed()),
        ("of ended with a value", true),
        ("after the end", false),
    ] {
        let span = named(&spans, name);
        assert_eq!(profile_id(span), tagged.then(|| id(span)), "{name}");
    }
    assert!(!spans.iter().any(|span| span.name == "suppressed"), "it is not exported");
}

/// Records spans of one name without exporting them, and all others as usual.
#[derive(Clone, Debug)]
struct RecordsOnly(&'static str);

impl ShouldSample for RecordsOnly {
    fn should_sample(
        &self,
        _parent: Option<&Context>,
        _trace: TraceId,
        name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let decision =
            if name == self.0 { SamplingDecision::RecordOnly } else { SamplingDecision::RecordAndSample };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::NONE }
    }
}

#[test]
fn a_recorded_span_that_is_not_exported_has_no_label_and_its_children_are_roots() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::Root));
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(RecordsOnly("recorded"))
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    let tracer = provider.tracer("test");
    tracer.in_span("outer", |_| {
        BURNERS[0].1(LONG);
        tracer.in_span("recorded", |_| {
            BURNERS[1].1(LONG);
            tracer.in_span("inner", |_| BURNERS[2].1(LONG));
        });
        BURNERS[3].1(LONG);
    });
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_no_orphans(&samples, &spans);
    assert_eq!(spans.len(), 2, "{spans:?}");
    let (outer, inner) = (Some(named(&spans, "outer")), Some(named(&spans, "inner")));
    assert_labels(&samples, &[(0, outer), (1, None), (2, inner), (3, outer)]);
}

#[test]
fn suppressed_telemetry_and_values_keep_the_span_and_an_empty_context_does_not() {
    let _turn = alone();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let tracer = provider.tracer("test");
    tracer.in_span("work", |_| {
        {
            let _suppressed = Context::enter_telemetry_suppressed_scope();
            tracer.in_span("not made", |_| BURNERS[0].1(LONG));
            BURNERS[1].1(LONG);
        }
        {
            let _value = Context::current_with_value(7u8).attach();
            BURNERS[2].1(LONG);
            let _none = Context::new().attach();
            BURNERS[3].1(LONG);
        }
        BURNERS[4].1(LONG);
    });
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_eq!(spans.len(), 1, "{spans:?}");
    let work = Some(named(&spans, "work"));
    assert_labels(&samples, &[(1, work), (2, work), (3, None), (4, work)]);
    // A span that suppression has kept from being made may count for the one around it, and for nothing else.
    let inner = samples.iter().filter(|sample| sample.has(BURNERS[0].0));
    assert!(inner.filter_map(|sample| sample.span_id.clone()).all(|span| Some(span) == work.map(id)));
}

/// Ids that are known before their span is.
#[derive(Debug)]
struct Foretold(u128, u64);

impl IdGenerator for Foretold {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(self.0)
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.1)
    }
}

#[test]
fn contexts_from_before_the_profiler_label_only_what_has_a_profile() {
    let _turn = alone();
    let exporter = InMemorySpanExporter::default();
    let (trace, span) = (0x51_u128, 0x52_u64);
    // No view of it can have been made.
    let early = Context::new().with_remote_span_context(span_context(trace, span, false));
    let bare = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let untagged =
        Context::new().with_span(bare.tracer("test").start_with_context("started before", &Context::new()));

    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let after = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_id_generator(Foretold(trace, span))
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(after.clone())))
        .build();
    let known = provider.tracer("test").start_with_context("known", &Context::new());
    {
        let _active = early.attach();
        BURNERS[0].1(LONG);
    }
    {
        let _active = untagged.attach();
        BURNERS[1].1(LONG);
    }
    drop(known);
    finish(&profiler);
    let (samples, spans) = (kept.samples(), after.get_finished_spans().expect("spans"));
    assert_labels(&samples, &[(0, Some(named(&spans, "known"))), (1, None)]);
    assert!(exporter.get_finished_spans().expect("spans").iter().all(|span| profile_id(span).is_none()));
}

#[test]
fn a_parent_set_late_counts_until_the_span_is_entered() {
    let _turn = alone();
    for activation in [true, false] {
        let (profiler, kept) = profiler(|builder| builder.scope(Scope::Root));
        let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("test"))
            .with_context_activation(activation);
        let subscriber = tracing_subscriber::registry().with(layer).with(spanflame::SpanProfileLayer::new());
        let remote = Context::new().with_remote_span_context(span_context(0xabc, 9, true));
        tracing::subscriber::with_default(subscriber, || {
            let in_time = tracing::info_span!("in time");
            in_time.set_parent(remote.clone()).expect("not started yet");
            in_time.in_scope(|| BURNERS[0].1(LONG));
            let too_late = tracing::info_span!("too late");
            let entered = too_late.enter();
            too_late.set_parent(remote.clone()).expect_err("started");
            BURNERS[1].1(LONG);
            drop(entered);
            // A parent of this process, set before the first enter.
            let local = tracing::info_span!("local");
            local.set_parent(too_late.context()).expect("not started yet");
            local.in_scope(|| BURNERS[2].1(LONG));
        });
        finish(&profiler);
        let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
        assert_no_orphans(&samples, &spans);
        let (in_time, too_late) = (named(&spans, "in time"), named(&spans, "too late"));
        assert_labels(&samples, &[(0, Some(in_time)), (1, Some(too_late)), (2, Some(too_late))]);
        assert_eq!(in_time.span_context.trace_id(), TraceId::from(0xabc));
        assert_ne!(too_late.span_context.trace_id(), TraceId::from(0xabc));
        assert_eq!(profile_id(named(&spans, "local")), None);
    }
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_in_the_callbacks_logs_or_asks_for_the_context() {
    let _turn = alone();
    let log = Log::default();
    let (profiler, kept) = profiler(|builder| builder.scope(Scope::All));
    let (provider, exporter) = provider(&profiler, Sampler::AlwaysOn);
    let writer = log.clone();
    let subscriber = tracing_subscriber::registry()
        .with(tracing_subscriber::filter::LevelFilter::TRACE)
        .with(tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false))
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
        .with(spanflame::SpanProfileLayer::new());
    tracing::subscriber::with_default(subscriber, || {
        // Logged by OpenTelemetry itself, through the same subscriber.
        drop(provider.tracer(""));
        tracing::info_span!("outer").in_scope(|| {
            BURNERS[0].1(LONG);
            provider.tracer("test").in_span("between", |_| {
                tracing::trace!("an event");
                tracing::info_span!("inner").in_scope(|| {
                    let _active = spanflame::attach(Context::current());
                    tracing::trace!("another event");
                    BURNERS[1].1(LONG);
                });
            });
        });
    });
    finish(&profiler);
    let (samples, spans) = (kept.samples(), exporter.get_finished_spans().expect("spans"));
    assert_labels(&samples, &[(0, Some(named(&spans, "outer"))), (1, Some(named(&spans, "inner")))]);
    let log = String::from_utf8(log.0.lock().clone()).expect("text");
    assert!(log.contains("TracerNameEmpty") && log.contains("another event"), "{log}");
}
