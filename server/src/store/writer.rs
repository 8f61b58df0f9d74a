//! The one thread that writes: it takes whatever waits, makes it durable with one sync, shows it to queries, and answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::StoreError;
use super::head::Head;
use super::log::{LogDir, LogWriter};
use crate::model::{Profile, TenantId};

/// The most bytes that are written before a sync; more has to wait for the next.
const BATCH_BYTES: usize = 16 << 20;
/// A partition is closed at this share of the head's memory, so that dropping the oldest frees just a part.
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
    pub(super) dropped_partitions: AtomicU64,
    pub(super) dropped_profiles: AtomicU64,
    pub(super) healthy: AtomicBool,
}

pub(super) struct Writer {
    pub(super) log: LogWriter,
    pub(super) dir: LogDir,
    pub(super) head: Arc<Head>,
    pub(super) counters: Arc<Counters>,
    pub(super) head_bytes: usize,
    pub(super) queued_bytes: Arc<AtomicUsize>,
}

impl Writer {
    /// Works until every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.payload.len();
            let mut batch = vec![first];
            while bytes < BATCH_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                bytes += next.payload.len();
                batch.push(next);
            }
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Vec<Request>) {
        let Counters { appends, refused_appends, appended_profiles, log_bytes, syncs, healthy, .. } =
            &*self.counters;
        let written = self.log.write(batch.iter().map(|request| request.payload.as_slice()));
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
                let partition = self.head.partition(*sequence);
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
        // Before the answers, so that whoever has one finds the limit kept.
        self.keep_within_memory();
        for Request { payload, permit, done, .. } in batch {
            self.queued_bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            drop(permit);
            // Whoever asked may have gone; what was written stays.
            let _ = done.send(written.as_ref().map(|_| ()).map_err(StoreError::clone));
        }
    }

    /// Closes a partition that has its share of memory, and drops the oldest ones while there is too much in all.
    pub(super) fn keep_within_memory(&mut self) {
        let share = (self.head_bytes / PARTITIONS_IN_HEAD).min(MAX_PARTITION_BYTES);
        if self.log.sequence().is_some_and(|sequence| self.head.partition(sequence).bytes() > share) {
            self.log.rotate();
        }
        while self.head.bytes() > self.head_bytes {
            let Some((sequence, partition)) = self.head.drop_oldest() else { break };
            self.forget(sequence, partition.profiles());
        }
    }

    /// Removes the log file of a partition that was dropped.
    pub(super) fn forget(&self, sequence: u64, profiles: u64) {
        self.counters.dropped_partitions.fetch_add(1, Ordering::Relaxed);
        self.counters.dropped_profiles.fetch_add(profiles, Ordering::Relaxed);
        let limit = self.head_bytes;
        tracing::warn!(profiles, log_file = sequence, limit, "memory limit reached: oldest profiles dropped");
        if let Err(error) = self.dir.remove(sequence) {
            // It will be read again at the next start, and dropped again.
            tracing::error!(%error, log_file = sequence, "log file of dropped profiles stays on disk");
        }
    }
}
