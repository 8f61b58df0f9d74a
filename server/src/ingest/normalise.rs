//! A pprof message is taken apart: its references are checked, and what its samples refer to is handed on.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use spanflame_wire::google::v1::__buffa::view::{LocationView, ProfileView, ValueTypeView};

use super::assemble::{self, Assembler, Binary, Frame, Header, LabelValue, Labelled, Stack};
use super::labels::SeriesLabels;
use super::pprof::{self, Pprof, Sample};
use super::{Budget, IngestError, Limits, losses};
use crate::model::{Profile, ProfileType};

const YEAR_1970: std::ops::Range<i64> = 0..365 * 86_400 * 1_000_000_000;

/// How an agent's pprof departs from what the format says. By default it does not.
#[derive(Debug, Default)]
pub(super) struct Dialect<'a> {
    /// When profiling began, in Unix nanoseconds, if the profile names a time in 1970: some agents count otherwise.
    pub(super) start_nanos: Option<i64>,
    /// What becomes of the names of source files.
    pub(super) file_names: FileNames,
    /// Functions have no ids but the order of the locations, and names of types have dashes.
    pub(super) dotnet: bool,
    /// What every sample knows of its span unless its own labels tell.
    pub(super) span: Vec<(&'a str, LabelValue<'a>)>,
}

/// Where a function's source file is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum FileNames {
    /// Apart from its name.
    #[default]
    Apart,
    /// Before its name: names in scripts say little.
    BeforeNames,
    /// Before its name unless the path is absolute.
    BeforeNamesIfRelative,
}

/// Checks a pprof and turns it into profiles, one for each set of labels that its samples carry.
pub(super) fn normalise(
    pprof: &Pprof<'_>,
    series: &SeriesLabels,
    dialect: &Dialect<'_>,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let Pprof { tables: pprof, samples } = pprof;
    let strings = Strings::new(pprof)?;
    if samples.len() > limits.max_samples {
        return Err(IngestError::over("sample", "max_samples", limits.max_samples, samples.len()));
    }
    let types = types(pprof, &strings, &series.name, dialect)?;
    let width = types.len();
    let start_nanos = match dialect.start_nanos {
        Some(start_nanos) if YEAR_1970.contains(&pprof.time_nanos) => start_nanos,
        _ => pprof.time_nanos,
    };
    let header = Header { start_nanos, duration_nanos: pprof.duration_nanos, period: pprof.period };
    let header = header.check("time_nanos", limits, received_ms)?;
    let mut tables = Tables::new(pprof, strings, dialect, limits)?;
    let mut profiles = Assembler::new(series, types, header, limits);
    let (strings, functions) = (pprof.string_table.len(), pprof.function.len());
    profiles.reserve(strings, functions, pprof.location.len(), samples.len());
    profiles.for_all(dialect.span.iter().copied());
    let mut sample = Sample::default();
    for (at, bytes) in samples.iter().enumerate() {
        sample.read(bytes, limits)?;
        let tail = sample.tail;
        let known = tables.known_labels(tail);
        if known.is_none() {
            sample.read_tail(limits)?;
        }
        if sample.values.len() != width {
            let message =
                format!("expected {width} values, one for each sample type, got {}", sample.values.len());
            return Err(IngestError::invalid(format!("sample[{at}].value"), message));
        }
        if sample.labels.len() > limits.max_labels_per_sample {
            let (max, got) = (limits.max_labels_per_sample, sample.labels.len());
            return Err(IngestError::over(format!("sample[{at}].label"), "max_labels_per_sample", max, got));
        }
        if assemble::counts(&sample.values) {
            let labelled = match known {
                Some(known) => known,
                None => tables.labelled(at, tail, &sample, &mut profiles)?,
            };
            let stack = tables.stack(&mut sample, &mut profiles)?;
            profiles.add(stack, labelled, &sample.values)?;
        } else {
            sample.unpack(limits)?;
            tables.read_labels(at, &sample.labels)?;
        }
    }
    let mut profiles = profiles.finish(budget)?;
    if let Some(first) = profiles.first_mut() {
        first.losses = losses::losses(pprof);
    }
    Ok(profiles)
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
    dialect: &Dialect<'_>,
) -> Result<Vec<ProfileType>, IngestError> {
    let value_type = |value_type: &ValueTypeView<'_>, field: &str| {
        let kind = strings.get(value_type.r#type, || format!("{field}.type"))?;
        Ok((kind, strings.get(value_type.unit, || format!("{field}.unit"))?))
    };
    let period = pprof.period_type.as_option().map(|period| value_type(period, "period_type"));
    let sample_types: Result<Vec<_>, IngestError> = pprof
        .sample_type
        .iter()
        .enumerate()
        .map(|(at, sample_type)| value_type(sample_type, &format!("sample_type[{at}]")))
        .collect();
    let (sample_types, period) = (sample_types?, period.transpose()?.unwrap_or_default());
    if !dialect.dotnet {
        return assemble::profile_types(name, &sample_types, period);
    }
    let plain: Vec<_> = sample_types.iter().map(|(kind, unit)| (kind.replace('-', "_"), *unit)).collect();
    let plain: Vec<_> = plain.iter().map(|(kind, unit)| (kind.as_str(), *unit)).collect();
    assemble::profile_types(name, &plain, period)
}

