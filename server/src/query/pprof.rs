//! A merged profile written as a pprof message.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1 as wire;

use super::merge::MergedProfile;
use super::names::FOLDED_NAME;
use super::tree::Shown;
use crate::model::{Line, Symbols};

/// The message; see [`MergedProfile::pprof`]. It has what its samples refer to and nothing else.
pub(super) fn pprof(profile: &MergedProfile, max_nodes: usize) -> wire::Profile {
    let MergedProfile { kind, symbols, tree, covered, .. } = profile;
    let mut strings = Strings::new();
    let mut value_type = |r#type: &str, unit: &str| wire::ValueType {
        r#type: strings.number(r#type),
        unit: strings.number(unit),
        ..Default::default()
    };
    let sample_type = value_type(&kind.sample_type, &kind.sample_unit);
    let period_type = value_type(&kind.period_type, &kind.period_unit);
    let (start, end) = covered.nanos.unwrap_or_default();
    let mut message = wire::Profile {
        default_sample_type: sample_type.r#type,
        sample_type: vec![sample_type],
        period_type: period_type.into(),
        period: covered.period,
        time_nanos: start,
        duration_nanos: end.saturating_sub(start),
        ..Default::default()
    };

    let mut locations = Kept::of(symbols.locations.len());
    let mut stack: Vec<Option<u32>> = Vec::new();
    let mut folds = false;
    tree.walk(max_nodes, |bar| {
        stack.truncate(bar.depth.saturating_sub(1));
        match bar.shown {
            Shown::Root => {}
            Shown::Frame(location) => stack.push(Some(location)),
            Shown::Folded => {
                folds = true;
                stack.push(None);
            }
        }
        if bar.own[0] > 0 {
            let id = |location: &Option<u32>| location.map_or(FOLDED_ID, |location| locations.id(location));
            let location_id = stack.iter().rev().map(id).collect();
            message.sample.push(wire::Sample { location_id, value: vec![bar.own[0]], ..Default::default() });
        }
    });

    let mut functions = Kept::of(symbols.functions.len());
    let mut mappings = Kept::of(symbols.mappings.len());
    message.location = locations
        .kept
        .iter()
        .zip(1..)
        .map(|(&number, id)| location(symbols, number, id, &mut functions, &mut mappings))
        .collect();
    message.function =
        functions.kept.iter().zip(1..).map(|(&f, id)| function(symbols, f, id, &mut strings)).collect();
    message.mapping =
        mappings.kept.iter().zip(1..).map(|(&m, id)| mapping(symbols, m, id, &mut strings)).collect();
    for location in &message.location {
        let Some(at) = location.mapping_id.checked_sub(1) else { continue };
        let mapping = &mut message.mapping[at as usize];
        mapping.has_functions |= !location.line.is_empty();
        mapping.has_line_numbers |= location.line.iter().any(|line| line.line != 0);
        mapping.has_inline_frames |= location.line.len() > 1;
    }
    if folds {
        fold(&mut message, &mut strings);
    }
    message.string_table = strings.table;
    message
}

/// Stands for the location of what is folded until all others have their ids.
const FOLDED_ID: u64 = u64::MAX;

/// Adds the location of what is folded.
fn fold(message: &mut wire::Profile, strings: &mut Strings) {
    let name = strings.number(FOLDED_NAME);
    let function_id = message.function.len() as u64 + 1;
    let function = wire::Function { id: function_id, name, system_name: name, ..Default::default() };
    message.function.push(function);
    let folded = message.location.len() as u64 + 1;
    let line = vec![wire::Line { function_id, ..Default::default() }];
    message.location.push(wire::Location { id: folded, line, ..Default::default() });
    let ids = message.sample.iter_mut().flat_map(|sample| &mut sample.location_id);
    ids.filter(|id| **id == FOLDED_ID).for_each(|id| *id = folded);
}

/// The entries of a table that the message refers to, in the order in which they were met.
struct Kept {
    /// The id of each entry, 0 until it is met.
    ids: Vec<u64>,
    /// Numbers of those that were met.
    kept: Vec<u32>,
}

impl Kept {
    fn of(entries: usize) -> Self {
        Self { ids: vec![0; entries], kept: Vec::new() }
    }

    /// The message's id of the entry with this number. Ids begin with 1.
    fn id(&mut self, number: u32) -> u64 {
        let id = &mut self.ids[number as usize];
        if *id == 0 {
            self.kept.push(number);
            *id = self.kept.len() as u64;
        }
        *id
    }
}

/// The message's strings.
struct Strings {
    table: Vec<String>,
    numbers: HashMap<String, i64, RandomState>,
}

impl Strings {
    /// The first is always the empty one.
    fn new() -> Self {
        let mut strings = Self { table: Vec::new(), numbers: HashMap::default() };
        strings.number("");
        strings
    }

    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

fn location(
    symbols: &Symbols,
    number: u32,
    id: u64,
    functions: &mut Kept,
    mappings: &mut Kept,
) -> wire::Location {
    let location = symbols.location(number);
    let line = |line: &Line| wire::Line {
        function_id: functions.id(line.function),
        line: i64::from(line.line),
        ..Default::default()
    };
    wire::Location {
        id,
        // Number 0 is "not known", which the message says by id 0.
        mapping_id: if location.mapping == 0 { 0 } else { mappings.id(location.mapping) },
        address: location.address,
        line: symbols.lines(location).iter().map(line).collect(),
        ..Default::default()
    }
}

fn function(symbols: &Symbols, number: u32, id: u64, strings: &mut Strings) -> wire::Function {
    let function = symbols.function(number);
    wire::Function {
        id,
        name: strings.number(symbols.string(function.name)),
        system_name: strings.number(symbols.string(function.system_name)),
        filename: strings.number(symbols.string(function.filename)),
        start_line: i64::from(function.start_line),
        ..Default::default()
    }
}

fn mapping(symbols: &Symbols, number: u32, id: u64, strings: &mut Strings) -> wire::Mapping {
    let mapping = symbols.mapping(number);
    wire::Mapping {
        id,
        memory_start: mapping.start,
        memory_limit: mapping.limit,
        file_offset: mapping.offset,
        filename: strings.number(symbols.string(mapping.filename)),
        build_id: strings.number(symbols.string(mapping.build_id)),
        ..Default::default()
    }
}
