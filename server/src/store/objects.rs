//! Objects: immutable files under names, in a directory or a bucket.
//!
//! The segments and the manifest are objects. All that the store asks of whatever keeps them is here, so that a test can
//! put another in its place.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_executor::block_on;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use uuid::Uuid;

mod bucket;
mod http_client;

pub use self::bucket::Bucket;
pub(super) use self::bucket::BucketObjects;

/// Longest that is waited after another was faster, at first and after many times, in milliseconds.
const FIRST_PAUSE_MS: u64 = 25;
const LONGEST_PAUSE_MS: u64 = 800;

/// Keeps objects. Names are lower-case words, digits, hyphens and dots with `/` between.
pub(super) trait Objects: Send + Sync {
    /// Keeps an object under a name that no other has; tells no if one has it. Once this returns yes the object is whole
    /// and durable. On an error it may be there or not, but never in part.
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool>;

    /// These bytes of an object; all of them are there, else it is an error of kind `UnexpectedEof`. What the device that
    /// keeps it cannot read, now or later, is an error of kind `InvalidData`.
    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>>;

    /// All bytes of an object.
    fn get(&self, name: &str) -> io::Result<Vec<u8>>;

    /// The names that begin with `prefix/` and come after `after`, sorted.
    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>>;

    /// When an object was created, in Unix milliseconds.
    fn modified_ms(&self, name: &str) -> io::Result<i64>;

    /// Removes an object; it is no error if it is gone already.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Whether other servers may create and remove objects meanwhile.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether reading all of an object of so many bytes now makes reading its parts later free.
    fn is_read_whole(&self, _name: &str, _bytes: u64) -> bool {
        false
    }

    /// Makes sure that every object below `prefix/` that is seen now is durable, whoever kept it.
    fn settle(&self, prefix: &str) -> io::Result<()>;

    /// Waits after others were faster so often.
    fn pause(&self, lost: u32) {
        std::thread::sleep(back_off(lost));
    }

    /// Where an object lies, for people.
    fn place(&self, name: &str) -> PathBuf {
        name.into()
    }
}

/// How long to wait after others were faster so often: anything up to a bound that doubles, so that of many who want the same
/// number fewer and fewer want it at once.
pub(super) fn back_off(lost: u32) -> Duration {
    let most_ms = (FIRST_PAUSE_MS << lost.min(10)).min(LONGEST_PAUSE_MS);
    Duration::from_millis(Uuid::new_v4().as_u128() as u64 % (most_ms + 1))
}

/// Objects in a directory of this machine.
pub(super) struct LocalObjects {
    root: PathBuf,
    store: LocalFileSystem,
    /// Whether somebody else writes them, and makes them durable.
    shared: bool,
}

impl LocalObjects {
    /// Those in this directory, which is there. What a crash left half written is removed.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let objects = Self { shared: false, ..Self::shared(root)? };
        objects.tidy(root)?;
        Ok(objects)
    }

    /// Those in this directory, at which another process may be at work, to be read: nothing is removed or synced.
    pub(super) fn shared(root: &Path) -> io::Result<Self> {
        let store = LocalFileSystem::new_with_prefix(root).map_err(io_error)?.with_fsync(true);
        Ok(Self { root: root.to_owned(), store, shared: true })
    }

    /// The file system writes `name#1` before it gives a file its name.
    fn tidy(&self, dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let unfinished =
                name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, number)| {
                    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
                });
            if entry.file_type()?.is_dir() {
                self.tidy(&entry.path())?;
            } else if unfinished {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn open_file(&self, name: &str) -> io::Result<std::fs::File> {
        std::fs::File::open(self.root.join(name))
    }
}

