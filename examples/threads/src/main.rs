//! A program whose work leaves its task: to tokio's blocking pool, to a thread of its own, and to rayon. Its spans'
//! profiles show all of it, as the context is taken along.
//!
//! `in_current_context` does that for what runs once, `attach` for what runs many times. Without them the CPU time
//! would count for no span.

mod work;

use std::time::Duration;

use anyhow::anyhow;
use clap::Parser;
use opentelemetry::trace::{TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use rayon::prelude::*;
use spanflame::{SpanProfileExt as _, in_current_context};

/// Makes albums of made-up pictures, each within a span that has a profile.
#[derive(Parser)]
struct Args {
    /// How many albums
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    albums: u32,
    /// What each step of an album costs, in milliseconds of CPU time
    #[arg(long, default_value_t = 60)]
    cpu_ms: u16,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let resource = Resource::builder()
        .with_service_name(std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "albums".to_owned()))
        .with_attribute(KeyValue::new("service.namespace", "shop"))
        .build();
    let profiler = spanflame::Profiler::builder().resource(&resource).start()?;
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let provider = if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        let exporter = SpanExporter::builder().with_http().build()?;
        provider.with_span_processor(profiler.wrap(BatchSpanProcessor::builder(exporter).build()))
    } else {
        provider.with_span_processor(profiler.span_processor())
    }
    .build();
    let tracer = provider.tracer("albums");

    let cpu = Duration::from_millis(args.cpu_ms.into());
    tokio::runtime::Runtime::new()?.block_on(async {
        for _ in 0..args.albums {
            let cx = Context::new().with_span(tracer.start_with_context("make album", &Context::new()));
            // A task of its own, which would otherwise know nothing of the span.
            tokio::spawn(make_album(tracer.clone(), cpu).with_span_profile(cx.clone())).await??;
            cx.span().end();
        }
        anyhow::Ok(())
    })?;

    let patience = Duration::from_secs(30);
    if let Err(error) = provider.shutdown_with_timeout(patience) {
        eprintln!("the last spans are lost: {error}");
    }
    if let Err(error) = profiler.shutdown(patience) {
        eprintln!("the last profiles are lost: {error}");
    }
    Ok(())
}

async fn make_album(tracer: SdkTracer, cpu: Duration) -> anyhow::Result<()> {
    // Blocking work, on tokio's pool.
    tokio::task::spawn_blocking(in_current_context(move || work::unpack_pictures(cpu))).await?;

    // The same for a thread of its own.
    let cover = std::thread::spawn(in_current_context(move || work::draw_cover(cpu)));

    // A span inside, whose work rayon spreads over its threads.
    let cx = Context::current_with_span(tracer.start("shrink pictures"));
    tokio::task::spawn_blocking(move || {
        (0..8_u32)
            .into_par_iter()
            .for_each_init(|| spanflame::attach(cx.clone()), |_active, _| work::shrink_picture(cpu / 8));
        cx.span().end();
    })
    .await?;
    tokio::task::block_in_place(|| cover.join()).map_err(|_| anyhow!("the cover could not be drawn"))
}
