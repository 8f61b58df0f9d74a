//! Traces: spans as they were sent, kept for as long as profiles are and within a bound of bytes.
//!
//! Each file is a database of its own, filled by one thread and closed when it is large or old enough; what is too old or
//! too much goes by whole files. Nothing here knows of profiles. `docs/storage.md` has tables and promises.

mod durations;
mod error;
mod read;
mod record;
mod search;
mod slice;
mod span;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

pub use self::durations::{OperationDurations, Spread, SpreadQuery};
pub use self::error::TraceError;
pub use self::read::{TracedFacts, WholeTrace};
use self::record::Prepared;
pub use self::search::{FoundTrace, TraceCursor, TraceSearch};
use self::slice::Slice;
pub use self::span::{
    Attribute, Attributes, Origin, SpanKind, SpanStatus, TracedEvent, TracedLink, TracedSpan,
};
use self::writer::{Request, Writer};
use crate::ingest::SpanBatch;
use crate::model::TenantId;
use crate::store::{Clock, system_clock};

#[cfg(test)]
mod tests;

/// Memory that pages of a file take, in bytes, which is written or read.
const WRITING_CACHE_BYTES: usize = 16 << 20;
const READING_CACHE_BYTES: usize = 4 << 20;

/// Tells the age at which a tenant's spans go, in milliseconds; none for never.
pub type AgeOfTenant = Arc<dyn Fn(&TenantId) -> Option<i64> + Send + Sync>;

/// How a store of traces is set up.
#[derive(Clone)]
pub struct TraceOptions {
    /// Where its files lie; made when absent.
    pub dir: PathBuf,
    /// Bytes on disk at which the oldest go; none for any number.
    pub bytes: Option<u64>,
    /// How long a tenant's spans stay. Asked for anew each time, so it may change.
    pub age_ms: AgeOfTenant,
    /// Bytes of a file at which the next is begun.
    pub file_bytes: u64,
    /// Age of a file at which the next is begun, in milliseconds.
    pub file_ms: i64,
    /// Bytes that may wait to be written at a time; appends beyond it wait their turn.
    pub queue_bytes: usize,
    /// Tells the time.
    pub clock: Clock,
}

impl TraceOptions {
    /// The defaults for traces in `dir` that take so many bytes at the most.
    pub fn new(dir: impl Into<PathBuf>, bytes: Option<u64>) -> Self {
        Self {
            dir: dir.into(),
            bytes,
            age_ms: Arc::new(|_| None),
            // Of what is to be kept a sixteenth goes at a time.
            file_bytes: bytes.map_or(256 << 20, |bytes| (bytes / 16).clamp(1 << 20, 256 << 20)),
            file_ms: 24 * 3_600_000,
            queue_bytes: 64 << 20,
            clock: system_clock(),
        }
    }
}

/// What the store did since it was opened, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceStatus {
    /// Spans acknowledged.
    pub spans: u64,
    /// Commits; appends that waited together share one.
    pub commits: u64,
    /// Appends refused because the disk did not take them.
    pub refused_appends: u64,
    /// Files that went because of their age or number.
    pub expired_files: u64,
    /// Files set aside because they are damaged.
    pub damaged_files: u64,
    /// Times that a record made no sense and was left out of an answer.
    pub unreadable_records: u64,
    /// Files.
    pub files: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
    /// Spans in them; one that came twice counts twice.
    pub stored_spans: u64,
    /// Whether the last write was taken.
    pub accepts_writes: bool,
}

#[derive(Default)]
struct Counters {
    spans: AtomicU64,
    commits: AtomicU64,
    refused_appends: AtomicU64,
    expired_files: AtomicU64,
    damaged_files: AtomicU64,
    unreadable_records: AtomicU64,
    failing: AtomicBool,
}

