//! What users choose in their tools, by tenant: names and values that only those tools understand.
//!
//! One small file, read when somebody asks for the first time and replaced as a whole with each change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::model::TenantId;

/// The most settings of one tenant.
const MAX_SETTINGS: usize = 1000;
/// The most settings of all tenants.
const MAX_ALL_SETTINGS: usize = 20_000;
/// The longest name and value, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 16 * 1024;

/// What was chosen, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// What its tool understands.
    pub(crate) value: String,
    /// When it was chosen, in Unix milliseconds.
    pub(crate) modified_ms: i64,
}

/// Why a setting was not kept or could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// It is no setting. The message names the field and the fix.
    #[error("{0}")]
    Invalid(String),
    /// A later choice is kept already.
    #[error("setting.modifiedAt: a later change of {name:?}, of {kept} ms, is kept already")]
    Outdated {
        /// Its name.
        name: String,
        /// When the kept one was chosen, in Unix milliseconds.
        kept: i64,
    },
    /// The file cannot be read or written.
    #[error("settings cannot be kept in {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

type OfTenant = BTreeMap<String, Setting>;
type All = BTreeMap<String, OfTenant>;

/// Keeps settings.
pub(crate) struct UserSettings {
    path: PathBuf,
    /// None until they were read.
    kept: Mutex<Option<All>>,
}

impl UserSettings {
    /// Settings in this directory, which the caller has for itself.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("user_settings.json"), kept: Mutex::new(None) }
    }

    /// A tenant's settings by name.
    pub(crate) fn get(&self, tenant: &TenantId) -> Result<OfTenant, SettingsError> {
        let mut kept = self.kept.lock();
        Ok(self.read(&mut kept)?.get(tenant.as_str()).cloned().unwrap_or_default())
    }

    /// Keeps a setting unless a later one is kept; when this returns it is on disk.
    pub(crate) fn set(&self, tenant: &TenantId, name: &str, setting: Setting) -> Result<(), SettingsError> {
        for (field, got, max) in
            [("name", name.len(), MAX_NAME_BYTES), ("value", setting.value.len(), MAX_VALUE_BYTES)]
        {
            if got > max {
                let message = format!("setting.{field}: expected at most {max} bytes, got {got}");
                return Err(SettingsError::Invalid(message));
            }
        }
        if name.is_empty() {
            return Err(SettingsError::Invalid("setting.name: expected a name, got \"\"".to_owned()));
        }
        let mut kept = self.kept.lock();
        let mut all = self.read(&mut kept)?.clone();
        let count = all.values().map(BTreeMap::len).sum::<usize>();
        let of_tenant = all.entry(tenant.as_str().to_owned()).or_default();
        match of_tenant.get(name) {
            Some(old) if old.modified_ms > setting.modified_ms => {
                return Err(SettingsError::Outdated { name: name.to_owned(), kept: old.modified_ms });
            }
            None if of_tenant.len() >= MAX_SETTINGS || count >= MAX_ALL_SETTINGS => {
                let message =
                    format!("setting.name: there are {MAX_SETTINGS} settings already, or too many in all");
                return Err(SettingsError::Invalid(message));
            }
            _ => of_tenant.insert(name.to_owned(), setting),
        };
        self.write(&all).map_err(|error| SettingsError::Io { path: self.path.clone(), error })?;
        *kept = Some(all);
        Ok(())
    }

    fn read<'a>(&self, kept: &'a mut Option<All>) -> Result<&'a All, SettingsError> {
        if kept.is_none() {
            let read = match fs::read(&self.path) {
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(All::new()),
                Err(error) => Err(error),
            };
            *kept = Some(read.map_err(|error| SettingsError::Io { path: self.path.clone(), error })?);
        }
        Ok(kept.as_ref().expect("read above"))
    }

    /// At every moment the name leads to the old file or to the new one.
    fn write(&self, all: &All) -> io::Result<()> {
        let temporary = self.path.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(all)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // Only some systems let a directory be synced; the others make the new name durable by themselves.
        #[cfg(unix)]
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn setting(value: &str, modified_ms: i64) -> Setting {
        Setting { value: value.to_owned(), modified_ms }
    }

    #[test]
    fn what_is_kept_is_there_after_a_start_and_tenants_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        assert!(settings.get(&tenant("a")).unwrap().is_empty());
        settings.set(&tenant("a"), "theme", setting("dark", 1)).unwrap();
        settings.set(&tenant("a"), "theme", setting("light", 2)).unwrap();
        settings.set(&tenant("b"), "theme", setting("blue", 1)).unwrap();
        for settings in [&settings, &UserSettings::new(dir.path())] {
            assert_eq!(settings.get(&tenant("a")).unwrap()["theme"], setting("light", 2));
            assert_eq!(settings.get(&tenant("b")).unwrap()["theme"], setting("blue", 1));
            assert!(settings.get(&tenant("c")).unwrap().is_empty());
        }
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["user_settings.json"]);
    }

    #[test]
    fn an_earlier_change_does_not_undo_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        settings.set(&tenant("a"), "theme", setting("dark", 5)).unwrap();
        let error = settings.set(&tenant("a"), "theme", setting("light", 4)).unwrap_err();
        assert!(matches!(error, SettingsError::Outdated { kept: 5, .. }), "{error}");
        settings.set(&tenant("a"), "theme", setting("light", 5)).unwrap();
        assert_eq!(settings.get(&tenant("a")).unwrap()["theme"].value, "light");
    }

    #[test]
    fn settings_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        let refused = |name: &str, value: &str| {
            settings.set(&tenant("a"), name, setting(value, 1)).unwrap_err().to_string()
        };
        assert_eq!(refused("", "x"), "setting.name: expected a name, got \"\"");
        assert!(refused(&"n".repeat(MAX_NAME_BYTES + 1), "x").starts_with("setting.name: expected at most"));
        assert!(
            refused("n", &"v".repeat(MAX_VALUE_BYTES + 1)).starts_with("setting.value: expected at most")
        );
        *settings.kept.lock() = Some(All::from([(
            "a".to_owned(),
            (0..MAX_SETTINGS).map(|n| (n.to_string(), setting("x", 1))).collect(),
        )]));
        assert!(refused("new", "x").contains("1000 settings already"));
        settings.set(&tenant("a"), "7", setting("y", 2)).unwrap();
    }

    #[test]
    fn a_damaged_file_is_said_to_be_so_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user_settings.json");
        fs::write(&path, b"{").unwrap();
        let settings = UserSettings::new(dir.path());
        let error = settings.set(&tenant("a"), "theme", setting("dark", 1)).unwrap_err();
        assert!(error.to_string().contains("user_settings.json"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{");
    }
}
