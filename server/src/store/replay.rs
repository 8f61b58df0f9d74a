//! From the log to the head, when a store is opened.
//!
//! The log that is there is opened whatever it takes: it was acknowledged. Where it takes more memory than the head may have,
//! which only happens if the head might have more before, profiles become segments meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};

use super::codec;
use super::flush::Flusher;
use super::head::Partition;
use super::log::Replay;

/// The most files that are read at a time: each takes memory, and the disk is one.
const MOST_AT_ONCE: usize = 8;

/// How many files are read at a time.
pub(super) fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE)
}

/// Fills the head with the records of the log, a partition for each file.
pub(super) struct IntoHead<'a> {
    flusher: &'a Flusher,
    now_ms: i64,
    /// Segments cannot be written now. Whoever writes next is told so.
    stuck: AtomicBool,
}

impl<'a> IntoHead<'a> {
    pub(super) fn new(flusher: &'a Flusher, now_ms: i64) -> Self {
        Self { flusher, now_ms, stuck: AtomicBool::new(false) }
    }
}

impl Replay for IntoHead<'_> {
    /// A file without records has no partition.
    type Part = Option<Partition>;

    fn add(&self, part: &mut Self::Part, payload: &[u8]) -> Result<(), String> {
        let (tenant, profiles) = codec::decode(payload).map_err(|error| error.to_string())?;
        part.get_or_insert_with(|| Partition::new(self.now_ms)).insert(&tenant, &profiles);
        Ok(())
    }

    fn take(&self, sequence: u64, part: Self::Part) {
        let Some(partition) = part else { return };
        let Flusher { view, head_bytes, .. } = self.flusher;
        // Whatever is in earlier files is complete.
        view.set_writing(sequence);
        // As when it was written: a file is begun when there is room. So one and the same limit is kept without waiting.
        if view.bytes() >= *head_bytes && !self.stuck.load(Ordering::Relaxed) {
            self.stuck.store(self.flusher.flush_closed().is_err(), Ordering::Relaxed);
        }
        view.show_partition(sequence, partition);
    }

    fn has_room(&self, bytes: usize) -> bool {
        // What records come to takes about as much as they do.
        self.flusher.view.bytes().saturating_add(bytes) < self.flusher.head_bytes
    }
}
