//! A pprof message becomes profiles of the model.
//!
//! References are checked, then everything is numbered anew, so that only what a sample refers to is kept and equal
//! things are kept once.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1::__buffa::view::{LocationView, ProfileView, SampleView, ValueTypeView};

use super::labels::SeriesLabels;
use super::{Budget, IngestError, Limits};
use crate::model::{
    Function, Line, Mapping, Profile, ProfileId, ProfileType, SpanId, SpanRef, Symbols, SymbolsBuilder,
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// Checks a pprof and turns it into profiles, one for each set of labels that its samples carry.
pub(super) fn normalise(
    pprof: &ProfileView<'_>,
    series: &SeriesLabels,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let strings = Strings::new(pprof)?;
    if pprof.sample.len() > limits.max_samples {
        return Err(IngestError::over("sample", "max_samples", limits.max_samples, pprof.sample.len()));
    }
    let types = types(pprof, &strings, &series.name)?;
    let start_nanos = start_nanos(pprof, limits, received_ms)?;
    let mut tables = Tables::new(pprof, strings, limits)?;
    let mut groups = Groups::default();
    for (at, sample) in pprof.sample.iter().enumerate() {
        if sample.value.len() != types.len() {
            let (want, got) = (types.len(), sample.value.len());
            let message = format!("expected {want} values, one for each sample type, got {got}");
            return Err(IngestError::invalid(format!("sample[{at}].value"), message));
        }
        if sample.label.len() > limits.max_labels_per_sample {
            let (max, got) = (limits.max_labels_per_sample, sample.label.len());
            return Err(IngestError::over(format!("sample[{at}].label"), "max_labels_per_sample", max, got));
        }
        let labels = tables.sample_labels(at, sample, series)?;
        let worthless = sample.value.iter().any(|&v| v < 0) || sample.value.iter().all(|&v| v == 0);
        if worthless {
            continue;
        }
        let stack = tables.stack(sample);
        let group = groups.with_labels(labels.of_series, limits)?;
        group.add(labels.span, stack, &sample.value);
    }

    let symbols = Arc::new(tables.builder.finish());
    budget.take(symbols.heap_bytes())?;
    let profile = |(labels, group): (Vec<(&str, &str)>, Group)| {
        let labels = series.with(&labels, limits)?;
        let header =
            Header { start_nanos, duration_nanos: pprof.duration_nanos.max(0), period: pprof.period.max(0) };
        let profile = group.finish(labels, &types, header, &symbols);
        budget.take(profile.own_bytes())?;
        Ok(profile)
    };
    groups.finish().into_iter().map(profile).collect()
}

fn start_nanos(pprof: &ProfileView<'_>, limits: &Limits, received_ms: i64) -> Result<i64, IngestError> {
    if pprof.time_nanos == 0 {
        return Ok(received_ms.saturating_mul(1_000_000));
    }
    let began_ms = pprof.time_nanos.div_euclid(1_000_000);
    let ahead = began_ms.saturating_sub(received_ms);
    if ahead > limits.max_ahead_ms {
        return Err(IngestError::OverLimit {
            field: format!("time_nanos: {began_ms} ms is in the future, check the clock: milliseconds ahead"),
            limit: "max_ahead_ms",
            max: limits.max_ahead_ms,
            got: ahead,
        });
    }
    match limits.max_age_ms {
        Some(max) if ahead.saturating_neg() > max => Err(IngestError::OverLimit {
            field: format!("time_nanos: {began_ms} ms is too long ago: milliseconds"),
            limit: "max_age_ms",
            max,
            got: ahead.saturating_neg(),
        }),
        _ => Ok(pprof.time_nanos),
    }
}

/// The string table, reached by checked index.
#[derive(Clone, Copy)]
struct Strings<'a>(&'a [&'a str]);

impl<'a> Strings<'a> {
    fn new(pprof: &'a ProfileView<'_>) -> Result<Self, IngestError> {
        match pprof.string_table.first() {
            Some(&"") => Ok(Self(&pprof.string_table)),
            Some(_) => Err(IngestError::invalid("string_table[0]", "must be the empty string")),
            None => {
                Err(IngestError::invalid("string_table", "is empty: its first entry is the empty string"))
            }
        }
    }

    fn get(&self, index: i64, field: impl Fn() -> String) -> Result<&'a str, IngestError> {
        usize::try_from(index).ok().and_then(|index| self.0.get(index).copied()).ok_or_else(|| {
            let entries = self.0.len();
            IngestError::invalid(field(), format!("string {index} is not in the table of {entries} strings"))
        })
    }
}

fn types(
    pprof: &ProfileView<'_>,
    strings: &Strings<'_>,
    name: &str,
) -> Result<Vec<ProfileType>, IngestError> {
    let value_type = |value_type: &ValueTypeView<'_>, field: &str| {
        let kind = strings.get(value_type.r#type, || format!("{field}.type"))?;
        let unit = strings.get(value_type.unit, || format!("{field}.unit"))?;
        if [kind, unit].iter().any(|text| text.contains(':')) || kind.contains('-') {
            let message = format!("expected names without colons and dashes, got {kind:?} in {unit:?}");
            return Err(IngestError::invalid(field, message));
        }
        Ok((kind, unit))
    };
    let (period_type, period_unit) = match pprof.period_type.as_option() {
        Some(period) => value_type(period, "period_type")?,
        None => ("", ""),
    };
    let mut types: Vec<ProfileType> = Vec::with_capacity(pprof.sample_type.len());
    for (at, sample_type) in pprof.sample_type.iter().enumerate() {
        let field = format!("sample_type[{at}]");
        let (sample_type, sample_unit) = value_type(sample_type, &field)?;
        if sample_type.is_empty() {
            return Err(IngestError::invalid(field, "has no type: name what is counted, as cpu"));
        }
        // Wall-clock profilers that also count CPU time do so under the name of their own profile.
        let name = if name == "wall" && sample_type == "cpu" { "process_cpu" } else { name };
        let kind = ProfileType {
            name: name.into(),
            sample_type: sample_type.into(),
            sample_unit: sample_unit.into(),
            period_type: period_type.into(),
            period_unit: period_unit.into(),
        };
        if types.contains(&kind) {
            let message = format!("{sample_type}/{sample_unit} is there twice: send it once");
            return Err(IngestError::invalid(field, message));
        }
        types.push(kind);
    }
    if types.is_empty() {
        return Err(IngestError::invalid("sample_type", "is empty: name at least one, as cpu/nanoseconds"));
    }
    Ok(types)
}

struct SampleLabels<'a> {
    span: SpanRef,
    /// Sorted by name.
    of_series: Vec<(&'a str, &'a str)>,
}