impl Objects for LocalObjects {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let options = PutOptions::from(PutMode::Create);
        match block_on(self.store.put_opts(&Name::from(name), PutPayload::from(bytes), options)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(io_error(error)),
        }
    }

    // Reading goes straight to the file: it happens on a thread that may wait, for every piece that a query needs.
    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.open_file(name)?;
        let length = range.end.saturating_sub(range.start);
        // Bounded by what is there, whatever was asked for.
        if range.end > file.metadata()?.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| ErrorKind::UnexpectedEof)?];
        file.seek(SeekFrom::Start(range.start))?;
        file.read_exact(&mut bytes).map_err(of_device)?;
        Ok(bytes)
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(name))
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        use futures_executor::block_on_stream;
        let listed = self.store.list_with_offset(Some(&Name::from(prefix)), &Name::from(after));
        let mut names = Vec::new();
        for meta in block_on_stream(listed) {
            names.push(meta.map_err(io_error)?.location.as_ref().to_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        let modified = self.open_file(name)?.metadata()?.modified()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match block_on(self.store.delete(&Name::from(name))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(io_error(error)),
        }
    }

    fn settle(&self, prefix: &str) -> io::Result<()> {
        if self.shared {
            return Ok(());
        }
        match std::fs::File::open(self.root.join(prefix)) {
            Ok(dir) => dir.sync_all(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// The error of a read that came to the device. What the device itself cannot do is no state of the system that passes.
fn of_device(error: io::Error) -> io::Error {
    // EIO on every Unix; the standard library has no kind for it.
    const DEVICE_FAILED: i32 = 5;
    if cfg!(unix) && error.raw_os_error() == Some(DEVICE_FAILED) {
        return io::Error::new(ErrorKind::InvalidData, error);
    }
    error
}

/// The system's error behind one of the object store, so that a full disk is told as one.
fn io_error(error: object_store::Error) -> io::Error {
    io::Error::new(io_error_kind(&error), error)
}

fn io_error_kind(error: &object_store::Error) -> ErrorKind {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return ErrorKind::NotFound;
    }
    let mut kind = ErrorKind::Other;
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            kind = error.kind();
        }
        source = error.source();
    }
    kind
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let most = |lost| (0..200).map(|_| back_off(lost)).max().unwrap_or_default();
        assert!(most(0) <= Duration::from_millis(FIRST_PAUSE_MS));
        assert!(most(u32::MAX) <= Duration::from_millis(LONGEST_PAUSE_MS));
        let distinct: BTreeSet<Duration> = (0..200).map(|_| back_off(9)).collect();
        assert!(distinct.len() > 50, "{}", distinct.len());
    }

    #[test]
    fn objects_are_created_once_read_in_parts_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(dir.path()).unwrap();
        assert!(objects.list("manifest", "").unwrap().is_empty());
        assert!(objects.create("manifest/02", b"second".to_vec()).unwrap());
        assert!(objects.create("manifest/01", b"first".to_vec()).unwrap());
        assert!(objects.create("segments/a.segment", Vec::new()).unwrap());
        assert!(!objects.create("manifest/01", b"other".to_vec()).unwrap(), "a name is used once");
        assert_eq!(objects.get("manifest/01").unwrap(), b"first");
        assert_eq!(objects.read("manifest/02", 1..4).unwrap(), b"eco");
        let kind = |result: io::Result<Vec<u8>>| result.unwrap_err().kind();
        assert_eq!(kind(objects.read("manifest/02", 1..7)), ErrorKind::UnexpectedEof);
        assert_eq!(kind(objects.get("manifest/03")), ErrorKind::NotFound);
        assert_eq!(objects.list("manifest", "").unwrap(), ["manifest/01", "manifest/02"]);
        assert_eq!(objects.list("manifest", "manifest/01").unwrap(), ["manifest/02"]);
        objects.settle("manifest").unwrap();
        objects.settle("nothing").unwrap();
        objects.remove("manifest/01").unwrap();
        objects.remove("manifest/01").unwrap();
        assert_eq!(objects.list("manifest", "").unwrap(), ["manifest/02"]);
    }

    #[test]
    fn what_a_crash_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("segments")).unwrap();
        std::fs::write(dir.path().join("segments/a.segment#1"), "half").unwrap();
        std::fs::write(dir.path().join("segments/notes#x"), "somebody's").unwrap();
        LocalObjects::open(dir.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path().join("segments")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_device_cannot_read_is_told_from_what_the_system_refuses() {
        let kind = |number| of_device(io::Error::from_raw_os_error(number)).kind();
        assert_eq!(kind(5), ErrorKind::InvalidData);
        // Too many open files, and out of memory.
        assert!([24, 12].into_iter().all(|number| kind(number) != ErrorKind::InvalidData));
    }

    #[test]
    fn the_systems_error_is_found_behind_the_object_stores() {
        let source = Box::new(io::Error::from(ErrorKind::StorageFull));
        let error = object_store::Error::Generic { store: "LocalFileSystem", source };
        assert_eq!(io_error(error).kind(), ErrorKind::StorageFull);
    }
}
