//! Threads for what takes long: as many at a time as make sense, and no longer than somebody waits for the result.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::memory::Memory;
use crate::cancel::Cancel;
use crate::telemetry;

/// How much one kind of requests may compute at a time.
pub(super) struct Workers(Arc<Semaphore>);

impl Workers {
    /// Two for each core: some wait for the disk.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores * 2)))
    }

    /// Works on a thread that may block. When the caller gives up, the work is told to stop; its place and its request's memory
    /// are free once it has.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let permit = Arc::clone(&self.0).acquire_owned().await.expect("the semaphore is never closed");
        let memory = Memory::current();
        let cancel = Cancel::default();
        let given_up = cancel.on_drop();
        let work = telemetry::carry(work);
        let work = tokio::task::spawn_blocking(move || {
            let value = cancel.within(work);
            drop((permit, memory));
            value
        });
        let value = match work.await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        drop(given_up);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel;

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_makes_room() {
        let workers = Workers(Arc::new(Semaphore::new(1)));
        let (begun, told) = tokio::sync::oneshot::channel();
        let endless = workers.run(move || {
            begun.send(()).expect("somebody waits");
            while cancel::check().is_ok() {
                std::thread::yield_now();
            }
        });
        tokio::select! {
            () = endless => panic!("it ends when it is told to"),
            _ = told => {}
        }
        assert_eq!(
            workers.run(|| cancel::check().map(|()| 7)).await,
            Ok(7),
            "it is told to, and others are not"
        );
    }
}
