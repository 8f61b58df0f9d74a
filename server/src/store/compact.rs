//! Compaction: many small segments of a tenant become few large ones, which answer faster and take less room.
//!
//! Segments of about the same age are merged, few levels deep, so a profile is written a handful of times in its life. The
//! inputs go and the result comes with one entry of the manifest; what somebody else did to the inputs meanwhile makes the
//! entry void and the work worthless, never wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::cache::BlockCache;
use super::flush::Flusher;
use super::manifest::{Change, remove_old};
use super::retain::Keep;
use super::segment::{self, Recipe, Segment, SegmentMeta};
use super::share::{Lease, SWEEP};
use super::source::{Chunk, Source};
use super::{ErrorKind, StoreError};
use crate::model::{TenantId, TimeRange};

/// What is merged, and how hard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// So many segments of one level and time become one.
    pub fan_out: usize,
    /// No segment becomes larger than this by merging, in bytes.
    pub max_segment_bytes: u64,
    /// No segments are merged whose symbol tables take more memory than this together, in bytes.
    pub max_symbol_bytes: u64,
    /// Memory that pieces of segments take while they are merged, in bytes.
    pub cache_bytes: u64,
    /// The share of one core that merging may take, in percent.
    pub cpu_percent: u32,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            fan_out: 8,
            max_segment_bytes: 128 << 20,
            max_symbol_bytes: 64 << 20,
            cache_bytes: 96 << 20,
            cpu_percent: 50,
        }
    }
}

/// Merging has so much for each of the three in any case: with less, segments would stay as many as they are written.
const LEAST_BYTES: u64 = 4 << 20;

/// How the memory for new profiles is shared out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// What the head may have, in bytes.
    pub head_bytes: usize,
    /// What is merged with the rest.
    pub compaction: Compaction,
}

impl Shares {
    /// The shares of so many bytes: five eighths are the head's. Of the rest nine parts in twelve are for merging, which has
    /// the finished segment, its symbol tables and what it reads in memory, and three for making a segment of an eighth of the
    /// head.
    pub fn of(bytes: usize) -> Self {
        let all = bytes as u64;
        let usual = Compaction::default();
        let compaction = Compaction {
            max_segment_bytes: (all / 8).clamp(LEAST_BYTES, usual.max_segment_bytes),
            max_symbol_bytes: (all / 16).clamp(LEAST_BYTES, usual.max_symbol_bytes),
            cache_bytes: (all / 32 * 3).clamp(LEAST_BYTES, usual.cache_bytes),
            ..usual
        };
        Self { head_bytes: bytes / 8 * 5, compaction }
    }
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Profiles of one segment begin within this time, by its level. Shorter ones would leave many segments behind, each of which a
/// span is looked for in; a query of a short time asks within a segment for the blocks of that time.
const WINDOWS_MS: [i64; 2] = [6 * HOUR_MS, DAY_MS];
/// Retention takes segments whole: of what a tenant keeps one has this part at most, by time and by bytes.
const PART_OF_TIME: i64 = 4;
const PART_OF_BYTES: u64 = 8;
/// However short the time is that profiles stay for, those that begin within so long may become one segment.
const LEAST_WINDOW_MS: i64 = HOUR_MS / 10;
/// A day is put in order once nothing came to it for so long.
const QUIET_MS: i64 = HOUR_MS;
/// Time between looks for something to merge.
const LOOK: Duration = Duration::from_secs(10);
/// Time between two looks for old entries of the manifest, and how many go at a time.
const PRUNE: Duration = Duration::from_secs(60);
const PRUNED: usize = 1000;
/// Time for which merging works or rests without a break.
const SLICE: Duration = Duration::from_millis(20);

impl Compaction {
    /// Segments of one tenant that are to become one, in groups with a name each; none if all is well. `keep` says how much
    /// of its profiles stays.
    fn picks<'a>(
        &self,
        segments: &[&'a SegmentMeta],
        keep: Keep,
        now_ms: i64,
    ) -> impl Iterator<Item = (String, Vec<&'a SegmentMeta>)> + use<'a> {
        let most = keep.bytes.map_or(u64::MAX, |bytes| bytes / PART_OF_BYTES).min(self.max_segment_bytes);
        let most = Self { max_segment_bytes: most, ..self.clone() };
        let windows = WINDOWS_MS.map(|window| shortened(window, keep.age_ms));
        let [.., longest] = windows;
        let small = |segment: &&&SegmentMeta| {
            segment.bytes < most.max_segment_bytes / 2 && segment.symbol_bytes < most.max_symbol_bytes / 2
        };
        let mut by_level: BTreeMap<(u32, i64), Vec<&SegmentMeta>> = BTreeMap::new();
        let mut by_day: BTreeMap<i64, Vec<&SegmentMeta>> = BTreeMap::new();
        for &segment in segments.iter().filter(small) {
            let window = windows[(segment.level as usize).min(windows.len() - 1)];
            let window = segment.start_ms.div_euclid(window);
            by_level.entry((segment.level, window)).or_default().push(segment);
            by_day.entry(segment.start_ms.div_euclid(longest)).or_default().push(segment);
        }
        let fan_out = self.fan_out.max(2);
        let many = by_level.into_iter().filter(move |(_, group)| group.len() >= fan_out);
        let quiet = by_day.into_iter().filter(move |(day, group)| {
            let last = group.iter().map(|segment| segment.created_ms).max().unwrap_or(i64::MAX);
            (day + 1).saturating_mul(longest) < now_ms && last.saturating_add(QUIET_MS) < now_ms
        });
        let many = many.map(|((level, window), group)| (format!("{level}-{window}"), group));
        let quiet = quiet.map(|(day, group)| (format!("day-{day}"), group));
        many.chain(quiet).filter_map(move |(name, group)| Some((name, most.fitting(group)?)))
    }

    /// The smallest of a group that fit one segment, if they are two at least.
    fn fitting<'a>(&self, mut group: Vec<&'a SegmentMeta>) -> Option<Vec<&'a SegmentMeta>> {
        group.sort_by(|a, b| (a.bytes, a.start_ms, &a.name).cmp(&(b.bytes, b.start_ms, &b.name)));
        let (mut bytes, mut symbols) = (0, 0);
        let mut fitting: Vec<&SegmentMeta> = group
            .into_iter()
            .take_while(|segment| {
                bytes += segment.bytes;
                symbols += segment.symbol_bytes;
                bytes <= self.max_segment_bytes && symbols <= self.max_symbol_bytes
            })
            .collect();
        fitting.sort_by_key(|segment| segment.start_ms);
        (fitting.len() >= 2).then_some(fitting)
    }
}