/// Tables of the input by id, and what became of their entries.
struct Tables<'a> {
    strings: Strings<'a>,
    locations: Map<u64, &'a LocationView<'a>>,
    functions: Map<u64, Function>,
    mappings: Map<u64, Mapping>,
    /// Number of each location taken over; none for one that says nothing.
    known: Map<u64, Option<u32>>,
    builder: SymbolsBuilder,
    max_depth: usize,
    max_string: usize,
    stack: Vec<u32>,
    lines: Vec<Line>,
}

impl<'a> Tables<'a> {
    /// Checks that ids are set and unique, and that strings exist. Functions and mappings here have numbers of strings
    /// of the input.
    fn new(pprof: &'a ProfileView<'a>, strings: Strings<'a>, limits: &Limits) -> Result<Self, IngestError> {
        let unique = |field: &str, at: usize, id: u64, fresh: bool| match (id, fresh) {
            (0, _) => Err(IngestError::invalid(format!("{field}[{at}].id"), "is 0: ids begin with 1")),
            (_, false) => {
                Err(IngestError::invalid(format!("{field}[{at}].id"), format!("{id} is there twice")))
            }
            _ => Ok(()),
        };
        let index = |index: i64, field: &str, at: usize, part: &str| -> Result<u32, IngestError> {
            strings.get(index, || format!("{field}[{at}].{part}"))?;
            Ok(u32::try_from(index).expect("a string table has fewer than 2^32 entries"))
        };
        let mut functions = Map::default();
        for (at, function) in pprof.function.iter().enumerate() {
            let checked = Function {
                name: index(function.name, "function", at, "name")?,
                system_name: index(function.system_name, "function", at, "system_name")?,
                filename: index(function.filename, "function", at, "filename")?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
            };
            let fresh = functions.insert(function.id, checked).is_none();
            unique("function", at, function.id, fresh)?;
        }
        let mut mappings = Map::default();
        for (at, mapping) in pprof.mapping.iter().enumerate() {
            let checked = Mapping {
                start: mapping.memory_start,
                limit: mapping.memory_limit,
                offset: mapping.file_offset,
                filename: index(mapping.filename, "mapping", at, "filename")?,
                build_id: index(mapping.build_id, "mapping", at, "build_id")?,
            };
            let fresh = mappings.insert(mapping.id, checked).is_none();
            unique("mapping", at, mapping.id, fresh)?;
        }
        let mut locations = Map::default();
        for (at, location) in pprof.location.iter().enumerate() {
            let fresh = locations.insert(location.id, location).is_none();
            unique("location", at, location.id, fresh)?;
        }
        Ok(Self {
            strings,
            locations,
            functions,
            mappings,
            known: Map::default(),
            builder: SymbolsBuilder::new(),
            max_depth: limits.max_stack_depth,
            max_string: limits.max_string_bytes,
            stack: Vec::new(),
            lines: Vec::new(),
        })
    }

