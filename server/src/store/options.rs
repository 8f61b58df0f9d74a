//! How a store is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::flush::STORED_AT_ONCE;
use super::{Bucket, Compaction, Retention, reserve};

/// Tells the time in Unix milliseconds. Everything that needs the time asks this, so that tests choose it.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The clock of the machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// When a write is acknowledged where servers share their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// Once it is in this server's log.
    #[default]
    Local,
    /// Once every server can read it.
    Object,
}

/// Objects in a bucket, which any number of servers may share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Where they are.
    pub bucket: Bucket,
    /// When a write is acknowledged.
    pub acknowledge: Acknowledge,
    /// Least time between two publications of what is new, in milliseconds. It takes the place of
    /// [`StoreOptions::flush_after_ms`].
    pub publish_ms: u64,
    /// Time between two looks for what other servers wrote, in milliseconds.
    pub refresh_ms: u64,
    /// How long objects stay in milliseconds once the manifest no longer names them: other servers may be reading them.
    pub removal_ms: u64,
}

impl Shared {
    /// The defaults for objects in this bucket.
    pub fn new(bucket: Bucket) -> Self {
        let acknowledge = Acknowledge::default();
        Self { bucket, acknowledge, publish_ms: 500, refresh_ms: 1000, removal_ms: 600_000 }
    }
}

/// How a store is set up.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where the data lies; made when absent.
    pub data_dir: PathBuf,
    /// Memory that the head may take, in bytes. When it has no room, writes wait until profiles have become segments.
    pub head_bytes: usize,
    /// Memory that profiles may take before they become segments, in bytes; an eighth of the head's at the most.
    pub flush_bytes: usize,
    /// Age at which profiles become segments, in milliseconds.
    pub flush_after_ms: i64,
    /// Memory that pieces of segments may take that were read lately, in bytes.
    pub cache_bytes: u64,
    /// Size at which a new log file is begun, in bytes.
    pub log_file_bytes: u64,
    /// Bytes that may wait for the log at a time; appends beyond it wait their turn.
    pub queue_bytes: usize,
    /// What is merged, and how hard.
    pub compaction: Compaction,
    /// How long profiles stay.
    pub retention: Retention,
    /// The bucket that has the objects; none for a directory below `data_dir`, which nobody shares.
    pub shared: Option<Shared>,
    /// Tells the time.
    pub clock: Clock,
    /// Room on the disk that is kept for entries of the manifest, in bytes.
    pub(crate) reserve_bytes: usize,
    /// Makes ids for the names of segments, each another.
    pub(crate) segment_ids: fn() -> Uuid,
    /// Segments that are on their way to a bucket at a time.
    pub(crate) stored_at_once: usize,
}

impl StoreOptions {
    /// The defaults for data in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            head_bytes: 1 << 30,
            flush_bytes: 64 << 20,
            flush_after_ms: 300_000,
            cache_bytes: 256 << 20,
            log_file_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            compaction: Compaction::default(),
            retention: Retention::default(),
            shared: None,
            clock: system_clock(),
            reserve_bytes: reserve::BYTES,
            segment_ids: Uuid::new_v4,
            stored_at_once: STORED_AT_ONCE,
        }
    }
}
