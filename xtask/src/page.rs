//! The web page: npm's part of the build, and the check that the files in the repository are what it builds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build aside and fail if the checked-in files differ
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    install()?;
    let built = shell::target_dir().join("page");
    if args.check {
        build(&built)?;
        compare(&files(&built)?, &files(&dist())?)
    } else {
        build(&dist())
    }
}

/// The page's sources.
pub(crate) fn directory() -> PathBuf {
    shell::root().join("server/ui")
}

fn dist() -> PathBuf {
    directory().join("dist")
}

/// An npm command in the page's directory.
pub(crate) fn npm(arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(directory()).args(arguments);
    command
}

/// Installs Node.js and the packages of the lock file, unless they are there already.
pub(crate) fn install() -> anyhow::Result<()> {
    shell::need("node", &["nodejs", "npm"])?;
    shell::need("npm", &["npm"])?;
    // npm leaves a copy of the lock file it installed from; if it is as old as ours there is nothing to do.
    let installed = directory().join("node_modules/.package-lock.json");
    let lock = directory().join("package-lock.json");
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified());
    if let (Ok(installed), Ok(lock)) = (modified(&installed), modified(&lock))
        && installed >= lock
    {
        return Ok(());
    }
    shell::run(&mut npm(&["ci", "--no-audit", "--no-fund"]))
}

fn build(to: &Path) -> anyhow::Result<()> {
    let to = to.to_str().context("the target directory's path is not UTF-8")?;
    shell::run(&mut npm(&["run", "build", "--", "--outDir", to, "--emptyOutDir"]))
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(directory: &Path) -> anyhow::Result<Files> {
    let mut found = Files::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in next.read_dir().with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("found below it").to_owned();
                found.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

fn compare(built: &Files, checked_in: &Files) -> anyhow::Result<()> {
    let differing: Vec<_> = built
        .keys()
        .chain(checked_in.keys())
        .filter(|name| built.get(*name) != checked_in.get(*name))
        .map(|name| name.display().to_string())
        .collect();
    if differing.is_empty() {
        println!("the page's {} checked-in files are what its sources build", built.len());
        return Ok(());
    }
    bail!("server/ui/dist is not what server/ui builds (run `cargo xtask page`): {}", differing.join(", "))
}
