//! A pprof message is taken apart: its references are checked, and what its samples refer to is handed on.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1::__buffa::view::{LocationView, ProfileView, SampleView, ValueTypeView};

use super::assemble::{self, Assembler, Binary, Frame, Header, LabelValue};
use super::labels::SeriesLabels;
use super::{Budget, IngestError, Limits};
use crate::model::{Profile, ProfileType};

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
    let width = types.len();
    let header =
        Header { start_nanos: pprof.time_nanos, duration_nanos: pprof.duration_nanos, period: pprof.period };
    let header = header.check("time_nanos", limits, received_ms)?;
    let mut tables = Tables::new(pprof, strings)?;
    let mut profiles = Assembler::new(series, types, header, limits);
    for (at, sample) in pprof.sample.iter().enumerate() {
        if sample.value.len() != width {
            let message =
                format!("expected {width} values, one for each sample type, got {}", sample.value.len());
            return Err(IngestError::invalid(format!("sample[{at}].value"), message));
        }
        if sample.label.len() > limits.max_labels_per_sample {
            let (max, got) = (limits.max_labels_per_sample, sample.label.len());
            return Err(IngestError::over(format!("sample[{at}].label"), "max_labels_per_sample", max, got));
        }
        tables.read_labels(at, sample)?;
        if assemble::counts(&sample.value) {
            tables.read_stack(sample, &mut profiles);
            profiles.sample(&tables.stack, tables.labels.iter().copied(), &sample.value)?;
        }
    }
    profiles.finish(budget)
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
        Ok((kind, strings.get(value_type.unit, || format!("{field}.unit"))?))
    };
    let period = pprof.period_type.as_option().map(|period| value_type(period, "period_type"));
    let sample_types: Result<Vec<_>, _> = pprof
        .sample_type
        .iter()
        .enumerate()
        .map(|(at, sample_type)| value_type(sample_type, &format!("sample_type[{at}]")))
        .collect();
    assemble::profile_types(name, &sample_types?, period.transpose()?.unwrap_or_default())
}

/// Tables of the input by id, and what is being read from them.
struct Tables<'a> {
    strings: Strings<'a>,
    locations: Map<u64, &'a LocationView<'a>>,
    /// Their lines are those of the locations.
    functions: Map<u64, Frame<'a>>,
    mappings: Map<u64, Binary<'a>>,
    /// Number of each location taken over; none for one that says nothing.
    known: Map<u64, Option<u32>>,
    frames: Vec<Frame<'a>>,
    /// Locations of the sample being read, the leaf first.
    stack: Vec<u32>,
    /// Its labels.
    labels: Vec<(&'a str, LabelValue<'a>)>,
}

impl<'a> Tables<'a> {
    /// Checks that ids are set and unique, and that strings exist.
    fn new(pprof: &'a ProfileView<'a>, strings: Strings<'a>) -> Result<Self, IngestError> {
        let unique = |field: &str, at: usize, id: u64, fresh: bool| match (id, fresh) {
            (0, _) => Err(IngestError::invalid(format!("{field}[{at}].id"), "is 0: ids begin with 1")),
            (_, false) => {
                Err(IngestError::invalid(format!("{field}[{at}].id"), format!("{id} is there twice")))
            }
            _ => Ok(()),
        };
        let text = |index: i64, field: &str, at: usize, part: &str| {
            strings.get(index, || format!("{field}[{at}].{part}"))
        };
        let mut functions = Map::default();
        for (at, function) in pprof.function.iter().enumerate() {
            let checked = Frame {
                name: text(function.name, "function", at, "name")?,
                system_name: text(function.system_name, "function", at, "system_name")?,
                filename: text(function.filename, "function", at, "filename")?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
                line: 0,
            };
            let fresh = functions.insert(function.id, checked).is_none();
            unique("function", at, function.id, fresh)?;
        }
        let mut mappings = Map::default();
        for (at, mapping) in pprof.mapping.iter().enumerate() {
            let checked = Binary {
                start: mapping.memory_start,
                limit: mapping.memory_limit,
                offset: mapping.file_offset,
                filename: text(mapping.filename, "mapping", at, "filename")?,
                build_id: text(mapping.build_id, "mapping", at, "build_id")?,
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
            frames: Vec::new(),
            stack: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// Reads a sample's stack trace. References to nothing are left out.
    fn read_stack(&mut self, sample: &SampleView<'_>, profiles: &mut Assembler<'_>) {
        self.stack.clear();
        for id in sample.location_id.iter() {
            let number = match self.known.get(id) {
                Some(&known) => known,
                None => {
                    let number = self.take_over(*id, profiles);
                    self.known.insert(*id, number);
                    number
                }
            };
            self.stack.extend(number);
        }
    }

    fn take_over(&mut self, id: u64, profiles: &mut Assembler<'_>) -> Option<u32> {
        let location = self.locations.get(&id)?;
        self.frames.clear();
        for line in location.line.iter() {
            let Some(&function) = self.functions.get(&line.function_id) else { continue };
            self.frames.push(Frame { line: u32::try_from(line.line).unwrap_or(0), ..function });
        }
        let binary = self.mappings.get(&location.mapping_id).copied().unwrap_or_default();
        profiles.location(&binary, location.address, &self.frames)
    }

    /// Reads the labels of the sample with this number.
    fn read_labels(&mut self, at: usize, sample: &SampleView<'_>) -> Result<(), IngestError> {
        self.labels.clear();
        for label in sample.label.iter() {
            let name = self.strings.get(label.key, || format!("sample[{at}].label.key"))?;
            let text = self.strings.get(label.str, || format!("sample[{at}].label.str"))?;
            self.strings.get(label.num_unit, || format!("sample[{at}].label.num_unit"))?;
            let value = if text.is_empty() { LabelValue::Number(label.num) } else { LabelValue::Text(text) };
            self.labels.push((name, value));
        }
        Ok(())
    }
}
