//! The store: what was acknowledged is kept, and is answered at once.
//!
//! An append is encoded, written to the log, synced, shown to queries, and only then acknowledged. Queries read
//! `Source`s and do not know where those lie. `docs/storage.md` has formats, promises and invariants.

mod codec;
mod disk;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod head;
mod log;
mod options;
mod source;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::disk::{Disk, DiskLock, OsDisk};
pub use self::error::{ErrorKind, StoreError};
use self::head::Head;
pub(crate) use self::head::SampleCounts;
use self::log::{LogDir, LogWriter, Recovered};
pub use self::options::{Clock, StoreOptions, system_clock};
pub(crate) use self::source::{Chunk, FoundRun, NO_SPAN, SeriesEntry, Source, SpanEntry, SpanLookup};
use self::writer::{Counters, Request, Writer};
use crate::model::{Profile, TenantId};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fake_disk;
#[cfg(test)]
mod tests;

/// The largest record of the log, in bytes: what one append may encode to.
const MAX_RECORD_BYTES: usize = 256 << 20;

/// What the store did since it was opened, and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStatus {
    /// Appends acknowledged.
    pub appends: u64,
    /// Appends refused because the disk did not take them.
    pub refused_appends: u64,
    /// Profiles acknowledged.
    pub appended_profiles: u64,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Syncs of the log; appends that waited together share one.
    pub syncs: u64,
    /// Parts of the head that were dropped to stay within memory.
    pub dropped_partitions: u64,
    /// Profiles in them.
    pub dropped_profiles: u64,
    /// Bytes of unfinished writes that were cut off when the store was opened.
    pub torn_bytes: u64,
    /// Bytes of damage found when the store was opened.
    pub damaged_bytes: u64,
    /// Log files that could not be read when the store was opened.
    pub unreadable_files: u64,
    /// Memory that the head takes.
    pub head_bytes: usize,
    /// Parts of the head.
    pub partitions: usize,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Whether the last write was taken.
    pub accepts_writes: bool,
}

/// Keeps profiles.
pub struct Store {
    head: Arc<Head>,
    counters: Arc<Counters>,
    recovered: Recovered,
    requests: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    /// Bytes that may still join the queue.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    queued_bytes: Arc<AtomicUsize>,
    max_record_bytes: usize,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// The directory is ours until this goes, which is after the writer.
    lock: Mutex<Option<DiskLock>>,
}

