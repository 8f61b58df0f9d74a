//! A service that already runs the `pyroscope` agent and gets span profiles by another backend: the agent goes on
//! pushing as before, Spanflame samples and labels.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use clap::Parser;
use opentelemetry::trace::{FutureExt as _, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use pyroscope::pyroscope::PyroscopeAgentBuilder;
use serde::Deserialize;
use tokio::net::TcpListener;

/// Samples a second.
const FREQUENCY: u32 = 100;

/// A thumbnail service on the `pyroscope` agent whose spans have profiles.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Where the agent pushes to
    #[arg(long, env = "PYROSCOPE_SERVER_ADDRESS", default_value = "http://127.0.0.1:4040")]
    server: String,
    /// How often it pushes, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=15))]
    upload_interval: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let service = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "thumbnails".to_owned());
    let resource = Resource::builder()
        .with_service_name(service.clone())
        .with_attribute(KeyValue::new("service.namespace", "shop"))
        .build();

    // The line that changes: this backend instead of `pprof_backend(…)`.
    let (profiler, backend) = spanflame::Profiler::builder().frequency(FREQUENCY).pyroscope_backend()?;
    // As before. Name and namespace are the resource's: Grafana finds a span's profile by these two labels.
    let agent = PyroscopeAgentBuilder::new(
        &args.server,
        &service,
        FREQUENCY,
        "spanflame",
        env!("CARGO_PKG_VERSION"),
        backend,
    )
    .tags(vec![("service_namespace", "shop")])
    .upload_interval(Duration::from_secs(args.upload_interval))
    .build()?
    .start()?;

    // The line that is new: the profiler tags the spans that the service exports.
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let provider = if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        let exporter = SpanExporter::builder().with_http().build()?;
        provider.with_span_processor(profiler.wrap(BatchSpanProcessor::builder(exporter).build()))
    } else {
        provider.with_span_processor(profiler.span_processor())
    }
    .build();

    let routes = Router::new().route("/thumbnail", get(thumbnail)).with_state(provider.tracer("thumbnails"));
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, routes).with_graceful_shutdown(interrupted()).await?;

    // The last spans, then the agent's last report. Both wait for the network, so not on a worker.
    tokio::task::spawn_blocking(move || {
        // A trace collector that is away is no reason to keep the report back.
        if let Err(error) = provider.shutdown() {
            eprintln!("the last spans were not delivered: {error}");
        }
        agent.stop()?.shutdown();
        anyhow::Ok(())
    })
    .await?
}

/// What a thumbnail costs, in milliseconds of CPU time.
#[derive(Deserialize)]
struct Cost {
    #[serde(default = "Cost::usual")]
    cpu_ms: u16,
}

impl Cost {
    fn usual() -> u16 {
        60
    }
}

/// A request in its span: the context is attached at every poll of the inner future.
async fn thumbnail(State(tracer): State<SdkTracer>, Query(cost): Query<Cost>) -> String {
    let context = Context::current_with_span(tracer.start("GET /thumbnail"));
    async {
        let mut left = Duration::from_millis(cost.cpu_ms.into());
        while !left.is_zero() {
            left = left.saturating_sub(shrink_image(left.min(example_work::slice())));
            tokio::task::yield_now().await;
        }
        Context::current().span().span_context().span_id().to_string()
    }
    .with_context(context)
    .await
}

/// Averages made-up pixels until so much CPU time is spent.
#[inline(never)]
fn shrink_image(cpu: Duration) -> Duration {
    let row: Vec<u32> = (0..1_024).map(|pixel| pixel * 37 % 251).collect();
    example_work::spend(cpu, || {
        black_box(black_box(&row).chunks_exact(4).map(|pixels| pixels.iter().sum::<u32>() / 4).sum::<u32>());
    })
}

/// Returns when the process is asked to end.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.expect("Ctrl-C can be handled");
}
