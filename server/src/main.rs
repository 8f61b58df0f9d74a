//! The `spanflame` command.

mod store_command;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use spanflame_server::config::{Config, ServeArgs, Shown};
use spanflame_server::error::ServeError;
use spanflame_server::serve::{Server, preflight, termination};
use spanflame_server::telemetry;

use crate::store_command::StoreCommand;

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
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look into a data directory, check it, and move profiles out of it and in
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    #[command(args_override_self = true)]
    /// Say what is wrong with the settings, and end with status 1 if anything is
    Check {
        /// TOML file to check; the same as --config
        file: Option<PathBuf>,
        /// Print the settings in force, and where each comes from; secrets stay hidden
        #[arg(long)]
        print: bool,
        #[command(flatten)]
        args: Box<ServeArgs>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => done(serve(*args).await),
        Command::Config { command: ConfigCommand::Check { file, print, args } } => {
            done(check(file, print, *args).await)
        }
        Command::Store { command } => store_command::run(command).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn done(result: Result<(), ServeError>) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    result.map(|()| ExitCode::SUCCESS).map_err(Into::into)
}

async fn check(file: Option<PathBuf>, print: bool, args: ServeArgs) -> Result<(), ServeError> {
    args.mistyped.iter().for_each(|what| eprintln!("warning: {what}"));
    let config = Config::load(ServeArgs { config: file.or(args.config.clone()), ..args })?;
    preflight(&config).await?;
    let mut stdout = std::io::stdout();
    if print {
        write!(stdout, "{}", Shown(&config))?
    } else {
        writeln!(stdout, "the configuration is good")?
    }
    Ok(stdout.flush()?)
}

async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let mistyped = args.mistyped.clone();
    let config = Config::load(args)?;
    telemetry::init_logging(&config)?;
    mistyped.iter().for_each(|what| tracing::warn!("{what}"));
    let stop = termination()?;
    let data_dir = config.data_dir.clone();
    let server = Server::bind(config).await?;
    let url = server.url();
    tracing::info!(url, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "listening");
    // Scripts wait for this line and read the port from it.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on {url}").and_then(|()| stdout.flush())?;
    server.run(stop).await;
    Ok(())
}
