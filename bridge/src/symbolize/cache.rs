//! Answers kept, within bounds of number and of bytes. What has not been asked for lately is the first to go.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Function, Line};

/// What is known of an address.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) lines: Arc<[Line]>,
    /// Whether there was a symbol.
    pub(super) named: bool,
    /// Whether debug information has been looked at, or cannot be.
    pub(super) complete: bool,
}

/// A file's number and an address in its own numbering.
pub(super) type Place = (u32, u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) answers: usize,
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answers: 64 * 1024, bytes: 10 << 20 }
    }
}

type Map<K, V> = HashMap<K, V, DefaultHashBuilder>;

/// Two halves: `recent` fills up, becomes `older`, and what was older and not asked for meanwhile goes.
#[derive(Default)]
pub(super) struct Cache {
    limits: Limits,
    recent: Map<Place, Answer>,
    older: Map<Place, Answer>,
    recent_bytes: usize,
    functions: HashTable<Arc<Function>>,
    hasher: DefaultHashBuilder,
}

impl Cache {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.keys().filter(|place| !self.recent.contains_key(*place)).count()
    }

    pub(super) fn get(&mut self, place: Place) -> Option<Answer> {
        if let Some(answer) = self.recent.get(&place) {
            return Some(answer.clone());
        }
        let answer = self.older.get(&place)?.clone();
        self.insert(place, answer.clone());
        Some(answer)
    }

    pub(super) fn insert(&mut self, place: Place, answer: Answer) {
        let bytes = bytes(&answer);
        if self.recent.len() >= self.limits.answers / 2 || self.recent_bytes + bytes > self.limits.bytes / 2 {
            self.older = std::mem::take(&mut self.recent);
            self.recent_bytes = 0;
            // What only this map holds is named by no answer any more.
            self.functions.retain(|function| Arc::strong_count(function) > 1);
        }
        self.recent_bytes += bytes;
        if let Some(before) = self.recent.insert(place, answer) {
            self.recent_bytes = self.recent_bytes.saturating_sub(self::bytes(&before));
        }
    }

    /// The one copy of a function.
    pub(super) fn intern(&mut self, name: &str, file: &str) -> Arc<Function> {
        let hasher = &self.hasher;
        let hash = |name: &str, file: &str| hasher.hash_one((name, file));
        let known =
            self.functions.find(hash(name, file), |known| *known.name == *name && *known.file == *file);
        if let Some(known) = known {
            return known.clone();
        }
        let function = Arc::new(Function { name: name.into(), file: file.into() });
        let rehash = |known: &Arc<Function>| hash(&known.name, &known.file);
        self.functions.insert_unique(hash(name, file), function.clone(), rehash);
        function
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.recent.values().chain(self.older.values()).map(bytes).sum()
    }

    #[cfg(test)]
    pub(super) fn functions(&self) -> usize {
        self.functions.len()
    }
}

/// As if no function were shared: the bound must hold for that, too.
fn bytes(answer: &Answer) -> usize {
    const ENTRY: usize = size_of::<(Place, Answer)>() + 16;
    let line = |line: &Line| size_of::<Line>() + 80 + line.function.name.len() + line.function.file.len();
    ENTRY + answer.lines.iter().map(line).sum::<usize>()
}
