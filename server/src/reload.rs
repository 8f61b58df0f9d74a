//! Files that are read again when they change, without a restart. Knows nothing of what they hold.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What the files held together; an error is part of it, so that it is reported once.
type Contents = Vec<Result<Vec<u8>, String>>;
type Load<T> = dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync;

/// What was made of some files the last time that they were good.
pub struct Watched<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    load: Box<Load<T>>,
    seen: Mutex<Contents>,
    current: RwLock<Arc<T>>,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// When a file cannot be read, or when `load` finds fault with what they hold.
    pub fn open(
        what: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let contents: Contents = paths.iter().map(|path| read(path)).collect();
        let current = RwLock::new(Arc::new(make(&contents, &load)?));
        Ok(Self { what, paths, load: Box::new(load), seen: Mutex::new(contents), current })
    }

    /// What was last made of them.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }
}

/// Something that may have changed.
pub trait Poll: Send + Sync {
    /// Takes up a change, or logs why it cannot be and keeps what there was. Reads files: blocks.
    fn poll(&self);
}

impl<T: Send + Sync> Poll for Watched<T> {
    // Contents are compared, not times: those may stand still, and a link to another directory changes neither.
    fn poll(&self) {
        let contents: Contents = self.paths.iter().map(|path| read(path)).collect();
        let mut seen = self.seen.lock();
        if contents == *seen {
            return;
        }
        let files = self.paths.iter().fold(String::new(), |mut list, path| {
            let comma = if list.is_empty() { "" } else { ", " };
            write!(list, "{comma}{}", path.display()).expect("a string takes it");
            list
        });
        match make(&contents, &*self.load) {
            Ok(new) => {
                *self.current.write() = Arc::new(new);
                tracing::info!(what = self.what, files, "reloaded");
            }
            Err(error) => {
                tracing::error!(
                    what = self.what,
                    files,
                    error,
                    "cannot reload; what was loaded before stays"
                );
            }
        }
        *seen = contents;
    }
}

fn make<T>(contents: &Contents, load: &Load<T>) -> Result<T, String> {
    let files: Vec<Vec<u8>> = contents.iter().cloned().collect::<Result<_, _>>()?;
    load(&files)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{} is over the limit of {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(bytes)
}

/// Looks at files again and again until it is dropped.
pub struct Watcher(tokio::task::JoinHandle<()>);

impl Watcher {
    /// Watches these from here on. Call it within a tokio runtime.
    pub fn spawn(watched: Vec<Arc<dyn Poll>>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let watched = watched.clone();
                let polled =
                    tokio::task::spawn_blocking(move || watched.iter().for_each(|files| files.poll()));
                if polled.await.is_err() {
                    tracing::error!("reading files again panicked");
                }
            }
        }))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_up_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let number = |files: &[Vec<u8>]| {
            let text = std::str::from_utf8(&files[0]).map_err(|error| error.to_string())?;
            text.parse::<u8>().map_err(|error| error.to_string())
        };
        let watched = Watched::open("number", vec![path.clone()], number).unwrap();
        assert_eq!(*watched.get(), 1);
        std::fs::write(&path, "2").unwrap();
        watched.poll();
        assert_eq!(*watched.get(), 2);
        std::fs::write(&path, "many").unwrap();
        watched.poll();
        assert_eq!(*watched.get(), 2);
        std::fs::remove_file(&path).unwrap();
        watched.poll();
        assert_eq!(*watched.get(), 2);
        std::fs::write(&path, "3").unwrap();
        watched.poll();
        assert_eq!(*watched.get(), 3);
        std::fs::remove_file(&path).unwrap();
        assert!(Watched::open("number", vec![path], number).is_err());
    }
}
