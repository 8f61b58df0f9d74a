//! Retention: segments go when all they hold is too old, or when there are too many bytes of them.
//!
//! A segment goes whole, so profiles may stay longer than asked, by the time that one segment covers; never shorter. Of too
//! many bytes those go first whose profiles ended first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StoreError;
use super::flush::Flusher;
use super::manifest::Change;
use super::segment::{Segment, SegmentMeta};
use crate::model::TenantId;

/// How long a tenant's profiles stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Age at which they go, in milliseconds; none for never.
    pub age_ms: Option<i64>,
    /// Bytes of segments at which the oldest go; none for any number.
    pub bytes: Option<u64>,
}

/// How long profiles stay. Asked for anew each time, so it may change.
#[derive(Clone)]
pub struct Retention {
    /// Those of each tenant.
    pub of_tenant: Arc<dyn Fn(&TenantId) -> Keep + Send + Sync>,
    /// Bytes of all tenants' segments at which the oldest go; none for any number.
    pub total_bytes: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { of_tenant: Arc::new(|_| Keep::default()), total_bytes: None }
    }
}

impl fmt::Debug for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retention").field("total_bytes", &self.total_bytes).finish_non_exhaustive()
    }
}

impl Keep {
    /// Segments that go, of these, oldest first.
    fn picks<'a>(&self, mut segments: Vec<&'a SegmentMeta>, now_ms: i64) -> Vec<&'a SegmentMeta> {
        segments.sort_unstable_by(|a, b| (a.end_ms, &a.name).cmp(&(b.end_ms, &b.name)));
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let goes = |segment: &&SegmentMeta| {
            let too_old = self.age_ms.is_some_and(|age| segment.end_ms < now_ms.saturating_sub(age));
            let too_much = self.bytes.is_some_and(|most| bytes > most);
            if too_old || too_much {
                bytes -= segment.bytes;
            }
            too_old || too_much
        };
        segments.into_iter().filter(goes).collect()
    }
}

impl Retention {
    /// How much of a tenant's profiles stays, if it were the only one.
    pub(super) fn keep(&self, tenant: &TenantId) -> Keep {
        let keep = (self.of_tenant)(tenant);
        Keep { bytes: keep.bytes.into_iter().chain(self.total_bytes).min(), ..keep }
    }

    /// The names of segments that go, of all that there are.
    fn picks<'a>(&self, segments: impl Iterator<Item = &'a SegmentMeta>, now_ms: i64) -> BTreeSet<&'a str> {
        let mut by_tenant: BTreeMap<&TenantId, Vec<&SegmentMeta>> = BTreeMap::new();
        for segment in segments {
            by_tenant.entry(&segment.tenant).or_default().push(segment);
        }
        let mut all = Vec::new();
        let mut go: BTreeSet<&str> = BTreeSet::new();
        for (tenant, segments) in by_tenant {
            all.extend(segments.iter().copied());
            let picked = (self.of_tenant)(tenant).picks(segments, now_ms);
            go.extend(picked.iter().map(|segment| segment.name.as_str()));
        }
        all.retain(|segment| !go.contains(segment.name.as_str()));
        let in_all = Keep { age_ms: None, bytes: self.total_bytes };
        go.extend(in_all.picks(all, now_ms).iter().map(|segment| segment.name.as_str()));
        go
    }
}

impl Flusher {
    /// Lets go of what is not to be kept any longer.
    pub(super) fn retain(&self) -> Result<(), StoreError> {
        self.settle()?;
        if self.expired().0.is_empty() {
            return Ok(());
        }
        let Some(_lease) = self.lease("retention")? else { return Ok(()) };
        // Another server may have just done it.
        self.refresh()?;
        let (remove, profiles) = self.expired();
        if remove.is_empty() {
            return Ok(());
        }
        let segments = remove.len() as u64;
        if self.commit(Change { remove, ..Change::default() })? {
            self.counters.expired_segments.fetch_add(segments, Ordering::Relaxed);
            self.counters.expired_profiles.fetch_add(profiles, Ordering::Relaxed);
            tracing::info!(segments, profiles, "segments have reached their retention");
        }
        Ok(())
    }

