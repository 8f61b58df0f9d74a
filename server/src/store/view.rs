//! What queries see: the partitions of the head and the segments, as one.
//!
//! A partition goes and its segments come under one lock, so that no query sees profiles twice or not at all. What a query
//! took before stays as it was for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::head::Partition;
use super::manifest::{Covered, State};
use super::segment::{Segment, SegmentMeta};
use super::source::Source;
use crate::model::TenantId;

/// Everything that can be asked.
#[derive(Default)]
pub(super) struct View {
    inner: RwLock<Inner>,
    /// Log files with lower numbers are never written again.
    writing: AtomicU64,
}

/// A tenant's segments by their time and name.
type Segments = BTreeMap<(i64, String), Arc<Segment>>;

#[derive(Default)]
struct Inner {
    /// By the number of their log file, oldest first.
    partitions: BTreeMap<u64, Arc<Partition>>,
    segments: BTreeMap<TenantId, Segments>,
}

/// How many segments there are and what they hold.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SegmentCounts {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
}

fn key(meta: &SegmentMeta) -> (i64, String) {
    (meta.start_ms, meta.name.clone())
}

impl View {
    /// The partition of this log file, made when there is none.
    pub(super) fn partition(&self, sequence: u64, now_ms: i64) -> Arc<Partition> {
        if let Some(partition) = self.inner.read().partitions.get(&sequence) {
            return Arc::clone(partition);
        }
        let mut inner = self.inner.write();
        Arc::clone(inner.partitions.entry(sequence).or_insert_with(|| Arc::new(Partition::new(now_ms))))
    }

    /// Shows a partition as that of this log file, which has none.
    pub(super) fn show_partition(&self, sequence: u64, partition: Partition) {
        self.inner.write().partitions.insert(sequence, Arc::new(partition));
    }

    /// The partition of this log file.
    pub(super) fn existing(&self, sequence: u64) -> Option<Arc<Partition>> {
        self.inner.read().partitions.get(&sequence).cloned()
    }

    /// What a tenant has, oldest first.
    pub(super) fn tenant(&self, tenant: &TenantId) -> Vec<Arc<dyn Source>> {
        let inner = self.inner.read();
        let segments = inner.segments.get(tenant).into_iter().flat_map(Segments::values);
        // One that is damaged is set aside until it is mended: the rest is served.
        let whole = segments.filter(|segment| !segment.is_damaged());
        let mut sources: Vec<Arc<dyn Source>> =
            whole.map(|segment| Arc::clone(segment) as Arc<dyn Source>).collect();
        let parts = inner.partitions.values().filter_map(|partition| partition.tenant(tenant));
        sources.extend(parts.map(|part| part as Arc<dyn Source>));
        sources
    }

    /// Who has anything.
    pub(super) fn tenants(&self) -> BTreeSet<TenantId> {
        let inner = self.inner.read();
        let of_head = inner.partitions.values().flat_map(|partition| partition.tenants().into_keys());
        of_head.chain(inner.segments.keys().cloned()).collect()
    }

    /// Says that log files with lower numbers are never written again.
    pub(super) fn set_writing(&self, sequence: u64) {
        self.writing.store(sequence, Ordering::Release);
    }

    /// The partitions that are never written again, oldest first.
    pub(super) fn closed(&self) -> Vec<u64> {
        let writing = self.writing.load(Ordering::Acquire);
        self.inner.read().partitions.range(..writing).map(|(sequence, _)| *sequence).collect()
    }

    /// When the partition that is being written was begun, in Unix milliseconds.
    pub(super) fn open_since(&self) -> Option<i64> {
        let writing = self.writing.load(Ordering::Acquire);
        self.inner.read().partitions.range(writing..).map(|(_, partition)| partition.since_ms()).next()
    }

    /// Shows the segments of the manifest and drops the partitions that they cover, at one moment.
    pub(super) fn show(
        &self,
        state: &State,
        covered: &Covered,
        open: impl Fn(&SegmentMeta) -> Segment,
    ) -> Vec<Arc<Segment>> {
        let mut inner = self.inner.write();
        inner.partitions.retain(|sequence, _| !covered.contains(*sequence));
        let mut gone = Vec::new();
        for segments in inner.segments.values_mut() {
            let old: Vec<_> =
                segments.keys().filter(|(_, name)| !state.segments.contains_key(name)).cloned().collect();
            gone.extend(old.iter().filter_map(|key| segments.remove(key)));
        }
        for meta in state.segments.values() {
            let segments = inner.segments.entry(meta.tenant.clone()).or_default();
            segments.entry(key(meta)).or_insert_with(|| Arc::new(open(meta)));
        }
        inner.segments.retain(|_, segments| !segments.is_empty());
        gone
    }

    /// Every tenant's segments that are not damaged, oldest first.
    pub(super) fn whole_segments(&self) -> Vec<(TenantId, Vec<Arc<Segment>>)> {
        let inner = self.inner.read();
        let whole = |segments: &Segments| {
            segments.values().filter(|segment| !segment.is_damaged()).cloned().collect()
        };
        inner.segments.iter().map(|(tenant, segments)| (tenant.clone(), whole(segments))).collect()
    }

    /// A tenant's segments, damaged ones too.
    pub(super) fn segments_of(&self, tenant: &TenantId) -> Vec<Arc<Segment>> {
        self.inner.read().segments.get(tenant).into_iter().flat_map(Segments::values).cloned().collect()
    }

    /// Memory taken by all partitions.
    pub(super) fn bytes(&self) -> usize {
        self.inner.read().partitions.values().map(|partition| partition.bytes()).sum()
    }

    /// How many partitions there are.
    pub(super) fn partitions(&self) -> usize {
        self.inner.read().partitions.len()
    }

    /// How many segments there are and what they hold.
    pub(super) fn segment_counts(&self) -> SegmentCounts {
        let inner = self.inner.read();
        let mut counts = SegmentCounts::default();
        for segment in inner.segments.values().flat_map(Segments::values) {
            counts.segments += 1;
            counts.bytes += segment.meta().bytes;
            counts.damaged += u64::from(segment.is_damaged());
        }
        counts
    }
}
