//! The configuration file: its keys, where they stand, and which of them are tables of their own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::ConfigError;

/// A file that was read, or none.
#[derive(Default)]
pub(super) struct File {
    path: PathBuf,
    table: Table,
    /// Of each top-level key and each key right below one.
    lines: HashMap<(String, String), usize>,
}

/// Reads a file whose settings are still to be checked.
pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// The same of a file that holds this text.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    // The parser's own text would show the line, which may hold a secret.
    let broken = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line(span.start));
        ConfigError::Invalid(vec![format!("{}:{line}: {}", path.display(), error.message())])
    };
    let table = toml::from_str(text).map_err(broken)?;
    let mut lines = HashMap::new();
    for (key, value) in DeTable::parse(text).map_err(broken)?.get_ref() {
        let name = key.get_ref().to_string();
        if let DeValue::Table(inner) = value.get_ref() {
            for key in inner.keys() {
                lines.insert((name.clone(), key.get_ref().to_string()), line(key.span().start));
            }
        }
        lines.insert((name, String::new()), line(key.span().start));
    }
    Ok(File { path: path.to_owned(), table, lines })
}

impl File {
    fn line(&self, key: &str, below: &str) -> usize {
        self.lines.get(&(key.to_owned(), below.to_owned())).copied().unwrap_or(1)
    }

    /// A line of the file, as an error begins.
    pub(super) fn place(&self, line: usize) -> String {
        format!("{}:{line}: ", self.path.display())
    }

    /// All keys but the tables of tenants and tokens, and their lines.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &Value, usize)> {
        let settings = self.table.iter().filter(|(name, _)| !matches!(name.as_str(), "tenants" | "tokens"));
        settings.map(|(name, value)| (name.as_str(), value, self.line(name, "")))
    }

    /// The tables of tenants, and their lines.
    pub(super) fn tenants(&self, problems: &mut Vec<String>) -> Vec<(&str, &Table, usize)> {
        let mut tenants = Vec::new();
        let Some(value) = self.table.get("tenants") else { return tenants };
        let mut wrong = |line| {
            let place = self.place(line);
            problems.push(format!("{place}tenants: expected tables with limits, as [tenants.team-a]"));
        };
        let Value::Table(tables) = value else {
            wrong(self.line("tenants", ""));
            return tenants;
        };
        for (id, value) in tables {
            let line = self.line("tenants", id);
            match value {
                Value::Table(table) => tenants.push((id.as_str(), table, line)),
                _ => wrong(line),
            }
        }
        tenants
    }

    /// What stands under `tokens`, and its line.
    pub(super) fn tokens(&self) -> Option<(&Value, usize)> {
        self.table.get("tokens").map(|value| (value, self.line("tokens", "")))
    }
}
