//! Rules of the house that no compiler knows.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell;

/// Past this a file is no longer read in one sitting.
const MAX_LINES: usize = 900;

pub(crate) fn run() -> anyhow::Result<()> {
    let listed = Command::new("git")
        .current_dir(shell::root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run `git ls-files`")?;
    let names = String::from_utf8(listed.stdout).context("a file name is not UTF-8")?;
    let mut complaints = Vec::new();
    let mut read = 0;
    for name in names.split_terminator('\0').filter(|name| is_source(name)) {
        let Ok(text) = std::fs::read_to_string(shell::root().join(name)) else { continue };
        read += 1;
        complaints.extend(complain(name, &text).map(|complaint| format!("{name}: {complaint}")));
    }
    if read == 0 {
        bail!("no source files found: is this a git checkout?");
    }
    if !complaints.is_empty() {
        bail!("{} complaints\n{}", complaints.len(), complaints.join("\n"));
    }
    println!("tidy: {read} source files keep the rules of the house");
    Ok(())
}

fn is_source(name: &str) -> bool {
    let generated = name.starts_with("server/ui/dist/");
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    !generated && matches!(extension, Some("rs" | "ts" | "tsx" | "css" | "mjs"))
}

/// What is wrong with one file.
fn complain(name: &str, text: &str) -> impl Iterator<Item = String> {
    // A module's tests are told by the module.
    let rust = name.ends_with(".rs") && !name.ends_with("/tests.rs");
    let lines = text.lines().count();
    let long = (lines > MAX_LINES).then(|| format!("{lines} lines, {MAX_LINES} allowed: split it"));
    let silent = (rust && !text.starts_with("//!"))
        .then(|| "a module's first line says what it is for: start it with `//!`".to_owned());
    // Spelled apart so that this file does not complain about itself.
    let unfinished = ["TO\u{44}O", "FIX\u{4d}E", "#[ig\u{6e}ore"]
        .into_iter()
        .filter(|word| text.contains(word))
        .map(|word| format!("`{word}` leaves something undone: finish it or file it"))
        .collect::<Vec<_>>();
    long.into_iter().chain(silent).chain(unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_complains_about_a_file_that_breaks_it() {
        let complaints = |name, text: &str| complain(name, text).collect::<Vec<_>>();
        assert_eq!(complaints("a.rs", "//! For a.\nfn a() {}\n"), Vec::<String>::new());
        assert_eq!(complaints("a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(complaints("a/tests.rs", "use super::*;\n").len(), 0);
        assert_eq!(complaints("a.ts", &"x;\n".repeat(MAX_LINES + 1)).len(), 1);
        assert_eq!(complaints("a.rs", "//! For a.\n// TO\u{44}O: b\n").len(), 1);
        assert!(is_source("server/ui/src/main.tsx") && !is_source("server/ui/dist/assets/main.js"));
    }
}
