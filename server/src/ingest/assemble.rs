//! Samples of any format become profiles of the model.
//!
//! A decoder says what its samples are made of, in the format's own words: frames, labels, values. What those mean is
//! decided here alone, so that the same sample is the same in every format. No format appears here.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::labels::{SeriesLabels, check};
use super::{Budget, IngestError, Limits};
use crate::model::{
    Function, Labels, Line, Mapping, Profile, ProfileId, ProfileType, SpanId, SpanRef, Symbols,
    SymbolsBuilder,
};

type Map<K, V> = HashMap<K, V, RandomState>;

/// A function at a line of its source. What is not known is empty or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Frame<'a> {
    /// Name for people.
    pub(super) name: &'a str,
    /// Name as the linker knows it.
    pub(super) system_name: &'a str,
    /// Source file.
    pub(super) filename: &'a str,
    /// Line at which the function starts.
    pub(super) start_line: u32,
    /// Line that was executed.
    pub(super) line: u32,
}

/// A file mapped into the process. What is not known is empty or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Binary<'a> {
    /// First address.
    pub(super) start: u64,
    /// One past the last address.
    pub(super) limit: u64,
    /// Offset in the file of the first address.
    pub(super) offset: u64,
    /// The file.
    pub(super) filename: &'a str,
    /// Its build id.
    pub(super) build_id: &'a str,
}

/// The value of a sample's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LabelValue<'a> {
    /// Text; empty as if the label were not there.
    Text(&'a str),
    /// A number: it can be an id, and is of no account in any other label.
    Number(i64),
}

/// What is said once for all samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// When profiling began, in Unix nanoseconds.
    pub(super) start_nanos: i64,
    /// How long it lasted, in nanoseconds.
    pub(super) duration_nanos: i64,
    /// The sampling period in the period type's unit, 0 when not told.
    pub(super) period: i64,
}

impl Header {
    /// Checks both ends, the first of which came in this field, against the time of arrival; a start of 0 becomes that time.
    /// Negative durations and periods become 0.
    pub(super) fn check(self, field: &str, limits: &Limits, received_ms: i64) -> Result<Self, IngestError> {
        let start_nanos = match self.start_nanos {
            0 => received_ms.saturating_mul(1_000_000),
            start_nanos => start_nanos,
        };
        let header =
            Self { start_nanos, duration_nanos: self.duration_nanos.max(0), period: self.period.max(0) };
        if start_nanos < 0 {
            let message = format!("{start_nanos} ns is before 1970: send Unix time");
            return Err(IngestError::invalid(field, message));
        }
        let began_ms = start_nanos / 1_000_000;
        let ended_ms = start_nanos.saturating_add(header.duration_nanos) / 1_000_000;
        let ahead = |at_ms: i64, what: &str| match at_ms.saturating_sub(received_ms) {
            ahead if ahead <= limits.max_ahead_ms => Ok(()),
            ahead => Err(IngestError::OverLimit {
                field: format!(
                    "{field}: {what} {at_ms} ms is in the future, check the clock: milliseconds ahead"
                ),
                limit: "max_ahead_ms",
                max: limits.max_ahead_ms,
                got: ahead,
            }),
        };
        ahead(began_ms, "the beginning at")?;
        ahead(ended_ms, "with its duration, the end at")?;
        let age = received_ms.saturating_sub(began_ms);
        match limits.max_age_ms {
            Some(max) if age > max => Err(IngestError::OverLimit {
                field: format!("{field}: {began_ms} ms is too long ago: milliseconds"),
                limit: "max_age_ms",
                max,
                got: age,
            }),
            _ => Ok(header),
        }
    }
}

/// The most types that the samples of one profile may have values of; agents send one to a handful.
const MAX_SAMPLE_TYPES: usize = 64;
/// How often over `max_decoded_bytes` the texts that are looked up may be: a look-up takes time by the text's length,
/// and few bytes of input can name a long text very often.
const LOOK_UPS: usize = 4;

