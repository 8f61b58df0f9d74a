//! An import program on the plain OpenTelemetry API, without `tracing`: its spans have profiles, in synchronous and in
//! asynchronous code.
//!
//! A span has a profile while its context is *attached*: `in_span` does that for a closure, `with_context` does it for
//! every poll of a future. A span that is started and never attached is profiled as part of the span around it.

mod work;

use std::time::Duration;

use clap::Parser;
use example_work::slice;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use tokio::task::JoinSet;

/// Imports made-up records and converts made-up images, each within a span that has a profile.
#[derive(Parser)]
struct Args {
    /// How many of each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    jobs: u32,
    /// What each costs, in milliseconds of CPU time: two parts of three in the outer span, one in the inner
    #[arg(long, default_value_t = 60)]
    cpu_ms: u16,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // One resource for spans and profiles: Grafana finds a span's profile by these two labels.
    let resource = Resource::builder()
        .with_service_name(std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "importer".to_owned()))
        .with_attribute(KeyValue::new("service.namespace", "shop"))
        .build();

    // The profiler, started by hand: its settings can come from code. What code leaves open, the environment decides.
    let profiler = spanflame::Profiler::builder().resource(&resource).start()?;
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let provider = if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        // Around the processor that exports: the recommended form, which copies no span.
        let exporter = SpanExporter::builder().with_http().build()?;
        provider.with_span_processor(profiler.wrap(BatchSpanProcessor::builder(exporter).build()))
    } else {
        // Beside whatever other processors there are.
        provider.with_span_processor(profiler.span_processor())
    }
    .build();
    let tracer = provider.tracer("importer");

    let cpu = Duration::from_millis(args.cpu_ms.into());
    for _ in 0..args.jobs {
        import(&tracer, cpu);
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut jobs: JoinSet<()> = (0..args.jobs).map(|_| convert(tracer.clone(), cpu)).collect();
        while let Some(job) = jobs.join_next().await {
            job?;
        }
        anyhow::Ok(())
    })?;

    // The last spans, then the last window of their profiles. The import is done, whatever becomes of them.
    let patience = Duration::from_secs(30);
    if let Err(error) = provider.shutdown_with_timeout(patience) {
        eprintln!("the last spans are lost: {error}");
    }
    if let Err(error) = profiler.shutdown(patience) {
        eprintln!("the last profiles are lost: {error}");
    }
    Ok(())
}

/// Synchronous: a span is attached to the thread as long as its closure runs.
fn import(tracer: &SdkTracer, cpu: Duration) {
    tracer.in_span("import records", |_| {
        work::parse_records(cpu * 2 / 3);
        tracer.in_span("index records", |_| work::index_records(cpu / 3));
    });
}

/// Asynchronous: a context travels with its future and is attached to whichever thread polls it.
async fn convert(tracer: SdkTracer, cpu: Duration) {
    let context = Context::current_with_span(tracer.start("convert image"));
    async {
        in_slices(cpu * 2 / 3, work::decode_image).await;
        let context = Context::current_with_span(tracer.start("scale image"));
        in_slices(cpu / 3, work::scale_image).with_context(context.clone()).await;
        context.span().end();
    }
    .with_context(context.clone())
    .await;
    context.span().end();
}

/// Spends the CPU time in short slices and lets other tasks run in between, so that spans take turns on a thread.
async fn in_slices(cpu: Duration, work: fn(Duration) -> Duration) {
    let mut left = cpu;
    while !left.is_zero() {
        left = left.saturating_sub(work(left.min(slice())));
        tokio::task::yield_now().await;
    }
}