impl Store {
    /// Opens the store in the data directory: takes the directory, reads the log back, and starts the writer.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(OsDisk), options)
    }

    fn open_on(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Self, StoreError> {
        let StoreOptions { data_dir, head_bytes, log_file_bytes, queue_bytes, clock } = options;
        let dir = LogDir { path: data_dir.join("log"), disk };
        let make = |path: &PathBuf| {
            dir.disk.create_dir(path).map_err(|error| StoreError::io("make directory", path, error))
        };
        make(&data_dir)?;
        let lock_path = data_dir.join("lock");
        let lock = dir
            .disk
            .lock(&lock_path)
            .map_err(|error| StoreError::io("lock", &lock_path, error))?
            .ok_or_else(|| StoreError::Locked(data_dir.clone()))?;
        make(&dir.path)?;

        let head = Arc::new(Head::default());
        let mut dropped = Vec::new();
        let recovered = log::recover(&dir, &clock, |sequence, payload| {
            let (tenant, profiles) = codec::decode(payload).map_err(|error| error.to_string())?;
            head.partition(sequence).insert(&tenant, &profiles);
            // The limit may be lower than it was, and may not be passed even now.
            while head.bytes() > head_bytes {
                let Some((sequence, partition)) = head.drop_oldest() else { break };
                dropped.push((sequence, partition.profiles()));
            }
            Ok(())
        })?;
        let counters = Arc::new(Counters::default());
        counters.healthy.store(true, Ordering::Relaxed);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let mut writer = Writer {
            log: LogWriter::new(dir.clone(), clock, log_file_bytes, &recovered),
            dir,
            head: Arc::clone(&head),
            counters: Arc::clone(&counters),
            head_bytes,
            queued_bytes: Arc::clone(&queued_bytes),
        };
        dropped.into_iter().for_each(|(sequence, profiles)| writer.forget(sequence, profiles));
        writer.keep_within_memory();
        let (sender, receiver) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|error| StoreError::io("start the writer of", &data_dir, error))?;
        // A semaphore counts up to a fraction of usize; nobody queues that much.
        let queue_bytes = queue_bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        Ok(Self {
            head,
            counters,
            recovered,
            requests: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            queued_bytes,
            max_record_bytes: MAX_RECORD_BYTES.min(head_bytes / 2),
            writer: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Keeps profiles: all of them, or on an error none. When this returns they are on disk and visible to queries.
    ///
    /// When the future is dropped early the profiles may be kept or not. Call it within a tokio runtime.
    pub async fn append(&self, tenant: &TenantId, profiles: Vec<Profile>) -> Result<(), StoreError> {
        if profiles.is_empty() {
            return Ok(());
        }
        let tenant = tenant.clone();
        // Encoding megabytes takes milliseconds, too long for a thread that drives other requests.
        let encode = tokio::task::spawn_blocking(move || {
            let mut payload = Vec::new();
            codec::encode(&tenant, &profiles, &mut payload);
            (tenant, profiles, payload)
        });
        let (tenant, profiles, payload) = encode.await.map_err(|_| StoreError::Closed)?;
        if payload.len() > self.max_record_bytes {
            return Err(StoreError::TooLarge { got: payload.len(), max: self.max_record_bytes });
        }
        // One that is larger than the whole queue waits until it has the queue for itself.
        let room = payload.len().clamp(1, self.queue_bytes) as u32;
        let permit = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| StoreError::Closed)?;
        let (done, answer) = oneshot::channel();
        let bytes = payload.len();
        let request = Request { tenant, profiles, payload, permit, done };
        {
            let requests = self.requests.lock();
            let requests = requests.as_ref().ok_or(StoreError::Closed)?;
            self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            requests.send(request).map_err(|_| StoreError::Closed)?;
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Splits inputs, each with a key and the profiles that were made of it, into appends that fit one record; only an
    /// input that is alone in its append may still be too large.
    pub(crate) fn fitting<K>(&self, inputs: Vec<(K, Vec<Profile>)>) -> Vec<Vec<(K, Vec<Profile>)>> {
        let mut appends: Vec<Vec<(K, Vec<Profile>)>> = Vec::new();
        let mut room = 0;
        for input in inputs {
            let bytes = codec::most_bytes(&input.1);
            match appends.last_mut().filter(|_| bytes <= room) {
                Some(append) => append.push(input),
                None => {
                    room = self.max_record_bytes;
                    appends.push(vec![input]);
                }
            }
            room = room.saturating_sub(bytes);
        }
        appends
    }

    /// What a query reads, oldest first.
    pub(crate) fn snapshot(&self, tenant: &TenantId) -> Vec<Arc<dyn Source>> {
        self.head.tenant(tenant)
    }

    /// Whose profiles there are.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.head.tenants().into_iter().collect()
    }

    /// What the store did and how it stands.
    pub fn status(&self) -> StoreStatus {
        let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        StoreStatus {
            appends: counted(&c.appends),
            refused_appends: counted(&c.refused_appends),
            appended_profiles: counted(&c.appended_profiles),
            log_bytes: counted(&c.log_bytes),
            syncs: counted(&c.syncs),
            dropped_partitions: counted(&c.dropped_partitions),
            dropped_profiles: counted(&c.dropped_profiles),
            torn_bytes: self.recovered.torn_bytes,
            damaged_bytes: self.recovered.damaged_bytes,
            unreadable_files: self.recovered.unreadable_files,
            head_bytes: self.head.bytes(),
            partitions: self.head.len(),
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed),
            accepts_writes: c.healthy.load(Ordering::Relaxed),
        }
    }

    /// Ends the store's work: what was accepted is written, later appends are refused, and the data directory is free for
    /// another process. Queries still work. Blocks until done.
    pub fn shutdown(&self) {
        self.requests.lock().take();
        self.room.close();
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the log had panicked");
        }
        self.lock.lock().take();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
    }
}
