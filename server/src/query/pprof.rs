//! A merged profile written as a pprof message.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1 as wire;

use super::flame::FOLDED_NAME;
use super::merge::MergedProfile;
use super::tree::Shown;
use crate::model::Symbols;

/// The message; see [`MergedProfile::pprof`].
pub(super) fn pprof(profile: &MergedProfile, max_nodes: usize) -> wire::Profile {
    let MergedProfile { kind, symbols, tree, covered, .. } = profile;
    let mut strings = Strings::of(symbols);
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
        mapping: mappings(symbols),
        location: locations(symbols),
        function: functions(symbols),
        ..Default::default()
    };

    // Ids begin with 1.
    let folded = message.location.len() as u64 + 1;
    let mut folds = false;
    let mut stack: Vec<u64> = Vec::new();
    tree.walk(max_nodes, |bar| {
        stack.truncate(bar.depth.saturating_sub(1));
        match bar.shown {
            Shown::Root => {}
            Shown::Frame(location) => stack.push(u64::from(location) + 1),
            Shown::Folded => {
                folds = true;
                stack.push(folded);
            }
        }
        if bar.own[0] > 0 {
            let location_id = stack.iter().rev().copied().collect();
            message.sample.push(wire::Sample { location_id, value: vec![bar.own[0]], ..Default::default() });
        }
    });
    if folds {
        let name = strings.number(FOLDED_NAME);
        let function_id = message.function.len() as u64 + 1;
        message.function.push(wire::Function {
            id: function_id,
            name,
            system_name: name,
            ..Default::default()
        });
        let line = vec![wire::Line { function_id, ..Default::default() }];
        message.location.push(wire::Location { id: folded, line, ..Default::default() });
    }
    message.string_table = strings.table;
    message
}

/// The message's strings: those of the tables under their numbers, then what is said beside.
struct Strings {
    table: Vec<String>,
    numbers: HashMap<String, i64, RandomState>,
}

impl Strings {
    fn of(symbols: &Symbols) -> Self {
        let table: Vec<String> = symbols.strings.iter().map(str::to_owned).collect();
        let numbers = table.iter().enumerate().map(|(number, text)| (text.clone(), number as i64)).collect();
        Self { table, numbers }
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

fn mappings(symbols: &Symbols) -> Vec<wire::Mapping> {
    let mut mappings: Vec<wire::Mapping> = symbols
        .mappings
        .iter()
        .enumerate()
        // Number 0 is "not known", which the message says by id 0.
        .skip(1)
        .map(|(number, mapping)| wire::Mapping {
            id: number as u64,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.offset,
            filename: i64::from(mapping.filename),
            build_id: i64::from(mapping.build_id),
            ..Default::default()
        })
        .collect();
    for location in &symbols.locations {
        let lines = symbols.lines(*location);
        if let Some(mapping) = (location.mapping as usize).checked_sub(1).and_then(|at| mappings.get_mut(at))
        {
            mapping.has_functions |= !lines.is_empty();
            mapping.has_line_numbers |= lines.iter().any(|line| line.line != 0);
            mapping.has_inline_frames |= lines.len() > 1;
        }
    }
    mappings
}

fn locations(symbols: &Symbols) -> Vec<wire::Location> {
    let line = |line: &crate::model::Line| wire::Line {
        function_id: u64::from(line.function) + 1,
        line: i64::from(line.line),
        ..Default::default()
    };
    let location = |(number, location): (usize, &crate::model::Location)| wire::Location {
        id: number as u64 + 1,
        mapping_id: u64::from(location.mapping),
        address: location.address,
        line: symbols.lines(*location).iter().map(line).collect(),
        ..Default::default()
    };
    symbols.locations.iter().enumerate().map(location).collect()
}

fn functions(symbols: &Symbols) -> Vec<wire::Function> {
    let function = |(number, function): (usize, &crate::model::Function)| wire::Function {
        id: number as u64 + 1,
        name: i64::from(function.name),
        system_name: i64::from(function.system_name),
        filename: i64::from(function.filename),
        start_line: i64::from(function.start_line),
        ..Default::default()
    };
    symbols.functions.iter().enumerate().map(function).collect()
}
