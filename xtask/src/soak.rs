//! The soak: builds it and the library that it loads, and runs it in an optimized build.

use std::process::Command;

use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Whose memory: that of the system's allocator, or jemalloc's, which is built first
    #[arg(long, value_enum, default_value_t = Allocator::System)]
    allocator: Allocator,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Allocator {
    System,
    Jemalloc,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (program, features) = match args.allocator {
        Allocator::System => ("spanflame-soak", ""),
        Allocator::Jemalloc => ("spanflame-soak-jemalloc", "jemalloc"),
    };
    let mut build = shell::cargo();
    build.args([
        "build",
        "--release",
        "--package",
        "spanflame-soak",
        "--bin",
        program,
        "--features",
        features,
    ]);
    shell::run(&mut build)?;
    shell::run(shell::cargo().args(["build", "--release", "--package", "spanflame-soak-plugin"]))?;
    let release = shell::target_dir().join("release");
    let plugin = release.join("libspanflame_soak_plugin.so");
    shell::run(Command::new(release.join(program)).arg(args.seconds.to_string()).arg(plugin))
}
