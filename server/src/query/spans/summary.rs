//! What is known of one span.

use std::collections::BTreeMap;

use super::tree::{SpanTree, Told, TreeSpan};
use super::{Engine, Part, QueryError, SpanFilter, TypeTotal, TypeTotals, services, widened};
use crate::model::{Labels, SpanId, TimeRange, TraceId};
use crate::store::{SpanEntry, SpanLookup};

/// What is known of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSummary {
    /// Its id.
    pub span_id: SpanId,
    /// Its trace.
    pub trace_id: Option<TraceId>,
    /// Its parent.
    pub parent: Option<SpanId>,
    /// The first span of its trace in its process.
    pub local_root: Option<SpanId>,
    /// Its name: from its own samples, or where it has none from those that it is the local root of.
    pub name: Option<String>,
    /// Labels of the series with most of its own samples, or where it has none of its descendants'.
    pub labels: Labels,
    /// The series that its samples and its descendants' are in, the one with most CPU time first.
    pub series: Vec<SpanSeries>,
    /// The time that the profiles with its samples cover.
    pub range: TimeRange,
    /// Totals of it and its descendants, by profile type.
    pub types: Vec<TypeTotal>,
    /// Samples in it and its descendants.
    pub samples: u64,
    /// CPU time of it and its descendants, in nanoseconds.
    pub cpu_nanos: i64,
    /// Samples in itself.
    pub own_samples: u64,
    /// CPU time of itself, in nanoseconds.
    pub own_cpu_nanos: i64,
    /// The spans directly below it in which, or below which, there are samples, the heaviest first. Those of other
    /// processes are among them, though its own totals are without theirs.
    pub children: Vec<TreeSpan>,
}

/// A series that samples of a span are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSeries {
    /// Its labels.
    pub labels: Labels,
    /// The time that its profiles with those samples cover.
    pub range: TimeRange,
    /// The samples.
    pub samples: u64,
    /// Their CPU time, in nanoseconds.
    pub cpu_nanos: i64,
}

impl SpanSummary {
    /// The services that its samples and its descendants' are of, sorted.
    pub fn services(&self) -> Vec<String> {
        services(self.series.iter().map(|series| series.labels.service()))
    }
}

impl Part<'_> {
    /// Takes this part's spans into a tree.
    pub(super) fn add_to(&mut self, tree: &mut SpanTree) -> Result<(), QueryError> {
        let Self { entries, series, names, .. } = self;
        for entry in entries.iter() {
            let (Some(span_id), Some(series)) = (entry.span.span_id, series.get(&entry.series)) else {
                continue;
            };
            let name = names.get(entry.span.name)?.map(str::to_owned);
            tree.add(&Told {
                span_id,
                parent: entry.span.parent,
                local_root: entry.span.local_root,
                name: name.as_deref(),
                local_root_name: names.get(entry.span.local_root_name)?,
                service: series.labels.service(),
                samples: entry.samples,
                cpu_nanos: entry.cpu_nanos,
                range: entry.range,
            });
        }
        Ok(())
    }
}

/// A summary in the making: what the entries of a span and its descendants tell.
#[derive(Default)]
struct Summing {
    trace_id: Option<TraceId>,
    parent: Option<SpanId>,
    local_root: Option<SpanId>,
    name: Option<String>,
    name_as_root: Option<String>,
    range: Option<TimeRange>,
    all: Sum,
    own: Sum,
    /// By labels, with the samples of the span itself.
    series: BTreeMap<Labels, (SpanSeries, u64)>,
}

#[derive(Default)]
struct Sum {
    samples: u64,
    cpu_nanos: i64,
}

impl Sum {
    fn add(&mut self, entry: &SpanEntry) {
        self.samples = self.samples.saturating_add(entry.samples);
        self.cpu_nanos = self.cpu_nanos.saturating_add(entry.cpu_nanos);
    }
}

