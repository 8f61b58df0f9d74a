//! From a window to pprof: one profile, or several where a server's limits ask for it. Knows no clock, no network
//! and no file; the same window always gives the same bytes.

mod messages;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(any(feature = "pyroscope", test))]
use std::time::SystemTime;
use std::time::{Duration, UNIX_EPOCH};

use hashbrown::DefaultHashBuilder;
use prost::Message;

use self::messages as pb;
#[cfg(any(feature = "pyroscope", test))]
use crate::aggregate::Rows;
use crate::aggregate::{Row, Span, Window};
use crate::symbolize::{self, Function, Location, Symbolizer, lookup_address};

/// What one profile may hold. Pyroscope refuses more than 16,000 samples or 4 MiB, and by default never lets a
/// profile of more than 2 MB pass its rate limiter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) samples: usize,
    /// Uncompressed.
    pub(crate) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { samples: 15_000, bytes: 1_900_000 }
    }
}

/// Which labels samples get besides `span_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SampleLabels {
    pub(crate) trace_id: bool,
    /// Parent and local root as numbers, for a server that adds children up into their parents.
    pub(crate) relations: bool,
    /// The local root's name, which names a root that never had the CPU itself. It is text, so a server that knows
    /// nothing of it would make a series of each name.
    pub(crate) root_names: bool,
}

/// An encoded profile, uncompressed.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Samples taken that it holds.
    pub(crate) samples: u64,
}

/// Encodes a window, whose addresses have been looked up. Facts that only symbols tell come as `notes`, beside the
/// window's own. Of a window in several parts, what counts something (`lost.ring_full=2`) is told in the first alone, so that
/// the parts add up; what describes it (`frequency=100`), in each.
pub(crate) fn encode(
    window: &Window,
    symbols: &Symbols,
    labels: SampleLabels,
    notes: &[String],
    limits: Limits,
) -> Vec<Encoded> {
    let mut encoded = Vec::new();
    let notes = || window.notes.iter().chain(notes);
    let part = || Builder::new(window, symbols, labels, notes().filter(|note| !counts(note)));
    let mut profile = Builder::new(window, symbols, labels, notes());
    for row in window.rows.iter() {
        profile.add(&row);
        if profile.rows() >= limits.samples || profile.estimate >= limits.bytes {
            encoded.push(std::mem::replace(&mut profile, part()).finish());
        }
    }
    if profile.rows() > 0 {
        encoded.push(profile.finish());
    }
    encoded
}

/// Whether a note counts something: those have a group and a cause for a name.
fn counts(note: &str) -> bool {
    note.split_once('=').is_some_and(|(name, _)| name.contains('.'))
}

/// A profile of no time at all, without a single sample.
#[cfg(any(feature = "pyroscope", test))]
pub(crate) fn encode_empty(at: SystemTime) -> Vec<u8> {
    let window = Window {
        start: at,
        duration: Duration::ZERO,
        period: Duration::from_millis(10),
        modules: Arc::from([]),
        rows: Rows::default(),
        notes: Vec::new(),
    };
    let symbols = Symbols { locations: HashMap::default() };
    Builder::new(&window, &symbols, SampleLabels::default(), std::iter::empty()).finish().bytes
}

/// Every address of a window, looked up.
pub(crate) struct Symbols {
    locations: HashMap<u64, Location, DefaultHashBuilder>,
}

impl Symbols {
    pub(crate) fn look_up(window: &Window, symbolizer: &mut Symbolizer) -> Self {
        let mut addresses: Vec<u64> = window
            .rows
            .stacks()
            .flat_map(|stack| stack.iter().enumerate().map(|(depth, frame)| lookup_address(*frame, depth)))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let found = symbolizer.symbolize(&window.modules, &addresses);
        Self { locations: addresses.into_iter().zip(found).collect() }
    }

    /// The functions of a stack, innermost first, inlined ones included.
    pub(crate) fn functions<'a>(
        &'a self,
        frames: &'a [u64],
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Function>> + Clone {
        let location = |(depth, frame): (usize, &u64)| self.locations.get(&lookup_address(*frame, depth));
        let lines = frames.iter().enumerate().filter_map(location).flat_map(|location| location.lines.iter());
        lines.map(|line| &line.function)
    }
}

/// A profile being put together. Ids are positions plus one, as zero means none.
struct Builder<'a> {
    window: &'a Window,
    symbols: &'a Symbols,
    labels: SampleLabels,
    profile: pb::Profile,
    strings: HashMap<Arc<str>, i64, DefaultHashBuilder>,
    locations: HashMap<u64, u64, DefaultHashBuilder>,
    functions: HashMap<Arc<Function>, u64, DefaultHashBuilder>,
    mappings: HashMap<usize, u64, DefaultHashBuilder>,
    /// Never less than the encoded size.
    estimate: usize,
    samples: u64,
}

