//! The file system as the store uses it, and nothing more of it, so that a test can put another in its place.
//!
//! A write counts only once it is synced, a new name only once its directory is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use fs4::fs_std::FileExt;

use super::StoreError;

/// Held as long as the data directory is ours.
pub(super) type DiskLock = Box<dyn Send + Sync>;

/// A file system.
pub(super) trait Disk: Send + Sync {
    /// Makes a directory with its parents, durably.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(path, &mut bytes)?;
        Ok(bytes)
    }

    /// All bytes of a file, in place of those that are in `bytes`.
    fn read_into(&self, path: &Path, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// The first bytes of a file, as many as there are up to this number.
    fn beginning(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>>;

    /// Makes an empty file; its name is durable after [`Disk::sync_dir`]. Fails if there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to write at its end.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, replacing what had it; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renamings and removals in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file, none if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>>;
}

/// All bytes of the file with this name in a directory, none if there is no such file.
pub(super) fn read_file(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let path = dir.join(name);
    let failed = |action| move |error| StoreError::io(action, &dir.join(name), error);
    if !disk.list(dir).map_err(failed("list"))?.iter().any(|listed| listed == name) {
        return Ok(None);
    }
    disk.read(&path).map(Some).map_err(failed("read"))
}

/// Puts a file in place of the one with this name in a directory, if there is one. At every moment the name leads to all of
/// the one or the other, and to the new one for good when this returns.
pub(super) fn replace_file(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, temporary) = (dir.join(name), format!("{name}.tmp"));
    let failed = |action| move |error| StoreError::io(action, &dir.join(name), error);
    let names = disk.list(dir).map_err(failed("list"))?;
    if names.contains(&temporary) {
        disk.remove(&dir.join(&temporary)).map_err(failed("remove"))?;
    }
    let mut file = disk.create(&dir.join(&temporary)).map_err(failed("create"))?;
    file.append(bytes).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    disk.rename(&dir.join(&temporary), &path).map_err(failed("rename"))?;
    disk.sync_dir(dir).map_err(failed("sync directory of"))
}

/// A file open for writing at its end.
pub(super) trait DiskFile: Send {
    /// Writes all of the bytes at the end. On an error some may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `len` bytes; durable after [`DiskFile::sync`].
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The operating system's file system.
pub(super) struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir(parent)?;
        }
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn read_into(&self, path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.clear();
        // It makes itself room for as many as there are.
        File::open(path)?.read_to_end(bytes).map(drop)
    }

    fn beginning(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let mut beginning = Vec::with_capacity(bytes);
        File::open(path)?.take(bytes as u64).read_to_end(&mut beginning)?;
        Ok(beginning)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        Ok(file.try_lock_exclusive()?.then(|| Box::new(file) as DiskLock))
    }
}

impl DiskFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length of a file is data: without it what was appended could not be read.
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}
