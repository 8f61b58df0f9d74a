//! From the head to segments: a closed partition becomes one segment for each tenant, then its log file goes.
//!
//! In this order, each step durable before the next: the segments, one entry of the manifest that adds them and names the
//! log file, what queries see, the removal of the log file. A crash between any two leaves either the log file or the
//! entry in force, never both and never neither.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use super::acknowledge::Unpublished;
use super::cache::BlockCache;
use super::compact::Compaction;
use super::log::{LogDir, LogWriter};
use super::manifest::{Change, Manifest};
use super::objects::Objects;
use super::reserve::Reserve;
use super::retain::{Gone, Leaving, Retention};
use super::segment::{self, Recipe, Segment, SegmentMeta};
use super::share::{Sharing, TOO_OLD_MS};
use super::source::Source;
use super::view::View;
use super::writer::Counters;
use super::{Clock, ErrorKind, StoreError};

/// How often the age of the open partition is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Segments that are on their way to a bucket at a time.
pub(super) const STORED_AT_ONCE: usize = 8;
/// The shortest and the longest time between attempts while segments cannot be written.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Turns partitions into segments, and keeps what queries see in step with the manifest.
pub(super) struct Flusher {
    pub(super) view: Arc<View>,
    pub(super) manifest: Mutex<Manifest>,
    /// The manifest's position that queries see.
    pub(super) shown: AtomicU64,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) cache: Arc<BlockCache>,
    pub(super) dir: LogDir,
    pub(super) log: Arc<Mutex<LogWriter>>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) server: Uuid,
    pub(super) head_bytes: usize,
    pub(super) flush_after_ms: i64,
    pub(super) retention: Retention,
    pub(super) leaving: Mutex<Leaving>,
    /// Changes of which it is not known whether they were made.
    pub(super) unsettled: Mutex<Vec<Change>>,
    /// None where nobody else has the objects.
    pub(super) sharing: Option<Sharing>,
    pub(super) unpublished: Unpublished,
    /// Why nothing is taken any more: another server has this one's id.
    pub(super) ousted: OnceLock<StoreError>,
    pub(super) compaction: Compaction,
    /// One merging or deletion at a time.
    pub(super) rewriting: Mutex<()>,
    /// One who reads ahead at a time.
    pub(super) reading_ahead: Mutex<()>,
    pub(super) segment_ids: fn() -> Uuid,
    pub(super) stored_at_once: usize,
    pub(super) reserve: Reserve,
    /// Whether a thread of its own flushes; else whoever waits for room does.
    pub(super) background: bool,
    pub(super) progress: Progress,
}

/// How flushing stands, for those who wait for it.
#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<Standing>,
    changed: Condvar,
    /// One flush at a time.
    busy: Mutex<()>,
    turns: Mutex<Turns>,
    stopping: AtomicBool,
}

/// When things were done last that are not done in every turn.
#[derive(Default)]
struct Turns {
    published: Option<Instant>,
    kept: Option<Instant>,
}

#[derive(Default)]
struct Standing {
    /// Somebody waits for room.
    wanted: bool,
    /// Why the last flush failed.
    failure: Option<Arc<StoreError>>,
}

impl Flusher {
    /// Begins a new partition with the next write.
    pub(super) fn close_open(&self) {
        let mut log = self.log.lock();
        log.rotate();
        self.view.set_writing(log.writing());
    }

