//! The store: what was acknowledged is kept, and is answered at once.
//!
//! An append is encoded, written to the log, synced, shown to queries, and only then acknowledged. Later it becomes part of
//! a segment, an immutable file, and leaves memory and log. Queries read `Source`s and do not know where those lie.
//! `docs/storage.md` has formats, promises and invariants.

mod acknowledge;
mod ahead;
mod cache;
mod codec;
mod compact;
mod disk;
mod error;
mod flush;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod head;
mod home;
mod log;
mod manifest;
#[cfg(any(test, fuzzing))]
mod memory_objects;
mod objects;
mod offline;
mod options;
mod replay;
mod reserve;
mod retain;
mod segment;
mod server_id;
mod share;
mod source;
mod view;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use self::acknowledge::Unpublished;
use self::cache::BlockCache;
pub use self::compact::{Compaction, Deletion, Shares};
use self::disk::{Disk, DiskLock, OsDisk};
pub use self::error::{ErrorKind, StoreError};
use self::flush::{Flusher, Progress};
pub(crate) use self::head::SampleCounts;
use self::home::Home;
use self::log::{LogDir, LogWriter, Recovered};
use self::manifest::Manifest;
pub use self::objects::Bucket;
use self::objects::{BucketObjects, LocalObjects, Objects};
pub use self::offline::{
    Damage, Formats, Inspection, LogFacts, ManifestFacts, Offline, Place, SegmentFacts, TenantFacts,
    Verified, inspect, verify,
};
pub use self::options::{Acknowledge, Clock, Shared, StoreOptions, system_clock};
use self::replay::IntoHead;
use self::reserve::Reserve;
pub use self::retain::{Keep, Retention};
use self::share::Sharing;
pub(crate) use self::source::{Chunk, FoundRun, NO_SPAN, SeriesEntry, Source, SpanEntry, SpanLookup};
use self::view::{SegmentCounts, View};
use self::writer::{Counters, Request, Writer, flush_bytes};
use crate::model::{Profile, TenantId};

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fake_disk;
#[cfg(test)]
mod simulation;
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
    /// Parts of the head that became segments.
    pub flushes: u64,
    /// Times that this failed.
    pub failed_flushes: u64,
    /// Times that it could not be seen what other servers wrote.
    pub failed_refreshes: u64,
    /// Segments that were made of parts of the head.
    pub flushed_segments: u64,
    /// Bytes of segments written.
    pub segment_written_bytes: u64,
    /// Times that segments were merged.
    pub compactions: u64,
    /// Segments that were merged.
    pub compacted_segments: u64,
    /// Segments that went because of their age or number.
    pub expired_segments: u64,
    /// Profiles in them.
    pub expired_profiles: u64,
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
    /// Segments.
    pub segments: u64,
    /// Bytes of them on disk.
    pub segment_bytes: u64,
    /// Segments that are set aside because they are damaged.
    pub damaged_segments: u64,
    /// Memory that pieces of segments take.
    pub cache_bytes: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
    /// Whether the last write was taken.
    pub accepts_writes: bool,
}

/// Keeps profiles.
pub struct Store {
    view: Arc<View>,
    flusher: Arc<Flusher>,
    counters: Arc<Counters>,
    recovered: Recovered,
    requests: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    /// Bytes that may still join the queue.
    room: Arc<Semaphore>,
    queue_bytes: usize,
    queued_bytes: Arc<AtomicUsize>,
    max_record_bytes: usize,
    /// The flusher's and the writer's.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The directory is ours until this goes, which is after the writer.
    lock: Mutex<Option<DiskLock>>,
}

