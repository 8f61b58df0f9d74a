//! The one thread that writes traces: what waits becomes one commit, and files are begun, closed and removed in between.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::TraceError;
use super::record::Prepared;
use super::slice::{Known, Slice};
use super::{Shared, WRITING_CACHE_BYTES};
use crate::model::TenantId;

/// Bytes that are written at once.
const COMMIT_BYTES: usize = 16 << 20;
/// How often old files are looked after.
const TEND: Duration = Duration::from_secs(5);
/// Files beyond which age alone begins no other.
const MANY_FILES: usize = 32;

/// Spans that wait to be written.
pub(super) struct Request {
    pub(super) tenant: TenantId,
    pub(super) prepared: Prepared,
    /// Its place in the queue.
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) done: oneshot::Sender<Result<(), TraceError>>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The file that is written, once there is one.
    open: Option<(Arc<Slice>, Known)>,
    tended: Instant,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: None, tended: Instant::now() }
    }

    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(TEND) {
                Ok(first) => {
                    let mut bytes = first.prepared.bytes;
                    let mut waiting = vec![first];
                    while bytes < COMMIT_BYTES
                        && let Ok(next) = requests.try_recv()
                    {
                        bytes += next.prepared.bytes;
                        waiting.push(next);
                    }
                    self.write(waiting);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.tended.elapsed() >= TEND {
                self.tend();
            }
        }
        // What is closed need not be read over at the next start.
        self.open = None;
        for slice in self.shared.slices() {
            let _ = slice.seal();
        }
    }

    fn write(&mut self, waiting: Vec<Request>) {
        let mut batches = Vec::with_capacity(waiting.len());
        let mut answers = Vec::with_capacity(waiting.len());
        for Request { tenant, prepared, _permit, done } in waiting {
            batches.push((tenant, prepared));
            answers.push((done, _permit));
        }
        let written = self.commit(&batches);
        let counters = &self.shared.counters;
        counters.failing.store(written.is_err(), Ordering::Relaxed);
        match &written {
            Ok(()) => {
                let spans: usize = batches.iter().map(|(_, prepared)| prepared.rows.len()).sum();
                counters.spans.fetch_add(spans as u64, Ordering::Relaxed);
                counters.commits.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                counters.refused_appends.fetch_add(answers.len() as u64, Ordering::Relaxed);
                tracing::warn!(%error, "traces cannot be written");
            }
        }
        for (done, _permit) in answers {
            // Whoever asked may have gone.
            let _ = done.send(written.clone());
        }
        self.turn_over();
    }

    fn commit(&mut self, batches: &[(TenantId, Prepared)]) -> Result<(), TraceError> {
        match self.try_commit(batches) {
            Err(error @ TraceError::Damaged { .. }) => {
                if let Some((slice, _)) = self.open.take() {
                    self.shared.set_aside(&slice, &error);
                }
                self.try_commit(batches)
            }
            result => result,
        }
    }

    fn try_commit(&mut self, batches: &[(TenantId, Prepared)]) -> Result<(), TraceError> {
        let files = self.shared.slices.read().len();
        let (slice, mut known) = match self.open.take() {
            Some((slice, known)) if !self.is_full(&slice, files) => (slice, known),
            _ => {
                let slice = self.slice()?;
                let known = match Known::of(&slice) {
                    Err(error @ TraceError::Damaged { .. }) => {
                        self.shared.set_aside(&slice, &error);
                        return Err(error);
                    }
                    known => known?,
                };
                (slice, known)
            }
        };
        match slice.write(batches, &mut known) {
            Ok(()) => {
                self.open = Some((slice, known));
                Ok(())
            }
            Err(error @ TraceError::Damaged { .. }) => {
                self.shared.set_aside(&slice, &error);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The file to write to: the last one unless it is full or closed, else a new one.
    fn slice(&self) -> Result<Arc<Slice>, TraceError> {
        let slices = self.shared.slices();
        let open = |last: &&Arc<Slice>| !last.is_sealed() && !self.is_full(last, slices.len());
        if let Some(last) = slices.last().filter(open) {
            return Ok(Arc::clone(last));
        }
        let number = slices.last().map_or(1, |last| last.number + 1);
        // Files that were set aside keep their number.
        let number = (number..).find(|number| !self.shared.path(*number).exists()).unwrap_or(number);
        let now_ms = (self.shared.options.clock)();
        let slice = Slice::create(self.shared.path(number), number, now_ms, WRITING_CACHE_BYTES)?;
        // What is written to a file is of no use if its name is lost.
        sync_dir(&self.shared.options.dir)?;
        let slice = Arc::new(slice);
        self.shared.slices.write().push(Arc::clone(&slice));
        Ok(slice)
    }

    fn is_full(&self, slice: &Slice, files: usize) -> bool {
        let options = &self.shared.options;
        let age = (options.clock)().saturating_sub(slice.since_ms);
        slice.disk_bytes() >= options.file_bytes || (age >= options.file_ms && files < MANY_FILES)
    }

    /// Leaves the file that is written if it is full, and keeps to the bytes that there may be.
    fn turn_over(&mut self) {
        let files = self.shared.slices.read().len();
        if self.open.as_ref().is_some_and(|(slice, _)| self.is_full(slice, files)) {
            self.open = None;
            self.tend();
        }
    }

    /// Closes files that are no longer written, and removes those that are too old or too much.
    pub(super) fn tend(&mut self) {
        self.tended = Instant::now();
        let slices = self.shared.slices();
        let writing = self.open.as_ref().map(|(slice, _)| Arc::clone(slice));
        let last =
            slices.last().filter(|last| !self.is_full(last, slices.len())).or(writing.as_ref()).cloned();
        let is_writing = |slice: &Arc<Slice>| last.as_ref().is_some_and(|last| Arc::ptr_eq(last, slice));
        for slice in slices.iter().filter(|slice| !is_writing(slice)) {
            match slice.seal() {
                Ok(_) => {}
                Err(error @ TraceError::Damaged { .. }) => self.shared.set_aside(slice, &error),
                Err(error) => tracing::warn!(%error, "traces cannot be closed"),
            }
        }
        let expired = |slice: &Arc<Slice>| {
            let facts = slice.all_facts();
            !facts.is_empty()
                && facts.iter().all(|(tenant, facts)| {
                    i64::try_from(facts.last_nanos).unwrap_or(i64::MAX) < self.shared.since_nanos(tenant)
                })
        };
        let mut go: Vec<Arc<Slice>> = slices.iter().filter(|slice| expired(slice)).cloned().collect();
        if let Some(most) = self.shared.options.bytes {
            let goes = |slice: &Arc<Slice>| go.iter().any(|other| Arc::ptr_eq(other, slice));
            let stay: Vec<(Arc<Slice>, u64)> = slices
                .iter()
                .filter(|slice| !goes(slice))
                .map(|slice| (Arc::clone(slice), slice.disk_bytes()))
                .collect();
            let mut bytes: u64 = stay.iter().map(|(_, bytes)| bytes).sum();
            for (slice, own) in stay {
                if bytes <= most || is_writing(&slice) {
                    break;
                }
                bytes -= own;
                go.push(slice);
            }
        }
        for slice in go {
            self.remove(&slice);
        }
    }

    fn remove(&mut self, slice: &Arc<Slice>) {
        if self.open.as_ref().is_some_and(|(open, _)| Arc::ptr_eq(open, slice)) {
            self.open = None;
        }
        self.shared.slices.write().retain(|other| !Arc::ptr_eq(other, slice));
        match std::fs::remove_file(&slice.path) {
            Ok(()) => {
                self.shared.counters.expired_files.fetch_add(1, Ordering::Relaxed);
                tracing::info!(file = %slice.path.display(), "traces have reached their retention");
            }
            Err(error) => {
                tracing::warn!(%error, file = %slice.path.display(), "old traces cannot be removed")
            }
        }
    }
}

#[cfg(unix)]
fn sync_dir(dir: &Path) -> Result<(), TraceError> {
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| TraceError::io("sync directory", dir, &error))
}

#[cfg(not(unix))]
fn sync_dir(_: &Path) -> Result<(), TraceError> {
    Ok(())
}
