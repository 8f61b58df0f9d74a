//! A checkout service with axum and `tracing` whose spans have profiles.
//!
//! What connects it to Spanflame is in `telemetry.rs`; the rest is the service itself.

mod load;
mod shop;
mod telemetry;
mod work;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A checkout service whose spans have profiles.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Send requests to itself for so many seconds, name the spans they left, and stop
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    demo_load: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let provider = telemetry::start()?;

    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");

    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or(()) };
        axum::serve(listener, shop::routes()).with_graceful_shutdown(stopped).await
    });
    let requests = match args.demo_load {
        Some(seconds) => load::run(address, Duration::from_secs(seconds)).await?,
        None => interrupted().await.map(|()| Vec::new())?,
    };
    drop(stop);
    server.await??;

    // Sends the last spans and the last window of their profiles. It waits for the network, so not on a worker.
    if let Err(error) = tokio::task::spawn_blocking(move || provider.shutdown()).await? {
        tracing::warn!(%error, "the last spans or profiles are lost");
    }
    for request in requests {
        println!("{}", serde_json::to_string(&request)?);
    }
    Ok(())
}

/// Returns when the process is asked to end.
async fn interrupted() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
