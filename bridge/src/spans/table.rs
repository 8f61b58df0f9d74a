//! A fixed table of live spans, addressed by span id, readable from a signal handler.
//!
//! Buckets of eight entries; each entry is a sequence lock whose sequence number doubles as a generation, so a
//! [`SpanKey`] held by a thread's label slot stops resolving the moment its span ends, on every thread, without
//! anyone being told. A full bucket gives up its oldest entry: a span that is never ended costs a place, not memory.

use std::alloc::{Layout, handle_alloc_error};

use super::{LabelSetId, SpanId, SpanRecord, TraceId};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use crate::sys::pages::words;

const BUCKET: usize = 8;
/// How often a new span looks for a place. Each look that finds none has met another thread that was quicker.
const TRIES: usize = 3;
const INDEX_BITS: u32 = 24;
const SEQUENCE_BITS: u32 = 64 - INDEX_BITS;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

// The two low bits of a sequence number.
const STATE_MASK: u64 = 3;
const FREE: u64 = 0;
const WRITING: u64 = 1;
const LIVE: u64 = 2;
const GENERATION: u64 = 4;

/// Names one use of one entry: 24 bits of index, 40 bits of sequence number. Zero names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanKey(pub(crate) u64);

impl SpanKey {
    /// No span is active.
    pub(crate) const NONE: Self = Self(0);

    fn new(index: usize, sequence: u64) -> Self {
        Self(((index as u64) << SEQUENCE_BITS) | (sequence & SEQUENCE_MASK))
    }

    fn index(self) -> usize {
        (self.0 >> SEQUENCE_BITS) as usize
    }

    fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }
}

/// `tagged` in an entry's `meta`.
const TAGGED: u64 = 1 << 32;

/// A record as its entry keeps it, to be taken apart by whoever has the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanWords {
    pub(crate) words: [u64; SpanWords::LEN],
    pub(crate) tagged: bool,
}

impl SpanWords {
    pub(crate) const LEN: usize = 6;

    pub(crate) fn record(self) -> SpanRecord {
        let [span_id, parent, local_root, trace_high, trace_low, labels] = self.words;
        SpanRecord {
            span_id: SpanId(span_id),
            parent: SpanId(parent),
            local_root: SpanId(local_root),
            trace_id: TraceId(u128::from(trace_high) << 64 | u128::from(trace_low)),
            labels: LabelSetId(labels as u32),
            root_labels: LabelSetId((labels >> 32) as u32),
            tagged: self.tagged,
        }
    }
}

/// The words of an entry: one cache line.
type Line = [AtomicU64; 8];

/// What each of them is.
#[derive(Clone, Copy)]
struct Entry<'a> {
    sequence: &'a AtomicU64,
    span_id: &'a AtomicU64,
    parent: &'a AtomicU64,
    local_root: &'a AtomicU64,
    trace_high: &'a AtomicU64,
    trace_low: &'a AtomicU64,
    /// The span's label set in the low half, the local root's in the high half.
    labels: &'a AtomicU64,
    /// Tick of insertion in the low half, `tagged` in bit 32.
    meta: &'a AtomicU64,
}

impl<'a> Entry<'a> {
    #[inline]
    fn of(line: &'a Line) -> Self {
        let [sequence, span_id, parent, local_root, trace_high, trace_low, labels, meta] = line;
        Self { sequence, span_id, parent, local_root, trace_high, trace_low, labels, meta }
    }

    fn fill(self, record: &SpanRecord, tick: u32) {
        self.span_id.store(record.span_id.0, Ordering::Relaxed);
        self.parent.store(record.parent.0, Ordering::Relaxed);
        self.local_root.store(record.local_root.0, Ordering::Relaxed);
        self.trace_high.store((record.trace_id.0 >> 64) as u64, Ordering::Relaxed);
        self.trace_low.store(record.trace_id.0 as u64, Ordering::Relaxed);
        let labels = u64::from(record.labels.0) | (u64::from(record.root_labels.0) << 32);
        self.labels.store(labels, Ordering::Relaxed);
        self.meta.store(u64::from(tick) | (u64::from(record.tagged) << 32), Ordering::Relaxed);
    }

