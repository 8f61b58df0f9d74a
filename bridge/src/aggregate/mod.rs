//! Adds samples up: equal stacks in the same span become one row of a window. Addresses stay addresses here; no
//! symbols, no clock, no thread. What does not fit in a window's bounds is counted, never kept.

pub(crate) mod collector;
#[cfg(test)]
mod tests;
mod texts;
mod times;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::sampler::Module;
use crate::spans::{LabelSetId, SpanId, SpanRecord, TraceId};
pub(crate) use texts::{Editor, Folds, Texts};

/// Bounds of one window: about 15 MB when all are met, and its texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Return addresses of all distinct stacks together.
    pub(crate) frames: usize,
    /// Distinct (stack, span) rows.
    pub(crate) rows: usize,
    /// Distinct spans.
    pub(crate) spans: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frames: 1 << 20, rows: 1 << 16, spans: 1 << 15 }
    }
}

/// The span that a sample counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SpanLabel {
    pub(crate) span_id: SpanId,
    pub(crate) trace_id: TraceId,
    /// Zero when unknown or none.
    pub(crate) parent: SpanId,
    pub(crate) local_root: SpanId,
    /// What the sample says in words.
    pub(crate) labels: LabelSetId,
    /// What is said of the local root.
    pub(crate) root_labels: LabelSetId,
}

impl From<&SpanRecord> for SpanLabel {
    /// The span itself if it carries `pyroscope.profile.id`, else its local root, which does.
    fn from(record: &SpanRecord) -> Self {
        let SpanRecord { span_id, parent, local_root, trace_id, labels, root_labels, tagged } = *record;
        let (span_id, parent) = if tagged { (span_id, parent) } else { (local_root, SpanId(0)) };
        Self { span_id, trace_id, parent, local_root, labels, root_labels }
    }
}

/// A span of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) label: SpanLabel,
    pub(crate) texts: Texts,
    /// The local root's name, empty for none.
    pub(crate) root_name: Arc<str>,
}

/// One row: how often a stack was seen in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// Innermost first: an exact program counter, then return addresses.
    pub(crate) frames: &'a [u64],
    pub(crate) span: Option<&'a Span>,
    /// Samples taken.
    pub(crate) samples: u64,
    /// Sampling periods that they stand for.
    pub(crate) weight: u64,
}

/// What was sampled from one moment to another.
pub(crate) struct Window {
    pub(crate) start: SystemTime,
    /// By the monotonic clock: the wall clock may be set meanwhile.
    pub(crate) duration: Duration,
    /// CPU time that one unit of weight stands for.
    pub(crate) period: Duration,
    pub(crate) modules: Arc<[Module]>,
    pub(crate) rows: Rows,
    /// Facts about the sampling, told in the profile's comments.
    pub(crate) notes: Vec<String>,
}

/// Samples added up.
#[derive(Default)]
pub(crate) struct Rows {
    frames: Vec<u64>,
    stacks: Vec<Stack>,
    spans: Vec<Span>,
    rows: Vec<RowData>,
    samples: u64,
}

#[derive(Clone, Copy)]
struct Stack {
    first: u32,
    depth: u32,
}

struct RowData {
    stack: u32,
    /// Index of the span plus one; zero for none.
    span: u32,
    samples: u64,
    weight: u64,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Samples in all rows.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.frames)
            + size_of_val(&*self.stacks)
            + size_of_val(&*self.spans)
            + size_of_val(&*self.rows)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|row| Row {
            frames: self.stack(row.stack),
            span: row.span.checked_sub(1).map(|index| &self.spans[index as usize]),
            samples: row.samples,
            weight: row.weight,
        })
    }

    /// Every distinct stack once.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = &[u64]> {
        (0..self.stacks.len() as u32).map(|index| self.stack(index))
    }

    fn stack(&self, index: u32) -> &[u64] {
        let Stack { first, depth } = self.stacks[index as usize];
        &self.frames[first as usize..(first + depth) as usize]
    }
}

/// What of a sample had room in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Whole,
    /// All but its span.
    WithoutSpan,
    Nothing,
}

/// The window being filled.
pub(crate) struct Aggregator {
    limits: Limits,
    editor: Editor,
    hasher: DefaultHashBuilder,
    contents: Rows,
    stack_index: HashTable<u32>,
    span_index: HashMap<SpanLabel, u32, DefaultHashBuilder>,
    row_index: HashMap<(u32, u32), u32, DefaultHashBuilder>,
}

impl Aggregator {
    pub(crate) fn new(limits: Limits, editor: Editor) -> Self {
        Self {
            limits,
            editor,
            hasher: DefaultHashBuilder::default(),
            contents: Rows::default(),
            stack_index: HashTable::new(),
            span_index: HashMap::default(),
            row_index: HashMap::default(),
        }
    }

    /// Adds one sample. A window that knows as many spans as it may still counts the CPU time of a further one's
    /// samples, in no span.
    pub(crate) fn add(&mut self, frames: &[u64], span: Option<SpanLabel>, weight: u32) -> Added {
        let (span, added) = match self.intern_span(span) {
            Some(span) => (span, Added::Whole),
            None => (0, Added::WithoutSpan),
        };
        let Some(stack) = self.intern_stack(frames) else { return Added::Nothing };
        let row = match self.row_index.get(&(stack, span)) {
            Some(row) => *row,
            None if self.contents.rows.len() >= self.limits.rows => return Added::Nothing,
            None => {
                let row = self.contents.rows.len() as u32;
                self.contents.rows.push(RowData { stack, span, samples: 0, weight: 0 });
                self.row_index.insert((stack, span), row);
                row
            }
        };
        let row = &mut self.contents.rows[row as usize];
        row.samples += 1;
        row.weight += u64::from(weight);
        self.contents.samples += 1;
        added
    }

    /// Memory that the window takes.
    pub(crate) fn bytes(&self) -> usize {
        self.contents.bytes()
    }

    fn intern_span(&mut self, span: Option<SpanLabel>) -> Option<u32> {
        let Some(span) = span else { return Some(0) };
        if let Some(number) = self.span_index.get(&span) {
            return Some(*number);
        }
        if self.contents.spans.len() >= self.limits.spans {
            return None;
        }
        let (texts, root_name) = (self.editor.texts(span.labels), self.editor.name(span.root_labels));
        self.contents.spans.push(Span { label: span, texts, root_name });
        let number = self.contents.spans.len() as u32;
        self.span_index.insert(span, number);
        Some(number)
    }

    fn intern_stack(&mut self, frames: &[u64]) -> Option<u32> {
        let hash = self.hasher.hash_one(frames);
        if let Some(index) = self.stack_index.find(hash, |index| self.contents.stack(*index) == frames) {
            return Some(*index);
        }
        if self.contents.frames.len() + frames.len() > self.limits.frames {
            return None;
        }
        let index = self.contents.stacks.len() as u32;
        self.contents
            .stacks
            .push(Stack { first: self.contents.frames.len() as u32, depth: frames.len() as u32 });
        self.contents.frames.extend_from_slice(frames);
        let (contents, hasher) = (&self.contents, &self.hasher);
        self.stack_index.insert_unique(hash, index, |index| hasher.hash_one(contents.stack(*index)));
        Some(index)
    }

    /// Texts that had to be replaced, since the beginning.
    pub(crate) fn folds(&self) -> Folds {
        self.editor.folds()
    }

    /// Ends the window: hands over what it holds and starts an empty one.
    pub(crate) fn take(&mut self) -> Rows {
        self.editor.begin();
        self.stack_index.clear();
        self.span_index.clear();
        self.row_index.clear();
        std::mem::take(&mut self.contents)
    }
}