/// A function's name with that of its source file, if it is to be shown.
fn with_file_name(function: &Frame<'_>, file_names: FileNames) -> Option<String> {
    let path = function.filename;
    let drive = path.as_bytes().get(1) == Some(&b':');
    let shown = match file_names {
        FileNames::Apart => false,
        FileNames::BeforeNames => true,
        FileNames::BeforeNamesIfRelative => !path.starts_with(['/', '\\']) && !drive,
    };
    (shown && !path.is_empty()).then(|| format!("{path} {}", function.name))
}

/// What ids stand for. Senders count from 1 as a rule, and then nothing needs to be hashed.
struct ById<T> {
    dense: Vec<Option<T>>,
    sparse: HashMap<u64, T, RandomState>,
}

impl<T> ById<T> {
    /// Room for as many; ids up to twice that are found by counting.
    fn with_room_for(count: usize) -> Self {
        let mut dense = Vec::new();
        dense.resize_with(count * 2, || None);
        Self { dense, sparse: HashMap::default() }
    }

    /// Tells whether the id was not there before.
    fn insert(&mut self, id: u64, value: T) -> bool {
        match self.dense.get_mut(id as usize) {
            Some(place) => place.replace(value).is_none(),
            None => self.sparse.insert(id, value).is_none(),
        }
    }

    fn get(&self, id: u64) -> Option<&T> {
        match self.dense.get(id as usize) {
            Some(place) => place.as_ref(),
            None => self.sparse.get(&id),
        }
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        match self.dense.get_mut(id as usize) {
            Some(place) => place.as_mut(),
            None => self.sparse.get_mut(&id),
        }
    }
}

/// A location of the input.
struct Place<'a> {
    view: &'a LocationView<'a>,
    /// The number that it was taken over under, once it was; none for one that says nothing.
    number: Option<Option<u32>>,
}

