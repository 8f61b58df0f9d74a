//! Into a store: files as a push would bring them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::ingest::{self, Limits};
use crate::model::{Profile, TenantId};
use crate::store::{ErrorKind, Store, StoreError, system_clock};

/// How deep directories may lie in one another.
const MAX_DEPTH: usize = 64;
/// Files that are stored together, and bytes of their profiles at which they are stored.
const BATCH_FILES: usize = 1000;
const BATCH_BYTES: usize = 8 << 20;

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Whose profiles they become.
    pub tenant: TenantId,
    /// Labels of all of them, over those that the files tell.
    pub labels: Vec<(String, String)>,
    /// What a profile may be at most.
    pub limits: Limits,
    /// Files, and directories whose files are all meant but for hidden ones.
    pub paths: Vec<PathBuf>,
}

/// What was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Files whose profiles are in the store.
    pub files: u64,
    /// Profiles of those.
    pub profiles: u64,
    /// Files that could not be taken.
    pub failed: u64,
}

/// Reads files and appends their profiles to the store. Each file that cannot be taken is told with the reason, and
/// the others go on.
///
/// # Errors
/// When the store takes nothing more. What was counted before is in it.
pub async fn import(
    store: &Store,
    options: &ImportOptions,
    mut tell: impl FnMut(&Path, &str),
) -> Result<Imported, StoreError> {
    let mut imported = Imported::default();
    let mut failed = 0;
    let mut tell = |path: &Path, what: &str| {
        failed += 1;
        tell(path, what);
    };
    let clock = system_clock();
    let mut batch: Vec<(PathBuf, Vec<Profile>)> = Vec::new();
    let mut bytes = 0;
    let mut walk = Walk::of(&options.paths);
    loop {
        let next = walk.next(&mut tell);
        let ended = next.is_none();
        if let Some(path) = next {
            let profiles = read(&path, &options.limits).map_err(|error| error.to_string()).and_then(|raw| {
                ingest::decode_file(raw, &options.labels, &options.limits, clock())
                    .map_err(|error| error.to_string())
            });
            match profiles {
                Ok(profiles) if profiles.is_empty() => tell(&path, "no sample has a value"),
                Ok(profiles) => {
                    let tables = profiles.first().map_or(0, |profile| profile.symbols.heap_bytes());
                    bytes += tables + profiles.iter().map(Profile::own_bytes).sum::<usize>();
                    batch.push((path, profiles));
                }
                Err(error) => tell(&path, &error),
            }
        }
        if ended || batch.len() >= BATCH_FILES || bytes >= BATCH_BYTES {
            append(store, &options.tenant, std::mem::take(&mut batch), &mut imported, &mut tell).await?;
            bytes = 0;
        }
        if ended {
            imported.failed = failed;
            return Ok(imported);
        }
    }
}

async fn append(
    store: &Store,
    tenant: &TenantId,
    batch: Vec<(PathBuf, Vec<Profile>)>,
    imported: &mut Imported,
    tell: &mut impl FnMut(&Path, &str),
) -> Result<(), StoreError> {
    for group in store.fitting(batch) {
        let (paths, profiles): (Vec<PathBuf>, Vec<Vec<Profile>>) = group.into_iter().unzip();
        let profiles: Vec<Profile> = profiles.into_iter().flatten().collect();
        let count = profiles.len() as u64;
        match store.append(tenant, profiles).await {
            Ok(()) => {
                imported.files += paths.len() as u64;
                imported.profiles += count;
            }
            Err(error) if error.kind() == ErrorKind::InvalidRequest => {
                paths.iter().for_each(|path| tell(path, &error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The bytes of a file that can be a profile.
fn read(path: &Path, limits: &Limits) -> io::Result<Bytes> {
    let most = limits.max_profile_bytes.max(limits.max_request_bytes) as u64;
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("has more than {most} bytes, which no profile may have")));
    }
    Ok(bytes.into())
}

/// Files one after another, those of a directory in order of their names.
struct Walk {
    /// What is still to be visited, the next last: a path, how deep it lies, and whether somebody named it.
    pending: Vec<(PathBuf, usize, bool)>,
}

impl Walk {
    fn of(paths: &[PathBuf]) -> Self {
        Self { pending: paths.iter().rev().map(|path| (path.clone(), 0, true)).collect() }
    }

    fn next(&mut self, tell: &mut impl FnMut(&Path, &str)) -> Option<PathBuf> {
        while let Some((path, depth, named)) = self.pending.pop() {
            // Links are followed where somebody named them, so that none leads around in circles.
            let kind = if named { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
            match kind {
                Ok(kind) if kind.is_file() => return Some(path),
                Ok(kind) if kind.is_dir() => match self.enter(&path, depth) {
                    Ok(()) => {}
                    Err(error) => tell(&path, &error.to_string()),
                },
                // A pipe or a device could be read for ever.
                Ok(_) if named => tell(&path, "is neither a file nor a directory"),
                Ok(_) => {}
                Err(error) => tell(&path, &error.to_string()),
            }
        }
        None
    }

    fn enter(&mut self, dir: &Path, depth: usize) -> io::Result<()> {
        if depth >= MAX_DEPTH {
            return Err(io::Error::other(format!("lies deeper than {MAX_DEPTH} directories")));
        }
        let mut entries: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        entries.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
        entries.sort_unstable_by(|a, b| b.cmp(a));
        self.pending.extend(entries.into_iter().map(|path| (path, depth + 1, false)));
        Ok(())
    }
}
