//! Reading a segment, piece by piece through the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::StoreError;
use super::super::cache::{BlockCache, Cached};
use super::super::codec::{CodecError, Input, symbols};
use super::super::objects::Objects;
use super::super::source::{Chunk, FoundRun, SeriesEntry, Source, SpanEntry, SpanLookup};
use super::block::{Block, Most};
use super::filter::Filter;
use super::footer::{BlockAt, End, Footer, open, read_end};
use super::index::{Page, hash};
use super::packed::Packed;
use super::{Losses, Piece, SegmentMeta, SeriesTable, VERSION, at_end, decode_losses, stacks};
use crate::model::{ListTable, Loss, Symbols, TimeRange};

/// A segment that queries read.
pub(in crate::store) struct Segment {
    meta: SegmentMeta,
    objects: Arc<dyn Objects>,
    cache: Arc<BlockCache>,
    /// Its name in the cache.
    number: u64,
    damaged: AtomicBool,
}

impl Segment {
    /// A segment of which the manifest says this. Nothing is read yet.
    pub(in crate::store) fn new(
        meta: SegmentMeta,
        objects: Arc<dyn Objects>,
        cache: Arc<BlockCache>,
    ) -> Self {
        let number = cache.number();
        Self { meta, objects, cache, number, damaged: AtomicBool::new(false) }
    }

    /// What the manifest says about it.
    pub(in crate::store) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Lets the cache forget it.
    pub(in crate::store) fn forget(&self) {
        self.cache.forget(self.number);
    }

