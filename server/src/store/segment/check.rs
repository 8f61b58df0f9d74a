//! Looking at every byte of a segment: each piece by its checksum, and all that they say of one another.

use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use std::ops::Range;

use foldhash::fast::RandomState;

use super::super::codec::{CodecError, Input, symbols};
use super::super::objects::Objects;
use super::super::source::SpanLookup;
use super::block::{Block, Most};
use super::filter::Filter;
use super::footer::{BlockAt, End, Footer, HEADER_BYTES, is_header, open, read_end};
use super::index::{Layout, Page, hash};
use super::{Piece, SegmentMeta, SeriesTable, at_end, decode_losses, stacks};
use crate::model::{SpanRef, TimeRange};

/// Something in a segment that is not as it was written.
#[derive(Debug)]
pub(in crate::store) struct Flaw {
    /// Where, in bytes from the beginning of the object.
    pub(in crate::store) offset: u64,
    /// What is wrong.
    pub(in crate::store) what: String,
    /// What that costs.
    pub(in crate::store) means: String,
}

const ALL: &str = "nothing of this segment can be read";
const LATER: &str = "queries that need it fail, and the segment is set aside until the next start";

/// Reads the whole segment and tells what is wrong with it. Gives the number of its pieces.
///
/// # Errors
/// When the object is gone. What else keeps it from being read is a flaw.
pub(in crate::store) fn check(
    meta: &SegmentMeta,
    objects: &dyn Objects,
    flaw: &mut dyn FnMut(Flaw),
) -> io::Result<u64> {
    let mut check = Check { meta, objects, flaw, pieces: 0 };
    check.run()?;
    Ok(check.pieces)
}

struct Check<'a> {
    meta: &'a SegmentMeta,
    objects: &'a dyn Objects,
    flaw: &'a mut dyn FnMut(Flaw),
    pieces: u64,
}

/// What the blocks of a segment come to.
#[derive(Default)]
struct Sums {
    profiles: u64,
    rows: u64,
    /// Hashes of their ids, which is how they are counted.
    spans: HashSet<u64, RandomState>,
    bounds: Option<TimeRange>,
}

