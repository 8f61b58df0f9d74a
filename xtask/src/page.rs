//! The web page: npm's part of the build, and the check that the files in the repository are what it builds.

use std::collections::BTreeMap;
use std::ffi::OsString;
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

/// An npm command in the page's directory, run by a Node.js that is new enough.
pub(crate) fn npm(arguments: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(directory()).args(arguments).env("PATH", path());
    command
}

/// Where programs are looked for, so that a Node.js that is new enough comes first.
pub(crate) fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !own_node().is_dir() {
        return path;
    }
    let places = std::iter::once(own_node()).chain(std::env::split_paths(&path));
    std::env::join_paths(places).expect("no colon in the target directory's path")
}

/// The oldest Node.js that the page's tools run on, as `package.json` says.
const OLDEST_NODE: (u32, u32) = (20, 19);
/// What is installed aside where the system's is older, as Debian 12's is. npm carries Node.js itself.
const NEWER_NODE: &str = "22.21.1";

fn own_node() -> PathBuf {
    shell::target_dir().join("node/node_modules").join(node_package()).join("bin")
}

fn node_package() -> String {
    format!("node-linux-{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" })
}

/// Makes sure of npm and of a Node.js that is new enough.
pub(crate) fn need_node() -> anyhow::Result<()> {
    shell::need("npm", &["nodejs", "npm"])?;
    let version = Command::new("node").arg("--version").output().context("cannot run `node`")?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if node_version(&version).is_some_and(|version| version >= OLDEST_NODE) || own_node().is_dir() {
        return Ok(());
    }
    eprintln!("node {} is too old for the page: {NEWER_NODE} goes into the target directory", version.trim());
    let aside = shell::target_dir().join("node");
    std::fs::create_dir_all(&aside)?;
    let package = format!("{}@{NEWER_NODE}", node_package());
    shell::run(
        Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"])
            .arg(&aside)
            .arg(package),
    )
}

/// Major and minor of what `node --version` prints.
fn node_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.trim().strip_prefix('v')?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Installs Node.js and the packages of the lock file, unless they are there already.
pub(crate) fn install() -> anyhow::Result<()> {
    need_node()?;
    if is_installed(&directory()) {
        return Ok(());
    }
    shell::run(&mut npm(&["ci", "--no-audit", "--no-fund"]))
}

/// Whether the packages of this directory's lock file are there.
pub(crate) fn is_installed(directory: &Path) -> bool {
    // npm leaves a copy of the lock file it installed from; if it is as old as ours there is nothing to do.
    let modified = |path: &str| directory.join(path).metadata().and_then(|data| data.modified());
    matches!((modified("node_modules/.package-lock.json"), modified("package-lock.json")),
        (Ok(installed), Ok(lock)) if installed >= lock)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_is_told_from_a_new_one() {
        assert_eq!(node_version("v20.19.1\n"), Some((20, 19)));
        assert!(node_version("v18.20.4").expect("a version") < OLDEST_NODE);
        assert!(node_version("v22.3.0").expect("a version") >= OLDEST_NODE);
        assert_eq!(node_version("node 22"), None);
    }
}
