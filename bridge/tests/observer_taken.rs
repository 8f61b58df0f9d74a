//! Another component has OpenTelemetry's only observer slot: what the profiler says of it, and when it begins to tag
//! spans. In a process of its own, as the slot is never given up and what labels threads once does so for good.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry::context::{ContextObserver, GlobalContextObserver};
use opentelemetry::trace::{Span as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SdkTracer, SdkTracerProvider, SimpleSpanProcessor, SpanData,
};
use spanflame::{FileExporter, LabelSource, PROFILE_ID, Profiler, ProfilerBuilder, Scope, Stats};

struct Other;

impl ContextObserver for Other {
    fn on_context_enter(&self, _from: &Context, _to: &Context) {}

    fn on_context_exit(&self, _from: &Context, _to: &Context) {}
}

/// Works until the profiler has taken some more samples, if it is sampling.
fn work(profiler: &Profiler) {
    let before = profiler.stats().samples;
    let deadline = Instant::now() + Duration::from_secs(60);
    while profiler.stats().samples < before + 20 {
        assert!(Instant::now() < deadline, "no samples");
        black_box((0..1_000_000u64).fold(0, |sum, i| sum ^ black_box(i)));
    }
}

/// What a profiler with these settings makes of `scenario`: its figures after the end, and the spans.
fn run(
    configure: impl FnOnce(ProfilerBuilder) -> ProfilerBuilder,
    scenario: impl FnOnce(&Profiler, &SdkTracer),
) -> (Stats, Vec<SpanData>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let builder = Profiler::builder()
        .exporter(FileExporter::new(directory.path()))
        .frequency(1000)
        .scope(Scope::All)
        .enabled(true);
    let profiler = configure(builder).start().expect("profiles without spans are still profiles");
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    scenario(&profiler, &provider.tracer("test"));
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    (profiler.stats(), exporter.get_finished_spans().expect("spans"))
}

fn is_tagged(span: &SpanData) -> bool {
    span.attributes.iter().any(|attribute| attribute.key.as_str() == PROFILE_ID)
}

#[test]
fn the_profiler_says_so_and_tags_spans_once_something_carries_them() {
    GlobalContextObserver::set(Arc::new(Other));

    let (stats, spans) = run(
        |builder| builder,
        |profiler, tracer| {
            assert_eq!(profiler.stats().label_source, LabelSource::None);
            assert_eq!(profiler.stats().scope, Scope::Auto, "no span is tagged");
            tracer.in_span("work", |_| work(profiler));
        },
    );
    // A tagged span would have an empty profile.
    assert!(spans.len() == 1 && spans[0].attributes.is_empty(), "{spans:?}");
    assert!(stats.labelled == 0 && stats.samples > 0, "{stats:?}");

    let (stats, spans) = run(
        |builder| builder.label_at_start(true),
        |profiler, tracer| {
            assert_eq!(profiler.stats().label_source, LabelSource::Start);
            let outer = tracer.start_with_context("outer", &Context::new());
            work(profiler);
            let mut inner = tracer.start("inner");
            work(profiler);
            inner.end();
            // The outer one again, and then a span that another thread ends.
            work(profiler);
            drop(outer);
            let elsewhere = tracer.start("elsewhere");
            work(profiler);
            std::thread::spawn(move || drop(elsewhere)).join().expect("no panic");
        },
    );
    assert!(spans.len() == 3 && spans.iter().all(is_tagged), "{spans:?}");
    // All but a few of the time before the first span and after the last.
    assert!(stats.labelled >= 60 && stats.samples - stats.labelled <= 20, "{stats:?}");

    // Not for good: it is the profiler's setting.
    let (stats, spans) = run(
        |builder| builder,
        |profiler, tracer| {
            let unseen =
                Context::new().with_span(tracer.start_with_context("before the first use", &Context::new()));
            {
                let _active = unseen.attach();
                work(profiler);
            }
            assert_eq!((profiler.stats().label_source, profiler.stats().labelled), (LabelSource::None, 0));
            drop(spanflame::attach(Context::new()));
            assert_eq!(
                (profiler.stats().label_source, profiler.stats().scope),
                (LabelSource::Wrappers, Scope::All)
            );
            let cx = Context::new().with_span(tracer.start_with_context("seen", &Context::new()));
            let _active = spanflame::attach(cx);
            work(profiler);
        },
    );
    let tagged: Vec<&str> = spans.iter().filter(|span| is_tagged(span)).map(|span| &*span.name).collect();
    assert_eq!((tagged, spans.len()), (vec!["seen"], 2));
    assert!(stats.labelled > 0, "{stats:?}");
}