impl Check<'_> {
    fn tell(&mut self, offset: u64, what: impl Display, means: impl Display) {
        (self.flaw)(Flaw { offset, what: what.to_string(), means: means.to_string() });
    }

    /// These bytes; none if they cannot be read, which is told.
    fn read(&mut self, range: Range<u64>, what: &str, means: &str) -> io::Result<Option<Vec<u8>>> {
        let offset = range.start;
        match self.objects.read(&self.meta.name, range) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.tell(offset, format_args!("{what}: the file ends before"), means);
                Ok(None)
            }
            Err(error) => {
                self.tell(offset, format_args!("{what}: {error}"), means);
                Ok(None)
            }
        }
    }

    /// What a piece says; none if it is damaged, which is told.
    fn piece<T>(
        &mut self,
        piece: &Piece,
        what: &str,
        means: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, CodecError>,
    ) -> io::Result<Option<T>> {
        self.pieces += 1;
        let Some(stored) = self.read(piece.range(), what, means)? else { return Ok(None) };
        match open(stored, piece).and_then(|raw| decode(&raw)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.tell(piece.offset, format_args!("{what}: {error}"), means);
                Ok(None)
            }
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let SegmentMeta { bytes, footer_bytes, .. } = *self.meta;
        let Some(header) = self.read(0..HEADER_BYTES, "header", ALL)? else { return Ok(()) };
        if !is_header(&header, self.meta.version) {
            self.tell(0, "header: is none of a segment of this version", "nothing, if all else is whole");
        }
        let start = bytes.saturating_sub(footer_bytes);
        let Some(end) = self.read(start..bytes, "footer", ALL)? else { return Ok(()) };
        self.pieces += 1;
        let footer = match read_end(&end, start) {
            Ok(End::Footer(footer)) => footer,
            Ok(End::Version(found)) => {
                self.tell(start, format_args!("footer: version {found} is not known"), ALL);
                return Ok(());
            }
            Err(error) => {
                self.tell(start, format_args!("footer: {error}"), ALL);
                return Ok(());
            }
        };
        // A file that is longer than was told is not the one that was written.
        if self.objects.read(&self.meta.name, bytes..bytes + 1).is_ok() {
            self.tell(bytes, "the file is longer than the manifest says", "nothing, if all else is whole");
        }
        self.layout(&footer, start);
        self.tables(&footer)?;
        Ok(())
    }

    /// Whether pieces fill the file from its header to its footer.
    fn layout(&mut self, footer: &Footer, end: u64) {
        let mut ranges: Vec<Range<u64>> = footer.pieces().map(Piece::range).collect();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut at = HEADER_BYTES;
        for range in ranges {
            if range.start != at {
                let what = format!("a piece begins at {}, the one before it ends at {at}", range.start);
                self.tell(at.min(range.start), what, "bytes that no checksum covers");
            }
            at = range.end;
        }
        if at != end {
            let what = format!("pieces end at {at}, the footer begins at {end}");
            self.tell(at.min(end), what, "bytes that no checksum covers");
        }
        self.count("bytes of the index", footer.index_bytes(), self.meta.index_bytes);
    }

    fn tables(&mut self, footer: &Footer) -> io::Result<()> {
        let series = self.piece(&footer.series, "series", ALL, |raw| {
            let table = SeriesTable::decode(raw, footer.string_count)?;
            if table.series.len() == footer.series_count { Ok(table) } else { Err(super::read::MISCOUNTED) }
        })?;
        self.piece(&footer.symbols, "symbols", "no frame of this segment has a name", |raw| {
            let mut input = Input(raw);
            let symbols = symbols(&mut input)?;
            at_end(&input)?;
            let counts = (symbols.strings.len(), symbols.locations.len());
            let told = (footer.string_count, footer.location_count);
            if counts == told { Ok(()) } else { Err(super::read::MISCOUNTED) }
        })?;
        self.piece(&footer.losses, "losses", "what senders lost is not known", |raw| {
            decode_losses(raw, footer.series_count)
        })?;
        let mut stack_count = 0;
        for piece in &footer.stacks {
            let table =
                self.piece(piece, "stack traces", LATER, |raw| stacks::decode(raw, footer.location_count))?;
            stack_count += table.map_or(stacks::STACKS, |table| table.len());
        }
        // The last piece has fewer than others, which is not known if it is damaged.
        if stack_count.div_ceil(stacks::STACKS) != footer.stack_count.div_ceil(stacks::STACKS) {
            self.count("stack traces", stack_count as u64, footer.stack_count as u64);
        }
        let mut pages = Vec::with_capacity(footer.pages.len());
        for piece in &footer.pages {
            let means = "some spans are not found by their ids";
            pages.push(self.piece(piece, "span index", means, |raw| Page::decode(raw, footer.blocks.len()))?);
        }
        let mut filters = Vec::with_capacity(footer.filters.len());
        for piece in &footer.filters {
            let means = "some spans are not found by their ids";
            filters.push(self.piece(piece, "filter of the span index", means, Filter::decode)?);
        }
        let index = Indexed { pages, filters };
        let Some(series) = series else { return Ok(()) };
        let mut sums = Sums::default();
        let mut whole = true;
        for (number, at) in footer.blocks.iter().enumerate() {
            let TimeRange { start_ms, end_ms } = at.range;
            let means = format!(
                "profiles of {} from {start_ms} to {end_ms} ms are lost",
                names(&series, at.first_series, at.last_series)
            );
            let (strings, stacks) = (footer.string_count, footer.stack_count);
            let most = Most::of(self.meta);
            let block = self.piece(&at.piece, "profiles", &means, |raw| {
                Block::decode(raw, at.first_entry, &series.series, strings, stacks, most)
            })?;
            match block {
                Some(block) => {
                    let behind =
                        footer.blocks.get(number + 1).map_or(footer.entry_count, |next| next.first_entry);
                    self.block(at, &block, &series, behind);
                    self.indexed(footer, number, &block, &index);
                    sums.add(&block);
                }
                None => whole = false,
            }
        }
        if whole {
            self.count("profiles", sums.profiles, self.meta.profiles);
            self.count("rows", sums.rows, self.meta.rows);
            self.count("spans", sums.spans.len() as u64, self.meta.spans);
            if sums.bounds.is_some_and(|bounds| bounds != self.meta.range()) {
                self.tell(
                    0,
                    "profiles cover another time than the manifest says",
                    "queries may miss profiles",
                );
            }
        }
        Ok(())
    }

    /// Compares a sum with what the manifest says.
    fn count(&mut self, what: &str, got: u64, told: u64) {
        if got != told {
            let what = format!("{got} {what}, where {told} were written");
            self.tell(0, what, "the segment is not the one that the manifest tells of");
        }
    }

    /// Whether a block is what the footer and the series say.
    fn block(&mut self, at: &BlockAt, block: &Block, series: &SeriesTable, behind: u32) {
        let means = "queries may miss profiles";
        let offset = at.piece.offset;
        if block.entries.len() != behind.saturating_sub(at.first_entry) as usize {
            self.tell(offset, "profiles: not as many spans as the footer says", LATER);
        }
        let mut bounds: Option<TimeRange> = None;
        for chunk in &block.chunks {
            let range = chunk.interval();
            bounds = Some(bounds.map_or(range, |bounds| bounds.union(range)));
            let of_series = series.series[chunk.series as usize].range;
            if range.union(of_series) != of_series {
                self.tell(
                    offset,
                    format_args!("profile {}: not within the time of its series", chunk.id),
                    means,
                );
            }
            if !(at.first_series..=at.last_series).contains(&chunk.series) {
                self.tell(offset, format_args!("profile {}: not of the block's series", chunk.id), means);
            }
            let names = &series.span_names[chunk.series as usize];
            if chunk.runs.iter().any(|run| run.name != 0 && names.binary_search(&run.name).is_err()) {
                let what = format!("profile {}: a span's name is not among those of its series", chunk.id);
                self.tell(offset, what, "queries by the span's name may miss it");
            }
        }
        if bounds != Some(at.range) {
            self.tell(offset, "profiles: they cover another time than the footer says", means);
        }
    }

    /// Whether the index leads from every id that a block names to the block.
    fn indexed(&mut self, footer: &Footer, number: usize, block: &Block, index: &Indexed) {
        for entry in &block.entries {
            for lookup in lookups(&entry.span) {
                if !index.leads(footer.layout, hash(lookup), number) {
                    let what = format!("span index: {lookup:?} does not lead to the block that has it");
                    let offset = footer.blocks[number].piece.offset;
                    self.tell(offset, what, "it is not found by its id");
                }
            }
        }
    }
}

