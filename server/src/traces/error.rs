//! What can go wrong with traces.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cancel::Cancelled;

/// An error of the store of traces.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A file was written by a version that this one cannot read.
    #[error("{}: written in format version {found}, this version reads up to {supported}: use a newer server", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u64,
        /// The newest version that is read.
        supported: u64,
    },
    /// The disk is full: nothing is taken until there is space, what is stored stays readable.
    #[error("no space left for traces in {}: free some, or lower traces_retention_bytes; nothing of this write was kept", .0.display())]
    NoSpace(PathBuf),
    /// The operating system or the database refused.
    #[error("{action} {}: {why}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        why: Arc<str>,
    },
    /// The bytes of a file are not those that were written.
    #[error("{} is damaged ({why}): it is set aside, and the traces in it are not served", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Arc<str>,
    },
    /// The question would take too long to answer.
    #[error("the search looked at {max} spans without an end: ask for a shorter time, a service or a name")]
    TooMuch {
        /// How many it may look at.
        max: usize,
    },
    /// Nobody waits for the answer any more.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The store is shut down, or its writer died.
    #[error("the store of traces is shut down")]
    Closed,
}

impl TraceError {
    /// What an error of the database means.
    pub(super) fn of(action: &'static str, path: &Path, error: impl Into<redb::Error>) -> Self {
        let path = path.to_owned();
        match error.into() {
            redb::Error::Io(error) if is_full(&error) => Self::NoSpace(path),
            error @ (redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_)) => Self::Damaged { path, why: error.to_string().into() },
            // It answers so to a file that is no database of its own.
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Self::Damaged { path, why: error.to_string().into() }
            }
            error => Self::Io { action, path, why: error.to_string().into() },
        }
    }

    /// The same of an error of the operating system.
    pub(super) fn io(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        if is_full(error) {
            return Self::NoSpace(path.to_owned());
        }
        Self::Io { action, path: path.to_owned(), why: error.to_string().into() }
    }

    pub(super) fn damaged(path: &Path, why: impl Into<Arc<str>>) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.into() }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
