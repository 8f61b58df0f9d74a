//! Fuzzing for a bounded time, with the repository's toolchain: every target, from its seeds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell;

/// What makes the compiler count the paths that an input takes, for libFuzzer; the flags that cargo-fuzz gives.
const COVERAGE: &str = "--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// An input that takes longer, in seconds, or more memory, in MiB, is a finding.
const SLOWEST: u32 = 20;
const MOST_MEMORY: u32 = 2048;
const LONGEST_INPUT: u32 = 65_536;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets, as `pprof jfr`; all of them when none is named
    targets: Vec<String>,
    /// How long each, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where chance begins, so that a run is like the one before
    #[arg(long)]
    seed: Option<u32>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let known = targets()?;
    if let Some(unknown) = args.targets.iter().find(|target| !known.contains(target)) {
        bail!("there is no fuzz target {unknown}; there are {}", known.join(", "));
    }
    let binaries = build()?;
    let mut failed = Vec::new();
    for target in known.iter().filter(|target| args.targets.is_empty() || args.targets.contains(target)) {
        if fuzz(&binaries.join(target), target, args).is_err() {
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("findings in {}: see fuzz/artifacts", failed.join(", ")) }
}

fn directory() -> PathBuf {
    shell::root().join("fuzz")
}

fn targets() -> anyhow::Result<Vec<String>> {
    // Beside the targets there is what they share.
    let manifest = std::fs::read_to_string(directory().join("Cargo.toml"))?;
    let is_target = |name: &&str| manifest.contains(&format!("name = \"{name}\""));
    let mut names = Vec::new();
    for entry in directory().join("fuzz_targets").read_dir().context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).filter(is_target).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets; tells where they are.
fn build() -> anyhow::Result<PathBuf> {
    // With a target named, cargo does not instrument what runs while it builds.
    let host = Command::new("rustc").args(["--print", "host-tuple"]).output().context("cannot run rustc")?;
    let host = String::from_utf8(host.stdout)?.trim().to_owned();
    let target_dir = shell::target_dir().join("fuzz");
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--release", "--locked", "--bins", "--target", &host, "--target-dir"])
        .arg(&target_dir);
    cargo.current_dir(directory()).env("RUSTFLAGS", COVERAGE).env_remove("CARGO_ENCODED_RUSTFLAGS");
    shell::run(&mut cargo)?;
    Ok(target_dir.join(host).join("release"))
}

fn fuzz(binary: &Path, target: &str, args: &Args) -> anyhow::Result<()> {
    let artifacts = directory().join("artifacts").join(target);
    let corpus = directory().join("corpus").join(target);
    let seeds = directory().join("seeds").join(target);
    for directory in [&artifacts, &corpus] {
        std::fs::create_dir_all(directory)?;
    }
    let mut command = Command::new(binary);
    // What is found goes to the first directory, the seeds are only read.
    command.arg(corpus).args(seeds.is_dir().then_some(seeds));
    command.args([
        format!("-max_total_time={}", args.seconds),
        format!("-timeout={SLOWEST}"),
        format!("-rss_limit_mb={MOST_MEMORY}"),
        format!("-max_len={LONGEST_INPUT}"),
        format!("-artifact_prefix={}/", artifacts.display()),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
    ]);
    command.args(args.seed.map(|seed| format!("-seed={seed}")));
    shell::run(&mut command)
}