/// The profile types of a profile of this name whose samples have values of these types and units, at a period of this
/// type and unit; both of them empty where none was told.
pub(super) fn profile_types(
    name: &str,
    sample_types: &[(&str, &str)],
    period: (&str, &str),
) -> Result<Vec<ProfileType>, IngestError> {
    let check = |field: &str, (kind, unit): (&str, &str)| {
        if [kind, unit].iter().any(|text| text.contains(':')) || kind.contains('-') {
            let message = format!("expected names without colons and dashes, got {kind:?} in {unit:?}");
            return Err(IngestError::invalid(field, message));
        }
        Ok(())
    };
    check("period_type", period)?;
    if sample_types.len() > MAX_SAMPLE_TYPES {
        let message = format!("expected at most {MAX_SAMPLE_TYPES} types, got {}", sample_types.len());
        return Err(IngestError::invalid("sample_type", message));
    }
    let mut types: Vec<ProfileType> = Vec::with_capacity(sample_types.len());
    for (at, &(sample_type, sample_unit)) in sample_types.iter().enumerate() {
        let field = format!("sample_type[{at}]");
        check(&field, (sample_type, sample_unit))?;
        if sample_type.is_empty() {
            return Err(IngestError::invalid(field, "has no type: name what is counted, as cpu"));
        }
        // Wall-clock profilers that also count CPU time do so under the name of their own profile.
        let name = if name == "wall" && sample_type == "cpu" { "process_cpu" } else { name };
        let kind = ProfileType {
            name: name.into(),
            sample_type: sample_type.into(),
            sample_unit: sample_unit.into(),
            period_type: period.0.into(),
            period_unit: period.1.into(),
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

/// Whether a sample with these values says anything: no value is negative, and not all are 0. Others are dropped; who
/// knows that beforehand need not name their frames.
pub(super) fn counts(values: &[i64]) -> bool {
    values.iter().all(|&value| value >= 0) && values.iter().any(|&value| value != 0)
}

/// What the labels of a sample say, for any number of samples with the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labelled {
    group: usize,
    /// Number of the span in the group.
    span: u32,
}

/// A stack trace that was taken over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stack(u32);

/// Names of labels of samples that become columns and are never labels of a series.
const COLUMNS: [&str; 7] = [
    "local_root_span_id",
    "local_root_span_name",
    "parent_span_id",
    "profile_id",
    "span_id",
    "span_name",
    "trace_id",
];

/// Whether a label says something about the span of a sample.
pub(super) fn is_of_span(label: &str) -> bool {
    COLUMNS.contains(&label)
}

/// Puts together the profiles of one series from samples that all have values of the same types.
pub(super) struct Assembler<'a> {
    series: &'a SeriesLabels,
    types: Vec<ProfileType>,
    header: Header,
    limits: &'a Limits,
    symbols: SymbolsBuilder,
    groups: Groups,
    /// What samples know of their span unless their labels say otherwise.
    span: SpanRef,
    /// Samples seen.
    samples: usize,
    /// Bytes of texts looked up.
    looked_up: usize,
    lines: Vec<Line>,
    path: Vec<u32>,
}

impl<'a> Assembler<'a> {
    /// An assembler of a series whose samples have one value for each of these types.
    pub(super) fn new(
        series: &'a SeriesLabels,
        types: Vec<ProfileType>,
        header: Header,
        limits: &'a Limits,
    ) -> Self {
        Self {
            series,
            types,
            header,
            limits,
            symbols: SymbolsBuilder::new(),
            groups: Groups::default(),
            span: SpanRef::default(),
            samples: 0,
            looked_up: 0,
            lines: Vec::new(),
            path: Vec::new(),
        }
    }

    /// Makes room for tables of about these sizes.
    pub(super) fn reserve(&mut self, strings: usize, functions: usize, locations: usize, stacks: usize) {
        self.symbols.reserve(strings, functions, locations, stacks);
    }

    /// Has every sample know what these labels say of a span, unless its own labels say otherwise.
    pub(super) fn for_all<'l>(&mut self, labels: impl IntoIterator<Item = (&'l str, LabelValue<'l>)>) {
        self.span = self.labels(labels).0;
    }

    /// The number of a location that is this function.
    pub(super) fn frame(&mut self, frame: Frame<'_>) -> u32 {
        self.location(&Binary::default(), 0, &[frame]).expect("a location with a function says something")
    }

    /// The number of a location in a binary, with its functions: several where some were inlined, the innermost first.
    /// None where it has neither functions nor an address: it says nothing and belongs in no stack trace.
    pub(super) fn location(
        &mut self,
        binary: &Binary<'_>,
        address: u64,
        frames: &[Frame<'_>],
    ) -> Option<u32> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        for frame in frames {
            // The next sample is refused for it.
            if self.is_spent() {
                break;
            }
            let name = self.string(frame.name);
            let function = Function {
                name,
                // The same more often than not, which is found out faster than its number.
                system_name: if frame.system_name == frame.name {
                    name
                } else {
                    self.string(frame.system_name)
                },
                filename: self.string(frame.filename),
                start_line: frame.start_line,
            };
            lines.push(Line { function: self.symbols.function(function), line: frame.line });
        }
        let filename = self.string(binary.filename);
        let build_id = self.string(binary.build_id);
        let number = if lines.is_empty() {
            let Binary { start, limit, offset, .. } = *binary;
            let mapping = self.symbols.mapping(Mapping { start, limit, offset, filename, build_id });
            (address != 0).then(|| self.symbols.location(mapping, address, &[]))
        } else {
            // Addresses differ from process to process; where the functions are known they only keep equal stack traces
            // apart.
            let mapping = self.symbols.mapping(Mapping { filename, build_id, ..Mapping::default() });
            Some(self.symbols.location(mapping, 0, &lines))
        };
        self.lines = lines;
        number
    }

    /// Adds a sample: the locations of its stack trace, the leaf first, its labels, and one value for each type.
    ///
    /// Labels `span_id`, `profile_id` (its old name), `trace_id`, `parent_span_id`, `local_root_span_id`, `span_name`
    /// and `local_root_span_name` become columns, and one that is no id is as if it were not there. Other labels with
    /// text become labels of the series unless that has them already.
    ///
    /// # Errors
    /// When there are more samples, sets of labels, or bytes than the limits allow.
    ///
    /// # Panics
    /// When the number of values is not that of the types, or a location is not of this assembler.
    pub(super) fn sample<'l>(
        &mut self,
        stack: &[u32],
        labels: impl IntoIterator<Item = (&'l str, LabelValue<'l>)>,
        values: &[i64],
    ) -> Result<(), IngestError> {
        if !self.takes(values)? {
            return Ok(());
        }
        let labelled = self.labelled(labels)?;
        let stack = self.stack(stack)?;
        self.groups.groups[labelled.group].add(labelled.span, stack.0, values);
        Ok(())
    }

    /// [`Self::sample`] with labels and a stack trace that were looked at already.
    pub(super) fn add(
        &mut self,
        stack: Stack,
        labelled: Labelled,
        values: &[i64],
    ) -> Result<(), IngestError> {
        if self.takes(values)? {
            self.groups.groups[labelled.group].add(labelled.span, stack.0, values);
        }
        Ok(())
    }

    /// What these labels of a sample say; see [`Self::sample`].
    pub(super) fn labelled<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, LabelValue<'l>)>,
    ) -> Result<Labelled, IngestError> {
        let (span, of_series) = self.labels(labels);
        self.check_spent()?;
        // Before they are looked up: that takes time by their length.
        for (name, value) in &of_series {
            check("sample.label", name, value, self.limits)?;
        }
        let group = self.groups.with_labels(&of_series, self.limits)?;
        Ok(Labelled { group, span: self.groups.groups[group].span(span) })
    }

    /// Counts a sample and tells whether it says anything.
    fn takes(&mut self, values: &[i64]) -> Result<bool, IngestError> {
        assert_eq!(values.len(), self.types.len(), "one value for each type");
        self.samples += 1;
        if self.samples > self.limits.max_samples {
            return Err(IngestError::over("sample", "max_samples", self.limits.max_samples, self.samples));
        }
        Ok(counts(values))
    }

    /// The stack trace with these locations, the leaf first, for any number of samples with the same.
    ///
    /// # Errors
    /// When there are more bytes than the limits allow.
    pub(super) fn stack(&mut self, locations: &[u32]) -> Result<Stack, IngestError> {
        self.check_spent()?;
        // The leaf comes first: what is too deep is cut there.
        let kept = &locations[locations.len().saturating_sub(self.limits.max_stack_depth)..];
        let stack = self.symbols.stack(kept);
        // Stack traces that share their frames in the input each have their own here.
        let (max, got) = (self.limits.max_decoded_bytes, self.symbols.bytes());
        if got > max {
            return Err(IngestError::over("stack traces", "max_decoded_bytes", max, got));
        }
        Ok(Stack(stack))
    }

    /// [`Self::sample`] of a stack trace that begins with the root, for decoders that walk a tree. Costs no more than the
    /// frames that are kept, however deep it is.
    pub(super) fn path<'l>(
        &mut self,
        path: &[u32],
        labels: impl IntoIterator<Item = (&'l str, LabelValue<'l>)>,
        values: &[i64],
    ) -> Result<(), IngestError> {
        let mut stack = std::mem::take(&mut self.path);
        stack.clear();
        stack.extend(path.iter().take(self.limits.max_stack_depth).rev());
        let added = self.sample(&stack, labels, values);
        self.path = stack;
        added
    }

    /// The profiles: one for each set of labels that samples had.
    ///
    /// # Errors
    /// When they are more than the budget has left, or their labels more than the limits allow.
    pub(super) fn finish(self, budget: &mut Budget) -> Result<Vec<Profile>, IngestError> {
        let symbols = Arc::new(self.symbols.finish());
        budget.take(symbols.heap_bytes())?;
        let profile = |group: Group| {
            let own: Vec<(&str, &str)> = group.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let labels = self.series.with(&own, self.limits)?;
            let profile = group.finish(labels, &self.types, self.header, &symbols);
            budget.take(profile.own_bytes())?;
            Ok(profile)
        };
        self.groups.groups.into_iter().map(profile).collect()
    }

    fn is_spent(&self) -> bool {
        self.looked_up > self.most_looked_up()
    }

    fn check_spent(&self) -> Result<(), IngestError> {
        if self.is_spent() {
            let (max, got) = (self.most_looked_up(), self.looked_up);
            return Err(IngestError::over("names, each time they are named", "max_decoded_bytes", max, got));
        }
        Ok(())
    }

    fn most_looked_up(&self) -> usize {
        self.limits.max_decoded_bytes.saturating_mul(LOOK_UPS)
    }

    /// Takes a string over; of one that is too long its end, which tells symbols apart better than their beginning.
    fn string(&mut self, text: &str) -> u32 {
        self.looked_up = self.looked_up.saturating_add(text.len().min(self.limits.max_string_bytes));
        let mut start = text.len().saturating_sub(self.limits.max_string_bytes);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        self.symbols.string(&text[start..])
    }

    /// What labels say of the span, and those of the series, sorted by name.
    fn labels<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, LabelValue<'l>)>,
    ) -> (SpanRef, Vec<(&'l str, &'l str)>) {
        let mut span = self.span.clone();
        let (mut span_id, mut legacy_span_id) = (None, None);
        let mut of_series: Vec<(&str, &str)> = Vec::new();
        for (name, value) in labels {
            if self.is_spent() {
                break;
            }
            let text = match value {
                LabelValue::Text(text) => text,
                LabelValue::Number(_) => "",
            };
            // A relative's id is a number, or 16 hexadecimal characters.
            let id = || match value {
                LabelValue::Text(text) => text.parse().ok(),
                LabelValue::Number(number) => SpanId::new(number as u64),
            };
            match name {
                "span_id" => span_id = text.parse().ok(),
                "profile_id" => legacy_span_id = text.parse().ok(),
                "trace_id" => span.trace_id = text.parse().ok().or(span.trace_id),
                "parent_span_id" => span.parent = id().or(span.parent),
                "local_root_span_id" => span.local_root = id().or(span.local_root),
                "span_name" => span.name = self.string(text),
                "local_root_span_name" => span.local_root_name = self.string(text),
                _ if text.is_empty() || name.is_empty() || self.series.overrides(name) => {}
                _ => of_series.push((name, text)),
            }
        }
        span.span_id = span_id.or(legacy_span_id).or(span.span_id);
        of_series.sort_by_key(|(name, _)| *name);
        of_series.dedup_by_key(|(name, _)| *name);
        (span, of_series)
    }
}

