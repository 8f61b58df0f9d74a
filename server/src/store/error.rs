//! What can go wrong in the store.

use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

/// An error of the store. [`StoreError::kind`] says what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory belongs to another process.
    #[error("data directory {} is in use by another process: stop it, or choose another directory", .0.display())]
    Locked(PathBuf),
    /// The data directory was written by a version that this one cannot read.
    #[error("{}: written in format version {found}, this version reads up to {supported}: use a newer server", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u32,
        /// The newest version that is read.
        supported: u32,
    },
    /// The disk is full: nothing is taken until there is space, what is stored stays readable.
    #[error("no space left in {}: free some; nothing of this write was kept", .0.display())]
    NoSpace(PathBuf),
    /// The operating system refused.
    #[error("{action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        error: Arc<std::io::Error>,
    },
    /// The profiles of one append are too large for one record of the log.
    #[error(
        "write of {got} bytes is over the limit of {max} bytes for one record, which is half of max_head_bytes or less: \
         send smaller profiles"
    )]
    TooLarge {
        /// Encoded size.
        got: usize,
        /// Largest size.
        max: usize,
    },
    /// The bytes of a segment or of the manifest are not those that were written.
    #[error("{name} is damaged ({what}: {why}): what it held is not served")]
    Damaged {
        /// The object.
        name: String,
        /// Which part of it.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Memory is full of profiles that cannot be written as segments.
    #[error("memory for new profiles (max_head_bytes) is full, and they cannot be moved to disk: {0}")]
    Unflushed(Arc<StoreError>),
    /// Nothing is acknowledged that the object store does not take, and it takes nothing now.
    #[error("the object store takes no profiles, and acknowledge = \"object\" waits for it: {0}")]
    Unpublished(Arc<StoreError>),
    /// The object is gone: segments were merged or have expired, and this server had not seen it yet.
    #[error("{0} is no longer in the object store: ask again")]
    Gone(String),
    /// A segment would have more blocks or span entries than it can count, or a profile larger than a block.
    #[error("more than one segment can hold: send fewer samples, and stack traces of 65536 frames at most")]
    TooManyForSegment,
    /// The directory's log was written for other objects than those that are configured, whose manifest would take it for
    /// another.
    #[error(
        "log file {log} in data directory {} was written while its profiles were kept in {there}, and in {here} this server \
         had another of that number, for which it would be taken: start once with {there}, which publishes it, or remove \
         {}/server-id, and all of the log goes to {here}",
        data_dir.display(), data_dir.display()
    )]
    Elsewhere {
        /// The directory.
        data_dir: PathBuf,
        /// The number of the file.
        log: u64,
        /// What is configured.
        here: String,
        /// What it was written for.
        there: String,
    },
    /// The directory's log was last used so long ago that the manifest has forgotten its server.
    #[error(
        "log file {log} in data directory {} is from more than 29 days ago, and {here} remembers nothing of this server: it is \
         not known whether segments hold its profiles; remove {}/log if all of it was published, or remove {}/server-id, and \
         all of the log is published, some of it perhaps for the second time",
        data_dir.display(), data_dir.display(), data_dir.display()
    )]
    Forgotten {
        /// The directory.
        data_dir: PathBuf,
        /// The number of the file.
        log: u64,
        /// Where the manifest is.
        here: String,
    },
    /// Another server has this one's id.
    #[error(
        "server-id {0} is another server's too, which runs, or ran later, on a copy of this data directory: nothing is taken \
         here and nothing is lost; stop this server, remove server-id from its data directory, and start it again as a \
         server of its own"
    )]
    Copied(Uuid),
    /// The store is shut down, or its writer died.
    #[error("the store is shut down")]
    Closed,
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request can never succeed.
    InvalidRequest,
    /// The same request may succeed later: the disk is full.
    Full,
    /// The same request may succeed later or after a restart.
    Unavailable,
    /// Somebody has to look after the data directory.
    Fatal,
}

impl StoreError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } | Self::TooManyForSegment => ErrorKind::InvalidRequest,
            Self::NoSpace(_) => ErrorKind::Full,
            Self::Unflushed(error) if error.kind() == ErrorKind::Full => ErrorKind::Full,
            Self::Io { .. }
            | Self::Closed
            | Self::Damaged { .. }
            | Self::Gone(_)
            | Self::Unpublished(_)
            | Self::Unflushed(_)
            | Self::Copied(_) => ErrorKind::Unavailable,
            Self::Locked(_) | Self::Version { .. } | Self::Elsewhere { .. } | Self::Forgotten { .. } => {
                ErrorKind::Fatal
            }
        }
    }
}
