//! The tables of a segment made of those of its sources.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use foldhash::fast::RandomState;

use super::super::StoreError;
use super::super::source::Source;
use super::stacks;
use crate::model::{Line, ListTable, Mapping, SpanRef, Symbols, SymbolsBuilder};

/// Stack traces that are asked for at a time.
const BATCH: u32 = 4096;

/// Tables in the making, with the numbers that each source's entries got.
#[derive(Default)]
pub(super) struct Tables {
    builder: SymbolsBuilder,
    of_sources: Vec<OfSource>,
    /// The place of each stack trace in their order.
    places: Vec<u32>,
}

#[derive(Default)]
struct OfSource {
    stacks: Vec<u32>,
    strings: HashMap<u32, u32, RandomState>,
}

impl Tables {
    /// Takes over the stack traces of these sources with all they refer to: all of them, or those that are used.
    pub(super) fn of(
        sources: &[std::sync::Arc<dyn Source>],
        used: Option<&[BTreeSet<u32>]>,
    ) -> Result<Self, StoreError> {
        let mut tables = Self::default();
        for (at, source) in sources.iter().enumerate() {
            let taken = tables.take_over(source.as_ref(), used.map(|used| &used[at]))?;
            tables.of_sources.push(taken);
        }
        let symbols = tables.builder.symbols();
        let mut order: Vec<u32> = (0..symbols.stack_count() as u32).collect();
        stacks::sort(&mut order, |number| symbols.stack(number));
        tables.places = vec![0; order.len()];
        for (place, stack) in order.into_iter().enumerate() {
            tables.places[stack as usize] = place as u32;
        }
        Ok(tables)
    }

    fn take_over(
        &mut self,
        source: &dyn Source,
        used: Option<&BTreeSet<u32>>,
    ) -> Result<OfSource, StoreError> {
        let builder = &mut self.builder;
        let mut taken = OfSource::default();
        // By the source's number; none for those that were not met yet.
        let mut known: Vec<Option<u32>> = Vec::new();
        let mut locations = Vec::new();
        let count = source.stack_count()?;
        for start in (0..count).step_by(BATCH as usize) {
            let all = start..count.min(start + BATCH);
            let batch: Vec<u32> = all.filter(|stack| used.is_none_or(|used| used.contains(stack))).collect();
            source.stacks(&batch, &mut |at, symbols, stack| {
                locations.clear();
                known.resize(symbols.location_count(), None);
                for &number in stack {
                    let known = &mut known[number as usize];
                    locations.push(*known.get_or_insert_with(|| location(builder, symbols, number)));
                }
                // Those between that are not used are never asked for.
                taken.stacks.resize(batch[at] as usize, u32::MAX);
                taken.stacks.push(builder.stack(&locations));
            })?;
        }
        Ok(taken)
    }

    /// The number here of a source's stack trace.
    pub(super) fn stack(&self, source: usize, number: u32) -> u32 {
        self.places[self.of_sources[source].stacks[number as usize] as usize]
    }

    /// A source's span with the numbers that its names have here.
    pub(super) fn span(
        &mut self,
        at: usize,
        source: &dyn Source,
        span: &SpanRef,
    ) -> Result<SpanRef, StoreError> {
        Ok(SpanRef {
            name: self.string(at, source, span.name)?,
            local_root_name: self.string(at, source, span.local_root_name)?,
            ..span.clone()
        })
    }

    fn string(&mut self, at: usize, source: &dyn Source, number: u32) -> Result<u32, StoreError> {
        if let Some(&here) = self.of_sources[at].strings.get(&number) {
            return Ok(here);
        }
        let here = self.builder.string(&source.string(number)?);
        self.of_sources[at].strings.insert(number, here);
        Ok(here)
    }

    /// Ranges of stack traces' places, one for each piece.
    pub(super) fn pieces(&self) -> Vec<Range<usize>> {
        let count = self.places.len();
        (0..count).step_by(stacks::STACKS).map(|start| start..count.min(start + stacks::STACKS)).collect()
    }

    /// The numbers of stack traces in order of their places.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut order = vec![0; self.places.len()];
        for (stack, place) in self.places.iter().enumerate() {
            order[*place as usize] = stack as u32;
        }
        order
    }

    /// The tables as they stand.
    pub(super) fn symbols(&self) -> &Symbols {
        self.builder.symbols()
    }

    /// The tables without the stack traces, which lie apart.
    pub(super) fn finish(self) -> Symbols {
        Symbols { stacks: ListTable::default(), ..self.builder.finish() }
    }
}

fn location(builder: &mut SymbolsBuilder, symbols: &Symbols, number: u32) -> u32 {
    let location = symbols.location(number);
    let lines: Vec<Line> = symbols
        .lines(location)
        .iter()
        .map(|line| {
            let mut function = symbols.function(line.function);
            for text in [&mut function.name, &mut function.system_name, &mut function.filename] {
                *text = builder.string(symbols.string(*text));
            }
            Line { function: builder.function(function), line: line.line }
        })
        .collect();
    let mapping = symbols.mapping(location.mapping);
    let filename = builder.string(symbols.string(mapping.filename));
    let build_id = builder.string(symbols.string(mapping.build_id));
    let mapping = builder.mapping(Mapping { filename, build_id, ..mapping });
    builder.location(mapping, location.address, &lines)
}