/// The index as far as it is whole; what is damaged was told.
struct Indexed {
    pages: Vec<Option<Page>>,
    filters: Vec<Option<Filter>>,
}

impl Indexed {
    /// Whether it leads from a hash to this block, as far as it can be known.
    fn leads(&self, layout: Layout, hash: u64, block: usize) -> bool {
        let page = layout.page(hash);
        let passes = match layout.filter(page).map(|filter| self.filters.get(filter as usize)) {
            Some(Some(Some(filter))) => filter.may_have(hash),
            Some(None) => false,
            Some(Some(None)) | None => true,
        };
        let leads = match self.pages.get(page as usize) {
            Some(Some(page)) => page.blocks(layout, hash).any(|of_page| of_page == block),
            Some(None) => true,
            None => false,
        };
        passes && leads
    }
}

impl Sums {
    fn add(&mut self, block: &Block) {
        self.profiles += block.chunks.len() as u64;
        self.rows += block.chunks.iter().map(|chunk| chunk.stacks.len() as u64).sum::<u64>();
        let ids = block.entries.iter().filter_map(|entry| entry.span.span_id);
        self.spans.extend(ids.map(|id| hash(SpanLookup::Span(id))));
        for range in block.chunks.iter().map(|chunk| chunk.interval()) {
            self.bounds = Some(self.bounds.map_or(range, |bounds| bounds.union(range)));
        }
    }
}

/// All by which a span can be found.
fn lookups(span: &SpanRef) -> impl Iterator<Item = SpanLookup> {
    let trace = span.trace_id.map(SpanLookup::Trace);
    let parent = span.parent.map(SpanLookup::Children);
    let root = span.local_root.map(SpanLookup::LocalRoot);
    span.span_id.map(SpanLookup::Span).into_iter().chain(trace).chain(parent).chain(root)
}

/// The services of a row of series.
fn names(series: &SeriesTable, first: u32, last: u32) -> String {
    let mut names: Vec<&str> = series.series[first as usize..=(last.max(first) as usize)]
        .iter()
        .map(|series| series.labels.service())
        .collect();
    names.dedup();
    let more = names.len().saturating_sub(3);
    names.truncate(3);
    let shown = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more services") } else { shown }
}
