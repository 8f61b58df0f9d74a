//! What servers do for one another's sake that share their objects: look at what others wrote, do not do the same work
//! twice, and remove what nobody reads any more.
//!
//! Nothing here decides what is true: entries of the manifest do. A lease only saves work, and two who hold it waste some.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use super::flush::{Flusher, SEGMENTS, is_segment_name};

/// How long who has a lease may work without anybody doing the same.
pub(super) const LEASE_MS: i64 = 600_000;
/// Segments that the manifest does not name stay for so long: their server may be about to name them. It is far more than
/// clocks differ, or than a bucket is out of reach while a server goes on.
pub(super) const STRANGER_MS: i64 = 24 * 3_600_000;
/// Segments that were kept this long ago are no longer brought into the manifest.
pub(super) const TOO_OLD_MS: i64 = STRANGER_MS / 2;
/// Time between two looks for segments that nobody names. One goes if two looks find it so, as other servers may read it
/// for up to `object_removal_ms` once it is not named any more.
pub(super) const SWEEP: Duration = Duration::from_secs(3600);

const LEASES: &str = "leases";

/// How servers share their objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    /// Least time between two publications.
    pub(super) publish: Duration,
    /// Time between two looks for what others wrote.
    pub(super) refresh: Duration,
    /// How long objects stay that the manifest no longer names, in milliseconds.
    pub(super) removal_ms: i64,
    /// Whether writes are acknowledged only once they are published.
    pub(super) acknowledge_published: bool,
}

/// Who has a lease, and until when in Unix milliseconds.
#[derive(Serialize, Deserialize)]
struct Held {
    server: Uuid,
    until_ms: i64,
}

/// Work that nobody else begins meanwhile. Given back when dropped.
pub(super) struct Lease<'a> {
    flusher: &'a Flusher,
    /// None where nobody else could do it.
    name: Option<String>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // If it stays it runs out.
            let _ = self.flusher.objects.remove(name);
        }
    }
}

impl Flusher {
    /// Reads what other servers wrote, and shows it.
    pub(super) fn refresh(&self) -> Result<(), StoreError> {
        if self.sharing.is_some() {
            let mut manifest = self.manifest.lock();
            let read = manifest.poll();
            // What was read before something failed counts, here or when others were in the way of a change.
            if manifest.position() != self.shown.load(Ordering::Relaxed) {
                self.show(&manifest, &[]);
            }
            read?;
        }
        Ok(())
    }

    /// Does so again and again, until told to stop.
    pub(super) fn run_refresh(&self, every: Duration) {
        let mut failing = false;
        while !self.is_stopping() {
            self.rest(every);
            match self.refresh() {
                Ok(()) if failing => tracing::info!("what other servers write is seen again"),
                Ok(()) => {}
                Err(error) => {
                    self.counters.failed_refreshes.fetch_add(1, Ordering::Relaxed);
                    if !failing {
                        tracing::error!(%error, "what other servers write is not seen");
                    }
                    failing = true;
                    continue;
                }
            }
            failing = false;
        }
    }

    /// Takes some work for itself; none if another server has it. `work` is part of an object's name.
    pub(super) fn lease(&self, work: &str) -> Result<Option<Lease<'_>>, StoreError> {
        if self.sharing.is_none() {
            return Ok(Some(Lease { flusher: self, name: None }));
        }
        let failed =
            |action, name: &str, error| Err(StoreError::io(action, &self.objects.place(name), error));
        let prefix = format!("{LEASES}/{work}");
        let now_ms = (self.clock)();
        let earlier = match self.objects.list(&prefix, "") {
            Ok(earlier) => earlier,
            Err(error) => return failed("list", &prefix, error),
        };
        if let Some(last) = earlier.last()
            && self.until(last)?.is_some_and(|until_ms| now_ms < until_ms)
        {
            return Ok(None);
        }
        // Of those who find the same one run out, one makes the next.
        let last = earlier.last().and_then(|name| name.rsplit_once('/')?.1.parse::<u64>().ok());
        let name = format!("{prefix}/{:020}", last.unwrap_or(0) + 1);
        let held = Held { server: self.server, until_ms: now_ms.saturating_add(LEASE_MS) };
        let held = serde_json::to_vec(&held).expect("numbers are JSON");
        match self.objects.create(&name, held) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => return failed("create", &name, error),
        }
        for name in earlier {
            let _ = self.objects.remove(&name);
        }
        Ok(Some(Lease { flusher: self, name: Some(name) }))
    }

    /// Until when a lease holds, none if it is gone or says nothing.
    fn until(&self, lease: &str) -> Result<Option<i64>, StoreError> {
        match self.objects.get(lease) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok().map(|held: Held| held.until_ms)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &self.objects.place(lease), error)),
        }
    }

    /// Removes segments that no entry of the manifest names and that are too old to be named yet, if the look before found
    /// them so, too; and leases that ran out long ago. `unnamed` is what looks find.
    pub(super) fn sweep(&self, unnamed: &Mutex<BTreeSet<String>>) -> Result<(), StoreError> {
        let list = |prefix: &str| {
            let listed = self.objects.list(prefix, "");
            listed.map_err(|error| StoreError::io("list", &self.objects.place(prefix), error))
        };
        // In this order: what was named before it was listed is known then, and what was too old when it was listed is not
        // named later, however long this server sleeps meanwhile.
        let now_ms = (self.clock)();
        let listed = list(SEGMENTS)?;
        self.refresh()?;
        let found: BTreeSet<String> = {
            let manifest = self.manifest.lock();
            let known = &manifest.state().segments;
            listed.into_iter().filter(|name| is_segment_name(name) && !known.contains_key(name)).collect()
        };
        let mut unnamed = unnamed.lock();
        for name in found.intersection(&unnamed) {
            let old = self.objects.modified_ms(name).map(|ms| ms.saturating_add(STRANGER_MS) < now_ms);
            if old.unwrap_or(false) && self.objects.remove(name).is_ok() {
                tracing::info!(
                    segment = name,
                    "removed a segment that was never finished or is no longer needed"
                );
            }
        }
        *unnamed = found;
        drop(unnamed);
        for name in list(LEASES)? {
            if self.until(&name)?.is_none_or(|until_ms| until_ms.saturating_add(LEASE_MS) < now_ms) {
                let _ = self.objects.remove(&name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
