//! Writes that wait for their acknowledgement until every server can read them.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::StoreError;
use super::manifest::Covered;

/// Who waits for an answer.
pub(super) type Done = oneshot::Sender<Result<(), StoreError>>;

/// Writes in the log of which the manifest does not know yet.
#[derive(Debug, Default)]
pub(super) struct Unpublished(Mutex<BTreeMap<u64, Vec<Done>>>);

impl Unpublished {
    /// Has somebody wait for this log file's profiles to be in segments.
    pub(super) fn wait(&self, log: u64, done: Vec<Done>) {
        self.0.lock().entry(log).or_default().extend(done);
    }

    /// Acknowledges what is in these.
    pub(super) fn acknowledge(&self, covered: &Covered) {
        let published: Vec<Done> = {
            let mut waiting = self.0.lock();
            let logs: Vec<u64> = waiting.keys().copied().filter(|log| covered.contains(*log)).collect();
            logs.iter().filter_map(|log| waiting.remove(log)).flatten().collect()
        };
        for done in published {
            // Whoever asked may have gone; what was written stays.
            let _ = done.send(Ok(()));
        }
    }

    /// Tells everybody who waits that it will not be.
    pub(super) fn refuse(&self, error: &StoreError) {
        for done in std::mem::take(&mut *self.0.lock()).into_values().flatten() {
            let _ = done.send(Err(error.clone()));
        }
    }

    /// Lets go of everybody who waits: they are told that the store is closed.
    pub(super) fn close(&self) {
        self.0.lock().clear();
    }
}