    /// Whether some of it could not be read since it was opened because its bytes are not those that were written.
    pub(in crate::store) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Sets it aside because it turned out so elsewhere.
    pub(in crate::store) fn set_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    fn damage(&self, what: &'static str, error: CodecError) -> StoreError {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            tracing::error!(segment = self.meta.name, piece = what, %error, "segment is damaged");
        }
        StoreError::Damaged { name: self.meta.name.clone(), what, why: error.to_string() }
    }

    fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
        let name = &self.meta.name;
        self.objects.read(name, range).map_err(|error| match error.kind() {
            // The object is shorter than the manifest says, or gone.
            std::io::ErrorKind::UnexpectedEof => self.damage("end", CodecError("ends too early")),
            // Another server may have removed it. If the manifest names it still, it stays set aside.
            std::io::ErrorKind::NotFound if self.objects.is_shared() => {
                self.set_damaged();
                StoreError::Gone(name.clone())
            }
            std::io::ErrorKind::NotFound => self.damage("object", CodecError("is gone")),
            std::io::ErrorKind::InvalidData => self.damage("bytes", CodecError("the disk cannot read them")),
            _ => StoreError::io("read", &self.objects.place(name), error),
        })
    }

    /// A piece of this segment, out of the cache or read and decoded.
    fn piece<T: Cached>(
        &self,
        number: usize,
        piece: &Piece,
        decode: impl FnOnce(&[u8]) -> Result<T, CodecError>,
    ) -> Result<Arc<T>, StoreError> {
        self.cache.get(self.number, number as u32, || {
            let stored = self.read(piece.range())?;
            open(stored, piece).and_then(|raw| decode(&raw)).map_err(|error| self.damage(T::WHAT, error))
        })
    }

    fn footer(&self) -> Result<Arc<Footer>, StoreError> {
        self.cache.get(self.number, 0, || {
            let SegmentMeta { bytes, footer_bytes, .. } = self.meta;
            let at = bytes.saturating_sub(footer_bytes);
            let end = self.read(at..bytes)?;
            match read_end(&end, at).map_err(|error| self.damage(Footer::WHAT, error))? {
                End::Footer(footer) => Ok(*footer),
                End::Version(found) => Err(StoreError::Version {
                    path: self.meta.name.clone().into(),
                    found,
                    supported: VERSION,
                }),
            }
        })
    }

    #[cfg(test)]
    pub(super) fn blocks(&self) -> Vec<BlockAt> {
        self.footer().expect("it is whole").blocks.clone()
    }

    fn series_table(&self, footer: &Footer) -> Result<Arc<SeriesTable>, StoreError> {
        self.piece(0, &footer.series, |raw| {
            let table = SeriesTable::decode(raw, footer.string_count)?;
            if table.series.len() == footer.series_count { Ok(table) } else { Err(MISCOUNTED) }
        })
    }

    fn symbols(&self, footer: &Footer) -> Result<Arc<Symbols>, StoreError> {
        self.piece(0, &footer.symbols, |raw| {
            let mut input = Input(raw);
            let symbols = symbols(&mut input)?;
            at_end(&input)?;
            let counts = (symbols.strings.len(), symbols.locations.len());
            if counts == (footer.string_count, footer.location_count) { Ok(symbols) } else { Err(MISCOUNTED) }
        })
    }

    fn block(&self, footer: &Footer, number: usize) -> Result<Arc<Block>, StoreError> {
        if let Some(block) = self.cache.peek(self.number, number as u32) {
            return Ok(block);
        }
        // First, so that who waits for the block waits for nothing else.
        let series = self.series_table(footer)?;
        let at = &footer.blocks[number];
        self.piece(number, &at.piece, |raw| {
            let (strings, stacks) = (footer.string_count, footer.stack_count);
            let most = Most::of(&self.meta);
            let block = Block::decode(raw, at.first_entry, &series.series, strings, stacks, most)?;
            if block.entries.len() == footer.entries_of(number) { Ok(block) } else { Err(MISCOUNTED) }
        })
    }

    /// The blocks that name what these look-ups ask for, each with the number of the look-up.
    fn blocks_of(&self, footer: &Footer, lookups: &[SpanLookup]) -> Result<Vec<(usize, usize)>, StoreError> {
        let mut hashes: Vec<(u64, usize)> =
            lookups.iter().enumerate().map(|(at, lookup)| (hash(*lookup), at)).collect();
        // In the order of the index, so that each piece of it is asked for once.
        hashes.sort_unstable();
        let mut found = Vec::new();
        let mut last_filter: Option<(usize, Arc<Filter>)> = None;
        let mut last_page: Option<(usize, Arc<Page>)> = None;
        for (hash, at) in hashes {
            let number = footer.layout.page(hash) as usize;
            if let Some(number) = footer.layout.filter(number as u64) {
                let number = number as usize;
                let read = || self.piece(number, &footer.filters[number], Filter::decode);
                if !held(&mut last_filter, number, read)?.may_have(hash) {
                    continue;
                }
            }
            let blocks = footer.blocks.len();
            let read = || self.piece(number, &footer.pages[number], |raw| Page::decode(raw, blocks));
            let page = held(&mut last_page, number, read)?;
            found.extend(page.blocks(footer.layout, hash).map(|block| (block, at)));
        }
        Ok(found)
    }

    /// Visits what some of these look-ups are about in one block. Unless it is unpacked already it stays as it is: little of
    /// it is wanted.
    fn find_in(
        &self,
        footer: &Footer,
        number: usize,
        some: impl Iterator<Item = usize>,
        lookups: &[SpanLookup],
        visit: &mut dyn FnMut(usize, &SpanEntry),
    ) -> Result<(), StoreError> {
        if let Some(block) = self.cache.peek::<Block>(self.number, number as u32) {
            some.for_each(|at| block.find(lookups[at]).for_each(|entry| visit(at, entry)));
            return Ok(());
        }
        let table = self.series_table(footer)?;
        let BlockAt { piece, first_entry, .. } = &footer.blocks[number];
        let stored = self.read(piece.range())?;
        let find = |raw: &[u8]| {
            let block = Packed::find_columns(raw, &table.series, Most::of(&self.meta))?;
            if block.spans != footer.entries_of(number) {
                return Err(MISCOUNTED);
            }
            let mut some = some;
            some.try_for_each(|at| {
                let visit = &mut |entry: &SpanEntry| visit(at, entry);
                block.find(lookups[at], *first_entry, &table.series, footer.string_count, visit)
            })
        };
        open(stored, piece).and_then(|raw| find(&raw)).map_err(|error| self.damage(Block::WHAT, error))
    }

    /// The number of the block that has this entry.
    fn block_of(footer: &Footer, entry: u32) -> usize {
        // Blocks without entries begin where the next one does.
        footer.blocks.partition_point(|block| block.first_entry <= entry) - 1
    }
}

