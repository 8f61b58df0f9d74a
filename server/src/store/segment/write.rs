//! Writing a segment: from a closed part of the head, or from segments that become one.
//!
//! Profiles come out in order of their series and, within one, of their time. They are read and written block by block;
//! what is kept until the end are the tables, the index and the finished bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::super::StoreError;
use super::super::codec::put_symbols;
use super::super::source::{Chunk, NO_SPAN, SeriesEntry, Source};
use super::block::BlockBuilder;
use super::footer::{BlockAt, Footer, Sink};
use super::index::{Index, IndexBuilder, MAX_BLOCKS};
use super::tables::Tables;
use super::{Losses, SegmentMeta, SeriesTable, VERSION, encode_losses, stacks};
use crate::model::{Labels, ProfileType, SpanRef, TenantId, TimeRange};

/// A segment ready to be stored.
pub(in crate::store) struct Written {
    pub(in crate::store) bytes: Vec<u8>,
    pub(in crate::store) meta: SegmentMeta,
}

/// What makes a segment beside its sources.
pub(in crate::store) struct Recipe<'a> {
    /// The object's name.
    pub(in crate::store) name: String,
    /// Whose profiles they are.
    pub(in crate::store) tenant: &'a TenantId,
    /// How often they were merged.
    pub(in crate::store) level: u32,
    /// The time, in Unix milliseconds.
    pub(in crate::store) now_ms: i64,
    /// Which profiles stay; none for all. Nothing is left of the others, nor of what only they refer to.
    pub(in crate::store) keep: Option<&'a dyn Fn(&Chunk) -> bool>,
    /// Called before each block: may take its time, or end the work.
    pub(in crate::store) pace: &'a dyn Fn() -> Result<(), StoreError>,
}

/// Makes a segment of all that these sources hold, or nothing if they hold no profile.
pub(in crate::store) fn write(
    recipe: Recipe<'_>,
    sources: &[Arc<dyn Source>],
) -> Result<Option<Written>, StoreError> {
    let used = recipe.keep.map(|keep| used_stacks(sources, keep)).transpose()?;
    let tables = Tables::of(sources, used.as_deref())?;
    let mut writer = Writer {
        recipe: &recipe,
        sources,
        tables,
        series: SeriesTable::default(),
        sink: Sink::new(),
        block: BlockBuilder::default(),
        blocks: Vec::new(),
        index: IndexBuilder::default(),
        entries: 0,
        profiles: 0,
        rows: 0,
        bounds: None,
    };
    let stacks = writer.write_stacks();
    let numbers = writer.write_profiles()?;
    let Some(bounds) = writer.bounds else { return Ok(None) };
    writer.finish(stacks, &numbers, bounds).map(Some)
}

/// The stack traces of each source that profiles which stay refer to.
fn used_stacks(
    sources: &[Arc<dyn Source>],
    keep: &dyn Fn(&Chunk) -> bool,
) -> Result<Vec<BTreeSet<u32>>, StoreError> {
    let of_source = |source: &Arc<dyn Source>| {
        let mut used = BTreeSet::new();
        for series in source.series(None)? {
            source.chunks_of(series.id, &mut |chunk| {
                if keep(chunk) {
                    used.extend(&chunk.stacks);
                }
            })?;
        }
        Ok(used)
    };
    sources.iter().map(of_source).collect()
}

/// What tells one series from another.
type SeriesKey = (Labels, Arc<[ProfileType]>);

/// The numbers that the series of each source have in the segment.
type SeriesNumbers = Vec<HashMap<u32, u32, RandomState>>;

struct Writer<'a> {
    recipe: &'a Recipe<'a>,
    sources: &'a [Arc<dyn Source>],
    tables: Tables,
    series: SeriesTable,
    sink: Sink,
    block: BlockBuilder,
    blocks: Vec<BlockAt>,
    index: IndexBuilder,
    entries: u64,
    profiles: u64,
    rows: u64,
    bounds: Option<TimeRange>,
}