/// A quarter of this window, or a quarter of that and so on, so that segments go in good time where profiles stay for `age_ms`.
fn shortened(mut window: i64, age_ms: Option<i64>) -> i64 {
    let longest = age_ms.map_or(i64::MAX, |age| age / PART_OF_TIME).max(LEAST_WINDOW_MS);
    while window > longest {
        window /= 4;
    }
    window
}

/// Which profiles go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Those of this tenant.
    pub tenant: TenantId,
    /// Those that began in this time; none for all.
    pub range: Option<TimeRange>,
}

impl Deletion {
    fn takes(&self, chunk: &Chunk) -> bool {
        let start_ms = chunk.start_nanos.div_euclid(1_000_000);
        self.range.is_none_or(|range| (range.start_ms..=range.end_ms).contains(&start_ms))
    }

    fn takes_all(&self, segment: &SegmentMeta) -> bool {
        self.range.is_none_or(|range| range.start_ms <= segment.start_ms && segment.end_ms <= range.end_ms)
    }
}

/// Segments to merge, which no other server does meanwhile.
struct Work<'a> {
    inputs: Vec<Arc<Segment>>,
    _lease: Lease<'a>,
}

impl Flusher {
    /// Merges some segments if there are any to merge; tells whether there were.
    pub(super) fn compact(&self) -> Result<bool, StoreError> {
        let _one = self.rewriting.lock();
        self.settle()?;
        let Some(work) = self.pick_inputs()? else { return Ok(false) };
        let inputs = &work.inputs;
        let level = inputs.iter().map(|segment| segment.meta().level).max().unwrap_or(0) + 1;
        let replaced = self.rewrite(inputs, level, None)?;
        if replaced.is_some() {
            self.counters.compactions.fetch_add(1, Ordering::Relaxed);
            self.counters.compacted_segments.fetch_add(inputs.len() as u64, Ordering::Relaxed);
        }
        Ok(true)
    }

