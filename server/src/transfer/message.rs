//! One stored profile written as a pprof message.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use spanflame_wire::google::v1 as wire;

use crate::ingest::Origin;
use crate::model::{Loss, ProfileType, SpanRef, Symbols};
use crate::store::{Chunk, NO_SPAN, SeriesEntry, Source, StoreError};

type Map<K, V> = HashMap<K, V, RandomState>;

/// The part of a profile that one message can say: columns whose types have a name and a period in common.
pub(super) struct Part {
    /// The profile's name as a sender gives it.
    pub(super) name: String,
    /// Numbers of the columns.
    columns: Vec<usize>,
}

/// The parts of a profile with these columns; one as a rule.
pub(super) fn parts(types: &[ProfileType]) -> Vec<Part> {
    let wall = types.iter().any(|kind| &*kind.name == "wall");
    let mut parts: BTreeMap<(&str, &str, &str), Vec<usize>> = BTreeMap::new();
    for (at, kind) in types.iter().enumerate() {
        // A profile named wall has its CPU time under the name of CPU profiles.
        let of_wall = wall && &*kind.name == "process_cpu" && &*kind.sample_type == "cpu";
        let name = if of_wall { "wall" } else { &kind.name };
        parts.entry((name, &kind.period_type, &kind.period_unit)).or_default().push(at);
    }
    parts.into_iter().map(|((name, ..), columns)| Part { name: name.to_owned(), columns }).collect()
}

/// The message: samples with the ids and names of their spans as labels, and where it comes from as a comment.
pub(super) fn message(
    source: &dyn Source,
    series: &SeriesEntry,
    chunk: &Chunk,
    part: &Part,
    losses: &[Loss],
) -> Result<wire::Profile, StoreError> {
    let mut writer = Writer::default();
    writer.string("");
    let first = &series.types[part.columns[0]];
    let period_type = writer.value_type(&first.period_type, &first.period_unit);
    let of_column = |column: &usize| &series.types[*column];
    let sample_type = part
        .columns
        .iter()
        .map(of_column)
        .map(|kind| writer.value_type(&kind.sample_type, &kind.sample_unit))
        .collect();
    let origin = Origin {
        id: chunk.id.to_string(),
        name: part.name.clone(),
        labels: series.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    let notes = losses.iter().map(|loss| format!("lost.{}={}", loss.cause, loss.samples));
    let comment = std::iter::once(origin.comment()).chain(notes).map(|text| writer.string(&text)).collect();
    writer.message = wire::Profile {
        sample_type,
        period_type: period_type.into(),
        period: chunk.period,
        time_nanos: chunk.start_nanos,
        duration_nanos: chunk.duration_nanos,
        comment,
        ..Default::default()
    };
    writer.samples(source, chunk, &part.columns)?;
    Ok(writer.finish())
}

/// A message in the making, with the ids that the source's entries have in it.
#[derive(Default)]
struct Writer {
    message: wire::Profile,
    table: Vec<String>,
    strings: Map<String, i64>,
    locations: Map<u32, u64>,
    functions: Map<u32, u64>,
    mappings: Map<u32, u64>,
}

impl Writer {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.strings.get(text) {
            return number;
        }
        let number = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> wire::ValueType {
        wire::ValueType { r#type: self.string(kind), unit: self.string(unit), ..Default::default() }
    }

    fn samples(&mut self, source: &dyn Source, chunk: &Chunk, columns: &[usize]) -> Result<(), StoreError> {
        let mut distinct: Vec<u32> = chunk.stacks.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut stacks: Vec<Vec<u64>> = Vec::with_capacity(distinct.len());
        source.stacks(&distinct, &mut |_, symbols, stack| {
            stacks.push(stack.iter().map(|&location| self.location(symbols, location)).collect());
        })?;
        let known: Vec<u32> = chunk.runs.iter().map(|run| run.entry).filter(|n| *n != NO_SPAN).collect();
        let mut spans = source.entries(&known)?.into_iter();
        for (number, run) in chunk.runs.iter().enumerate() {
            let span = if run.entry == NO_SPAN { None } else { spans.next() };
            let label = match span {
                Some(entry) => self.labels(source, &entry.span)?,
                None => Vec::new(),
            };
            for row in chunk.rows(number) {
                let stack = distinct.binary_search(&chunk.stacks[row]).expect("all stack traces are there");
                let value = columns.iter().map(|&column| chunk.column(column)[row]).collect();
                let location_id = stacks[stack].clone();
                let label = label.clone();
                self.message.sample.push(wire::Sample { location_id, value, label, ..Default::default() });
            }
        }
        Ok(())
    }

    /// What is known of a span, as the bridge says it: its relatives' ids are numbers.
    fn labels(&mut self, source: &dyn Source, span: &SpanRef) -> Result<Vec<wire::Label>, StoreError> {
        let mut texts: Vec<(&str, String)> = Vec::new();
        texts.extend(span.span_id.map(|id| ("span_id", id.to_string())));
        texts.extend(span.trace_id.map(|id| ("trace_id", id.to_string())));
        for (key, name) in [("span_name", span.name), ("local_root_span_name", span.local_root_name)] {
            if name != 0 {
                texts.push((key, source.string(name)?));
            }
        }
        let mut labels: Vec<wire::Label> = texts
            .iter()
            .map(|(key, text)| wire::Label {
                key: self.string(key),
                str: self.string(text),
                ..Default::default()
            })
            .collect();
        for (key, id) in [("parent_span_id", span.parent), ("local_root_span_id", span.local_root)] {
            labels.extend(id.map(|id| wire::Label {
                key: self.string(key),
                num: id.get().cast_signed(),
                ..Default::default()
            }));
        }
        Ok(labels)
    }

    /// The message's id of a location, which is added with all it refers to.
    fn location(&mut self, symbols: &Symbols, number: u32) -> u64 {
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
            let mapping = &mut self.message.mapping[at as usize];
            mapping.has_functions |= !lines.is_empty();
            mapping.has_line_numbers |= lines.iter().any(|line| line.line != 0);
            mapping.has_inline_frames |= lines.len() > 1;
        }
        let id = self.message.location.len() as u64 + 1;
        let address = location.address;
        self.message.location.push(wire::Location {
            id,
            mapping_id,
            address,
            line: lines,
            ..Default::default()
        });
        self.locations.insert(number, id);
        id
    }

    fn function(&mut self, symbols: &Symbols, number: u32) -> u64 {
        if let Some(&id) = self.functions.get(&number) {
            return id;
        }
        let function = symbols.function(number);
        let id = self.message.function.len() as u64 + 1;
        let written = wire::Function {
            id,
            name: self.string(symbols.string(function.name)),
            system_name: self.string(symbols.string(function.system_name)),
            filename: self.string(symbols.string(function.filename)),
            start_line: i64::from(function.start_line),
            ..Default::default()
        };
        self.message.function.push(written);
        self.functions.insert(number, id);
        id
    }

    fn mapping(&mut self, symbols: &Symbols, number: u32) -> u64 {
        if let Some(&id) = self.mappings.get(&number) {
            return id;
        }
        let mapping = symbols.mapping(number);
        let id = self.message.mapping.len() as u64 + 1;
        let written = wire::Mapping {
            id,
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.offset,
            filename: self.string(symbols.string(mapping.filename)),
            build_id: self.string(symbols.string(mapping.build_id)),
            ..Default::default()
        };
        self.message.mapping.push(written);
        self.mappings.insert(number, id);
        id
    }

    fn finish(mut self) -> wire::Profile {
        self.message.string_table = self.table;
        self.message
    }
}