impl Summing {
    fn add(&mut self, id: SpanId, part: &mut Part<'_>) -> Result<(), QueryError> {
        for entry in &part.entries {
            let Some(series) = part.series.get(&entry.series) else { continue };
            let own = entry.span.span_id == Some(id);
            self.all.add(entry);
            self.range = widened(self.range, entry.range);
            self.trace_id = self.trace_id.or(entry.span.trace_id);
            if own || entry.span.local_root == Some(id) {
                self.local_root = self.local_root.or(entry.span.local_root);
            }
            if entry.span.local_root == Some(id) && self.name_as_root.is_none() {
                self.name_as_root = part.names.get(entry.span.local_root_name)?.map(str::to_owned);
            }
            if own {
                self.own.add(entry);
                self.parent = self.parent.or(entry.span.parent);
                if self.name.is_none() {
                    self.name = part.names.get(entry.span.name)?.map(str::to_owned);
                }
            }
            let (sum, of_itself) = self.series.entry(series.labels.clone()).or_insert_with(|| {
                let labels = series.labels.clone();
                (SpanSeries { labels, range: entry.range, samples: 0, cpu_nanos: 0 }, 0)
            });
            sum.range = sum.range.union(entry.range);
            sum.samples = sum.samples.saturating_add(entry.samples);
            sum.cpu_nanos = sum.cpu_nanos.saturating_add(entry.cpu_nanos);
            *of_itself = of_itself.saturating_add(if own { entry.samples.max(1) } else { 0 });
        }
        Ok(())
    }
}

impl Engine {
    /// What is known of a span, none if neither it nor a descendant has samples.
    pub fn span(&self, id: SpanId) -> Result<Option<SpanSummary>, QueryError> {
        let sources = self.sources();
        let mut sums = Summing::default();
        let mut types = TypeTotals::default();
        let mut tree = SpanTree::default();
        for mut part in Part::all(self, &sources, &SpanFilter::spans([id]))? {
            sums.add(id, &mut part)?;
            part.add_types(&mut types)?;
            part.add_to(&mut tree)?;
        }
        let Some(range) = sums.range else { return Ok(None) };
        // Children that are first in another process are no part of its totals, and so not of its family either.
        let mut elsewhere = Vec::new();
        for source in &sources {
            source.spans(SpanLookup::Children(id), &mut |entry| {
                elsewhere.extend(entry.span.span_id.filter(|_| entry.span.local_root == entry.span.span_id));
            })?;
        }
        elsewhere.retain(|&child| child != id);
        if !elsewhere.is_empty() {
            for mut part in Part::all(self, &sources, &SpanFilter::spans(elsewhere))? {
                part.add_to(&mut tree)?;
            }
        }
        let mut series: Vec<(SpanSeries, u64)> = sums.series.into_values().collect();
        series.sort_by_key(|(series, _)| std::cmp::Reverse((series.cpu_nanos, series.samples)));
        // The last of equals, from the end, is the first.
        let most = series.iter().rev().max_by_key(|(series, own)| (*own, series.cpu_nanos, series.samples));
        Ok(Some(SpanSummary {
            span_id: id,
            trace_id: sums.trace_id,
            parent: sums.parent,
            local_root: sums.local_root,
            name: sums.name.or(sums.name_as_root),
            labels: most.map(|(series, _)| series.labels.clone()).unwrap_or_default(),
            series: series.into_iter().map(|(series, _)| series).collect(),
            range,
            types: types.finish(),
            samples: sums.all.samples,
            cpu_nanos: sums.all.cpu_nanos,
            own_samples: sums.own.samples,
            own_cpu_nanos: sums.own.cpu_nanos,
            children: children(id, tree.finish()),
        }))
    }
}

/// The spans directly below one, of a tree in order.
fn children(id: SpanId, tree: Vec<TreeSpan>) -> Vec<TreeSpan> {
    let Some(at) = tree.iter().position(|span| span.span_id == id) else { return Vec::new() };
    let depth = tree[at].depth;
    let below = tree.into_iter().skip(at + 1).take_while(|span| span.depth > depth);
    below.filter(|span| span.depth == depth + 1).collect()
}