/// The piece with this number: the one that is held, or the one that is read, which is held from now on.
fn held<T>(
    last: &mut Option<(usize, Arc<T>)>,
    number: usize,
    read: impl FnOnce() -> Result<Arc<T>, StoreError>,
) -> Result<&T, StoreError> {
    if last.as_ref().is_none_or(|(held, _)| *held != number) {
        *last = Some((number, read()?));
    }
    Ok(&last.as_ref().expect("it was just put there").1)
}

pub(super) const MISCOUNTED: CodecError = CodecError("not as many entries as the footer says");

impl Source for Segment {
    fn bounds(&self) -> Option<TimeRange> {
        Some(self.meta.range())
    }

    fn profiles(&self) -> u64 {
        self.meta.profiles
    }

    fn series(&self, among: Option<&[u32]>) -> Result<Vec<SeriesEntry>, StoreError> {
        let table = self.series_table(&*self.footer()?)?;
        Ok(match among {
            Some(numbers) => numbers.iter().map(|&number| table.series[number as usize].clone()).collect(),
            None => table.series.clone(),
        })
    }

    fn chunks(&self, wanted: &[u32], range: Option<TimeRange>) -> Result<Vec<Arc<Chunk>>, StoreError> {
        let footer = self.footer()?;
        let mut found = Vec::new();
        for (number, at) in footer.blocks.iter().enumerate() {
            if !at.may_have(Some(wanted), range) {
                continue;
            }
            let block = self.block(&footer, number)?;
            let passes = |chunk: &&Arc<Chunk>| {
                range.is_none_or(|range| range.overlaps(&chunk.interval()))
                    && wanted.binary_search(&chunk.series).is_ok()
            };
            found.extend(block.chunks.iter().filter(passes).cloned());
        }
        Ok(found)
    }

    fn chunks_of(&self, series: u32, visit: &mut dyn FnMut(&Arc<Chunk>)) -> Result<(), StoreError> {
        let footer = self.footer()?;
        for (number, at) in footer.blocks.iter().enumerate() {
            if (at.first_series..=at.last_series).contains(&series) {
                let block = self.block(&footer, number)?;
                block.chunks.iter().filter(|chunk| chunk.series == series).for_each(&mut *visit);
            }
        }
        Ok(())
    }

    fn find(
        &self,
        lookups: &[SpanLookup],
        visit: &mut dyn FnMut(usize, &SpanEntry),
    ) -> Result<(), StoreError> {
        let footer = self.footer()?;
        if footer.pages.is_empty() {
            return Ok(());
        }
        let mut found = self.blocks_of(&footer, lookups)?;
        // By block, so that each is read once.
        found.sort_unstable();
        for of_block in found.chunk_by(|(a, _), (b, _)| a == b) {
            self.find_in(&footer, of_block[0].0, of_block.iter().map(|(_, at)| *at), lookups, visit)?;
        }
        Ok(())
    }

    fn all_spans(
        &self,
        wanted: Option<&[u32]>,
        range: Option<TimeRange>,
        visit: &mut dyn FnMut(&SpanEntry),
    ) -> Result<(), StoreError> {
        let footer = self.footer()?;
        for (number, at) in footer.blocks.iter().enumerate() {
            if at.may_have(wanted, range) {
                self.block(&footer, number)?.entries.iter().for_each(&mut *visit);
            }
        }
        Ok(())
    }

    fn entries(&self, numbers: &[u32]) -> Result<Vec<SpanEntry>, StoreError> {
        let footer = self.footer()?;
        let mut entries = Vec::with_capacity(numbers.len());
        let mut last: Option<(usize, Arc<Block>)> = None;
        for &number in numbers {
            let at = Self::block_of(&footer, number);
            let block = match &last {
                Some((of, block)) if *of == at => Arc::clone(block),
                _ => self.block(&footer, at)?,
            };
            entries.push(block.entries[(number - footer.blocks[at].first_entry) as usize].clone());
            last = Some((at, block));
        }
        Ok(entries)
    }

