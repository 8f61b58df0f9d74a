//! What samples say about a span in words, as small numbers: its name, and the labels taken from its attributes and
//! baggage. So a record stays fixed-size and the handler never touches a string.
//!
//! Sets are kept in generations, as a service may make names without end. Once the current generation is half full a
//! new one begins; of those before the last one, only sets stay that a live span refers to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, RwLock};

use super::LabelSetId;

/// The longest name or value that is kept, in bytes; of a longer one, the beginning. Servers refuse a whole profile for
/// one label value above their limit, which is 2048 on Pyroscope.
const MAX_TEXT: usize = 256;

/// Sets that a generation has room for at least. The collector looks ten times a second whether one is half full, so
/// 40,000 new sets a second are still told apart.
const MIN_GENERATION: usize = 8192;

/// Bytes that a generation has room for, per set.
const BYTES_PER_SET: usize = 256;

/// What a set takes besides its texts.
const SET_OVERHEAD: usize = 128;

/// A label's name and its value.
pub(crate) type LabelPair = (Arc<str>, Arc<str>);

/// A span's name, empty for none, and its other labels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LabelSet {
    pub(crate) name: Arc<str>,
    pub(crate) labels: Arc<[LabelPair]>,
}

impl LabelSet {
    fn is(&self, name: &str, labels: &[(Arc<str>, Cow<'_, str>)]) -> bool {
        *self.name == *name
            && self.labels.len() == labels.len()
            && self.labels.iter().zip(labels).all(|(own, other)| own.0 == other.0 && *own.1 == *other.1)
    }

    fn bytes(&self) -> usize {
        SET_OVERHEAD + self.name.len() + self.labels.iter().map(|(_, value)| value.len() + 48).sum::<usize>()
    }
}

/// The label sets of the process's spans.
pub(crate) struct LabelSets {
    /// Sets a generation has room for.
    capacity: AtomicUsize,
    hasher: DefaultHashBuilder,
    current: RwLock<Generation>,
    older: Mutex<Older>,
}

/// Numbers in a row from `first` on.
struct Generation {
    first: u32,
    index: HashTable<u32>,
    sets: Vec<Arc<LabelSet>>,
    bytes: usize,
}

struct Older {
    /// The whole generation before the current one: a sample of a span that has just ended may still refer to it.
    previous: Generation,
    /// Of those before, what live spans refer to.
    kept: HashMap<u32, Arc<LabelSet>>,
}

impl Generation {
    fn starting_at(first: u32) -> Self {
        Self { first, index: HashTable::new(), sets: Vec::new(), bytes: 0 }
    }

    fn get(&self, id: LabelSetId) -> Option<&Arc<LabelSet>> {
        self.sets.get(id.0.checked_sub(self.first)? as usize)
    }

    fn find(&self, hash: u64, name: &str, labels: &[(Arc<str>, Cow<'_, str>)]) -> Option<LabelSetId> {
        let offset = self.index.find(hash, |offset| self.sets[*offset as usize].is(name, labels))?;
        Some(LabelSetId(self.first + offset))
    }

    fn has_room(&self, capacity: usize) -> bool {
        self.sets.len() < capacity && self.bytes < capacity * BYTES_PER_SET
    }
}

impl LabelSets {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::numbered(0, 1)
    }

    /// With numbers from the given part of so many equal ones on.
    pub(crate) fn numbered(part: u32, parts: u32) -> Self {
        let first = LabelSetId::FIRST + part * (u32::MAX / parts);
        Self {
            capacity: AtomicUsize::new(MIN_GENERATION),
            hasher: DefaultHashBuilder::default(),
            current: RwLock::new(Generation::starting_at(first)),
            older: Mutex::new(Older { previous: Generation::starting_at(first), kept: HashMap::new() }),
        }
    }

    /// Makes room for at least `names` names at once.
    pub(crate) fn make_room(&self, names: usize) {
        self.capacity.store(names.max(MIN_GENERATION), Ordering::Relaxed);
    }

    /// The number of a set. Texts are cut; those that begin with the same 256 bytes are one.
    pub(crate) fn intern(&self, name: &str, labels: &[(Arc<str>, Cow<'_, str>)]) -> LabelSetId {
        if name.is_empty() && labels.is_empty() {
            return LabelSetId::NONE;
        }
        let name = cut(name);
        let hash = self.hash(name, labels.iter().map(|(label, value)| (&**label, &**value)));
        let capacity = self.capacity.load(Ordering::Relaxed);
        {
            let current = self.current.read();
            if let Some(id) = current.find(hash, name, labels) {
                return id;
            }
            if !current.has_room(capacity) {
                return LabelSetId::OTHER;
            }
        }
        let mut current = self.current.write();
        // Someone else may have come first.
        if let Some(id) = current.find(hash, name, labels) {
            return id;
        }
        if !current.has_room(capacity) {
            return LabelSetId::OTHER;
        }
        let labels = labels.iter().map(|(label, value)| (label.clone(), Arc::from(&**value)));
        let set = LabelSet { name: Arc::from(name), labels: labels.collect() };
        let Generation { first, index, sets, bytes } = &mut *current;
        let offset = sets.len() as u32;
        *bytes += set.bytes();
        sets.push(Arc::new(set));
        index.insert_unique(hash, offset, |offset| {
            let set = &sets[*offset as usize];
            self.hash(&set.name, set.labels.iter().map(|(label, value)| (&**label, &**value)))
        });
        LabelSetId(*first + offset)
    }

    fn hash<'a>(&self, name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
        let mut state = self.hasher.build_hasher();
        name.hash(&mut state);
        labels.for_each(|pair| pair.hash(&mut state));
        state.finish()
    }

    /// The set behind a number, if it is still there.
    pub(crate) fn get(&self, id: LabelSetId) -> Option<Arc<LabelSet>> {
        if let Some(set) = self.current.read().get(id) {
            return Some(set.clone());
        }
        let older = self.older.lock();
        older.previous.get(id).or_else(|| older.kept.get(&id.0)).cloned()
    }

    /// Begins a new generation if the current one is half full. `live` tells the numbers that spans refer to. Called
    /// by the collector after each drain.
    pub(crate) fn tidy(&self, live: impl FnOnce() -> Vec<LabelSetId>) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let is_half_full = |generation: &Generation| !generation.has_room(capacity / 2);
        if !is_half_full(&self.current.read()) {
            return;
        }
        let mut live = live();
        live.sort_unstable();
        live.dedup();
        let mut older = self.older.lock();
        let (mut kept, mut bytes) = (HashMap::new(), 0);
        for id in live {
            if kept.len() < capacity
                && bytes < capacity * BYTES_PER_SET
                && let Some(set) = older.previous.get(id).or_else(|| older.kept.get(&id.0))
            {
                bytes += set.bytes();
                kept.insert(id.0, set.clone());
            }
        }
        let previous = {
            let mut current = self.current.write();
            let taken = |range: &std::ops::Range<u32>| kept.keys().any(|id| range.contains(id));
            let first = free_range(current.first + current.sets.len() as u32, capacity, taken);
            std::mem::replace(&mut *current, Generation::starting_at(first))
        };
        // Freed after the lock is given back.
        let _gone = std::mem::replace(&mut *older, Older { previous, kept });
        drop(older);
    }

    /// Calls `act` while every lock is held.
    #[cfg(test)]
    pub(crate) fn while_locked(&self, act: impl FnOnce()) {
        let _locks = (self.current.write(), self.older.lock());
        act();
    }

    /// Sets held, and their bytes.
    #[cfg(test)]
    fn held(&self) -> (usize, usize) {
        let (current, older) = (self.current.read(), self.older.lock());
        let kept = older.kept.values().map(|set| set.bytes()).sum::<usize>();
        let sets = current.sets.len() + older.previous.sets.len() + older.kept.len();
        (sets, current.bytes + older.previous.bytes + kept)
    }
}

/// Where `len` numbers in a row are free, from `start` on. Numbers begin again after 2^32 of them.
fn free_range(start: u32, len: usize, taken: impl Fn(&std::ops::Range<u32>) -> bool) -> u32 {
    let len = u32::try_from(len).unwrap_or(u32::MAX / 4);
    let mut first = start;
    loop {
        if first > u32::MAX - len {
            first = LabelSetId::FIRST;
        }
        let range = first..first + len;
        if !taken(&range) {
            return first;
        }
        first = range.end;
    }
}

/// As much of the beginning of `text` as is kept: whole characters.
pub(crate) fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(sets: &LabelSets, id: LabelSetId) -> Option<String> {
        sets.get(id).map(|set| set.name.to_string())
    }

    #[test]
    fn equal_sets_have_one_number_and_different_ones_have_their_own() {
        let sets = LabelSets::new();
        let label = |name: &str, value: &'static str| (Arc::from(name), Cow::Borrowed(value));
        let plain = sets.intern("GET /pay", &[]);
        let eu = sets.intern("GET /pay", &[label("region", "eu")]);
        let us = sets.intern("GET /pay", &[label("region", "us")]);
        let other_label = sets.intern("GET /pay", &[label("tenant", "eu")]);
        let nameless = sets.intern("", &[label("region", "eu")]);
        let mut ids = vec![plain, eu, us, other_label, nameless];
        assert_eq!(sets.intern("GET /pay", &[label("region", "eu")]), eu);
        assert_eq!(sets.intern("GET /pay", &[]), plain);
        let set = sets.get(us).expect("kept");
        let expected: [LabelPair; 1] = [(Arc::from("region"), Arc::from("us"))];
        assert_eq!((&*set.name, &*set.labels), ("GET /pay", &expected[..]));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 5);
        assert_eq!(sets.intern("", &[]), LabelSetId::NONE);
        assert_eq!((sets.get(LabelSetId::NONE), sets.get(LabelSetId::OTHER)), (None, None));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let sets = LabelSets::new();
        let long = format!("SELECT {}", "é".repeat(100_000));
        let id = sets.intern(&long, &[]);
        let kept = name(&sets, id).expect("kept");
        // The bound falls into the middle of a character of two bytes.
        assert_eq!((kept.len(), long.starts_with(&*kept)), (MAX_TEXT - 1, true));
        assert_eq!(sets.intern(&kept, &[]), id);
        let whole = "x".repeat(MAX_TEXT);
        assert_eq!(name(&sets, sets.intern(&whole, &[])), Some(whole.clone()));
        assert_eq!(name(&sets, sets.intern(&format!("{whole}y"), &[])), Some(whole));
    }

    #[test]
    fn a_million_names_take_the_memory_of_a_few_generations_and_the_newest_are_told_apart() {
        let sets = LabelSets::new();
        let stays = sets.intern("a span that never ends", &[]);
        let bound = 3 * MIN_GENERATION;
        let (mut most, mut others) = ((0, 0), 0);
        for i in 0..1_000_000u32 {
            let unique = format!("GET /user/{i}");
            let id = sets.intern(&unique, &[]);
            others += u32::from(id == LabelSetId::OTHER);
            if i % 1_000 == 0 {
                assert_eq!(name(&sets, id), Some(unique), "at the newest");
                sets.tidy(|| vec![stays, id, stays, LabelSetId::NONE]);
                assert_eq!(name(&sets, stays).as_deref(), Some("a span that never ends"));
                let held = sets.held();
                most = (most.0.max(held.0), most.1.max(held.1));
            }
        }
        assert_eq!(others, 0);
        assert!(most.0 <= bound && most.1 <= bound * BYTES_PER_SET, "{most:?}");
        // A steady service keeps its sets.
        let steady = sets.intern("GET /pay", &[]);
        for _ in 0..10 {
            sets.tidy(Vec::new);
        }
        assert_eq!(name(&sets, steady).as_deref(), Some("GET /pay"));
    }

    #[test]
    fn without_a_tidy_the_excess_is_called_other_and_after_it_names_are_told_apart_again() {
        let sets = LabelSets::new();
        let long = "x".repeat(200);
        let flood = |round: u32| (0..20_000).map(move |i| format!("{round} {i}"));
        for (round, text) in [(0, ""), (1, &*long)] {
            let ids: Vec<LabelSetId> =
                flood(round).map(|name| sets.intern(&format!("{name}{text}"), &[])).collect();
            let told_apart = ids.iter().filter(|id| **id != LabelSetId::OTHER).count();
            assert!((MIN_GENERATION / 2..=MIN_GENERATION).contains(&told_apart), "{told_apart}");
            let first = format!("{round} 0{text}");
            sets.tidy(Vec::new);
            assert_eq!(name(&sets, ids[0]), Some(first), "samples may still refer to it");
        }
        assert_ne!(sets.intern("later", &[]), LabelSetId::OTHER);
    }

    #[test]
    fn numbers_that_are_in_use_are_not_given_out_again_after_the_last_one() {
        let in_use = [3, LabelSetId::FIRST + 150];
        let taken = |range: &std::ops::Range<u32>| in_use.iter().any(|id| range.contains(id));
        assert_eq!(free_range(1_000, 100, taken), 1_000);
        assert_eq!(free_range(u32::MAX - 99, 100, taken), LabelSetId::FIRST + 200);
    }
}
