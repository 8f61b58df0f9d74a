//! One stored profile written as a pprof message.

use std::collections::BTreeMap;

use spanflame_wire::google::v1 as wire;

use crate::ingest::Origin;
use crate::model::{Loss, ProfileType, SpanRef};
use crate::pprof_tables::PprofTables;
use crate::store::{Chunk, NO_SPAN, SeriesEntry, Source, StoreError};

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
    let mut tables = PprofTables::new();
    let first = &series.types[part.columns[0]];
    let period_type = tables.value_type(&first.period_type, &first.period_unit);
    let of_column = |column: &usize| &series.types[*column];
    let sample_type = part
        .columns
        .iter()
        .map(of_column)
        .map(|kind| tables.value_type(&kind.sample_type, &kind.sample_unit))
        .collect();
    let origin = Origin {
        id: chunk.id.to_string(),
        name: part.name.clone(),
        labels: series.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    let notes = losses.iter().map(|loss| format!("lost.{}={}", loss.cause, loss.samples));
    let comment = std::iter::once(origin.comment()).chain(notes).map(|text| tables.string(&text)).collect();
    let mut message = wire::Profile {
        sample_type,
        period_type: period_type.into(),
        period: chunk.period,
        time_nanos: chunk.start_nanos,
        duration_nanos: chunk.duration_nanos,
        comment,
        ..Default::default()
    };
    message.sample = samples(&mut tables, source, chunk, &part.columns)?;
    tables.finish(&mut message);
    Ok(message)
}

fn samples(
    tables: &mut PprofTables,
    source: &dyn Source,
    chunk: &Chunk,
    columns: &[usize],
) -> Result<Vec<wire::Sample>, StoreError> {
    let mut samples = Vec::with_capacity(chunk.stacks.len());
    let mut distinct: Vec<u32> = chunk.stacks.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut stacks: Vec<Vec<u64>> = Vec::with_capacity(distinct.len());
    source.stacks(&distinct, &mut |_, symbols, stack| {
        stacks.push(stack.iter().map(|&location| tables.location(symbols, location)).collect());
    })?;
    let known: Vec<u32> = chunk.runs.iter().map(|run| run.entry).filter(|n| *n != NO_SPAN).collect();
    let mut spans = source.entries(&known)?.into_iter();
    for (number, run) in chunk.runs.iter().enumerate() {
        let span = if run.entry == NO_SPAN { None } else { spans.next() };
        let label = match span {
            Some(entry) => labels(tables, source, &entry.span)?,
            None => Vec::new(),
        };
        for row in chunk.rows(number) {
            let stack = distinct.binary_search(&chunk.stacks[row]).expect("all stack traces are there");
            let value = columns.iter().map(|&column| chunk.column(column)[row]).collect();
            let location_id = stacks[stack].clone();
            let label = label.clone();
            samples.push(wire::Sample { location_id, value, label, ..Default::default() });
        }
    }
    Ok(samples)
}

/// What is known of a span, as the bridge says it: its relatives' ids are numbers.
fn labels(
    tables: &mut PprofTables,
    source: &dyn Source,
    span: &SpanRef,
) -> Result<Vec<wire::Label>, StoreError> {
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
            key: tables.string(key),
            str: tables.string(text),
            ..Default::default()
        })
        .collect();
    for (key, id) in [("parent_span_id", span.parent), ("local_root_span_id", span.local_root)] {
        labels.extend(id.map(|id| wire::Label {
            key: tables.string(key),
            num: id.get().cast_signed(),
            ..Default::default()
        }));
    }
    Ok(labels)
}
