//! The write-ahead log: numbered files in one directory, each a header and records.
//!
//! What [`LogWriter::write`] returned `Ok` for is durable; what it returned an error for is not there, as far as the disk
//! lets itself be told. It knows payloads, not profiles.

pub(super) mod format;
mod recover;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::format::{HEADER_BYTES, RECORD_HEADER_BYTES, header, put_record};
pub(super) use self::recover::{Recovered, Replay, check_versions, recover};
use super::disk::{Disk, DiskFile};
use super::{Clock, StoreError};

/// The directory of the log.
#[derive(Clone)]
pub(super) struct LogDir {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
}

impl LogDir {
    fn file(&self, sequence: u64) -> PathBuf {
        self.path.join(format!("{sequence:020}.log"))
    }

    /// The number of a file by its name, none if it is no file of the log.
    pub(super) fn sequence_of(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".log")?;
        (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
    }

    /// Removes a file of the log for good.
    pub(super) fn remove(&self, sequence: u64) -> Result<(), StoreError> {
        let path = self.file(sequence);
        self.disk.remove(&path).map_err(|error| StoreError::io("remove", &path, error))?;
        self.sync()
    }

    /// The numbers of its files, in no order.
    pub(super) fn files(&self) -> Result<Vec<u64>, StoreError> {
        let names = self.disk.list(&self.path).map_err(|error| StoreError::io("list", &self.path, error))?;
        Ok(names.iter().filter_map(|name| Self::sequence_of(name)).collect())
    }

    /// When a file was begun in Unix milliseconds, none if its header cannot be read.
    pub(super) fn begun_ms(&self, sequence: u64) -> Option<i64> {
        let beginning = self.disk.beginning(&self.file(sequence), HEADER_BYTES).ok()?;
        format::begun_ms(&beginning)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_dir(&self.path).map_err(|error| StoreError::io("sync directory", &self.path, error))
    }
}

/// Writes records, all of a batch with one sync.
pub(super) struct LogWriter {
    dir: LogDir,
    clock: Clock,
    file_bytes: u64,
    next_sequence: u64,
    file: Option<OpenFile>,
}

struct OpenFile {
    sequence: u64,
    path: PathBuf,
    handle: Box<dyn DiskFile>,
    /// Everything before is durable.
    end: u64,
}

impl LogWriter {
    /// A writer that goes on where the recovered log ends and begins a new file at about `file_bytes`.
    pub(super) fn new(dir: LogDir, clock: Clock, file_bytes: u64, recovered: &Recovered) -> Self {
        let mut writer = Self { dir, clock, file_bytes, next_sequence: recovered.next_sequence, file: None };
        if let Some((sequence, end)) = recovered.open_end {
            let path = writer.dir.file(sequence);
            // If it cannot be opened, a new file will do.
            if let Ok(handle) = writer.dir.disk.open(&path) {
                writer.file = Some(OpenFile { sequence, path, handle, end });
            }
        }
        writer
    }

    /// Begins a new file with the next write.
    pub(super) fn rotate(&mut self) {
        self.file = None;
    }

    /// The number of the file that is being written, if one is.
    pub(super) fn sequence(&self) -> Option<u64> {
        self.file.as_ref().map(|file| file.sequence)
    }

    /// Files with lower numbers are never written again.
    pub(super) fn writing(&self) -> u64 {
        self.sequence().unwrap_or(self.next_sequence)
    }

    /// Writes one record for each payload and syncs. All of them are durable when it returns the number of their file.
    pub(super) fn write<'a>(
        &mut self,
        payloads: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(u64, u64), StoreError> {
        if self.file.as_ref().is_some_and(|file| file.end >= self.file_bytes) {
            self.rotate();
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create()?,
        };
        let records = payloads.clone().map(|payload| RECORD_HEADER_BYTES + payload.len());
        let mut bytes = Vec::with_capacity(records.sum());
        payloads.for_each(|payload| put_record(&mut bytes, file.sequence, file.end, payload));
        if let Err(error) = file.handle.append(&bytes) {
            // Some of it may be there: cut it off, then the file is as before and goes on being used.
            if file.cut().is_ok() {
                self.file = Some(file);
            }
            return Err(StoreError::io("append to", &self.dir.path, error));
        }
        if let Err(error) = file.handle.sync() {
            // What was written may be lost, and the operating system may forget that it was: the next sync can succeed
            // without it. So this file is never written again. What it held before is durable and stays.
            let cut = file.cut();
            if file.end == HEADER_BYTES as u64 || cut.is_err() {
                tracing::warn!(path = %file.path.display(), cut = cut.is_ok(), "log file given up after a failed sync");
            }
            if file.end == HEADER_BYTES as u64 {
                let _ = self.dir.remove(file.sequence);
            }
            return Err(StoreError::io("sync", &file.path, error));
        }
        file.end += bytes.len() as u64;
        let sequence = file.sequence;
        self.file = Some(file);
        Ok((sequence, bytes.len() as u64))
    }

    /// A new file, its name and header durable.
    fn create(&mut self) -> Result<OpenFile, StoreError> {
        let sequence = self.next_sequence;
        // A number is used once even if making its file fails: something of that file may be left.
        self.next_sequence += 1;
        let path = self.dir.file(sequence);
        let bytes = header(sequence, (self.clock)());
        let made = self.dir.disk.create(&path).and_then(|mut handle| {
            handle.append(&bytes)?;
            handle.sync()?;
            self.dir.disk.sync_dir(&self.dir.path)?;
            Ok(handle)
        });
        match made {
            Ok(handle) => Ok(OpenFile { sequence, path, handle, end: bytes.len() as u64 }),
            Err(error) => {
                let _ = self.dir.disk.remove(&path);
                Err(StoreError::io("create", &path, error))
            }
        }
    }
}

impl OpenFile {
    fn cut(&mut self) -> std::io::Result<()> {
        self.handle.truncate(self.end)?;
        self.handle.sync()
    }
}

impl StoreError {
    /// An error of the operating system; a full disk is told apart.
    pub(super) fn io(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => {
                let dir = if path.extension().is_some() { path.parent().unwrap_or(path) } else { path };
                Self::NoSpace(dir.to_owned())
            }
            _ => Self::Io { action, path: path.to_owned(), error: Arc::new(error) },
        }
    }
}
