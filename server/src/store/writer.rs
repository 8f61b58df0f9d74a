//! The one thread that writes: it takes whatever waits, makes it durable with one sync, shows it to queries, and answers.
//!
//! When the head has no room it waits for partitions to become segments; if they cannot, it refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::flush::Flusher;
use super::{Clock, StoreError};
use crate::model::{Profile, TenantId};

/// The most bytes that are written before a sync; more has to wait for the next.
const BATCH_BYTES: usize = 16 << 20;
/// A partition is closed at this share of the head's memory at the latest, so that one can be written while others fill.
const PARTITIONS_IN_HEAD: usize = 8;
/// A partition is closed at this many bytes at the latest: its tables count in 32 bits.
const MAX_PARTITION_BYTES: usize = 1 << 30;

/// What waits to be written.
pub(super) struct Request {
    pub(super) tenant: TenantId,
    pub(super) profiles: Vec<Profile>,
    /// The profiles encoded.
    pub(super) payload: Vec<u8>,
    /// Given back when the request is done, which lets the next one in.
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// What the store counts since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) refused_appends: AtomicU64,
    pub(super) appended_profiles: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) failed_flushes: AtomicU64,
    pub(super) failed_refreshes: AtomicU64,
    pub(super) flushed_segments: AtomicU64,
    pub(super) segment_written_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) compacted_segments: AtomicU64,
    pub(super) expired_segments: AtomicU64,
    pub(super) expired_profiles: AtomicU64,
    pub(super) healthy: AtomicBool,
}

pub(super) struct Writer {
    pub(super) flusher: Arc<Flusher>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    /// Memory at which a partition is closed.
    pub(super) flush_bytes: usize,
    pub(super) queued_bytes: Arc<AtomicUsize>,
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            self.step(first, &mut requests);
        }
    }

    /// Writes this and what waits behind it.
    pub(super) fn step(&mut self, first: Request, requests: &mut mpsc::UnboundedReceiver<Request>) {
        let mut bytes = first.payload.len();
        let mut batch = vec![first];
        while bytes < BATCH_BYTES {
            let Ok(next) = requests.try_recv() else { break };
            bytes += next.payload.len();
            batch.push(next);
        }
        self.write(batch);
    }

    fn write(&mut self, batch: Vec<Request>) {
        let Counters { appends, refused_appends, appended_profiles, log_bytes, syncs, healthy, .. } =
            &*self.counters;
        let view = &self.flusher.view;
        // Nobody may close the partition between the writing and the showing.
        let (written, mut log) = match self.flusher.wait_for_room() {
            Ok(()) => {
                let mut log = self.flusher.log.lock();
                (log.write(batch.iter().map(|request| request.payload.as_slice())), Some(log))
            }
            Err(error) => (Err(error), None),
        };
        let was_healthy = healthy.swap(written.is_ok(), Ordering::Relaxed);
        match &written {
            Ok((_, bytes)) => {
                log_bytes.fetch_add(*bytes, Ordering::Relaxed);
                syncs.fetch_add(1, Ordering::Relaxed);
                if !was_healthy {
                    tracing::info!("writes are accepted again");
                }
            }
            // Once, not for each of the many that will follow.
            Err(error) if was_healthy => {
                tracing::error!(%error, "writes are refused until the disk takes them again");
            }
            Err(_) => {}
        }
        match &written {
            Ok((sequence, _)) => {
                let partition = view.partition(*sequence, (self.clock)());
                for Request { tenant, profiles, .. } in &batch {
                    partition.insert(tenant, profiles);
                    appended_profiles.fetch_add(profiles.len() as u64, Ordering::Relaxed);
                }
                appends.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            Err(_) => {
                refused_appends.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
        }
        let mut done: Vec<_> = Vec::with_capacity(batch.len());
        for Request { payload, permit, done: asked, .. } in batch {
            self.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            drop(permit);
            done.push(asked);
        }
        let sharing = self.flusher.sharing;
        if let Ok((sequence, _)) = &written
            && sharing.is_some_and(|sharing| sharing.acknowledge_published)
        {
            // Before anybody may close the log file and publish it.
            self.flusher.unpublished.wait(*sequence, std::mem::take(&mut done));
        }
        if let Some(log) = &mut log {
            let full = log.sequence().and_then(|sequence| view.existing(sequence));
            if full.is_some_and(|partition| partition.bytes() > self.flush_bytes) {
                log.rotate();
            }
            view.set_writing(log.writing());
        }
        drop(log);
        if self.flusher.background && (sharing.is_some() || !view.closed().is_empty()) {
            self.flusher.wake();
        }
        for done in done {
            // Whoever asked may have gone; what was written stays.
            let _ = done.send(written.as_ref().map(|_| ()).map_err(StoreError::clone));
        }
    }
}

/// Memory at which a partition is closed, of a head that may have so much in all.
pub(super) fn flush_bytes(wanted: usize, head_bytes: usize) -> usize {
    wanted.min(head_bytes / PARTITIONS_IN_HEAD).min(MAX_PARTITION_BYTES)
}
