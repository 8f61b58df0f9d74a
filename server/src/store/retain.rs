//! Retention: segments go when all they hold is too old, or when there are too many bytes of them.
//!
//! A segment goes whole, so profiles may stay longer than asked, by the time that one segment covers; never shorter.
//! Bytes are counted over all tenants, and the segments whose profiles ended first go first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::StoreError;
use super::flush::Flusher;
use super::manifest::Change;
use super::segment::{Segment, SegmentMeta};

/// How long profiles stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Age at which they go, in milliseconds; none for never.
    pub age_ms: Option<i64>,
    /// Bytes of segments at which the oldest go; none for any number.
    pub bytes: Option<u64>,
}

impl Retention {
    /// The names of segments that go, of all that there are.
    fn picks<'a>(
        &self,
        segments: impl Iterator<Item = &'a SegmentMeta>,
        now_ms: i64,
    ) -> Vec<&'a SegmentMeta> {
        let mut oldest: Vec<&SegmentMeta> = segments.collect();
        oldest.sort_unstable_by(|a, b| (a.end_ms, &a.name).cmp(&(b.end_ms, &b.name)));
        let mut bytes: u64 = oldest.iter().map(|segment| segment.bytes).sum();
        let goes = |segment: &&SegmentMeta| {
            let too_old = self.age_ms.is_some_and(|age| segment.end_ms < now_ms.saturating_sub(age));
            let too_much = self.bytes.is_some_and(|most| bytes > most);
            if too_old || too_much {
                bytes -= segment.bytes;
            }
            too_old || too_much
        };
        oldest.into_iter().filter(goes).collect()
    }
}

impl Flusher {
    /// Lets go of what is not to be kept any longer.
    pub(super) fn retain(&self) -> Result<(), StoreError> {
        let mut manifest = self.manifest.lock();
        let now_ms = (self.clock)();
        let expired = self.retention.picks(manifest.state().segments.values(), now_ms);
        if expired.is_empty() {
            return Ok(());
        }
        let profiles: u64 = expired.iter().map(|segment| segment.profiles).sum();
        let remove: Vec<String> = expired.into_iter().map(|segment| segment.name.clone()).collect();
        let segments = remove.len() as u64;
        if manifest.commit(Change { remove, ..Change::default() })? {
            self.counters.expired_segments.fetch_add(segments, Ordering::Relaxed);
            self.counters.expired_profiles.fetch_add(profiles, Ordering::Relaxed);
            tracing::info!(segments, profiles, "segments have reached their retention");
        }
        self.show(&manifest);
        Ok(())
    }

    /// Removes the objects of segments that no query reads any more. What cannot be removed is tried again, and goes at the
    /// next start at the latest.
    pub(super) fn bury(&self) {
        let mut leaving = self.leaving.lock();
        leaving.retain(|segment| {
            // Nobody finds it any more, so the count never grows again.
            if Arc::strong_count(segment) > 1 {
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
    }
}

/// Segments that the manifest no longer names, until nobody reads them.
pub(super) type Leaving = Vec<Arc<Segment>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;

    fn segment(name: &str, end_ms: i64, bytes: u64) -> SegmentMeta {
        SegmentMeta {
            name: name.to_owned(),
            version: 1,
            tenant: TenantId::anonymous(),
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
        let segments = [segment("b", 200, 10), segment("a", 100, 10), segment("c", 300, 10)];
        let picks = |age_ms, bytes| {
            let retention = Retention { age_ms, bytes };
            let picked = retention.picks(segments.iter(), 350);
            picked.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>()
        };
        assert!(picks(None, None).is_empty());
        assert_eq!(picks(Some(200), None), ["a"]);
        assert_eq!(picks(Some(250), None), Vec::<&str>::new(), "what ended just then stays");
        assert_eq!(picks(None, Some(20)), ["a"]);
        assert_eq!(picks(Some(200), Some(10)), ["a", "b"]);
        assert_eq!(picks(None, Some(0)), ["a", "b", "c"]);
    }
}