    /// Takes a string over; of one that is too long its end, which tells symbols apart better than their beginning.
    fn string(&mut self, index: u32) -> u32 {
        let text = self.strings.0[index as usize];
        let mut start = text.len().saturating_sub(self.max_string);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        self.builder.string(&text[start..])
    }

    fn location(&mut self, id: u64) -> Option<u32> {
        if let Some(&known) = self.known.get(&id) {
            return known;
        }
        let number = self.locations.get(&id).copied().and_then(|location| self.take_over(location));
        self.known.insert(id, number);
        number
    }

    fn take_over(&mut self, location: &LocationView<'_>) -> Option<u32> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for line in location.line.iter() {
            let Some(&function) = self.functions.get(&line.function_id) else { continue };
            let function = Function {
                name: self.string(function.name),
                system_name: self.string(function.system_name),
                filename: self.string(function.filename),
                start_line: function.start_line,
            };
            let function = self.builder.function(function);
            lines.push(Line { function, line: u32::try_from(line.line).unwrap_or(0) });
        }
        let mapping = self.mappings.get(&location.mapping_id).copied().unwrap_or_default();
        let filename = self.string(mapping.filename);
        let build_id = self.string(mapping.build_id);
        let number = if lines.is_empty() {
            let mapping = self.builder.mapping(Mapping { filename, build_id, ..mapping });
            (location.address != 0).then(|| self.builder.location(mapping, location.address, &[]))
        } else {
            // Addresses differ from process to process; where the functions are known they only keep equal stack traces
            // apart.
            let mapping = self.builder.mapping(Mapping { filename, build_id, ..Mapping::default() });
            Some(self.builder.location(mapping, 0, &lines))
        };
        self.lines = lines;
        number
    }

    fn stack(&mut self, sample: &SampleView<'_>) -> u32 {
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        stack.extend(sample.location_id.iter().filter_map(|&id| self.location(id)));
        // The leaf comes first: what is too deep is cut there.
        let number = self.builder.stack(&stack[stack.len().saturating_sub(self.max_depth)..]);
        self.stack = stack;
        number
    }

    fn sample_labels(
        &mut self,
        at: usize,
        sample: &SampleView<'_>,
        series: &SeriesLabels,
    ) -> Result<SampleLabels<'a>, IngestError> {
        let mut span = SpanRef::default();
        let mut legacy_span_id = None;
        let mut of_series: Vec<(&str, &str)> = Vec::new();
        for label in sample.label.iter() {
            let name = self.strings.get(label.key, || format!("sample[{at}].label.key"))?;
            let text = self.strings.get(label.str, || format!("sample[{at}].label.str"))?;
            self.strings.get(label.num_unit, || format!("sample[{at}].label.num_unit"))?;
            // An id is a number, or 16 hexadecimal characters.
            let id = || if text.is_empty() { SpanId::new(label.num as u64) } else { text.parse().ok() };
            match name {
                "span_id" => span.span_id = text.parse().ok(),
                "profile_id" => legacy_span_id = text.parse().ok(),
                "trace_id" => span.trace_id = text.parse().ok(),
                "parent_span_id" => span.parent = id(),
                "local_root_span_id" => span.local_root = id(),
                "span_name" | "local_root_span_name" => {
                    let index = u32::try_from(label.str).expect("checked above");
                    let number = self.string(index);
                    if name == "span_name" { span.name = number } else { span.local_root_name = number }
                }
                _ if text.is_empty() || name.is_empty() || series.overrides(name) => {}
                _ => of_series.push((name, text)),
            }
        }
        span.span_id = span.span_id.or(legacy_span_id);
        of_series.sort_by_key(|(name, _)| *name);
        of_series.dedup_by_key(|(name, _)| *name);
        Ok(SampleLabels { span, of_series })
    }
}

