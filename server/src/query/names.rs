//! Names of frames.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::model::{Line, StringTable, Symbols};

/// What bars are called that stand for those too small to show.
pub(super) const FOLDED_NAME: &str = "other";
/// The number of what the root of a graph is called.
pub(super) const ROOT: u32 = 0;
/// The number of [`FOLDED_NAME`].
pub(super) const FOLDED: u32 = 1;
/// The number of what the one frame of an empty stack trace is called: a value is not lost because nobody knows where it
/// was spent.
const NO_STACK: u32 = 2;

/// The frames of a location.
#[derive(Debug, Clone, Copy)]
enum Frames {
    NotMet,
    /// A frame of this name.
    One(u32),
    /// From one place on to another.
    Several(u32, u32),
}

/// Names of frames, numbered alike for all the sources of one query.
#[derive(Debug)]
pub(super) struct FrameNames {
    names: StringTable,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Frames of the locations of the current source, by a location's number.
    of_location: Vec<Frames>,
    /// Those of the locations that have several, the root first.
    several: Vec<u32>,
}

impl Default for FrameNames {
    fn default() -> Self {
        let mut names = Self {
            names: StringTable::default(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            of_location: Vec::new(),
            several: Vec::new(),
        };
        for (text, number) in [("total", ROOT), (FOLDED_NAME, FOLDED), ("[no stack trace]", NO_STACK)] {
            assert_eq!(names.of_text(text), number, "numbers go up");
        }
        names
    }
}

impl FrameNames {
    /// Forgets what the numbers of the source before meant; the names stay.
    pub(super) fn begin_source(&mut self) {
        self.of_location.clear();
        self.several.clear();
    }

    /// Appends the names of a stack trace of the current source, the root first, inlined functions as frames of their
    /// own; at least one.
    pub(super) fn of_stack(&mut self, symbols: &Symbols, locations: &[u32], frames: &mut Vec<u32>) {
        if locations.is_empty() {
            frames.push(NO_STACK);
        }
        for &number in locations.iter().rev() {
            let known = match self.of_location.get(number as usize) {
                None | Some(Frames::NotMet) => self.look_up(symbols, number),
                Some(&known) => known,
            };
            match known {
                Frames::NotMet => {}
                Frames::One(name) => frames.push(name),
                Frames::Several(start, end) => {
                    frames.extend_from_slice(&self.several[start as usize..end as usize]);
                }
            }
        }
    }

    /// The frames of a location that was not met before.
    fn look_up(&mut self, symbols: &Symbols, number: u32) -> Frames {
        let location = symbols.location(number);
        let mut name_of = |line: &Line| self.of_text(symbols.string(symbols.function_name(line.function)));
        let found = match symbols.lines(location) {
            [] => Frames::One(self.of_text(&symbols.unsymbolized_name(location))),
            [line] => Frames::One(name_of(line)),
            lines => {
                let names: Vec<u32> = lines.iter().rev().map(name_of).collect();
                let start = self.several.len() as u32;
                self.several.extend(names);
                Frames::Several(start, self.several.len() as u32)
            }
        };
        let at = number as usize;
        if self.of_location.len() <= at {
            self.of_location.resize(at + 1, Frames::NotMet);
        }
        self.of_location[at] = found;
        found
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

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}
