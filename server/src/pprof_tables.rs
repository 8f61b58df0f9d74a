//! The tables of a pprof message in the making: strings, locations, functions and mappings, each entry once and only if
//! something refers to it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1 as wire;

use crate::model::Symbols;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Tables of which a message is made, with the ids that entries of [`Symbols`] have in it. Ids begin with 1. All symbols are
/// those of one source, in which a number means one entry.
pub(crate) struct PprofTables {
    table: Vec<String>,
    strings: Map<String, i64>,
    locations: Map<u32, u64>,
    functions: Map<u32, u64>,
    mappings: Map<u32, u64>,
    location: Vec<wire::Location>,
    function: Vec<wire::Function>,
    mapping: Vec<wire::Mapping>,
}

impl PprofTables {
    /// Tables with the empty string, which is always the first.
    pub(crate) fn new() -> Self {
        Self {
            table: vec![String::new()],
            strings: std::iter::once((String::new(), 0)).collect(),
            locations: Map::default(),
            functions: Map::default(),
            mappings: Map::default(),
            location: Vec::new(),
            function: Vec::new(),
            mapping: Vec::new(),
        }
    }

    /// The number of a text.
    pub(crate) fn string(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.strings.get(text) {
            return number;
        }
        let number = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    /// What a column measures.
    pub(crate) fn value_type(&mut self, kind: &str, unit: &str) -> wire::ValueType {
        wire::ValueType { r#type: self.string(kind), unit: self.string(unit), ..Default::default() }
    }

    /// The id of a location, which is added with all it refers to.
    pub(crate) fn location(&mut self, symbols: &Symbols, number: u32) -> u64 {
        if let Some(&id) = self.locations.get(&number) {
            return id;
        }
        let location = symbols.location(number);
        let mut lines = Vec::new();
        for line in symbols.lines(location) {
            let function_id = self.function(symbols, line.function);
            lines.push(wire::Line { function_id, line: i64::from(line.line), ..Default::default() });
        }
        // Number 0 is "not known", which the message says by id 0.
        let mapping_id = if location.mapping == 0 { 0 } else { self.mapping(symbols, location.mapping) };
        if let Some(at) = mapping_id.checked_sub(1) {
            let mapping = &mut self.mapping[at as usize];
            mapping.has_functions |= !lines.is_empty();
            mapping.has_line_numbers |= lines.iter().any(|line| line.line != 0);
            mapping.has_inline_frames |= lines.len() > 1;
        }
        let id = self.add_location(mapping_id, location.address, lines);
        self.locations.insert(number, id);
        id
    }

    /// The id of a new location that is a function of this name and nothing more.
    pub(crate) fn made_up_location(&mut self, name: &str) -> u64 {
        let name = self.string(name);
        let id = self.function.len() as u64 + 1;
        self.function.push(wire::Function { id, name, system_name: name, ..Default::default() });
        self.add_location(0, 0, vec![wire::Line { function_id: id, ..Default::default() }])
    }

    fn add_location(&mut self, mapping_id: u64, address: u64, line: Vec<wire::Line>) -> u64 {
        let id = self.location.len() as u64 + 1;
        self.location.push(wire::Location { id, mapping_id, address, line, ..Default::default() });
        id
    }

    fn function(&mut self, symbols: &Symbols, number: u32) -> u64 {
        if let Some(&id) = self.functions.get(&number) {
            return id;
        }
        let function = symbols.function(number);
        let id = self.function.len() as u64 + 1;
        let written = wire::Function {
            id,
            name: self.string(symbols.string(function.name)),
            system_name: self.string(symbols.string(function.system_name)),
            filename: self.string(symbols.string(function.filename)),
            start_line: i64::from(function.start_line),
            ..Default::default()
        };
        self.function.push(written);
        self.functions.insert(number, id);
        id
    }

    fn mapping(&mut self, symbols: &Symbols, number: u32) -> u64 {
        if let Some(&id) = self.mappings.get(&number) {
            return id;
        }
        let mapping = symbols.mapping(number);
        let id = self.mapping.len() as u64 + 1;
        let written = wire::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.offset,
            filename: self.string(symbols.string(mapping.filename)),
            build_id: self.string(symbols.string(mapping.build_id)),
            ..Default::default()
        };
        self.mapping.push(written);
        self.mappings.insert(number, id);
        id
    }

    /// Puts the tables into the message that refers to them.
    pub(crate) fn finish(self, message: &mut wire::Profile) {
        message.string_table = self.table;
        message.location = self.location;
        message.function = self.function;
        message.mapping = self.mapping;
    }
}
