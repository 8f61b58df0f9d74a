//! Symbol tables: strings, functions, mappings, locations and stack traces, each kept once.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::tables::{HashIndex, INDEXED_BYTES, ListTable, StringTable};

/// A function. Text fields are numbers of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name for people.
    pub name: u32,
    /// Name as the linker knows it.
    pub system_name: u32,
    /// Source file.
    pub filename: u32,
    /// Line at which it starts, 0 when unknown.
    pub start_line: u32,
}

/// A binary mapped into the process. Number 0 of every table is the empty mapping, which means "not known".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub limit: u64,
    /// Offset in the file of the first address.
    pub offset: u64,
    /// The file, a number of a string.
    pub filename: u32,
    /// Its build id, a number of a string.
    pub build_id: u32,
}

/// One function at a location: a location has several where functions were inlined, the innermost first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Line {
    /// Number of the function.
    pub function: u32,
    /// Source line, 0 when unknown.
    pub line: u32,
}

/// A program location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Number of the mapping, 0 when not known.
    pub mapping: u32,
    /// Address, 0 when not known.
    pub address: u64,
    /// Number of the list of lines; that list is empty for a location that is not symbolized.
    pub lines: u32,
}

/// Tables in which each entry refers to entries of the tables before it. All references are in bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbols {
    /// String 0 is empty.
    pub(crate) strings: StringTable,
    pub(crate) functions: Vec<Function>,
    /// Mapping 0 is the empty one.
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) lines: ListTable<Line>,
    pub(crate) locations: Vec<Location>,
    /// Locations of each stack trace, the leaf first.
    pub(crate) stacks: ListTable<u32>,
}

impl Default for Symbols {
    fn default() -> Self {
        let mut strings = StringTable::default();
        strings.push("");
        Self {
            strings,
            functions: Vec::new(),
            mappings: vec![Mapping::default()],
            lines: ListTable::default(),
            locations: Vec::new(),
            stacks: ListTable::default(),
        }
    }
}

impl Symbols {
    /// The string with this number.
    #[inline]
    pub fn string(&self, index: u32) -> &str {
        self.strings.get(index)
    }

    /// Bytes that the tables take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.strings.heap_bytes()
            + size_of_val(&*self.functions)
            + size_of_val(&*self.mappings)
            + self.lines.heap_bytes()
            + size_of_val(&*self.locations)
            + self.stacks.heap_bytes()
    }

    /// How many stack traces there are.
    pub fn stack_count(&self) -> usize {
        self.stacks.len()
    }

    /// How many locations there are.
    pub(crate) fn location_count(&self) -> usize {
        self.locations.len()
    }

    /// The stack trace's locations, the leaf first.
    #[inline]
    pub fn stack(&self, index: u32) -> &[u32] {
        self.stacks.get(index)
    }

    /// The location with this number.
    #[inline]
    pub fn location(&self, index: u32) -> Location {
        self.locations[index as usize]
    }

    /// The functions at a location, the innermost first.
    #[inline]
    pub fn lines(&self, location: Location) -> &[Line] {
        self.lines.get(location.lines)
    }

    /// The function with this number.
    #[inline]
    pub fn function(&self, index: u32) -> Function {
        self.functions[index as usize]
    }

    /// The mapping with this number.
    #[inline]
    pub fn mapping(&self, index: u32) -> Mapping {
        self.mappings[index as usize]
    }

    /// The number of the string that names a function: its name, else its system name.
    pub fn function_name(&self, index: u32) -> u32 {
        let function = self.function(index);
        if self.string(function.name).is_empty() { function.system_name } else { function.name }
    }

    /// What to show for a location without functions: its binary and address.
    pub fn unsymbolized_name(&self, location: Location) -> String {
        let path = self.string(self.mapping(location.mapping).filename);
        match path.rsplit('/').next() {
            Some(file) if !file.is_empty() => format!("{file} 0x{:x}", location.address),
            _ => format!("0x{:x}", location.address),
        }
    }
}

/// The numbers that entries of some tables got in others that took them over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Of each string.
    pub(crate) strings: Vec<u32>,
    /// Of each stack trace.
    pub(crate) stacks: Vec<u32>,
}

