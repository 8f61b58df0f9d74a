//! The workspace's binaries, built once a test process and with its own profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::Process;

/// What the tests start, all built by one call: cargo then settles on one set of features.
const PACKAGES: [&str; 5] = [
    "spanflame-server",
    "example-axum-tracing",
    "example-plain-otel",
    "example-pyroscope-agent",
    "example-threads",
];

/// The path of a binary, up to date with its sources.
///
/// # Panics
/// When the packages do not build.
pub fn binary(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(build).join(name).with_extension(std::env::consts::EXE_EXTENSION)
}

/// A server on that store.
///
/// # Panics
/// When it does not build or start.
pub fn serve(data: &Path) -> Process {
    let mut command = Command::new(binary("spanflame"));
    command.env_clear().args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    Process::start(&mut command)
}

fn build() -> PathBuf {
    // <target>/<profile>/deps/<this test>: wherever CARGO_TARGET_DIR and --target have put it.
    let test = std::env::current_exe().expect("the system knows this program's path");
    let directory = test.parent().and_then(Path::parent).expect("cargo puts tests two directories deep");
    let target = directory.parent().expect("a profile's directory is within the target directory");
    let profile = directory.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if profile == "debug" { "dev" } else { profile };

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "the binaries do not build: {status}");
    directory.to_owned()
}