    #[inline]
    fn copy(self, to: &[AtomicU64; SpanWords::LEN]) -> bool {
        let fields =
            [self.span_id, self.parent, self.local_root, self.trace_high, self.trace_low, self.labels];
        for (to, field) in to.iter().zip(fields) {
            to.store(field.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.meta.load(Ordering::Relaxed) & TAGGED != 0
    }
}

/// Where the platform has no memory that is zero until it is written.
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn words(count: usize) -> Option<&'static [AtomicU64]> {
    Some(Vec::leak((0..count).map(|_| AtomicU64::new(0)).collect()))
}

/// The live spans of the process. Its memory is never given back, as a signal handler may hold on to it.
pub(crate) struct SpanTable {
    /// Pages without a span take no memory.
    lines: &'static [Line],
    /// Right shift that turns a mixed id into a bucket number.
    shift: u32,
    /// Coarse time, advanced by the collector, so that eviction can tell old from new without a clock call.
    tick: AtomicU32,
    evicted: AtomicU64,
}

impl SpanTable {
    /// A table for about `spans` live spans at once: rounded up to a power of two, between 16 and 2^24.
    pub(crate) fn new(spans: usize) -> Self {
        let capacity = spans.clamp(2 * BUCKET, 1 << INDEX_BITS).next_power_of_two();
        let buckets = capacity / BUCKET;
        let words = words(capacity * size_of::<Line>() / size_of::<AtomicU64>());
        let (lines, _) = words.unwrap_or_else(|| handle_alloc_error(Layout::new::<Line>())).as_chunks();
        Self {
            lines,
            shift: 64 - buckets.trailing_zeros(),
            tick: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    fn bucket(&self, span_id: SpanId) -> (usize, &[Line]) {
        // Fibonacci hashing: ids are random by specification, but not every generator keeps to it.
        let first = (span_id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize * BUCKET;
        (first, &self.lines[first..first + BUCKET])
    }

    /// Adds a span that has just started. `None` when other threads change its bucket at this instant, again and again;
    /// it then counts as one that lost its place.
    pub(crate) fn insert(&self, record: &SpanRecord) -> Option<SpanKey> {
        let (first, bucket) = self.bucket(record.span_id);
        let tick = self.tick.load(Ordering::Relaxed);
        let place = (0..TRIES).find_map(|_| take_free(bucket).or_else(|| self.evict(bucket, tick)));
        let Some((i, writing)) = place else {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let entry = Entry::of(&bucket[i]);
        // A reader must not see new fields under an old sequence number.
        fence(Ordering::Release);
        entry.fill(record, tick);
        let live = writing - WRITING + LIVE;
        entry.sequence.store(live, Ordering::Release);
        Some(SpanKey::new(first + i, live))
    }

    /// Takes the oldest live entry of a full bucket for writing, unless it changes at this instant.
    fn evict(&self, bucket: &[Line], tick: u32) -> Option<(usize, u64)> {
        let (i, sequence) = bucket
            .iter()
            .map(Entry::of)
            .enumerate()
            .map(|(i, entry)| (i, entry, entry.sequence.load(Ordering::Relaxed)))
            .filter(|(_, _, sequence)| sequence & STATE_MASK == LIVE)
            .max_by_key(|(_, entry, _)| tick.wrapping_sub(entry.meta.load(Ordering::Relaxed) as u32))
            .map(|(i, _, sequence)| (i, sequence))?;
        let writing = (sequence & !STATE_MASK) + GENERATION + WRITING;
        claim(Entry::of(&bucket[i]), sequence, writing).then(|| {
            self.evicted.fetch_add(1, Ordering::Relaxed);
            (i, writing)
        })
    }

    /// Finds a live span by its id.
    pub(crate) fn find(&self, span_id: SpanId) -> Option<(SpanKey, SpanRecord)> {
        let (first, bucket) = self.bucket(span_id);
        bucket.iter().map(Entry::of).enumerate().find_map(|(i, entry)| {
            if entry.span_id.load(Ordering::Relaxed) != span_id.0 {
                return None;
            }
            let key = SpanKey::new(first + i, entry.sequence.load(Ordering::Relaxed));
            self.read(key).filter(|record| record.span_id == span_id).map(|record| (key, record))
        })
    }

    /// Forgets a span that has ended; every key to it stops resolving at once.
    pub(crate) fn remove(&self, span_id: SpanId) {
        let (_, bucket) = self.bucket(span_id);
        for entry in bucket.iter().map(Entry::of) {
            let sequence = entry.sequence.load(Ordering::Acquire);
            if sequence & STATE_MASK == LIVE && entry.span_id.load(Ordering::Relaxed) == span_id.0 {
                // Succeeds only where nobody has written the entry since: then the id read is the one it had.
                claim(entry, sequence, (sequence & !STATE_MASK) + GENERATION);
                return;
            }
        }
    }

    /// The span that `key` names, if it still lives.
    pub(crate) fn read(&self, key: SpanKey) -> Option<SpanRecord> {
        let copy = std::array::from_fn(|_| AtomicU64::new(0));
        let tagged = self.copy(key, &copy)?;
        Some(SpanWords { words: copy.map(AtomicU64::into_inner), tagged }.record())
    }

    /// The same, not taken apart: copies the words to `to` and tells whether the span is tagged. With `None`, what `to` then
    /// holds means nothing. Async-signal-safe: atomic loads and stores only.
    #[inline]
    pub(crate) fn copy(&self, key: SpanKey, to: &[AtomicU64; SpanWords::LEN]) -> Option<bool> {
        let entry = Entry::of(self.lines.get(key.index())?);
        let before = entry.sequence.load(Ordering::Acquire);
        if before & SEQUENCE_MASK != key.sequence() || before & STATE_MASK != LIVE {
            return None;
        }
        let tagged = entry.copy(to);
        fence(Ordering::Acquire);
        (entry.sequence.load(Ordering::Relaxed) == before).then_some(tagged)
    }

    /// Advances coarse time. Called by the collector a few times a second.
    pub(crate) fn advance(&self) {
        self.tick.fetch_add(1, Ordering::Relaxed);
    }

    /// The label sets that live spans refer to, and a few more; with repetitions.
    pub(crate) fn label_sets(&self) -> Vec<LabelSetId> {
        let entries = self.lines.iter().map(Entry::of);
        let used = entries.filter(|entry| entry.sequence.load(Ordering::Acquire) & STATE_MASK != FREE);
        used.map(|entry| entry.labels.load(Ordering::Relaxed))
            .flat_map(|labels| [LabelSetId(labels as u32), LabelSetId((labels >> 32) as u32)])
            .collect()
    }

    /// Has everything in the span's bucket give way to newer spans, which then end.
    #[cfg(test)]
    pub(crate) fn crowd_out(&self, span_id: SpanId) {
        self.advance();
        let crowd: Vec<SpanId> =
            (1..).map(SpanId).filter(|id| self.are_neighbours(*id, span_id)).take(BUCKET).collect();
        for id in &crowd {
            self.insert(&SpanRecord { span_id: *id, ..SpanRecord::default() });
        }
        crowd.into_iter().for_each(|id| self.remove(id));
    }

    /// Whether two spans share a bucket.
    #[cfg(test)]
    pub(crate) fn are_neighbours(&self, one: SpanId, other: SpanId) -> bool {
        self.bucket(one).0 == self.bucket(other).0
    }

    /// Spans that lost their place to a newer one because their bucket was full, or got none.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// Takes a free entry of a bucket for writing.
fn take_free(bucket: &[Line]) -> Option<(usize, u64)> {
    bucket.iter().map(Entry::of).enumerate().find_map(|(i, entry)| {
        let sequence = entry.sequence.load(Ordering::Relaxed);
        (sequence & STATE_MASK == FREE && claim(entry, sequence, sequence + WRITING))
            .then_some((i, sequence + WRITING))
    })
}

fn claim(entry: Entry<'_>, from: u64, to: u64) -> bool {
    entry.sequence.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> SpanRecord {
        SpanRecord {
            span_id: SpanId(id),
            parent: SpanId(id ^ 1),
            local_root: SpanId(id ^ 2),
            trace_id: TraceId(u128::from(id) << 64 | u128::from(!id)),
            labels: LabelSetId(id as u32),
            root_labels: LabelSetId((id >> 32) as u32),
            tagged: id & 1 == 1,
        }
    }

    #[test]
    fn a_record_comes_back_whole_and_only_while_its_span_lives() {
        let table = SpanTable::new(1024);
        for id in [1, 2, u64::MAX, 0x00f0_67aa_0ba9_02b7] {
            let key = table.insert(&record(id)).expect("an empty bucket has room");
            assert_eq!(table.read(key), Some(record(id)));
            assert_eq!(table.find(SpanId(id)), Some((key, record(id))));
            table.remove(SpanId(id));
            assert_eq!(table.read(key), None);
            assert_eq!(table.find(SpanId(id)), None);
        }
        assert_eq!(table.read(SpanKey::NONE), None);
    }

    #[test]
    fn a_key_does_not_resolve_to_the_next_tenant_of_its_entry() {
        let table = SpanTable::new(64);
        let old = table.insert(&record(7)).expect("room");
        table.remove(SpanId(7));
        let new = table.insert(&record(7)).expect("room");
        assert_ne!(old, new);
        assert_eq!(table.read(old), None);
        assert_eq!(table.read(new), Some(record(7)));
    }

    #[test]
    fn a_full_bucket_gives_up_its_oldest_span_and_counts_it() {
        let table = SpanTable::new(64);
        let crowd: Vec<u64> = (1..).filter(|id| table.bucket(SpanId(*id)).0 == 0).take(BUCKET + 1).collect();
        let keys: Vec<SpanKey> = crowd
            .iter()
            .map(|id| {
                table.advance();
                table.insert(&record(*id)).expect("eviction makes room")
            })
            .collect();
        assert_eq!(table.read(keys[0]), None, "the oldest is gone");
        for (key, id) in keys.iter().zip(&crowd).skip(1) {
            assert_eq!(table.read(*key), Some(record(*id)));
        }
        assert_eq!(table.evicted(), 1);
    }

    #[test]
    fn a_span_that_finds_no_place_is_counted() {
        let table = SpanTable::new(64);
        let (first, bucket) = table.bucket(SpanId(7));
        // All are being written by other threads.
        let writing = |line: &Line| claim(Entry::of(line), 0, WRITING);
        assert!(bucket.iter().all(writing));
        assert_eq!((table.insert(&record(7)), table.evicted()), (None, 1));
        Entry::of(&bucket[3]).sequence.store(GENERATION, Ordering::Relaxed);
        assert_eq!(table.insert(&record(7)).map(SpanKey::index), Some(first + 3));
        assert_eq!(table.evicted(), 1);
    }

    #[test]
    fn readers_never_see_a_mixed_record_while_writers_recycle_entries() {
        let table = SpanTable::new(64);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..2u64 {
                let (table, done) = (&table, &done);
                scope.spawn(move || {
                    let mut id = writer + 1;
                    while !done.load(Ordering::Relaxed) {
                        table.insert(&record(id));
                        if id % 3 == 0 {
                            table.remove(SpanId(id));
                        }
                        id += 2;
                    }
                });
            }
            let mut seen = 0;
            while seen < 20_000 {
                for index in 0..table.lines.len() {
                    let sequence = Entry::of(&table.lines[index]).sequence.load(Ordering::Relaxed);
                    if let Some(found) = table.read(SpanKey::new(index, sequence)) {
                        assert_eq!(found, record(found.span_id.0));
                        seen += 1;
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
