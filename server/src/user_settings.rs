//! What users choose in their tools, by tenant: names and values that only those tools understand.
//!
//! One small file for each tenant, read when somebody asks and replaced as a whole with each change. None is kept in memory,
//! and no tenant takes room from another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::model::TenantId;

/// The most settings of one tenant.
const MAX_SETTINGS: usize = 1000;
/// The most bytes of all names and values of one tenant.
const MAX_BYTES: usize = 256 << 10;
/// The most tenants with settings.
const MAX_TENANTS: usize = 10_000;
/// The longest name and value, in bytes.
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 16 * 1024;
/// How far in the future a choice may be, in milliseconds: clocks differ, and an earlier one does not undo a later one.
const MAX_AHEAD_MS: i64 = 24 * 60 * 60 * 1000;

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

type Settings = BTreeMap<String, Setting>;

/// A tenant's file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OfTenant {
    /// For whoever looks at it.
    tenant: String,
    settings: Settings,
}

/// Keeps settings.
pub(crate) struct UserSettings {
    dir: PathBuf,
    /// Held while files are read and written.
    files: Mutex<()>,
}

impl UserSettings {
    /// Settings below this directory, which the caller has for itself.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("user_settings"), files: Mutex::default() }
    }

    /// A tenant's settings by name.
    pub(crate) fn get(&self, tenant: &TenantId) -> Result<Settings, SettingsError> {
        let path = self.path(tenant);
        let _files = self.files.lock();
        read(&path).map(Option::unwrap_or_default).map_err(|error| SettingsError::Io { path, error })
    }

    /// Keeps a setting unless a later one is kept; when this returns it is on disk.
    pub(crate) fn set(
        &self,
        tenant: &TenantId,
        name: &str,
        setting: Setting,
        now_ms: i64,
    ) -> Result<(), SettingsError> {
        check(name, &setting, now_ms).map_err(SettingsError::Invalid)?;
        let path = self.path(tenant);
        let _files = self.files.lock();
        let io = |error| SettingsError::Io { path: path.clone(), error };
        let kept = read(&path).map_err(io)?;
        let is_new = kept.is_none();
        let mut settings = kept.unwrap_or_default();
        if let Some(old) = settings.get(name).filter(|old| old.modified_ms > setting.modified_ms) {
            return Err(SettingsError::Outdated { name: name.to_owned(), kept: old.modified_ms });
        }
        settings.insert(name.to_owned(), setting);
        let bytes: usize = settings.iter().map(|(name, setting)| name.len() + setting.value.len()).sum();
        let beyond = if settings.len() > MAX_SETTINGS {
            Some(format!("setting.name: there are {MAX_SETTINGS} settings already, which is the most"))
        } else if bytes > MAX_BYTES {
            Some(format!(
                "setting.value: all settings together would have {bytes} bytes, the most is {MAX_BYTES}"
            ))
        } else if is_new && self.tenants().map_err(io)? >= MAX_TENANTS {
            Some(format!("setting: {MAX_TENANTS} tenants have settings already, which is the most"))
        } else {
            None
        };
        if let Some(beyond) = beyond {
            return Err(SettingsError::Invalid(beyond));
        }
        self.write(&path, &OfTenant { tenant: tenant.to_string(), settings }).map_err(io)
    }

    /// A tenant's file. Not every file system tells names apart that differ in case, or takes all characters of one.
    fn path(&self, tenant: &TenantId) -> PathBuf {
        let hash = digest::digest(&digest::SHA256, tenant.as_str().as_bytes());
        let mut name = String::new();
        for byte in hash.as_ref() {
            write!(name, "{byte:02x}").expect("a string takes it");
        }
        self.dir.join(name).with_extension("json")
    }

    fn tenants(&self) -> io::Result<usize> {
        match fs::read_dir(&self.dir) {
            Ok(files) => Ok(files.count()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// At every moment the name leads to the old file or to the new one.
    fn write(&self, path: &Path, of_tenant: &OfTenant) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let temporary = path.with_extension("json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(of_tenant)?)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // Only some systems let a directory be synced; the others make the new name durable by themselves.
        #[cfg(unix)]
        for dir in [Some(&*self.dir), self.dir.parent()].into_iter().flatten() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Whether it is a setting, and not where else it would be kept.
fn check(name: &str, setting: &Setting, now_ms: i64) -> Result<(), String> {
    for (field, got, max) in
        [("name", name.len(), MAX_NAME_BYTES), ("value", setting.value.len(), MAX_VALUE_BYTES)]
    {
        if got > max {
            return Err(format!("setting.{field}: expected at most {max} bytes, got {got}"));
        }
    }
    if name.is_empty() {
        return Err("setting.name: expected a name, got \"\"".to_owned());
    }
    let at = setting.modified_ms;
    if at < 0 || at > now_ms.saturating_add(MAX_AHEAD_MS) {
        return Err(format!("setting.modifiedAt: expected Unix milliseconds up to now, {now_ms}, got {at}"));
    }
    Ok(())
}

/// None if there is no such file.
fn read(path: &Path) -> io::Result<Option<Settings>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice::<OfTenant>(&bytes)?.settings)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_225_600_000;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn setting(value: &str, modified_ms: i64) -> Setting {
        Setting { value: value.to_owned(), modified_ms }
    }

    impl UserSettings {
        fn choose(&self, of: &str, name: &str, value: &str, at: i64) -> Result<(), SettingsError> {
            self.set(&tenant(of), name, setting(value, at), NOW)
        }
    }

    #[test]
    fn what_is_kept_is_there_after_a_start_and_tenants_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        assert!(settings.get(&tenant("a")).unwrap().is_empty());
        settings.choose("a", "theme", "dark", 1).unwrap();
        settings.choose("a", "theme", "light", 2).unwrap();
        settings.choose("A", "theme", "blue", 1).unwrap();
        for settings in [&settings, &UserSettings::new(dir.path())] {
            assert_eq!(settings.get(&tenant("a")).unwrap()["theme"], setting("light", 2));
            assert_eq!(settings.get(&tenant("A")).unwrap()["theme"], setting("blue", 1));
            assert!(settings.get(&tenant("c")).unwrap().is_empty());
        }
        assert_eq!(settings.tenants().unwrap(), 2, "no other files are left");
    }

    #[test]
    fn an_earlier_change_does_not_undo_a_later_one_and_none_is_of_the_future() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        settings.choose("a", "theme", "dark", 5).unwrap();
        let error = settings.choose("a", "theme", "light", 4).unwrap_err();
        assert!(matches!(error, SettingsError::Outdated { kept: 5, .. }), "{error}");
        settings.choose("a", "theme", "light", 5).unwrap();
        assert_eq!(settings.get(&tenant("a")).unwrap()["theme"].value, "light");
        // One that could never be changed again.
        for at in [i64::MAX, NOW + MAX_AHEAD_MS + 1, -1, i64::MIN] {
            let error = settings.choose("a", "theme", "stuck", at).unwrap_err().to_string();
            assert!(error.starts_with("setting.modifiedAt: expected Unix milliseconds"), "{error}");
        }
        settings.choose("a", "theme", "tomorrow", NOW + MAX_AHEAD_MS).unwrap();
    }

    #[test]
    fn settings_are_bounded_for_each_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        let refused = |name: &str, value: &str| settings.choose("a", name, value, 1).unwrap_err().to_string();
        assert_eq!(refused("", "x"), "setting.name: expected a name, got \"\"");
        assert!(refused(&"n".repeat(MAX_NAME_BYTES + 1), "x").starts_with("setting.name: expected at most"));
        assert!(
            refused("n", &"v".repeat(MAX_VALUE_BYTES + 1)).starts_with("setting.value: expected at most")
        );
        let full = (0..MAX_SETTINGS).map(|n| (n.to_string(), setting("x", 1))).collect();
        settings
            .write(&settings.path(&tenant("a")), &OfTenant { tenant: "a".to_owned(), settings: full })
            .unwrap();
        assert!(refused("new", "x").contains("1000 settings already"));
        settings.choose("a", "7", "y", 2).unwrap();
        settings.choose("b", "new", "x", 1).unwrap();
        let large = "v".repeat(MAX_VALUE_BYTES);
        let error = (0..20).find_map(|n| settings.choose("b", &n.to_string(), &large, 1).err());
        assert!(error.unwrap().to_string().starts_with("setting.value: all settings together would have"));
        settings.choose("c", "new", &large, 1).unwrap();
    }

    #[test]
    fn a_damaged_file_is_said_to_be_so_and_left() {
        let dir = tempfile::tempdir().unwrap();
        let settings = UserSettings::new(dir.path());
        settings.choose("a", "theme", "dark", 1).unwrap();
        let path = settings.path(&tenant("a"));
        fs::write(&path, b"{").unwrap();
        let error = settings.choose("a", "theme", "light", 1).unwrap_err();
        assert!(error.to_string().contains("user_settings"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{");
        settings.choose("b", "theme", "dark", 1).unwrap();
    }
}