/// Rows of samples with the same labels.
struct Group {
    spans: Vec<SpanRef>,
    span_numbers: Map<SpanRef, u32>,
    rows: Map<(u32, u32), u32>,
    row_stacks: Vec<u32>,
    row_spans: Vec<u32>,
    /// Row after row.
    values: Vec<i64>,
}

struct Header {
    start_nanos: i64,
    duration_nanos: i64,
    period: i64,
}

impl Group {
    fn new() -> Self {
        Self {
            spans: vec![SpanRef::default()],
            span_numbers: Map::from_iter([(SpanRef::default(), 0)]),
            rows: Map::default(),
            row_stacks: Vec::new(),
            row_spans: Vec::new(),
            values: Vec::new(),
        }
    }

    fn add(&mut self, span: SpanRef, stack: u32, values: &[i64]) {
        let span = match self.span_numbers.get(&span) {
            Some(&number) => number,
            None => {
                let number = self.spans.len() as u32;
                self.spans.push(span.clone());
                self.span_numbers.insert(span, number);
                number
            }
        };
        let next = self.row_stacks.len() as u32;
        let row = *self.rows.entry((span, stack)).or_insert(next);
        if row == next {
            self.row_stacks.push(stack);
            self.row_spans.push(span);
            self.values.extend_from_slice(values);
        } else {
            let sums = &mut self.values[row as usize * values.len()..][..values.len()];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.saturating_add(*value);
            }
        }
    }

    fn finish(
        self,
        labels: crate::model::Labels,
        types: &[ProfileType],
        header: Header,
        symbols: &Arc<Symbols>,
    ) -> Profile {
        let of_column = |column: usize| self.values.iter().skip(column).step_by(types.len()).copied();
        let used: Vec<usize> = (0..types.len()).filter(|&t| of_column(t).any(|value| value != 0)).collect();
        Profile {
            id: ProfileId::random(),
            labels,
            types: used.iter().map(|&t| types[t].clone()).collect(),
            start_nanos: header.start_nanos,
            duration_nanos: header.duration_nanos,
            period: header.period,
            symbols: Arc::clone(symbols),
            values: used.iter().flat_map(|&t| of_column(t)).collect(),
            spans: self.spans,
            row_stacks: self.row_stacks,
            row_spans: self.row_spans,
        }
    }
}

#[derive(Default)]
struct Groups<'a> {
    numbers: Map<Vec<(&'a str, &'a str)>, usize>,
    groups: Vec<Group>,
}

impl<'a> Groups<'a> {
    fn with_labels(
        &mut self,
        labels: Vec<(&'a str, &'a str)>,
        limits: &Limits,
    ) -> Result<&mut Group, IngestError> {
        let next = self.groups.len();
        let number = *self.numbers.entry(labels).or_insert(next);
        if number == next {
            let max = limits.max_series_per_profile;
            if next >= max {
                let field =
                    "sample.label: distinct sets of labels (ids and the like are no labels: drop them)";
                return Err(IngestError::over(field, "max_series_per_profile", max, next + 1));
            }
            self.groups.push(Group::new());
        }
        Ok(&mut self.groups[number])
    }

    /// The groups with their labels, in the order in which they were met.
    fn finish(self) -> Vec<(Vec<(&'a str, &'a str)>, Group)> {
        let mut labels: Vec<_> = self.numbers.into_iter().collect();
        labels.sort_unstable_by_key(|(_, number)| *number);
        labels.into_iter().map(|(labels, _)| labels).zip(self.groups).collect()
    }
}