/// Keeps spans.
pub struct TraceStore {
    shared: Arc<Shared>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// Bytes that may still join the queue.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and those who read have in common.
struct Shared {
    options: TraceOptions,
    /// In order of their numbers; the last may be being written.
    slices: RwLock<Vec<Arc<Slice>>>,
    counters: Counters,
}

impl fmt::Debug for TraceStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceStore").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl TraceStore {
    /// Opens the store: looks at every file, and starts the writer. Files that cannot be read are set aside.
    ///
    /// # Errors
    /// When the directory cannot be made or read, or when a file was written by a newer version.
    pub fn open(options: TraceOptions) -> Result<Self, TraceError> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir).map_err(|error| TraceError::io("make directory", dir, &error))?;
        let queue_bytes = options.queue_bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        let shared = Arc::new(Shared { options, slices: RwLock::default(), counters: Counters::default() });
        shared.load()?;
        let (sender, receiver) = mpsc::channel();
        let mut writer = Writer::new(Arc::clone(&shared));
        writer.tend();
        let thread = std::thread::Builder::new()
            .name("trace-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| TraceError::io("start a thread of", &shared.options.dir, &error))?;
        Ok(Self {
            shared,
            requests: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Keeps spans: all of them, or on an error none. When this returns they are on disk and visible to queries.
    ///
    /// When the future is dropped early they may be kept or not. Call it within a tokio runtime.
    ///
    /// # Errors
    /// When the disk does not take them, or when the store is shut down.
    pub async fn append(&self, tenant: &TenantId, batches: Vec<SpanBatch>) -> Result<(), TraceError> {
        if batches.is_empty() {
            return Ok(());
        }
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(batches));
        let prepared = prepared.await.map_err(|_| TraceError::Closed)?;
        // One that is larger than the whole queue waits until it has the queue for itself.
        let room = prepared.bytes.clamp(1, self.queue_bytes) as u32;
        let permit = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| TraceError::Closed)?;
        let (done, answer) = oneshot::channel();
        {
            let requests = self.requests.lock();
            let requests = requests.as_ref().ok_or(TraceError::Closed)?;
            let request = Request { tenant: tenant.clone(), prepared, _permit: permit, done };
            requests.send(request).map_err(|_| TraceError::Closed)?;
        }
        answer.await.unwrap_or(Err(TraceError::Closed))
    }

    /// Whether there is anything of these tenants.
    pub fn has_any(&self, tenants: &[TenantId]) -> bool {
        self.shared.slices().iter().any(|slice| tenants.iter().any(|tenant| slice.facts(tenant).is_some()))
    }

    /// What the store did and how it stands.
    pub fn status(&self) -> TraceStatus {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters {
            spans,
            commits,
            refused_appends,
            expired_files,
            damaged_files,
            unreadable_records,
            failing,
        } = &self.shared.counters;
        let slices = self.shared.slices();
        let of = |slice: &Arc<Slice>| slice.all_facts().iter().map(|(_, facts)| facts.spans).sum::<u64>();
        TraceStatus {
            spans: counted(spans),
            commits: counted(commits),
            refused_appends: counted(refused_appends),
            expired_files: counted(expired_files),
            damaged_files: counted(damaged_files),
            unreadable_records: counted(unreadable_records),
            files: slices.len() as u64,
            bytes: slices.iter().map(|slice| slice.disk_bytes()).sum(),
            stored_spans: slices.iter().map(of).sum(),
            accepts_writes: !failing.load(Ordering::Relaxed),
        }
    }

    /// Ends the store's work: what was accepted is written, later appends are refused. Blocks until that is done.
    pub fn shutdown(&self) {
        self.requests.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of traces panicked");
        }
    }
}

impl Drop for TraceStore {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Shared {
    fn slices(&self) -> Vec<Arc<Slice>> {
        self.slices.read().clone()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.options.dir.join(format!("{number:020}.redb"))
    }

    /// The instant before which nothing of a tenant is seen, in Unix nanoseconds.
    fn since_nanos(&self, tenant: &TenantId) -> i64 {
        let now_ms = (self.options.clock)();
        let age_ms = (self.options.age_ms)(tenant);
        age_ms.map_or(0, |age| now_ms.saturating_sub(age).saturating_mul(1_000_000).max(0))
    }

    /// Opens the files that there are.
    fn load(&self) -> Result<(), TraceError> {
        let dir = &self.options.dir;
        let failed = |error| TraceError::io("read directory", dir, &error);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".redb"));
            numbers.extend(number.filter(|name| name.len() == 20).and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut slices = Vec::with_capacity(numbers.len());
        for &number in &numbers {
            let last = Some(&number) == numbers.last();
            let cache = if last { WRITING_CACHE_BYTES } else { READING_CACHE_BYTES };
            match Slice::open(self.path(number), number, cache, last) {
                Ok(slice) => slices.push(Arc::new(slice)),
                Err(error @ TraceError::Damaged { .. }) => self.put_aside(&self.path(number), &error),
                Err(error @ TraceError::Version { .. }) => return Err(error),
                Err(error) => {
                    self.counters.damaged_files.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "traces cannot be read, and are left alone");
                }
            }
        }
        *self.slices.write() = slices;
        Ok(())
    }

    /// Reads from a file. If it turns out to be damaged it is served no longer; another that was read meanwhile was dealt with
    /// where that was done.
    fn look<T>(
        &self,
        slice: &Arc<Slice>,
        work: impl FnOnce() -> Result<T, TraceError>,
    ) -> Result<T, TraceError> {
        let looked = work();
        if let Err(error @ TraceError::Damaged { path, .. }) = &looked
            && *path == slice.path
        {
            self.set_aside(slice, error);
        }
        looked
    }

    /// Takes a damaged file out of service.
    fn set_aside(&self, slice: &Arc<Slice>, error: &TraceError) {
        let mut slices = self.slices.write();
        let before = slices.len();
        slices.retain(|other| !Arc::ptr_eq(other, slice));
        if slices.len() < before {
            slice.leave();
            self.put_aside(&slice.path, error);
        }
    }

    /// Gives a damaged file another name, for people to look at.
    fn put_aside(&self, path: &Path, error: &TraceError) {
        self.counters.damaged_files.fetch_add(1, Ordering::Relaxed);
        let aside = (1..).map(|n| path.with_extension(format!("redb.damaged-{n}")));
        let aside = aside.into_iter().find(|aside| !aside.exists());
        match aside.as_deref().map_or(Ok(()), |aside| std::fs::rename(path, aside)) {
            Ok(()) => tracing::error!(%error, ?aside, "traces are set aside"),
            Err(rename) => tracing::error!(%error, %rename, "traces are set aside, but keep their name"),
        }
    }
}
