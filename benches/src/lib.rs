//! Side-by-side benchmarks: what Spanflame's bridge costs and how right it is, beside its peers, in one run.
//!
//! One module per group of targets measures and returns a [`Report`]; the `cargo bench` targets print it as a
//! table, and `cargo xtask targets` asks the same binaries for JSON. Every profiler runs in its own process (see
//! `spanflame-bench-rig`), and rounds of all processes are interleaved, so that a busy machine hits all alike.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod process;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod subjects;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod attribution;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod context;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod delivery;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod footprint;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod governed;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod handler;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod instructions;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod overhead;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod shortest;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod span;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod stack;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod storm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod upkeep;

use spanflame_bench_rig::Measurement;
use std::path::PathBuf;
use std::process::ExitCode;

/// How to measure.
pub struct Setup {
    /// Short runs that show the shape, not the figure.
    pub quick: bool,
    /// Path of our own subject's binary.
    pub subject: PathBuf,
}

impl Setup {
    /// `quick` or `full`, by what was asked.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// What a benchmark found.
pub struct Report {
    /// One for each target.
    pub measurements: Vec<Measurement>,
    /// The whole table, for a reader.
    pub table: String,
}

/// The body of a benchmark's `main`: `--quick` shortens it, `--json` prints the measurements as one line.
pub fn run(subject: &str, measure: fn(&Setup) -> anyhow::Result<Report>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo test --benches` runs benchmarks too, without `--bench`: nothing to test here.
    if !has("--bench") {
        return ExitCode::SUCCESS;
    }
    let setup = Setup { quick: has("--quick"), subject: PathBuf::from(subject) };
    let outcome = measure(&setup).and_then(|report| {
        if has("--json") {
            println!("{}", serde_json::to_string(&report.measurements)?);
        } else {
            println!("{}", report.table);
            for measurement in &report.measurements {
                println!("{measurement}");
            }
        }
        Ok(())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
