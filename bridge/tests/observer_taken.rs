//! Another component has OpenTelemetry's only observer slot: in a process of its own, as the slot is never given up.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::context::{ContextObserver, GlobalContextObserver};
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use spanflame::{FileExporter, Profiler};

struct Other;

impl ContextObserver for Other {
    fn on_context_enter(&self, _from: &Context, _to: &Context) {}

    fn on_context_exit(&self, _from: &Context, _to: &Context) {}
}

#[test]
fn the_profiler_says_so_and_tags_no_span() {
    GlobalContextObserver::set(Arc::new(Other));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let profiler = Profiler::builder()
        .exporter(FileExporter::new(directory.path()))
        .enabled(true)
        .start()
        .expect("profiles without spans are still profiles");
    assert!(!profiler.stats().context_observed);

    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    provider.tracer("test").in_span("work", |_| ());
    // A tagged span would have an empty profile.
    assert!(exporter.get_finished_spans().expect("spans")[0].attributes.is_empty());
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    assert_eq!(profiler.stats().labelled, 0);
}
