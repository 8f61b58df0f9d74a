//! The memory that bodies of pushes take: charged as they arrive and as they are decompressed, never ahead of that, so
//! that a sender holds no more than it has sent.
//!
//! Queries take none of it. There are at most `max_query_requests` of at most `max_query_bytes` each, and neither of the
//! two kinds of requests can hold up the other.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a body waits for memory.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// What one permit of a pool stands for, in bytes.
const UNIT: usize = 1024;

/// A pool of so many bytes.
pub(super) fn pool(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / UNIT))
}

/// What one request has taken of its pool. Given back when the last of those who work on the request is done.
#[derive(Debug)]
pub(super) struct Memory {
    /// None where nothing has to be taken.
    pool: Option<Arc<Semaphore>>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

tokio::task_local! {
    static CURRENT: Arc<Memory>;
}

impl Memory {
    /// Nothing yet of this pool.
    pub(super) fn new(pool: Option<Arc<Semaphore>>) -> Arc<Self> {
        Arc::new(Self { pool, held: Mutex::default() })
    }

    /// That of the request which the current task is about.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Does a request's work with this as its own.
    pub(super) async fn within<T>(self: Arc<Self>, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Takes so many bytes more if they are there at once.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let Some(pool) = &self.pool else { return true };
        let missing = self.missing(bytes);
        let taken = Arc::clone(pool).try_acquire_many_owned(missing);
        taken.map(|permits| self.add(bytes, permits)).is_ok()
    }

    /// Takes so many bytes more, or answers false when they do not come free in time.
    pub(super) async fn take(self: Arc<Self>, bytes: usize) -> bool {
        let Some(pool) = &self.pool else { return true };
        let permits = Arc::clone(pool).acquire_many_owned(self.missing(bytes));
        let taken = tokio::time::timeout(MAX_WAIT, permits).await;
        taken.ok().and_then(Result::ok).map(|permits| self.add(bytes, permits)).is_some()
    }

    /// The permits that are missing to hold so many bytes more. Only one at a time takes for a request: its body.
    fn missing(&self, bytes: usize) -> u32 {
        let held = self.held.lock();
        let have = held.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let needed = held.bytes.saturating_add(bytes).div_ceil(UNIT);
        u32::try_from(needed.saturating_sub(have)).unwrap_or(u32::MAX)
    }

    fn add(&self, bytes: usize, permits: OwnedSemaphorePermit) {
        let mut held = self.held.lock();
        held.bytes += bytes;
        match &mut held.permits {
            Some(held) => held.merge(permits),
            none => *none = Some(permits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_holds_what_it_took_until_it_ends() {
        let pool = pool(4 * UNIT);
        let (a, b) = (Memory::new(Some(Arc::clone(&pool))), Memory::new(Some(Arc::clone(&pool))));
        for _ in 0..UNIT {
            assert!(a.try_take(1), "many small parts take no more than they are");
        }
        assert_eq!(pool.available_permits(), 3);
        assert!(a.try_take(1) && a.try_take(UNIT) && b.try_take(UNIT));
        assert!(!b.try_take(1), "all is taken");
        let begun = tokio::time::Instant::now();
        assert!(!Arc::clone(&b).take(1).await);
        assert_eq!(begun.elapsed(), MAX_WAIT);
        let (taken, ()) = tokio::join!(Arc::clone(&b).take(UNIT), async { drop(a) });
        assert!(taken, "it waits for others to end");
        drop(b);
        assert_eq!(pool.available_permits(), 4);
    }

    #[test]
    fn without_a_pool_nothing_is_taken() {
        assert!(Memory::new(None).try_take(usize::MAX));
    }
}