    /// Turns every closed partition into segments, oldest first.
    pub(super) fn flush_closed(&self) -> Result<(), StoreError> {
        let _one = self.progress.busy.lock();
        let flush_all = || self.view.closed().into_iter().try_for_each(|sequence| self.flush(sequence));
        let done = self.settle().and_then(|()| flush_all());
        if done.is_err() {
            self.counters.failed_flushes.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.progress.state.lock();
        match (&done, &state.failure) {
            (Ok(()), Some(_)) => tracing::info!("segments are written again"),
            (Err(error), None) => {
                tracing::error!(%error, "segments cannot be written; profiles stay in memory and log")
            }
            _ => {}
        }
        state.failure = done.clone().err().map(Arc::new);
        self.progress.changed.notify_all();
        done
    }

    fn flush(&self, sequence: u64) -> Result<(), StoreError> {
        let Some(partition) = self.view.existing(sequence) else { return Ok(()) };
        let now_ms = (self.clock)();
        let add = Mutex::new(Vec::new());
        let tenants = partition.tenants();
        let at_once = if self.objects.is_shared() { self.stored_at_once.min(tenants.len()) } else { 1 };
        let parts = Mutex::new(tenants.into_iter());
        // One is made at a time, as that takes memory; a request that is under way takes patience only.
        let make_next = || {
            let mut parts = parts.lock();
            for (tenant, part) in parts.by_ref() {
                let pace = &|| Ok(());
                let recipe =
                    Recipe { name: self.segment_name(), tenant: &tenant, level: 0, now_ms, keep: None, pace };
                if let Some(written) = segment::write(recipe, &[part as Arc<dyn Source>])? {
                    // Said before it is done, so that what is left of a failed attempt is removed.
                    add.lock().push(written.meta.clone());
                    return Ok(Some(written));
                }
            }
            Ok(None)
        };
        let store_all = || -> Result<(), StoreError> {
            while let Some(written) = make_next()? {
                self.store(&written.meta.name, written.bytes)?;
            }
            Ok(())
        };
        let stored = std::thread::scope(|scope| {
            let others: Vec<_> = (1..at_once).map(|_| scope.spawn(store_all)).collect();
            let others = others.into_iter().map(|other| other.join().expect("storing does not panic"));
            store_all().and(others.collect::<Result<(), StoreError>>())
        });
        let add = add.into_inner();
        if let Err(error) = stored {
            self.discard(add.iter());
            return Err(error);
        }
        let files = self.dir.files()?;
        let covered = self.manifest.lock().covered();
        self.commit(Change { add, ..covered.and(sequence, &files) }).map(drop)
    }

    /// Makes a change of the manifest durable and shows it; tells no if others were faster. If it fails it is not known
    /// whether the change is made: [`Self::settle`] finds out.
    pub(super) fn commit(&self, change: Change) -> Result<bool, StoreError> {
        let mut manifest = self.manifest.lock();
        let too_old = |segment: &SegmentMeta| segment.created_ms.saturating_add(TOO_OLD_MS) < (self.clock)();
        // Another server may take them for what nobody needs any more. They are made anew unless they are in force.
        let too_late = self.sharing.is_some() && change.add.iter().any(too_old);
        let committed =
            if too_late { manifest.poll().map(|()| false) } else { manifest.commit(change.clone()) };
        let committed = committed.or_else(|error| {
            // Whatever it says, the entry is small, and most of them lead to files that go.
            let room = error.kind() == ErrorKind::Full && self.reserve.release((self.clock)());
            if room { manifest.commit(change.clone()) } else { Err(error) }
        });
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                self.unsettled.lock().push(change);
                self.heed(&manifest);
                return Err(error);
            }
        };
        // What is not in force now never will be.
        let void = change.add.iter().filter(|segment| !manifest.state().segments.contains_key(&segment.name));
        if self.sharing.is_some() {
            // It may have been, until others merged it, and they may read it still.
            let at_ms = (self.clock)();
            let void = void.map(|meta| Gone { segment: Arc::new(self.segment(meta)), ours: true, at_ms });
            self.leaving.lock().extend(void);
        } else {
            self.discard(void);
        }
        self.show(&manifest, if committed { &change.remove } else { &[] });
        drop(manifest);
        if committed && !change.logs.is_empty() {
            self.counters.flushes.fetch_add(1, Ordering::Relaxed);
            self.counters.flushed_segments.fetch_add(change.add.len() as u64, Ordering::Relaxed);
        }
        for sequence in change.logs.into_iter().filter(|_| !too_late) {
            if let Err(error) = self.dir.remove(sequence) {
                // It is covered by the manifest, and removed at the next start.
                tracing::warn!(%error, log_file = sequence, "log file that is in segments stays on disk");
            }
        }
        Ok(committed)
    }

    /// Tries changes again of which it is not known whether they were made. Nothing new is written before that is known,
    /// so a disk that takes segments and no entries does not fill up with segments.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let unsettled = std::mem::take(&mut *self.unsettled.lock());
        let mut settled = Ok(());
        for change in unsettled {
            if settled.is_ok() {
                settled = self.commit(change).map(drop);
            } else {
                self.unsettled.lock().push(change);
            }
        }
        settled
    }

    /// A name that no other segment has.
    pub(super) fn segment_name(&self) -> String {
        format!("{SEGMENTS}/{}.segment", (self.segment_ids)().as_simple())
    }

    /// Keeps a segment's bytes under a name of its own.
    pub(super) fn store(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        let created = self.objects.create(name, bytes);
        let created = created.map_err(|error| StoreError::io("create", &self.objects.place(name), error))?;
        self.counters.segment_written_bytes.fetch_add(length, Ordering::Relaxed);
        if !created {
            // Names are random: an earlier try of the same request had got through.
            tracing::debug!(segment = name, "segment had been kept already");
        }
        Ok(())
    }

    /// Removes segments that the manifest does not know; what cannot be removed goes at the next start.
    pub(super) fn discard<'a>(&self, segments: impl Iterator<Item = &'a SegmentMeta>) {
        for segment in segments {
            let _ = self.objects.remove(&segment.name);
        }
    }

    fn segment(&self, meta: &SegmentMeta) -> Segment {
        Segment::new(meta.clone(), Arc::clone(&self.objects), Arc::clone(&self.cache))
    }

    /// Lets queries see what the manifest says, and acknowledges what is in it. Objects of segments that this server
    /// removed from it are its to remove.
    pub(super) fn show(&self, manifest: &Manifest, removed: &[String]) {
        self.shown.store(manifest.position(), Ordering::Relaxed);
        self.heed(manifest);
        let covered = manifest.covered();
        let gone = self.view.show(manifest.state(), &covered, |meta| self.segment(meta));
        let at_ms = (self.clock)();
        let ours = |segment: &Segment| self.sharing.is_none() || removed.contains(&segment.meta().name);
        let gone = gone.into_iter().map(|segment| Gone { ours: ours(&segment), segment, at_ms });
        self.leaving.lock().extend(gone);
        self.unpublished.acknowledge(&covered);
    }

    /// Takes nothing any more once another server has this one's id: of two with the same log files one's would be lost.
    fn heed(&self, manifest: &Manifest) {
        let Some(error) = manifest.ousted() else { return };
        if self.ousted.set(error.clone()).is_ok() {
            tracing::error!(%error, "writes are refused");
            self.counters.healthy.store(false, Ordering::Relaxed);
        }
        self.unpublished.refuse(&error);
    }

    /// Removes segments that the manifest does not know. Only for who has the objects for itself.
    pub(super) fn remove_strangers(&self) -> Result<(), StoreError> {
        let listed = self.objects.list(SEGMENTS, "");
        let names = listed.map_err(|error| StoreError::io("list", &self.objects.place(SEGMENTS), error))?;
        let manifest = self.manifest.lock();
        let known: BTreeSet<&String> = manifest.state().segments.keys().collect();
        for name in names.iter().filter(|name| is_segment_name(name) && !known.contains(name)) {
            tracing::info!(
                segment = name,
                "removing a segment that was never finished or is no longer needed"
            );
            let _ = self.objects.remove(name);
        }
        Ok(())
    }

    /// Waits until the head has room, or says why it gets none.
    pub(super) fn wait_for_room(&self) -> Result<(), StoreError> {
        if let Some(error) = self.ousted.get() {
            return Err(error.clone());
        }
        if self.sharing.is_some_and(|sharing| sharing.acknowledge_published)
            && let Some(failure) = &self.progress.state.lock().failure
        {
            return Err(StoreError::Unpublished(Arc::clone(failure)));
        }
        while self.view.bytes() >= self.head_bytes {
            self.close_open();
            if !self.background {
                self.flush_closed().map_err(|error| StoreError::Unflushed(Arc::new(error)))?;
                continue;
            }
            let mut state = self.progress.state.lock();
            if let Some(failure) = &state.failure {
                return Err(StoreError::Unflushed(Arc::clone(failure)));
            }
            if self.is_stopping() {
                return Err(StoreError::Closed);
            }
            state.wanted = true;
            self.progress.changed.notify_all();
            self.progress.changed.wait_for(&mut state, LOOK);
        }
        Ok(())
    }

    /// Says that there is something to do.
    pub(super) fn wake(&self) {
        self.progress.state.lock().wanted = true;
        self.progress.changed.notify_all();
    }

    /// Flushes what is closed and closes what is old, until told to stop.
    pub(super) fn run(&self) {
        let mut pause = RETRY.0;
        while !self.is_stopping() {
            let failed = self.turn();
            pause = if failed { (pause * 2).min(RETRY.1) } else { RETRY.0 };
            let until_due = self.until_due().unwrap_or(LOOK).min(LOOK);
            self.sleep(if failed { pause } else { until_due }, failed);
        }
    }

    /// Closes what is old, flushes what is closed, lets go of what has reached its retention; tells whether flushing failed.
    pub(super) fn turn(&self) -> bool {
        if self.until_due() == Some(Duration::ZERO) {
            self.close_open();
            self.progress.turns.lock().published = Some(Instant::now());
        }
        let work = !self.view.closed().is_empty() || self.is_failing();
        let failed = work && self.flush_closed().is_err();
        let kept = self.progress.turns.lock().kept;
        // Whoever publishes is woken by every write.
        if self.sharing.is_none() || kept.is_none_or(|kept| kept.elapsed() >= LOOK) {
            self.progress.turns.lock().kept = Some(Instant::now());
            if let Err(error) = self.retain() {
                tracing::warn!(%error, "segments that have reached their retention cannot be let go");
            }
            self.bury();
        }
        failed
    }

    /// In how long the open partition is to be closed at the latest; none if there is none or nobody knows yet.
    fn until_due(&self) -> Option<Duration> {
        let since_ms = self.view.open_since()?;
        match &self.sharing {
            Some(sharing) => {
                let published = self.progress.turns.lock().published;
                Some(published.map_or(Duration::ZERO, |at| sharing.publish.saturating_sub(at.elapsed())))
            }
            None => {
                let old = (self.clock)().saturating_sub(since_ms) >= self.flush_after_ms;
                old.then_some(Duration::ZERO)
            }
        }
    }

    /// Whether the last flush failed.
    fn is_failing(&self) -> bool {
        self.progress.state.lock().failure.is_some()
    }

    /// Waits for so long, or until somebody wants something; after a failure nobody's wish makes the disk larger.
    fn sleep(&self, pause: Duration, failed: bool) {
        let until = Instant::now() + pause;
        let mut state = self.progress.state.lock();
        loop {
            let awake = self.is_stopping() || state.wanted && !failed;
            if awake || self.progress.changed.wait_until(&mut state, until).timed_out() {
                state.wanted = false;
                return;
            }
        }
    }

    /// Whether it was told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.progress.stopping.load(Ordering::Relaxed)
    }

    /// Does nothing for so long, or until told to stop.
    pub(super) fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.progress.state.lock();
        while !self.is_stopping() {
            if self.progress.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }

    /// Ends [`Self::run`] and all waiting.
    pub(super) fn stop(&self) {
        self.progress.stopping.store(true, Ordering::Relaxed);
        // With the lock, so that nobody goes to sleep just now.
        let _state = self.progress.state.lock();
        self.progress.changed.notify_all();
    }
}

/// Where segments lie.
pub(super) const SEGMENTS: &str = "segments";

pub(super) fn is_segment_name(name: &str) -> bool {
    name.ends_with(".segment")
}
