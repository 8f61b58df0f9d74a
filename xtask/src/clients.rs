//! Clients of others, for the tests that let them talk to the server.

use std::path::PathBuf;
use std::process::Command;

use crate::{page, python, shell};

/// Installs the clients and runs their tests.
pub(crate) fn test() -> anyhow::Result<()> {
    let python = python::programs("clients", &sources().join("python/requirements.txt"))?.join("python");
    node()?;
    let mut tests = shell::cargo();
    tests.args(["test", "--package", "spanflame-tests", "--features", "clients", "--test", "clients"]);
    shell::run(tests.env("SPANFLAME_PYTHON", python).env("PATH", page::path()))
}

fn sources() -> PathBuf {
    shell::root().join("tests/clients")
}

/// Node.js looks for packages beside the program that it runs, so they are installed there.
fn node() -> anyhow::Result<()> {
    page::need_node()?;
    let directory = sources().join("node");
    if page::is_installed(&directory) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    shell::run(npm.current_dir(directory).args(["ci", "--no-audit", "--no-fund"]).env("PATH", page::path()))
}