    /// What is to be merged next.
    fn pick_inputs(&self) -> Result<Option<Work<'_>>, StoreError> {
        let now_ms = (self.clock)();
        for (tenant, segments) in self.view.whole_segments() {
            let metas: Vec<&SegmentMeta> = segments.iter().map(|segment| segment.meta()).collect();
            let keep = self.retention.keep(&tenant);
            for (group, picked) in self.compaction.picks(&metas, keep, now_ms) {
                // Tenants may have names that objects may not.
                let hash = crc32fast::hash(tenant.as_str().as_bytes());
                let Some(lease) = self.lease(&format!("merging-{hash:08x}-{group}"))? else { continue };
                // Who had the lease before may have just done it.
                self.refresh()?;
                let picked: BTreeSet<&str> = picked.iter().map(|segment| segment.name.as_str()).collect();
                let is_picked = |segment: &&Arc<Segment>| picked.contains(segment.meta().name.as_str());
                let inputs = self.view.segments_of(&tenant);
                let inputs: Vec<_> = inputs.iter().filter(is_picked).cloned().collect();
                if inputs.len() == picked.len() {
                    return Ok(Some(Work { inputs, _lease: lease }));
                }
            }
        }
        Ok(None)
    }

    /// Puts one segment, or none if it would be empty, in the place of these; tells how many profiles went with a
    /// deletion, or nothing if somebody was faster. Whoever reads the inputs goes on reading them.
    fn rewrite(
        &self,
        inputs: &[Arc<Segment>],
        level: u32,
        deletion: Option<&Deletion>,
    ) -> Result<Option<u64>, StoreError> {
        let Some(first) = inputs.first() else { return Ok(None) };
        // What is read once must not push out what queries read again and again.
        let cache = Arc::new(BlockCache::new(self.compaction.cache_bytes));
        let opened: Vec<Arc<Segment>> = inputs
            .iter()
            .map(|input| {
                let objects = Arc::clone(&self.objects);
                Arc::new(Segment::new(input.meta().clone(), objects, Arc::clone(&cache)))
            })
            .collect();
        let sources: Vec<Arc<dyn Source>> =
            opened.iter().map(|segment| Arc::clone(segment) as Arc<dyn Source>).collect();
        let pace = Pace::new(self);
        let keep = deletion.map(|deletion| move |chunk: &Chunk| !deletion.takes(chunk));
        let recipe = Recipe {
            name: self.segment_name(),
            tenant: &first.meta().tenant,
            level,
            now_ms: (self.clock)(),
            keep: keep.as_ref().map(|keep| keep as &dyn Fn(&Chunk) -> bool),
            pace: &|| pace.step(),
        };
        let written = segment::write(recipe, &sources).inspect_err(|_| {
            // Known here is not known there yet.
            for (input, opened) in inputs.iter().zip(&opened).filter(|(_, opened)| opened.is_damaged()) {
                tracing::error!(segment = opened.meta().name, "segment is damaged: it is set aside");
                input.set_damaged();
            }
        })?;
        let profiles = |segments: &[Arc<Segment>]| -> u64 {
            segments.iter().map(|segment| segment.meta().profiles).sum()
        };
        let remove = inputs.iter().map(|input| input.meta().name.clone()).collect();
        let mut change = Change { remove, ..Change::default() };
        let mut gone = profiles(inputs);
        if let Some(written) = written {
            gone -= written.meta.profiles;
            let name = written.meta.name.clone();
            change.add.push(written.meta);
            if let Err(error) = self.store(&name, written.bytes) {
                self.discard(change.add.iter());
                return Err(error);
            }
        }
        Ok(self.commit(change)?.then_some(gone))
    }

    /// Removes profiles for good: from the head, from every segment. Returns how many went, once it is durable.
    pub(super) fn delete(&self, deletion: &Deletion) -> Result<u64, StoreError> {
        self.close_open();
        let mut gone = 0;
        if let Err(error) = self.flush_closed() {
            if error.kind() != ErrorKind::Full {
                return Err(error);
            }
            // What goes whole makes room for what has to be written first.
            gone += self.delete_whole(deletion)?;
            self.bury();
            self.flush_closed()?;
        }
        self.refresh()?;
        let _one = self.rewriting.lock();
        loop {
            let segments = self.view.segments_of(&deletion.tenant);
            // One that is damaged cannot be read, but can go as a whole.
            let overlaps = |segment: &&Arc<Segment>| {
                deletion.range.is_none_or(|range| range.overlaps(&segment.meta().range()))
            };
            let mut again = false;
            for segment in segments.iter().filter(overlaps) {
                if deletion.takes_all(segment.meta()) {
                    let remove = vec![segment.meta().name.clone()];
                    match self.commit(Change { remove, ..Change::default() })? {
                        true => gone += segment.meta().profiles,
                        false => again = true,
                    }
                } else if self.holds_any(segment, deletion)? {
                    let level = segment.meta().level;
                    match self.rewrite(std::slice::from_ref(segment), level, Some(deletion))? {
                        Some(profiles) => gone += profiles,
                        // Its profiles are in another segment now.
                        None => again = true,
                    }
                }
            }
            if !again {
                return Ok(gone);
            }
        }
    }

    /// Removes the segments all of whose profiles go. Returns how many those are.
    fn delete_whole(&self, deletion: &Deletion) -> Result<u64, StoreError> {
        let _one = self.rewriting.lock();
        let mut segments = self.view.segments_of(&deletion.tenant);
        segments.retain(|segment| deletion.takes_all(segment.meta()));
        let remove = segments.iter().map(|segment| segment.meta().name.clone()).collect();
        let done = !segments.is_empty() && self.commit(Change { remove, ..Change::default() })?;
        Ok(if done { segments.iter().map(|segment| segment.meta().profiles).sum() } else { 0 })
    }

    fn holds_any(&self, segment: &Arc<Segment>, deletion: &Deletion) -> Result<bool, StoreError> {
        let mut found = false;
        for series in segment.series(None)? {
            segment.chunks_of(series.id, &mut |chunk| found |= deletion.takes(chunk))?;
            if found {
                break;
            }
        }
        Ok(found)
    }

    /// Removes entries of the manifest that nobody needs any more.
    pub(super) fn prune(&self) -> Result<(), StoreError> {
        remove_old(&*self.objects, (self.clock)(), PRUNED, || !self.is_stopping())
    }

    /// Merges what there is to merge, until told to stop.
    pub(super) fn run_compaction(&self) {
        let unnamed = Mutex::default();
        let mut swept: Option<Instant> = None;
        let mut pruned: Option<Instant> = None;
        while !self.is_stopping() {
            if pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE) {
                pruned = Some(Instant::now());
                if let Err(error) = self.prune() {
                    tracing::warn!(%error, "old entries of the manifest cannot be removed, and stay");
                }
            }
            if self.sharing.is_some() && swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
                swept = Some(Instant::now());
                if let Err(error) = self.sweep(&unnamed) {
                    tracing::warn!(%error, "objects that nobody needs cannot be looked for");
                }
            }
            match self.compact() {
                Ok(true) => {}
                Ok(false) => self.rest(LOOK),
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "segments cannot be merged, and stay as they are");
                    self.rest(LOOK * 3);
                }
            }
        }
    }
}