/// Rows of samples with the same labels.
struct Group {
    /// Sorted by name.
    labels: Vec<(String, String)>,
    spans: Vec<SpanRef>,
    span_numbers: Map<SpanRef, u32>,
    /// By span and stack trace.
    rows: Map<u64, u32>,
    row_stacks: Vec<u32>,
    row_spans: Vec<u32>,
    /// Row after row.
    values: Vec<i64>,
}

impl Group {
    fn new(labels: &[(&str, &str)]) -> Self {
        Self {
            labels: labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            spans: vec![SpanRef::default()],
            span_numbers: Map::from_iter([(SpanRef::default(), 0)]),
            rows: Map::default(),
            row_stacks: Vec::new(),
            row_spans: Vec::new(),
            values: Vec::new(),
        }
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        self.labels.len() == labels.len()
            && self.labels.iter().zip(labels).all(|(own, other)| own.0 == other.0 && own.1 == other.1)
    }

    /// The number of this span.
    fn span(&mut self, span: SpanRef) -> u32 {
        match self.span_numbers.get(&span) {
            Some(&number) => number,
            None => {
                let number = self.spans.len() as u32;
                self.spans.push(span.clone());
                self.span_numbers.insert(span, number);
                number
            }
        }
    }

    fn add(&mut self, span: u32, stack: u32, values: &[i64]) {
        let next = self.row_stacks.len() as u32;
        let row = *self.rows.entry(u64::from(span) << 32 | u64::from(stack)).or_insert(next);
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
        labels: Labels,
        types: &[ProfileType],
        header: Header,
        symbols: &Arc<Symbols>,
    ) -> Profile {
        let of_column = |column: usize| self.values.chunks_exact(types.len()).map(move |row| row[column]);
        let used: Vec<usize> = (0..types.len()).filter(|&t| of_column(t).any(|value| value != 0)).collect();
        let mut values = Vec::with_capacity(used.len() * self.row_stacks.len());
        used.iter().for_each(|&column| values.extend(of_column(column)));
        Profile {
            id: ProfileId::random(),
            labels,
            types: used.iter().map(|&t| types[t].clone()).collect(),
            start_nanos: header.start_nanos,
            duration_nanos: header.duration_nanos,
            period: header.period,
            symbols: Arc::clone(symbols),
            losses: Vec::new(),
            values,
            spans: self.spans,
            row_stacks: self.row_stacks,
            row_spans: self.row_spans,
        }
    }
}

/// The groups in the order in which they were met.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    numbers: HashTable<usize>,
    hasher: RandomState,
}

impl Groups {
    /// The number of the group with these labels.
    fn with_labels(&mut self, labels: &[(&str, &str)], limits: &Limits) -> Result<usize, IngestError> {
        let Self { groups, numbers, hasher } = self;
        let hash = hasher.hash_one(labels);
        let number = match numbers.find(hash, |&number| groups[number].has(labels)) {
            Some(&number) => number,
            None => {
                let (max, next) = (limits.max_series_per_profile, groups.len());
                if next >= max {
                    let field =
                        "sample.label: distinct sets of labels (ids and the like are no labels: drop them)";
                    return Err(IngestError::over(field, "max_series_per_profile", max, next + 1));
                }
                groups.push(Group::new(labels));
                // Pairs hash alike, whether they own their text or not.
                numbers.insert_unique(hash, next, |&number| hasher.hash_one(&*groups[number].labels));
                next
            }
        };
        Ok(number)
    }
}