/// Fills [`Symbols`] so that equal entries get equal numbers.
#[derive(Debug, Default)]
pub struct SymbolsBuilder {
    symbols: Symbols,
    hasher: RandomState,
    strings: HashIndex,
    functions: HashIndex,
    mappings: HashIndex,
    lines: HashIndex,
    locations: HashIndex,
    stacks: HashIndex,
    bytes: usize,
}

/// The most entries that a table is made ready for before they are there.
const MOST_RESERVED: usize = 1 << 14;

/// Finds or adds an entry of one table; new entries add to `bytes` their size and that of their index entry.
macro_rules! intern {
    ($self:ident.$table:ident, $key:expr, $at:expr, $push:expr, $size:expr) => {{
        let key = $key;
        let symbols = &mut $self.symbols;
        let at = $at;
        let hash = $self.hasher.hash_one(key);
        match $self.$table.find(hash, |index| at(symbols, index) == key) {
            Some(index) => index,
            None => {
                let index: u32 = $push(&mut *symbols, key);
                $self.$table.insert(hash, index);
                $self.bytes += $size + INDEXED_BYTES;
                index
            }
        }
    }};
}

fn push<T>(table: &mut Vec<T>, entry: T) -> u32 {
    let index = u32::try_from(table.len()).expect("a table has fewer than 2^32 entries");
    table.push(entry);
    index
}

impl SymbolsBuilder {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for about as many entries as a profile's own tables have, so that what is there already need not be
    /// moved as they grow.
    pub(crate) fn reserve(&mut self, strings: usize, functions: usize, locations: usize, stacks: usize) {
        // Whoever has more entries than this pays for the growth of tables with the rest.
        let room = |count: usize| count.min(MOST_RESERVED);
        self.strings.reserve(room(strings));
        self.functions.reserve(room(functions));
        self.lines.reserve(room(locations));
        self.locations.reserve(room(locations));
        self.stacks.reserve(room(stacks));
    }