    /// The names of segments that go, and how many profiles they hold.
    fn expired(&self) -> (Vec<String>, u64) {
        let manifest = self.manifest.lock();
        let segments = &manifest.state().segments;
        let go = self.retention.picks(segments.values(), (self.clock)());
        let profiles = go.iter().filter_map(|name| segments.get(*name)).map(|segment| segment.profiles).sum();
        (go.into_iter().map(str::to_owned).collect(), profiles)
    }

    /// Removes the objects of segments that no query reads any more. What cannot be removed is tried again, and goes at the
    /// next start at the latest.
    pub(super) fn bury(&self) {
        let now_ms = (self.clock)();
        let removal_ms = self.sharing.map_or(0, |sharing| sharing.removal_ms);
        // Removing may take a while, for which nobody should have to wait who has more to remove.
        let mut leaving = std::mem::take(&mut *self.leaving.lock());
        leaving.retain(|Gone { segment, ours, at_ms }| {
            // Nobody finds it any more, so the count never grows again.
            if Arc::strong_count(segment) > 1 {
                return true;
            }
            if !ours {
                segment.forget();
                return false;
            }
            // Other servers may not know yet.
            if now_ms.saturating_sub(*at_ms) < removal_ms {
                return true;
            }
            match self.objects.remove(&segment.meta().name) {
                Ok(()) => {
                    segment.forget();
                    false
                }
                Err(error) => {
                    tracing::warn!(segment = segment.meta().name, %error, "segment cannot be removed yet");
                    true
                }
            }
        });
        self.leaving.lock().append(&mut leaving);
        self.reserve.keep((self.clock)());
    }
}

/// A segment that the manifest no longer names.
pub(super) struct Gone {
    pub(super) segment: Arc<Segment>,
    /// Whether its object is ours to remove.
    pub(super) ours: bool,
    /// Since when.
    pub(super) at_ms: i64,
}

/// Segments that the manifest no longer names, until nobody reads them.
pub(super) type Leaving = Vec<Gone>;

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(tenant: &str, name: &str, end_ms: i64, bytes: u64) -> SegmentMeta {
        SegmentMeta {
            name: name.to_owned(),
            version: 1,
            tenant: TenantId::new(tenant).unwrap(),
            bytes,
            footer_bytes: 0,
            level: 0,
            created_ms: 0,
            start_ms: 0,
            end_ms,
            profiles: 1,
            rows: 1,
            spans: 0,
            symbol_bytes: 0,
            index_bytes: 0,
        }
    }

    #[test]
    fn the_oldest_go_by_age_and_by_bytes() {
        let segments = [segment("x", "b", 200, 10), segment("x", "a", 100, 10), segment("x", "c", 300, 10)];
        let picks = |age_ms, bytes| {
            let of_tenant = Arc::new(move |_: &TenantId| Keep { age_ms, bytes });
            let retention = Retention { of_tenant, total_bytes: None };
            retention.picks(segments.iter(), 350).into_iter().collect::<Vec<_>>()
        };
        assert!(picks(None, None).is_empty());
        assert_eq!(picks(Some(200), None), ["a"]);
        assert_eq!(picks(Some(249), None), ["a"]);
        assert_eq!(picks(Some(250), None), Vec::<&str>::new(), "it is as old as it may be");
        assert_eq!(picks(None, Some(20)), ["a"]);
        assert_eq!(picks(Some(200), Some(10)), ["a", "b"]);
        assert_eq!(picks(None, Some(0)), ["a", "b", "c"]);
    }

    #[test]
    fn each_tenant_keeps_its_own_and_all_share_the_disk() {
        let segments = [
            segment("x", "a", 100, 10),
            segment("y", "b", 110, 10),
            segment("x", "c", 120, 10),
            segment("y", "d", 130, 10),
        ];
        let picks = |total_bytes| {
            let of_tenant = |tenant: &TenantId| match tenant.as_str() {
                "x" => Keep { age_ms: None, bytes: Some(10) },
                _ => Keep::default(),
            };
            let retention = Retention { of_tenant: Arc::new(of_tenant), total_bytes };
            retention.picks(segments.iter(), 350).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(picks(None), ["a"]);
        assert_eq!(picks(Some(30)), ["a"], "what went already counts no longer");
        assert_eq!(picks(Some(29)), ["a", "b"]);
    }
}