impl Writer<'_> {
    fn write_stacks(&mut self) -> Vec<super::Piece> {
        let order = self.tables.in_order();
        let symbols = self.tables.symbols();
        let mut written = Vec::new();
        for range in self.tables.pieces() {
            let raw = stacks::encode(order[range].iter().map(|stack| symbols.stack(*stack)));
            written.push(self.sink.deflate(&raw));
        }
        written
    }

    fn write_profiles(&mut self) -> Result<SeriesNumbers, StoreError> {
        let mut all: BTreeMap<SeriesKey, Vec<(usize, u32)>> = BTreeMap::new();
        for (at, source) in self.sources.iter().enumerate() {
            for series in source.series(None)? {
                all.entry((series.labels, series.types)).or_default().push((at, series.id));
            }
        }
        let mut numbers: SeriesNumbers = self.sources.iter().map(|_| HashMap::default()).collect();
        for ((labels, types), parts) in all {
            let id = self.series.series.len() as u32;
            self.series.series.push(SeriesEntry { id, labels, types, range: NOTHING });
            self.series.span_names.push(Vec::new());
            for &(at, of_source) in &parts {
                let source = &self.sources[at];
                let mut failed = Ok(());
                let keep = self.recipe.keep;
                source.chunks_of(of_source, &mut |chunk| {
                    if failed.is_ok() && keep.is_none_or(|keep| keep(chunk)) {
                        failed = self.add(at, id, chunk);
                    }
                })?;
                failed?;
            }
            if self.series.series[id as usize].range == NOTHING {
                // None of its profiles stays, and so its labels do not.
                self.series.series.pop();
                self.series.span_names.pop();
            } else {
                parts.iter().for_each(|(at, of_source)| _ = numbers[*at].insert(*of_source, id));
            }
        }
        self.close_block()?;
        Ok(numbers)
    }

    /// Adds a profile of a source to the series with this number.
    fn add(&mut self, at: usize, series: u32, chunk: &Chunk) -> Result<(), StoreError> {
        let source = self.sources[at].as_ref();
        let known: Vec<u32> =
            chunk.runs.iter().map(|run| run.entry).filter(|entry| *entry != NO_SPAN).collect();
        let mut entries = source.entries(&known)?.into_iter();
        let mut spans: Vec<Option<SpanRef>> = Vec::with_capacity(chunk.runs.len());
        for run in &chunk.runs {
            let entry = if run.entry == NO_SPAN { None } else { entries.next() };
            let span = entry.map(|entry| self.tables.span(at, source, &entry.span)).transpose()?;
            if let Some(name) = span.as_ref().map(|span| span.name).filter(|name| *name != 0) {
                let names = &mut self.series.span_names[series as usize];
                if let Err(place) = names.binary_search(&name) {
                    names.insert(place, name);
                }
            }
            spans.push(span);
        }
        let range = chunk.interval();
        let of_series = &mut self.series.series[series as usize].range;
        *of_series = if *of_series == NOTHING { range } else { of_series.union(range) };
        self.bounds = Some(self.bounds.map_or(range, |bounds| bounds.union(range)));
        self.profiles += 1;
        self.rows += chunk.stacks.len() as u64;
        let translated = Chunk {
            id: chunk.id,
            series,
            start_nanos: chunk.start_nanos,
            duration_nanos: chunk.duration_nanos,
            period: chunk.period,
            runs: chunk.runs.clone(),
            stacks: chunk.stacks.iter().map(|stack| self.tables.stack(at, *stack)).collect(),
            values: chunk.values.clone(),
            totals: chunk.totals.clone(),
        };
        self.block.add(translated, spans);
        if self.block.is_full() { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        (self.recipe.pace)()?;
        let block = std::mem::take(&mut self.block);
        let first_entry = u32::try_from(self.entries).ok().filter(|_| self.blocks.len() < MAX_BLOCKS);
        let first_entry = first_entry.ok_or(StoreError::TooManyForSegment)?;
        self.index.add(self.blocks.len(), block.spans().iter().map(|(span, _)| span));
        self.entries += block.spans().len() as u64;
        let chunks = block.chunks();
        let series = || chunks.iter().map(|chunk| chunk.series);
        let ranges = chunks.iter().map(Chunk::interval);
        self.blocks.push(BlockAt {
            piece: self.sink.store(&block.encode()),
            first_entry,
            first_series: series().min().unwrap_or(0),
            last_series: series().max().unwrap_or(0),
            range: ranges.reduce(TimeRange::union).unwrap_or(NOTHING),
        });
        Ok(())
    }

    fn finish(
        self,
        stacks: Vec<super::Piece>,
        numbers: &SeriesNumbers,
        bounds: TimeRange,
    ) -> Result<Written, StoreError> {
        let Self {
            recipe, sources, tables, series, mut sink, blocks, index, entries, profiles, rows, ..
        } = self;
        let stack_count = tables.symbols().stack_count();
        let Index { layout, pages, filters, spans } = index.finish();
        let pages: Vec<super::Piece> = pages.iter().map(|page| sink.store(page)).collect();
        let filters: Vec<super::Piece> = filters.iter().map(|filter| sink.store(filter)).collect();
        let mut losses: Losses = Vec::new();
        for (source, numbers) in sources.iter().zip(numbers) {
            source.losses(&mut |number, range, lost| {
                // What was told with a profile that is gone is gone with it.
                let told = numbers.get(&number).filter(|number| {
                    recipe.keep.is_none() || series.series[**number as usize].range.overlaps(&range)
                });
                losses.extend(told.map(|number| (*number, range, lost.to_vec())));
            })?;
        }
        let symbols = tables.finish();
        let symbol_bytes = symbols.heap_bytes() as u64;
        let mut raw = Vec::new();
        put_symbols(&mut raw, &symbols);
        let footer = Footer {
            series: sink.deflate(&series.encode()),
            symbols: sink.deflate(&raw),
            losses: sink.deflate(&encode_losses(&losses)),
            series_count: series.series.len(),
            string_count: symbols.strings.len(),
            location_count: symbols.locations.len(),
            stack_count,
            entry_count: u32::try_from(entries).map_err(|_| StoreError::TooManyForSegment)?,
            stacks,
            layout,
            pages,
            filters,
            blocks,
        };
        let index_bytes = footer.index_bytes();
        let (bytes, footer_bytes) = sink.finish(&footer);
        let meta = SegmentMeta {
            name: recipe.name.clone(),
            version: VERSION,
            tenant: recipe.tenant.clone(),
            bytes: bytes.len() as u64,
            footer_bytes,
            level: recipe.level,
            created_ms: recipe.now_ms,
            start_ms: bounds.start_ms,
            end_ms: bounds.end_ms,
            profiles,
            rows,
            spans,
            symbol_bytes,
            index_bytes,
        };
        Ok(Written { bytes, meta })
    }
}

/// The range of nothing yet.
const NOTHING: TimeRange = TimeRange { start_ms: i64::MAX, end_ms: i64::MIN };
