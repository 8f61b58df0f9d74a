//! The workspace's own commands. Run `cargo xtask --help`.

mod clients;
mod demo;
mod fuzz;
mod page;
mod python;
mod shell;
mod soak;
mod targets;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Spanflame's own commands", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and start the server, run the demo service under a short load, and print a link to a span's flame graph
    Demo(demo::Args),
    /// Run every test there is: Rust, page and browser, installing what they need
    Test(test::Args),
    /// Build the web page's checked-in files, or check that they are what the sources build
    Page(page::Args),
    /// Check the rules of the house that no compiler knows
    Tidy,
    /// Run the bridge at 1 kHz among everything that is bad for a profiler
    Soak(soak::Args),
    /// Feed every parser of foreign bytes what breaks parsers, for a bounded time
    Fuzz(fuzz::Args),
    /// Measure the targets and print one line for each
    Targets(targets::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Tidy => tidy::run(),
        Command::Soak(args) => soak::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Targets(args) => targets::run(&args),
    }
}
