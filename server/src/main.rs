//! The `spanflame` command.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spanflame_server::config::{Config, ServeArgs};
use spanflame_server::error::ServeError;
use spanflame_server::serve::{Server, termination};
use spanflame_server::telemetry;

/// Keeps profiles and finds a span's flame graph by its id.
#[derive(Parser)]
#[command(name = "spanflame", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(args_override_self = true)]
    /// Take profiles in and answer queries until told to stop
    Serve(Box<ServeArgs>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Serve(args) = Cli::parse().command;
    match serve(*args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let config = Config::load(args)?;
    telemetry::init_logging(&config)?;
    let stop = termination()?;
    let data_dir = config.data_dir.clone();
    let server = Server::bind(config).await?;
    let address = server.address();
    tracing::info!(%address, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    // Scripts wait for this line and read the port from it.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on http://{address}").and_then(|()| stdout.flush())?;
    server.run(stop).await;
    Ok(())
}
