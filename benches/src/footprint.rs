//! B18: what a service's build gains in crates and time by each of the two.

use crate::{Report, Setup};
use anyhow::{Context, Result, bail};
use spanflame_bench_rig::Measurement;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A traced service without any profiler.
const SERVICE: &str = r#"opentelemetry = "0.33"
opentelemetry_sdk = "0.33"
tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }
"#;
const PYROSCOPE: &str = r#"pyroscope = { version = "=2.1.5", features = ["backend-pprof-rs"] }
"#;

/// What building a service takes.
struct Build {
    title: &'static str,
    crates: BTreeSet<String>,
    /// Wall-clock and CPU time of a build from nothing; not in a quick run.
    took: Option<(Duration, Duration)>,
}

/// The same small service three times: alone, with ours and with the peer, each with default features and as a
/// release build from nothing.
pub fn measure(setup: &Setup) -> Result<Report> {
    let target = setup.subject.ancestors().nth(2).context("our own target directory")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's root")?;
    let ours = format!("spanflame = {{ path = {:?} }}\n", root.join("bridge"));
    let mut builds = Vec::new();
    for (title, dependency) in [("service", ""), ("spanflame", &*ours), ("pyroscope 2.1.5", PYROSCOPE)] {
        let package = target.join("footprint").join(title.replace(' ', "-"));
        write_package(&package, root, dependency)?;
        let crates = crates(&package)?;
        let took = if setup.quick { None } else { Some(build(&package)?) };
        builds.push(Build { title, crates, took });
    }
    let [service, profilers @ ..] = builds.as_slice() else { bail!("nothing was built") };

    let mut table = String::from(
        "added to a traced service by its profiler's default features\n\n\
         |  | crates | build, s | build, CPU s |\n|---|---|---|---|\n",
    );
    let mut note = format!("beside a service of {} crates", service.crates.len());
    let mut added = Vec::new();
    for build in profilers {
        let crates = build.crates.difference(&service.crates).count();
        added.push(crates as f64);
        write!(table, "| {} | {crates} |", build.title)?;
        write!(note, "; {} {crates} crates", build.title)?;
        if let (Some(with), Some(without)) = (build.took, service.took) {
            let more = |with: Duration, without: Duration| with.as_secs_f64() - without.as_secs_f64();
            let (wall, cpu) = (more(with.0, without.0), more(with.1, without.1));
            write!(table, " {wall:.1} | {cpu:.1} |")?;
            write!(note, ", {wall:.1} s more to build, {cpu:.1} s of CPU")?;
        }
        writeln!(table)?;
    }
    let measurement = Measurement {
        id: "B18".to_owned(),
        ours: added.first().copied(),
        peer: added.get(1).copied(),
        unit: "crates".to_owned(),
        peer_is: "pyroscope 2.1.5 with backend-pprof-rs".to_owned(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}

/// A package of its own that begins with the workspace's versions.
fn write_package(package: &Path, root: &Path, dependency: &str) -> Result<()> {
    std::fs::create_dir_all(package.join("src"))?;
    let manifest = format!(
        "[package]\nname = \"service\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{SERVICE}{dependency}"
    );
    std::fs::write(package.join("Cargo.toml"), manifest)?;
    std::fs::write(package.join("src/main.rs"), "fn main() {}\n")?;
    std::fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;
    Ok(())
}

fn cargo(package: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(package)
        .args(arguments)
        // Where it is built is part of what is measured, and flags from outside are not.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {arguments:?} in {}: {}", package.display(), output.status);
    }
    Ok(output)
}

/// Names of what is compiled for the service, build scripts' dependencies included, the service itself not.
fn crates(package: &Path) -> Result<BTreeSet<String>> {
    let arguments = ["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let text = String::from_utf8(cargo(package, &arguments)?.stdout)?;
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    Ok(names.map(str::to_owned).collect())
}

/// Builds it from nothing, with everything downloaded before.
fn build(package: &Path) -> Result<(Duration, Duration)> {
    cargo(package, &["fetch", "--quiet"])?;
    let target: PathBuf = package.join("target");
    if target.exists() {
        std::fs::remove_dir_all(&target)?;
    }
    let (start, before) = (Instant::now(), cpu_of_children()?);
    cargo(package, &["build", "--release", "--quiet"])?;
    let took = (start.elapsed(), cpu_of_children()?.saturating_sub(before));
    std::fs::remove_dir_all(&target)?;
    Ok(took)
}

/// CPU time of all processes that this one has started and waited for, and of theirs.
fn cpu_of_children() -> Result<Duration> {
    // The kernel's unit there, whatever its tick.
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    // cutime and cstime are fields 16 and 17; the third is the first after the name.
    let ticks: u64 =
        fields.split_whitespace().skip(13).take(2).filter_map(|text| text.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1_000 / TICKS))
}