/// Keeps work within its share of a core.
struct Pace<'a> {
    flusher: &'a Flusher,
    since: Mutex<Instant>,
}

impl<'a> Pace<'a> {
    fn new(flusher: &'a Flusher) -> Self {
        Self { flusher, since: Mutex::new(Instant::now()) }
    }

    /// Rests if it has worked for long enough.
    fn step(&self) -> Result<(), StoreError> {
        if self.flusher.is_stopping() {
            return Err(StoreError::Closed);
        }
        let mut since = self.since.lock();
        let worked = since.elapsed();
        if worked >= SLICE {
            let percent = self.flusher.compaction.cpu_percent.clamp(1, 100);
            if self.flusher.background && percent < 100 {
                self.flusher.rest(worked * (100 - percent) / percent);
            }
            *since = Instant::now();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 20_000 * DAY_MS + 12 * HOUR_MS;

    fn segment(name: usize, level: u32, start_ms: i64, bytes: u64) -> SegmentMeta {
        SegmentMeta {
            name: name.to_string(),
            version: 1,
            tenant: TenantId::anonymous(),
            bytes,
            footer_bytes: 0,
            level,
            created_ms: start_ms + 1000,
            start_ms,
            end_ms: start_ms + 1000,
            profiles: 1,
            rows: 1,
            spans: 0,
            symbol_bytes: bytes,
            index_bytes: 0,
        }
    }

    fn picked(segments: &[SegmentMeta]) -> Option<Vec<usize>> {
        picked_for(Keep::default(), segments)
    }

    fn picked_for(keep: Keep, segments: &[SegmentMeta]) -> Option<Vec<usize>> {
        let compaction = Compaction { fan_out: 3, max_segment_bytes: 100, ..Compaction::default() };
        let (_, picked) = compaction.picks(&segments.iter().collect::<Vec<_>>(), keep, NOW).next()?;
        Some(picked.iter().map(|segment| segment.name.parse().unwrap()).collect())
    }

    #[test]
    fn segments_of_one_level_and_time_are_merged_when_they_are_many() {
        let at = |hours: i64| NOW - hours * HOUR_MS;
        let three = |level, hours: [i64; 3]| -> Vec<SegmentMeta> {
            let all = hours.iter().enumerate();
            all.map(|(n, hours)| segment(n, level, at(*hours) + n as i64, 1)).collect()
        };
        assert_eq!(picked(&three(0, [0; 3])[..2]), None);
        assert_eq!(picked(&three(0, [0, -2, -5])), Some(vec![0, 1, 2]), "of one quarter of a day");
        assert_eq!(picked(&three(0, [0, 2, 0])), None, "noon begins another");
        for level in [1, 2, 7] {
            assert_eq!(picked(&three(level, [0, 12, -11])), Some(vec![1, 0, 2]), "of one day");
            assert_eq!(picked(&three(level, [0, 0, -12])), None, "midnight begins another");
        }
        let mut three = three(1, [0; 3]);
        three[0].level = 2;
        assert_eq!(picked(&three), None);
    }

    #[test]
    fn a_segment_is_a_small_part_of_what_is_kept() {
        let age = |hours: i64| Keep { age_ms: Some(hours * HOUR_MS), ..Keep::default() };
        let at = |level, minutes: [i64; 3]| {
            let all = minutes.iter().enumerate();
            all.map(|(n, minutes)| segment(n, level, NOW + minutes * 60_000, 1)).collect::<Vec<_>>()
        };
        let day = at(1, [0, 60, 600]);
        assert_eq!(picked_for(age(96), &day), Some(vec![0, 1, 2]));
        assert_eq!(picked_for(age(95), &day), None, "days would be more than a quarter of it");
        let quarter = at(1, [0, 60, 300]);
        assert_eq!(picked_for(age(95), &quarter), Some(vec![0, 1, 2]));
        assert_eq!(picked_for(age(23), &quarter), None);
        for level in [0, 1] {
            assert_eq!(picked_for(age(6), &at(level, [0, 60, 89])), Some(vec![0, 1, 2]));
            assert_eq!(picked_for(age(6), &at(level, [0, 60, 90])), None);
            assert_eq!(
                picked_for(age(0), &at(level, [0, 1, 5])),
                Some(vec![0, 1, 2]),
                "they would never end"
            );
        }
        let bytes = |bytes| Keep { bytes: Some(bytes), ..Keep::default() };
        let mut three = at(0, [0, 1, 2]);
        three.iter_mut().for_each(|segment| segment.bytes = 10);
        assert_eq!(picked_for(bytes(240), &three), Some(vec![0, 1, 2]));
        assert_eq!(picked_for(bytes(239), &three), Some(vec![0, 1]));
        assert_eq!(picked_for(bytes(176), &three), Some(vec![0, 1]));
        assert_eq!(picked_for(bytes(160), &three), None, "each is a sixteenth, which is not small");
    }

    #[test]
    fn what_is_large_stays_and_what_does_not_fit_waits() {
        let sizes = |sizes: &[u64]| {
            let segments = sizes.iter().enumerate().map(|(n, bytes)| segment(n, 0, NOW + n as i64, *bytes));
            picked(&segments.collect::<Vec<_>>())
        };
        assert_eq!(sizes(&[1, 50, 1]), None);
        assert_eq!(sizes(&[49, 1, 49, 49]), Some(vec![0, 1, 2]));
        assert_eq!(sizes(&[20, 20, 20]), Some(vec![0, 1, 2]));
    }

    #[test]
    fn merging_and_the_head_take_no_more_than_there_is() {
        for bytes in [1 << 20, 10 << 20, 64 << 20, 256 << 20, 1 << 30, 1usize << 36] {
            let Shares { head_bytes, compaction } = Shares::of(bytes);
            let merging = compaction.max_segment_bytes + compaction.max_symbol_bytes + compaction.cache_bytes;
            // As much as the part of the head that it is made of.
            let making = head_bytes as u64 / 8;
            let least = if bytes < 64 << 20 { 3 * LEAST_BYTES } else { 0 };
            assert!(head_bytes as u64 + merging + making <= bytes as u64 + least, "{bytes}");
            assert!(compaction.max_segment_bytes >= LEAST_BYTES, "{bytes}");
        }
        let Shares { compaction, .. } = Shares::of(1 << 30);
        assert_eq!(compaction, Compaction::default());
    }

    #[test]
    fn a_day_that_is_over_becomes_one_segment() {
        let yesterday = NOW - DAY_MS;
        let mut two = [segment(0, 0, yesterday, 1), segment(1, 2, yesterday + HOUR_MS, 30)];
        assert_eq!(picked(&two), Some(vec![0, 1]));
        let short = Keep { age_ms: Some(24 * HOUR_MS), ..Keep::default() };
        assert_eq!(picked_for(short, &two), Some(vec![0, 1]), "they are of one quarter of it");
        two[1].start_ms += 5 * HOUR_MS;
        assert_eq!(picked_for(short, &two), None);
        two[0].created_ms = NOW - 1000;
        assert_eq!(picked(&two), None, "something came to it just now");
        assert_eq!(picked(&two[1..]), None);
    }
}
