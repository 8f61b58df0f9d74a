//! Traces, and the profiles of their spans: everything a service adds for Spanflame is in this file.

use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample,
    SimpleSpanProcessor, SpanData,
};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Sets up tracing. Shut the provider down before the process ends: that sends what is left.
///
/// # Errors
/// When the span exporter's environment is not usable, or another subscriber is already in place.
pub(crate) fn start() -> anyhow::Result<SdkTracerProvider> {
    // The subscriber below needs the provider; until then, what the profiler has to say is shown by this one.
    let early =
        tracing::subscriber::set_default(tracing_subscriber::fmt().with_writer(std::io::stderr).finish());

    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "checkout".to_owned());
    // One resource for spans and profiles: Grafana finds a span's profile by these two labels.
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "shop"))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampler::ParentBased(Box::new(NoProbes)));

    // The Spanflame line: `profile_spans` around the processor that the service had anyway. The profiler reads its
    // settings (PYROSCOPE_SERVER_ADDRESS and others) from the environment and stops with the provider.
    let provider = if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        let exporter = SpanExporter::builder().with_http().build()?;
        provider.with_span_processor(spanflame::profile_spans(BatchSpanProcessor::builder(exporter).build()))
    } else {
        provider.with_span_processor(spanflame::profile_spans(SimpleSpanProcessor::new(NowhereToSend)))
    }
    .build();

    drop(early);
    tracing_subscriber::registry()
        .with(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("checkout")))
        .try_init()?;
    Ok(provider)
}

/// Keeps health probes out of the traces. A span that is not sampled has no profile either.
#[derive(Clone, Debug)]
struct NoProbes;

impl ShouldSample for NoProbes {
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
            if name == "GET /health" { SamplingDecision::Drop } else { SamplingDecision::RecordAndSample };
        SamplingResult { decision, attributes: Vec::new(), trace_state: Default::default() }
    }
}

/// Stands in for the exporter when no OTLP endpoint is named, so that profiles can be looked at without a trace store.
#[derive(Debug)]
struct NowhereToSend;

impl opentelemetry_sdk::trace::SpanExporter for NowhereToSend {
    async fn export(&self, _spans: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}