    /// The number of this string.
    pub fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        fn at(symbols: &Symbols, index: u32) -> &str {
            symbols.strings.get(index)
        }
        intern!(self.strings, text, at, |s: &mut Symbols, text: &str| s.strings.push(text), text.len() + 4)
    }

    /// The number of this function.
    pub fn function(&mut self, function: Function) -> u32 {
        fn at(symbols: &Symbols, index: u32) -> &Function {
            &symbols.functions[index as usize]
        }
        let add = |s: &mut Symbols, f: &Function| push(&mut s.functions, *f);
        intern!(self.functions, &function, at, add, size_of::<Function>())
    }

    /// The number of this mapping.
    pub fn mapping(&mut self, mapping: Mapping) -> u32 {
        if mapping == Mapping::default() {
            return 0;
        }
        fn at(symbols: &Symbols, index: u32) -> &Mapping {
            &symbols.mappings[index as usize]
        }
        let add = |s: &mut Symbols, m: &Mapping| push(&mut s.mappings, *m);
        intern!(self.mappings, &mapping, at, add, size_of::<Mapping>())
    }

    /// The number of this location with these functions, the innermost first.
    pub fn location(&mut self, mapping: u32, address: u64, lines: &[Line]) -> u32 {
        fn lines_at(symbols: &Symbols, index: u32) -> &[Line] {
            symbols.lines.get(index)
        }
        let add = |s: &mut Symbols, lines: &[Line]| s.lines.push(lines);
        let lines = intern!(self.lines, lines, lines_at, add, size_of_val(lines) + 4);
        fn at(symbols: &Symbols, index: u32) -> &Location {
            &symbols.locations[index as usize]
        }
        let location = Location { mapping, address, lines };
        let add = |s: &mut Symbols, l: &Location| push(&mut s.locations, *l);
        intern!(self.locations, &location, at, add, size_of::<Location>())
    }

    /// The number of the stack trace with these locations, the leaf first.
    pub fn stack(&mut self, locations: &[u32]) -> u32 {
        fn at(symbols: &Symbols, index: u32) -> &[u32] {
            symbols.stacks.get(index)
        }
        let add = |s: &mut Symbols, locations: &[u32]| s.stacks.push(locations);
        intern!(self.stacks, locations, at, add, size_of_val(locations) + 4)
    }

    /// Takes over every entry of `other`, and tells the numbers that they got here.
    pub(crate) fn absorb(&mut self, other: &Symbols) -> Numbers {
        let strings: Vec<u32> = other.strings.iter().map(|text| self.string(text)).collect();
        let string = |index: u32| strings[index as usize];
        let functions: Vec<u32> = other
            .functions
            .iter()
            .map(|f| {
                self.function(Function {
                    name: string(f.name),
                    system_name: string(f.system_name),
                    filename: string(f.filename),
                    start_line: f.start_line,
                })
            })
            .collect();
        let mappings: Vec<u32> = other
            .mappings
            .iter()
            .map(|m| {
                self.mapping(Mapping { filename: string(m.filename), build_id: string(m.build_id), ..*m })
            })
            .collect();
        let mut lines = Vec::new();
        let locations: Vec<u32> = other
            .locations
            .iter()
            .map(|location| {
                lines.clear();
                lines.extend(
                    other
                        .lines(*location)
                        .iter()
                        .map(|l| Line { function: functions[l.function as usize], line: l.line }),
                );
                self.location(mappings[location.mapping as usize], location.address, &lines)
            })
            .collect();
        let (mut theirs, mut stack) = (ListTable::default(), Vec::new());
        for list in other.stacks.iter() {
            stack.clear();
            stack.extend(list.iter().map(|&location| locations[location as usize]));
            theirs.push(&stack);
        }
        // There are many of them, far apart in memory: a processor waits for several at a time if there is little to do between
        // them. One with the same hash is nearly always the same.
        let hashes: Vec<u64> = theirs.iter().map(|stack| self.hasher.hash_one(stack)).collect();
        let likely: Vec<Option<u32>> = hashes.iter().map(|&hash| self.stacks.find(hash, |_| true)).collect();
        let stacks = theirs.iter().zip(likely).map(|(stack, likely)| {
            let known = likely.filter(|&index| self.symbols.stack(index) == stack);
            known.unwrap_or_else(|| self.stack(stack))
        });
        let stacks = stacks.collect();
        Numbers { strings, stacks }
    }

    /// The tables as they stand.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The finished tables.
    pub fn finish(self) -> Symbols {
        self.symbols
    }

    /// Bytes that the tables and their indexes take, by their entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(builder: &mut SymbolsBuilder, name: &str) -> u32 {
        let name = builder.string(name);
        builder.function(Function { name, system_name: name, filename: 0, start_line: 0 })
    }

    #[test]
    fn equal_entries_get_equal_numbers() {
        let mut builder = SymbolsBuilder::new();
        let a = function(&mut builder, "a");
        let b = function(&mut builder, "b");
        assert_eq!(function(&mut builder, "a"), a);
        let line = |function| Line { function, line: 7 };
        let first = builder.location(0, 16, &[line(a), line(b)]);
        assert_eq!(builder.location(0, 16, &[line(a), line(b)]), first);
        assert_ne!(builder.location(0, 16, &[line(a)]), first);
        let stack = builder.stack(&[first]);
        assert_eq!(builder.stack(&[first]), stack);
        assert_ne!(builder.stack(&[]), stack);
        assert_eq!(builder.string(""), 0);
        assert_eq!(builder.mapping(Mapping::default()), 0);
    }

    #[test]
    fn absorbing_twice_adds_nothing() {
        let mut theirs = SymbolsBuilder::new();
        function(&mut theirs, "unused");
        let a = function(&mut theirs, "a");
        let filename = theirs.string("/lib/libc.so.6");
        let mapping = theirs.mapping(Mapping { start: 1, filename, ..Mapping::default() });
        let leaf = theirs.location(mapping, 0x20, &[]);
        let root = theirs.location(mapping, 0x10, &[Line { function: a, line: 1 }]);
        theirs.stack(&[leaf, root]);
        let theirs = theirs.finish();

        let mut ours = SymbolsBuilder::new();
        function(&mut ours, "other");
        let first = ours.absorb(&theirs);
        let bytes = ours.bytes();
        assert_eq!(ours.absorb(&theirs), first);
        assert_eq!(ours.bytes(), bytes);
        let symbols = ours.symbols();
        let stack = symbols.stack(first.stacks[0]);
        assert_eq!(symbols.unsymbolized_name(symbols.location(stack[0])), "libc.so.6 0x20");
        let line = symbols.lines(symbols.location(stack[1]))[0];
        assert_eq!(symbols.string(symbols.function_name(line.function)), "a");
    }
}