/// Tables of the input by id, and what is being read from them.
struct Tables<'a> {
    strings: Strings<'a>,
    locations: ById<Place<'a>>,
    /// Their lines are those of the locations.
    functions: ById<Frame<'a>>,
    mappings: ById<Binary<'a>>,
    /// What labels say, by the bytes of all labels of a sample.
    labelled: HashTable<(&'a [u8], Labelled)>,
    hasher: RandomState,
    limits: &'a Limits,
    file_names: FileNames,
    /// Bytes of names that were put together here.
    named: usize,
    /// Stack traces by the ids of their locations, packed.
    stacks: HashTable<(&'a [u8], Stack)>,
    /// Locations of the sample being read, the leaf first.
    locations_of_stack: Vec<u32>,
    /// Its labels.
    labels: Vec<(&'a str, LabelValue<'a>)>,
}

impl<'a> Tables<'a> {
    /// Checks that ids are set and unique, and that strings exist.
    fn new(
        pprof: &'a ProfileView<'a>,
        strings: Strings<'a>,
        dialect: &Dialect<'_>,
        limits: &'a Limits,
    ) -> Result<Self, IngestError> {
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
        let in_order = dialect.dotnet
            && pprof.function.len() == pprof.location.len()
            && pprof.function.iter().all(|function| function.id == 0);
        let mut functions = ById::with_room_for(pprof.function.len());
        for (at, function) in pprof.function.iter().enumerate() {
            let checked = Frame {
                name: text(function.name, "function", at, "name")?,
                system_name: text(function.system_name, "function", at, "system_name")?,
                filename: text(function.filename, "function", at, "filename")?,
                start_line: u32::try_from(function.start_line).unwrap_or(0),
                line: 0,
            };
            let id = if in_order { pprof.location[at].id } else { function.id };
            let fresh = functions.insert(id, checked);
            unique("function", at, id, fresh)?;
        }
        let mut mappings = ById::with_room_for(pprof.mapping.len());
        for (at, mapping) in pprof.mapping.iter().enumerate() {
            let checked = Binary {
                start: mapping.memory_start,
                limit: mapping.memory_limit,
                offset: mapping.file_offset,
                filename: text(mapping.filename, "mapping", at, "filename")?,
                build_id: text(mapping.build_id, "mapping", at, "build_id")?,
            };
            let fresh = mappings.insert(mapping.id, checked);
            unique("mapping", at, mapping.id, fresh)?;
        }
        let mut locations = ById::with_room_for(pprof.location.len());
        for (at, location) in pprof.location.iter().enumerate() {
            let fresh = locations.insert(location.id, Place { view: location, number: None });
            unique("location", at, location.id, fresh)?;
        }
        Ok(Self {
            strings,
            locations,
            functions,
            mappings,
            labelled: HashTable::new(),
            hasher: RandomState::default(),
            limits,
            file_names: dialect.file_names,
            named: 0,
            stacks: HashTable::new(),
            locations_of_stack: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// A sample's stack trace. References to nothing are left out. Many samples have the same, in the same bytes.
    fn stack(&mut self, sample: &mut Sample<'a>, profiles: &mut Assembler<'_>) -> Result<Stack, IngestError> {
        let packed = sample.packed_ids;
        let hash = self.hasher.hash_one(packed);
        if let Some((_, known)) = self.stacks.find(hash, |(ids, _)| *ids == packed) {
            return Ok(*known);
        }
        sample.unpack(self.limits)?;
        self.locations_of_stack.clear();
        self.locations_of_stack.reserve(sample.location_ids.len());
        for &id in &sample.location_ids {
            let Some(&Place { view, number }) = self.locations.get(id) else { continue };
            let number = match number {
                Some(number) => number,
                None => {
                    let number = self.take_over(view, profiles)?;
                    self.locations.get_mut(id).expect("it is there").number = Some(number);
                    number
                }
            };
            if let Some(number) = number {
                self.locations_of_stack.push(number);
            }
        }
        let stack = profiles.stack(&self.locations_of_stack)?;
        if !packed.is_empty() {
            let Self { stacks, hasher, .. } = self;
            stacks.insert_unique(hash, (packed, stack), |(ids, _)| hasher.hash_one(ids));
        }
        Ok(stack)
    }

    fn take_over(
        &mut self,
        location: &LocationView<'_>,
        profiles: &mut Assembler<'_>,
    ) -> Result<Option<u32>, IngestError> {
        let functions = || location.line.iter().filter_map(|l| Some((l, self.functions.get(l.function_id)?)));
        let names: Vec<Option<String>> = match self.file_names {
            FileNames::Apart => Vec::new(),
            file_names => functions().map(|(_, function)| with_file_name(function, file_names)).collect(),
        };
        // A file of many functions has its name in each of theirs.
        self.named += names.iter().flatten().map(String::len).sum::<usize>();
        let max = self.limits.max_decoded_bytes;
        if self.named > max {
            return Err(IngestError::over("names with their files", "max_decoded_bytes", max, self.named));
        }
        let frames = functions().enumerate().map(|(at, (line, function))| Frame {
            name: names.get(at).and_then(Option::as_deref).unwrap_or(function.name),
            line: u32::try_from(line.line).unwrap_or(0),
            ..*function
        });
        let frames: Vec<Frame<'_>> = frames.collect();
        let binary = self.mappings.get(location.mapping_id).copied().unwrap_or_default();
        Ok(profiles.location(&binary, location.address, &frames))
    }

    /// What the labels say that make up this tail of a sample, if that of another sample was the same. Many are.
    fn known_labels(&self, tail: &[u8]) -> Option<Labelled> {
        let known = self.labelled.find(self.hasher.hash_one(tail), |(known, _)| *known == tail);
        known.map(|(_, labelled)| *labelled)
    }

    /// What the labels say that were read from this tail of the sample with this number.
    fn labelled(
        &mut self,
        at: usize,
        tail: &'a [u8],
        sample: &Sample<'a>,
        profiles: &mut Assembler<'_>,
    ) -> Result<Labelled, IngestError> {
        self.read_labels(at, &sample.labels)?;
        let labelled = profiles.labelled(self.labels.iter().copied())?;
        if !sample.mixed {
            let Self { labelled: known, hasher, .. } = self;
            known.insert_unique(hasher.hash_one(tail), (tail, labelled), |(tail, _)| hasher.hash_one(*tail));
        }
        Ok(labelled)
    }

    /// Reads the labels of the sample with this number.
    fn read_labels(&mut self, at: usize, labels: &[&'a [u8]]) -> Result<(), IngestError> {
        self.labels.clear();
        for bytes in labels {
            let label = pprof::label(bytes, self.limits)?;
            let name = self.strings.get(label.key, || format!("sample[{at}].label.key"))?;
            let text = self.strings.get(label.str, || format!("sample[{at}].label.str"))?;
            self.strings.get(label.num_unit, || format!("sample[{at}].label.num_unit"))?;
            let value = if text.is_empty() { LabelValue::Number(label.num) } else { LabelValue::Text(text) };
            self.labels.push((name, value));
        }
        Ok(())
    }
}
