//! Agents of others, as their users install them, against the server.

use std::process::Command;

use crate::{page, shell};

/// Installs what is missing and has each agent push to a server of its own.
pub(crate) fn run() -> anyhow::Result<()> {
    shell::run(shell::cargo().args(["build", "--package", "spanflame-server"]))?;
    python()?;
    node()
}

fn python() -> anyhow::Result<()> {
    let directory = shell::root().join("tests/clients/python");
    let environment = shell::target_dir().join("clients/python");
    let python = environment.join("bin/python");
    if !python.exists() {
        shell::need("python3", &["python3", "python3-venv"])?;
        shell::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    shell::run(Command::new(&python).args(pip).arg(directory.join("requirements.txt")))?;
    shell::run(Command::new(&python).arg(directory.join("check.py")).env("SPANFLAME_BIN", server()))
}

fn node() -> anyhow::Result<()> {
    let directory = shell::root().join("tests/clients/node");
    page::need_node()?;
    shell::run(page::npm(&["ci", "--no-audit", "--no-fund"]).current_dir(&directory))?;
    shell::run(page::npm(&["test"]).current_dir(&directory).env("SPANFLAME_BIN", server()))
}

fn server() -> std::path::PathBuf {
    shell::target_dir().join("debug/spanflame")
}