impl<'a> Builder<'a> {
    fn new<'n>(
        window: &'a Window,
        symbols: &'a Symbols,
        labels: SampleLabels,
        notes: impl Iterator<Item = &'n String>,
    ) -> Self {
        let mut builder = Self {
            window,
            symbols,
            labels,
            profile: pb::Profile::default(),
            strings: HashMap::default(),
            locations: HashMap::default(),
            functions: HashMap::default(),
            mappings: HashMap::default(),
            estimate: 128,
            samples: 0,
        };
        builder.string("");
        let (samples, count) = (builder.string("samples"), builder.string("count"));
        let (cpu, nanoseconds) = (builder.string("cpu"), builder.string("nanoseconds"));
        let start = window.start.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let cpu_time = pb::ValueType { kind: cpu, unit: nanoseconds };
        builder.profile.sample_type = vec![pb::ValueType { kind: samples, unit: count }, cpu_time];
        builder.profile.period_type = Some(cpu_time);
        builder.profile.default_sample_type = cpu;
        builder.profile.time_nanos = nanos(start);
        builder.profile.duration_nanos = nanos(window.duration);
        builder.profile.period = nanos(window.period);
        // Whoever looks for a module's debug information starts from the first mapping: the executable.
        if !window.modules.is_empty() {
            builder.mapping(0);
        }
        for note in notes {
            let note = builder.string(note);
            builder.profile.comment.push(note);
            builder.estimate += 10;
        }
        builder
    }

    fn rows(&self) -> usize {
        self.profile.sample.len()
    }

    fn add(&mut self, row: &Row<'_>) {
        let location_id: Vec<u64> = row
            .frames
            .iter()
            .enumerate()
            .map(|(depth, frame)| self.location(lookup_address(*frame, depth)))
            .collect();
        let label = row.span.map(|span| self.span_labels(span)).unwrap_or_default();
        let cpu = self.window.period.as_nanos().saturating_mul(u128::from(row.weight));
        // Varints of ids that this profile's own size bounds, and two counts.
        self.estimate += 48 + 4 * location_id.len() + 24 * label.len();
        self.samples += row.samples;
        self.profile.sample.push(pb::Sample {
            location_id,
            value: vec![
                i64::try_from(row.samples).unwrap_or(i64::MAX),
                i64::try_from(cpu).unwrap_or(i64::MAX),
            ],
            label,
        });
    }

    fn span_labels(&mut self, span: &Span) -> Vec<pb::Label> {
        let Span { label: span, texts, root_name } = span;
        let mut labels = Vec::with_capacity(6 + texts.labels.len());
        let digits = span.span_id.hex();
        labels
            .push(self.text_label("span_id", str::from_utf8(&digits).expect("hexadecimal digits are ASCII")));
        if self.labels.trace_id {
            let digits = span.trace_id.hex();
            labels.push(
                self.text_label("trace_id", str::from_utf8(&digits).expect("hexadecimal digits are ASCII")),
            );
        }
        if !texts.name.is_empty() {
            labels.push(self.text_label("span_name", &texts.name));
        }
        labels.extend(texts.labels.iter().map(|(label, value)| self.text_label(label, value)));
        if self.labels.relations {
            if span.parent.0 != 0 {
                labels.push(self.number_label("parent_span_id", span.parent.0));
            }
            labels.push(self.number_label("local_root_span_id", span.local_root.0));
        }
        if self.labels.root_names && span.local_root != span.span_id && !root_name.is_empty() {
            labels.push(self.text_label("local_root_span_name", root_name));
        }
        labels
    }

    fn text_label(&mut self, key: &str, value: &str) -> pb::Label {
        pb::Label { key: self.string(key), str: self.string(value), num: 0 }
    }

    /// The id's bits as a signed number, which is all that pprof has.
    fn number_label(&mut self, key: &str, value: u64) -> pb::Label {
        pb::Label { key: self.string(key), str: 0, num: value.cast_signed() }
    }

    fn location(&mut self, address: u64) -> u64 {
        if let Some(id) = self.locations.get(&address) {
            return *id;
        }
        let Location { module, lines, named } = &self.symbols.locations[&address];
        let mapping_id = module.map_or(0, |index| self.mapping(index));
        let line: Vec<pb::Line> = lines
            .iter()
            .map(|line| pb::Line { function_id: self.function(&line.function), line: i64::from(line.line) })
            .collect();
        if let Some(mapping) = mapping_id.checked_sub(1).map(|i| &mut self.profile.mapping[i as usize]) {
            mapping.has_functions |= named;
            mapping.has_filenames |= lines.iter().any(|line| !line.function.file.is_empty());
            mapping.has_line_numbers |= lines.iter().any(|line| line.line != 0);
            mapping.has_inline_frames |= lines.len() > 1;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.estimate += 24 + 16 * line.len();
        self.profile.location.push(pb::Location { id, mapping_id, address, line });
        self.locations.insert(address, id);
        id
    }

    fn function(&mut self, function: &Arc<symbolize::Function>) -> u64 {
        if let Some(id) = self.functions.get(function) {
            return *id;
        }
        let id = self.profile.function.len() as u64 + 1;
        let name = self.string(&function.name);
        let filename = self.string(&function.file);
        self.estimate += 24;
        self.profile.function.push(pb::Function { id, name, system_name: name, filename });
        self.functions.insert(function.clone(), id);
        id
    }

    fn mapping(&mut self, index: usize) -> u64 {
        if let Some(id) = self.mappings.get(&index) {
            return *id;
        }
        let window = self.window;
        let module = &window.modules[index];
        let filename = self.string(&module.path.to_string_lossy());
        let build_id: String = module.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let build_id = self.string(&build_id);
        let id = self.profile.mapping.len() as u64 + 1;
        self.estimate += 64;
        self.profile.mapping.push(pb::Mapping {
            id,
            memory_start: module.start,
            memory_limit: module.end,
            file_offset: module.file_offset,
            filename,
            build_id,
            ..pb::Mapping::default()
        });
        self.mappings.insert(index, id);
        id
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(index) = self.strings.get(text) {
            return *index;
        }
        let index = self.profile.string_table.len() as i64;
        self.estimate += text.len() + 6;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(Arc::from(text), index);
        index
    }

    fn finish(self) -> Encoded {
        let bytes = self.profile.encode_to_vec();
        debug_assert!(bytes.len() <= self.estimate, "{} bytes, estimated {}", bytes.len(), self.estimate);
        Encoded { bytes, samples: self.samples }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