    fn runs(&self, entries: &[u32]) -> Result<Vec<FoundRun>, StoreError> {
        let footer = self.footer()?;
        let mut found = Vec::new();
        let mut last: Option<(usize, Arc<Block>)> = None;
        for &number in entries {
            let at = Self::block_of(&footer, number);
            let block = match &last {
                Some((of, block)) if *of == at => Arc::clone(block),
                _ => self.block(&footer, at)?,
            };
            let of_entry = block.runs_of(number - footer.blocks[at].first_entry);
            found.extend(of_entry.map(|(chunk, run)| FoundRun { chunk: Arc::clone(chunk), run }));
            last = Some((at, block));
        }
        Ok(found)
    }

    fn span_count(&self) -> u64 {
        self.meta.spans
    }

    fn span_names(&self, series: u32) -> Result<Vec<u32>, StoreError> {
        Ok(self.series_table(&*self.footer()?)?.span_names[series as usize].clone())
    }

    fn string(&self, index: u32) -> Result<String, StoreError> {
        Ok(self.symbols(&*self.footer()?)?.string(index).to_owned())
    }

    fn stack_count(&self) -> Result<u32, StoreError> {
        Ok(self.footer()?.stack_count as u32)
    }

    fn stacks(
        &self,
        stacks: &[u32],
        visit: &mut dyn FnMut(usize, &Symbols, &[u32]),
    ) -> Result<(), StoreError> {
        let footer = self.footer()?;
        let symbols = self.symbols(&footer)?;
        let mut last: Option<(usize, Arc<ListTable<u32>>)> = None;
        for (at, &stack) in stacks.iter().enumerate() {
            let number = stack as usize / stacks::STACKS;
            let table = match &last {
                Some((of, table)) if *of == number => Arc::clone(table),
                _ => {
                    let least = (footer.stack_count - number * stacks::STACKS).min(stacks::STACKS);
                    self.piece(number, &footer.stacks[number], |raw| {
                        let table = stacks::decode(raw, footer.location_count)?;
                        if table.len() == least { Ok(table) } else { Err(MISCOUNTED) }
                    })?
                }
            };
            visit(at, &symbols, table.get((stack as usize % stacks::STACKS) as u32));
            last = Some((number, table));
        }
        Ok(())
    }

    fn losses(&self, visit: &mut dyn FnMut(u32, TimeRange, &[Loss])) -> Result<(), StoreError> {
        let footer = self.footer()?;
        let losses: Arc<LossTable> =
            self.piece(0, &footer.losses, |raw| decode_losses(raw, footer.series_count).map(LossTable))?;
        losses.0.iter().for_each(|(series, range, losses)| visit(*series, *range, losses));
        Ok(())
    }

    fn symbol_bytes(&self) -> u64 {
        self.meta.symbol_bytes
    }

    fn index_bytes(&self) -> u64 {
        self.meta.index_bytes
    }
}

struct LossTable(Losses);

macro_rules! cached {
    ($($type:ty, $kind:literal, $what:literal, |$value:ident| $bytes:expr;)+) => {$(
        impl Cached for $type {
            const KIND: u8 = $kind;
            const WHAT: &'static str = $what;

            fn bytes(&self) -> usize {
                let $value = self;
                $bytes
            }
        }
    )+};
}

cached! {
    Footer, 0, "footer", |footer| footer.bytes();
    SeriesTable, 1, "series", |table| table.bytes();
    Symbols, 2, "symbols", |symbols| symbols.heap_bytes();
    Block, 3, "profiles", |block| block.bytes();
    ListTable<u32>, 4, "stack traces", |table| table.heap_bytes();
    Page, 5, "span index", |page| page.bytes();
    LossTable, 6, "losses", |table| table.0.len() * 96;
    Filter, 7, "filter of the span index", |filter| filter.bytes();
}
