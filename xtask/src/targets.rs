//! Measures the targets and prints one line for each. The measuring is `cargo bench`'s; nothing here judges a figure.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use spanflame_bench_rig::Measurement;

use crate::{python, shell};

const BRIDGE: &str = "spanflame-benches";
const SERVER: &str = "spanflame-server";

/// The benchmarks by package and name, and the targets that each measures.
const BENCHES: &[(&str, &str, &[&str])] = &[
    (BRIDGE, "instructions", &["B1", "B3"]),
    (BRIDGE, "handler", &["B2"]),
    (BRIDGE, "delivery", &["B4", "B5"]),
    (BRIDGE, "attribution", &["B6"]),
    (BRIDGE, "context", &["B7"]),
    (BRIDGE, "span", &["B8"]),
    (BRIDGE, "overhead", &["B9"]),
    (BRIDGE, "upkeep", &["B12", "B13", "B14", "B15"]),
    (BRIDGE, "governed", &["B10"]),
    (BRIDGE, "shortest", &["B11"]),
    (BRIDGE, "stack", &["B16"]),
    (BRIDGE, "storm", &["B17"]),
    (BRIDGE, "footprint", &["B18"]),
    (SERVER, "server", SERVER_TARGETS),
];

const SERVER_TARGETS: &[&str] =
    &["S1", "S2", "S3", "S4", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T10"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets to measure, such as `B1 B4`; all of them when none is named
    #[arg(value_parser = known)]
    ids: Vec<String>,
    /// Short runs: the shape of a figure, not the figure
    #[arg(long)]
    quick: bool,
    /// Address of a Grafana Pyroscope server to measure the server beside, as http://127.0.0.1:4040; none is started
    #[arg(long, value_name = "URL")]
    pyroscope: Option<String>,
    /// Samples of the largest corpus in the store
    #[arg(long, value_name = "SAMPLES", value_parser = clap::value_parser!(u64).range(1000..))]
    corpus: Option<u64>,
}

fn known(id: &str) -> Result<String, String> {
    let id = id.to_uppercase();
    let mut all = BENCHES.iter().flat_map(|(_, _, ids)| *ids);
    if all.any(|known| *known == id) {
        return Ok(id);
    }
    let all: Vec<_> = BENCHES.iter().flat_map(|(_, _, ids)| *ids).copied().collect();
    Err(format!("no such target is measured; there are {}", all.join(", ")))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (package, bench, ids) in BENCHES {
        let wanted = |id: &str| args.ids.is_empty() || args.ids.iter().any(|asked| asked == id);
        if !ids.iter().any(|id| wanted(id)) {
            continue;
        }
        match measure(package, bench, args) {
            Ok(measurements) => {
                measurements.iter().filter(|found| wanted(&found.id)).for_each(|found| println!("{found}"));
            }
            Err(error) => {
                eprintln!("{bench}: {error:#}");
                failed.push(*bench);
            }
        }
    }
    // A missed target is a figure; a measurement that cannot be made is an error.
    if failed.is_empty() { Ok(()) } else { bail!("could not measure: {}", failed.join(", ")) }
}

fn measure(package: &str, bench: &str, args: &Args) -> anyhow::Result<Vec<Measurement>> {
    if bench == "instructions" {
        shell::need("valgrind", &["valgrind"])?;
    }
    let mut command = shell::cargo();
    command.args(["bench", "--quiet", "--package", package, "--bench", bench, "--", "--json"]);
    if args.quick {
        command.arg("--quick");
    }
    if package == SERVER {
        if args.ids.is_empty() || args.ids.iter().any(|id| id == "T10") {
            command.env("SPANFLAME_PYTHON", python::with_s3()?);
        }
        // One program measures them all, each part on servers of its own.
        command.args(args.ids.iter().filter(|id| SERVER_TARGETS.contains(&id.as_str())));
        if let Some(url) = &args.pyroscope {
            command.args(["--pyroscope", url]);
        }
        if let Some(samples) = args.corpus {
            command.arg("--corpus").arg(samples.to_string());
        }
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo bench")?;
    if !output.status.success() {
        bail!("cargo bench: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().rfind(|line| line.starts_with('[')).context("it printed no measurements")?;
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_in_any_case_and_unknown_ones_refused() {
        assert_eq!(known("b5").as_deref(), Ok("B5"));
        assert!(known("B99").is_err_and(|error| error.contains("B1, B3, B2")));
    }
}