impl Store {
    /// Opens the store in the data directory: takes the directory, reads manifest and log back, and starts the writer.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let bucket = options.shared.as_ref().map(|shared| shared.bucket.clone());
        let objects = |dir: &Path| -> std::io::Result<Arc<dyn Objects>> {
            let Some(bucket) = bucket else { return Ok(Arc::new(LocalObjects::open(dir)?)) };
            if dir.join("manifest").is_dir() {
                tracing::warn!(dir = %dir.display(), %bucket, "objects in the data directory are not served beside a bucket");
            }
            let objects = BucketObjects::open(&bucket)?;
            objects.check()?;
            Ok(Arc::new(objects))
        };
        Self::open_on(Arc::new(OsDisk), objects, options, true)
    }

    /// Opens the store with its files and objects on `disk`. Without `background` nothing becomes a segment before
    /// somebody asks for it or the head is full.
    fn open_on(
        disk: Arc<dyn Disk>,
        objects: impl FnOnce(&Path) -> std::io::Result<Arc<dyn Objects>>,
        options: StoreOptions,
        background: bool,
    ) -> Result<Self, StoreError> {
        let (store, writer, requests) = Self::prepare(disk, objects, options, background)?;
        store.start(writer, requests)?;
        Ok(store)
    }

    /// All of opening but the threads: whoever has the writer and what it is asked takes its steps.
    fn prepare(
        disk: Arc<dyn Disk>,
        objects: impl FnOnce(&Path) -> std::io::Result<Arc<dyn Objects>>,
        options: StoreOptions,
        background: bool,
    ) -> Result<(Self, Writer, mpsc::UnboundedReceiver<Request>), StoreError> {
        let StoreOptions { data_dir, head_bytes, log_file_bytes, queue_bytes, clock, .. } = options;
        let dir = LogDir { path: data_dir.join("log"), disk };
        let make = |path: &Path| {
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
        let objects_dir = data_dir.join("objects");
        if options.shared.is_none() {
            make(&objects_dir)?;
        }
        let (server, is_new) = server_id::of(&*dir.disk, &data_dir)?;
        let place = match &options.shared {
            Some(shared) => shared.bucket.to_string().into(),
            None => objects_dir.clone(),
        };
        let objects = objects(&objects_dir).map_err(|error| StoreError::io("open", &place, error))?;
        let mut home = Home::read(&*dir.disk, &data_dir)?;
        let mut manifest = Manifest::load(Arc::clone(&objects), Arc::clone(&clock), server)?;
        let sharing = options.shared.as_ref().map(|shared| Sharing {
            publish: Duration::from_millis(shared.publish_ms),
            refresh: Duration::from_millis(shared.refresh_ms),
            removal_ms: i64::try_from(shared.removal_ms).unwrap_or(i64::MAX),
            acknowledge_published: shared.acknowledge == Acknowledge::Object,
        });
        if sharing.is_some() {
            manifest = manifest.shared();
        }
        manifest.check_versions()?;
        log::check_versions(&dir, &manifest.covered())?;
        let here = options.shared.as_ref().map_or(home::LOCAL.to_owned(), |shared| shared.bucket.to_string());
        home.check_log(&dir, &data_dir, &here, server, &manifest.covered())?;
        if sharing.is_some() && !is_new && !manifest.remembers() {
            home.check_forgotten(&dir, &data_dir, &here, clock())?;
        }
        let start = sharing.is_some().then(Uuid::new_v4);
        // First, as the entry may get through although nobody is told so.
        if let Err(error) = home.enter(&*dir.disk, &data_dir, &here, start) {
            // A server whose disk is full has to start, too: what is in the bucket can be read.
            if error.kind() != ErrorKind::Full || !reserve::give_up(&*dir.disk, &data_dir) {
                return Err(error);
            }
            home.enter(&*dir.disk, &data_dir, &here, start)?;
        }
        if let Some(start) = start
            && !manifest.begin(start, home.starts())?
        {
            return Err(StoreError::Copied(server));
        }
        let covered = manifest.covered();

        let view = Arc::new(View::default());
        let counters = Arc::new(Counters::default());
        counters.healthy.store(true, Ordering::Relaxed);
        let log = LogWriter::new(dir.clone(), Arc::clone(&clock), log_file_bytes, &Recovered::default());
        let flusher = Arc::new(Flusher {
            view: Arc::clone(&view),
            manifest: Mutex::new(manifest),
            shown: AtomicU64::default(),
            objects,
            cache: Arc::new(BlockCache::new(options.cache_bytes)),
            dir: dir.clone(),
            log: Arc::new(Mutex::new(log)),
            counters: Arc::clone(&counters),
            clock: Arc::clone(&clock),
            server,
            head_bytes,
            flush_after_ms: options.flush_after_ms,
            retention: options.retention,
            leaving: Mutex::default(),
            unsettled: Mutex::default(),
            sharing,
            unpublished: Unpublished::default(),
            ousted: OnceLock::new(),
            compaction: options.compaction,
            rewriting: Mutex::default(),
            reading_ahead: Mutex::default(),
            segment_ids: options.segment_ids,
            stored_at_once: options.stored_at_once,
            reserve: Reserve::open(Arc::clone(&dir.disk), &data_dir, options.reserve_bytes, clock()),
            background,
            progress: Progress::default(),
        });
        if sharing.is_none() {
            flusher.remove_strangers()?;
        }
        flusher.show(&flusher.manifest.lock(), &[]);
        let replay = IntoHead::new(&flusher, clock());
        let mut recovered = log::recover(&dir, &clock, &covered, &replay, replay::at_once())?;
        if sharing.is_some() {
            // A copy of the directory has the file, too: what is added to it here is not in it there.
            recovered.open_end = None;
        }
        {
            let mut log = flusher.log.lock();
            *log = LogWriter::new(dir, Arc::clone(&clock), log_file_bytes, &recovered);
            view.set_writing(log.writing());
        }
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            flusher: Arc::clone(&flusher),
            counters: Arc::clone(&counters),
            clock,
            flush_bytes: flush_bytes(options.flush_bytes, head_bytes),
            queued_bytes: Arc::clone(&queued_bytes),
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        // A semaphore counts up to a fraction of usize; nobody queues that much.
        let queue_bytes = queue_bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        let store = Self {
            view,
            flusher,
            counters,
            recovered,
            requests: Mutex::new(Some(sender)),
            room: Arc::new(Semaphore::new(queue_bytes)),
            queue_bytes,
            queued_bytes,
            max_record_bytes: MAX_RECORD_BYTES.min(head_bytes / 2),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        };
        Ok((store, writer, receiver))
    }

    fn start(&self, writer: Writer, requests: mpsc::UnboundedReceiver<Request>) -> Result<(), StoreError> {
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|error| StoreError::io("start a thread of", &self.flusher.dir.path, error))
        };
        // The flusher first: it is stopped first, and whoever waits for it must not.
        let mut threads = self.threads.lock();
        if self.flusher.background {
            let (flushing, compacting) = (Arc::clone(&self.flusher), Arc::clone(&self.flusher));
            threads.push(spawn("flusher", Box::new(move || flushing.run()))?);
            threads.push(spawn("compactor", Box::new(move || compacting.run_compaction()))?);
            if let Some(sharing) = self.flusher.sharing {
                let refreshing = Arc::clone(&self.flusher);
                threads.push(spawn("refresher", Box::new(move || refreshing.run_refresh(sharing.refresh)))?);
            }
        }
        threads.push(spawn("log-writer", Box::new(move || writer.run(requests)))?);
        Ok(())
    }

    /// Turns all that was acknowledged before into segments. Blocks until they are durable.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.flusher.close_open();
        self.flusher.flush_closed()
    }

    /// Removes profiles for good, those that were acknowledged before; tells how many. Blocks until that is durable. On an
    /// error some of them may be gone.
    pub fn delete(&self, deletion: &Deletion) -> Result<u64, StoreError> {
        let gone = self.flusher.delete(deletion)?;
        self.flusher.bury();
        Ok(gone)
    }

    /// Keeps profiles: all of them, or on an error none. When this returns they are on disk and visible to queries.
    ///
    /// When the future is dropped early the profiles may be kept or not. Call it within a tokio runtime.
    pub async fn append(&self, tenant: &TenantId, profiles: Vec<Profile>) -> Result<(), StoreError> {
        if profiles.is_empty() {
            return Ok(());
        }
        if !segment::can_hold(&profiles) {
            return Err(StoreError::TooManyForSegment);
        }
        let tenant = tenant.clone();
        // Encoding megabytes takes milliseconds, too long for a thread that drives other requests.
        let encode = tokio::task::spawn_blocking(move || {
            // Most numbers take half as many bytes as in memory, or fewer.
            let mut payload = Vec::with_capacity(codec::most_bytes(&profiles) / 2);
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

    /// Reads what a query of this tenant is about to read and that is faster read at once. Blocks until that is here; what
    /// cannot be read is left for the query to find out.
    pub(crate) fn read_ahead(&self, tenant: &TenantId) {
        self.flusher.read_ahead(tenant);
    }

    /// What a query reads, oldest first.
    pub(crate) fn snapshot(&self, tenant: &TenantId) -> Vec<Arc<dyn Source>> {
        self.view.tenant(tenant)
    }

    /// Whose profiles there are.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.view.tenants().into_iter().collect()
    }

    /// What the store did and how it stands.
    pub fn status(&self) -> StoreStatus {
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        let SegmentCounts { segments, bytes: segment_bytes, damaged: damaged_segments } =
            self.view.segment_counts();
        StoreStatus {
            appends: counted(&c.appends),
            refused_appends: counted(&c.refused_appends),
            appended_profiles: counted(&c.appended_profiles),
            log_bytes: counted(&c.log_bytes),
            syncs: counted(&c.syncs),
            flushes: counted(&c.flushes),
            failed_flushes: counted(&c.failed_flushes),
            failed_refreshes: counted(&c.failed_refreshes),
            flushed_segments: counted(&c.flushed_segments),
            segment_written_bytes: counted(&c.segment_written_bytes),
            compactions: counted(&c.compactions),
            compacted_segments: counted(&c.compacted_segments),
            expired_segments: counted(&c.expired_segments),
            expired_profiles: counted(&c.expired_profiles),
            torn_bytes: self.recovered.torn_bytes,
            damaged_bytes: self.recovered.damaged_bytes,
            unreadable_files: self.recovered.unreadable_files,
            head_bytes: self.view.bytes(),
            partitions: self.view.partitions(),
            segments,
            segment_bytes,
            damaged_segments,
            cache_bytes: self.flusher.cache.bytes(),
            queued_bytes: self.queued_bytes.load(Ordering::Relaxed),
            accepts_writes: c.healthy.load(Ordering::Relaxed),
        }
    }

    /// Why nothing is taken any more, whatever happens, until somebody looks after the data directory; none if it is.
    pub fn refusal(&self) -> Option<StoreError> {
        self.flusher.ousted.get().cloned()
    }

    /// Ends the store's work: what was accepted is written, later appends are refused, and the data directory is free for
    /// another process. Queries still work. Blocks until done.
    pub fn shutdown(&self) {
        self.requests.lock().take();
        self.room.close();
        self.flusher.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let name = thread.thread().name().map(str::to_owned);
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread of the store had panicked");
            }
        }
        if self.flusher.sharing.is_some() && self.lock.lock().is_some() {
            // Other servers go on, and this one's disk may be gone by its next start.
            if let Err(error) = self.flush() {
                tracing::error!(%error, "profiles are not in the object store; they stay in this server's log");
            }
            self.flusher.unpublished.close();
        }
        self.lock.lock().take();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
    }
}
