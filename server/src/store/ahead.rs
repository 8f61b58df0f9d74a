//! Reading small segments of a bucket before they are asked for one by one.
//!
//! What other servers wrote in the last minutes is many small segments, and each costs a request that takes as long as one
//! for a large piece. A query would wait for one after another.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::flush::Flusher;
use crate::model::TenantId;

/// Requests under way at a time.
const AT_ONCE: usize = 16;
/// Bytes that are read ahead, the newest first: half of the memory that small objects have.
const MOST_BYTES: u64 = 16 << 20;
/// Objects that are.
const MOST: usize = 1000;

impl Flusher {
    /// Reads this tenant's small segments that are not in memory, several at a time.
    pub(super) fn read_ahead(&self, tenant: &TenantId) {
        if !self.objects.is_shared() {
            return;
        }
        // Queries that come at once need the same, and find it here.
        let _one = self.reading_ahead.lock();
        let mut segments = self.view.segments_of(tenant);
        segments.retain(|segment| {
            !segment.is_damaged() && self.objects.is_read_whole(&segment.meta().name, segment.meta().bytes)
        });
        segments.sort_unstable_by_key(|segment| std::cmp::Reverse(segment.meta().end_ms));
        let mut bytes = 0;
        let metas = segments.iter().take(MOST).map(|segment| segment.meta());
        let wanted: Vec<_> = metas
            .take_while(|meta| {
                bytes += meta.bytes;
                bytes <= MOST_BYTES
            })
            .collect();
        if wanted.len() < 2 {
            return;
        }
        let (at_once, left) = (AT_ONCE.min(wanted.len()), Mutex::new(wanted.into_iter()));
        // Whoever comes later says what is wrong; all of them need not wait for it.
        let failed = AtomicBool::new(false);
        let read_all = || {
            while !failed.load(Ordering::Relaxed) {
                let Some(meta) = left.lock().next() else { return };
                if let Err(error) = self.objects.read(&meta.name, 0..meta.bytes) {
                    // One that was merged away meanwhile says nothing about the others.
                    let gone = error.kind() == std::io::ErrorKind::NotFound;
                    failed.fetch_or(!gone, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            (1..at_once).for_each(|_| drop(scope.spawn(read_all)));
            read_all();
        });
    }
}
