//! Names of frames.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::model::{StringTable, Symbols};

/// Names of frames, numbered alike for all the sources of one query.
#[derive(Debug, Default)]
pub(super) struct FrameNames {
    names: StringTable,
    index: HashTable<u32>,
    hasher: RandomState,
    of_source: HashMap<u64, u32, RandomState>,
}

impl FrameNames {
    /// Forgets what the numbers of the source before meant; the names stay.
    pub(super) fn begin_source(&mut self) {
        self.of_source.clear();
    }

    /// Appends the names of a stack trace of the current source, the root first, inlined functions as frames of their
    /// own.
    pub(super) fn of_stack(&mut self, symbols: &Symbols, locations: &[u32], frames: &mut Vec<u32>) {
        for &number in locations.iter().rev() {
            let location = symbols.location(number);
            let lines = symbols.lines(location);
            frames.extend(lines.iter().rev().map(|line| {
                self.of_key(u64::from(line.function), || {
                    Cow::Borrowed(symbols.string(symbols.function_name(line.function)))
                })
            }));
            if lines.is_empty() {
                let key = 1 << 32 | u64::from(number);
                frames.push(self.of_key(key, || Cow::Owned(symbols.unsymbolized_name(location))));
            }
        }
    }

    /// The number of the name that the current source knows by `key`; `text` is asked once for each key.
    fn of_key<'a>(&mut self, key: u64, text: impl FnOnce() -> Cow<'a, str>) -> u32 {
        if let Some(&number) = self.of_source.get(&key) {
            return number;
        }
        let number = self.of_text(&text());
        self.of_source.insert(key, number);
        number
    }

    /// The number of this name.
    pub(super) fn of_text(&mut self, text: &str) -> u32 {
        let Self { names, index, hasher, .. } = self;
        let hash = hasher.hash_one(text);
        if let Some(&number) = index.find(hash, |&number| names.get(number) == text) {
            return number;
        }
        let number = names.push(text);
        index.insert_unique(hash, number, |&number| hasher.hash_one(names.get(number)));
        number
    }

    /// The name with this number.
    pub(super) fn get(&self, number: u32) -> &str {
        self.names.get(number)
    }
}
