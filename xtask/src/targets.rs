//! Measures the targets and prints one line for each. The measuring is `cargo bench`'s; nothing here judges a figure.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use spanflame_bench_rig::Measurement;

use crate::shell;

/// The benchmarks of `spanflame-benches` and the targets that each measures.
const BENCHES: &[(&str, &[&str])] = &[
    ("instructions", &["B1", "B3"]),
    ("handler", &["B2"]),
    ("delivery", &["B4", "B5"]),
    ("attribution", &["B6"]),
    ("context", &["B7"]),
    ("span", &["B8"]),
    ("overhead", &["B9"]),
    ("upkeep", &["B12", "B13", "B14", "B15"]),
    ("governed", &["B10"]),
    ("shortest", &["B11"]),
    ("stack", &["B16"]),
    ("storm", &["B17"]),
    ("footprint", &["B18"]),
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets to measure, such as `B1 B4`; all of them when none is named
    #[arg(value_parser = known)]
    ids: Vec<String>,
    /// Short runs: the shape of a figure, not the figure
    #[arg(long)]
    quick: bool,
}

fn known(id: &str) -> Result<String, String> {
    let id = id.to_uppercase();
    let mut all = BENCHES.iter().flat_map(|(_, ids)| *ids);
    if all.any(|known| *known == id) {
        return Ok(id);
    }
    let all: Vec<_> = BENCHES.iter().flat_map(|(_, ids)| *ids).copied().collect();
    Err(format!("no such target is measured; there are {}", all.join(", ")))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (bench, ids) in BENCHES {
        let wanted = |id: &str| args.ids.is_empty() || args.ids.iter().any(|asked| asked == id);
        if !ids.iter().any(|id| wanted(id)) {
            continue;
        }
        match measure(bench, args.quick) {
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

fn measure(bench: &str, quick: bool) -> anyhow::Result<Vec<Measurement>> {
    if bench == "instructions" {
        shell::need("valgrind", &["valgrind"])?;
    }
    let mut command = shell::cargo();
    command.args(["bench", "--quiet", "--package", "spanflame-benches", "--bench", bench, "--", "--json"]);
    if quick {
        command.arg("--quick");
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
