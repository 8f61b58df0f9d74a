//! Real spans and what their samples should carry.

use std::collections::HashSet;

use opentelemetry::Value;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SimpleSpanProcessor, SpanData,
};
use spanflame::{PROFILE_ID, Profiler};

use crate::support::{BURNERS, Sample};

pub(crate) fn provider(profiler: &Profiler, sampler: Sampler) -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(sampler)
        .with_resource(Resource::builder_empty().with_service_name("checkout").build())
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    (provider, exporter)
}

pub(crate) fn profile_id(span: &SpanData) -> Option<String> {
    let mut ids = span.attributes.iter().filter(|attribute| attribute.key.as_str() == PROFILE_ID);
    let id = ids.next().map(|attribute| match &attribute.value {
        Value::String(id) => id.as_str().to_owned(),
        other => panic!("grafana needs a string, not {other:?}"),
    });
    assert!(ids.next().is_none(), "one attribute");
    id
}

pub(crate) fn id(span: &SpanData) -> String {
    span.span_context.span_id().to_string()
}

pub(crate) fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"))
}

/// Total CPU time of the samples that pass `filter`.
pub(crate) fn nanos<'a>(
    samples: impl IntoIterator<Item = &'a Sample>,
    filter: impl Fn(&Sample) -> bool,
) -> i64 {
    samples.into_iter().filter(|sample| filter(sample)).map(|sample| sample.nanos).sum()
}

/// No id on a sample that is not the attribute of an exported span.
pub(crate) fn assert_no_orphans(samples: &[Sample], spans: &[SpanData]) {
    let exported: HashSet<String> = spans.iter().filter_map(profile_id).collect();
    for sample in samples {
        if let Some(id) = &sample.span_id {
            assert!(exported.contains(id), "{id} leads nowhere: {sample:?}");
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime")
}

/// The first sample of a thread that was found before it entered a span stands for CPU time from before and claims no
/// span: one for each worker of the runtime.
pub(crate) const FIRST_SAMPLES: usize = 8;

/// Every sample of a burner carries the span that it should, or none, and there are some.
pub(crate) fn assert_labels(samples: &[Sample], expected: &[(usize, Option<&SpanData>)]) {
    for (burner, span) in expected {
        let (name, _) = BURNERS[*burner];
        assert!(nanos(samples, |sample| sample.has(name)) > 0, "{name} was never seen");
        for sample in samples.iter().filter(|sample| sample.has(name)) {
            assert_eq!(sample.span_id, span.map(id), "{name} in {:?}", span.map(|span| &span.name));
        }
    }
}
