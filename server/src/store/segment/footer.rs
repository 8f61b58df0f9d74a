//! The beginning and the end of a segment, and how its pieces are stored between them.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::super::codec::{CodecError, Input, put};
use super::columns::{put_column, unzigzag, zigzag};
use super::index::{Layout, MAX_BLOCKS};
use super::stacks::STACKS;
use super::{FILTERS_SINCE, Piece, VERSION, at_end, is_readable};
use crate::model::TimeRange;

type Result<T> = std::result::Result<T, CodecError>;

const MAGIC: [u8; 8] = *b"SPANSEGM";
/// Bytes behind the footer.
pub(super) const TRAILER_BYTES: usize = 28;
/// Bytes before the first piece.
pub(super) const HEADER_BYTES: u64 = 12;
/// No piece is larger than this once inflated.
const MAX_PIECE_BYTES: u32 = 1 << 30;
/// Deflating makes nothing smaller by more than about this.
const MAX_DEFLATED: u64 = 1040;

/// Where a block of profiles lies and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockAt {
    pub(super) piece: Piece,
    /// The number of its first span entry.
    pub(super) first_entry: u32,
    /// Its series are between these.
    pub(super) first_series: u32,
    pub(super) last_series: u32,
    /// The time that its profiles cover.
    pub(super) range: TimeRange,
}

impl BlockAt {
    /// Whether it may have profiles of one of these series (sorted), or any, in this time.
    pub(super) fn may_have(&self, wanted: Option<&[u32]>, range: Option<TimeRange>) -> bool {
        let is_wanted = |wanted: &[u32]| {
            let first = wanted.partition_point(|series| *series < self.first_series);
            wanted.get(first).is_some_and(|series| *series <= self.last_series)
        };
        wanted.is_none_or(is_wanted) && range.is_none_or(|range| range.overlaps(&self.range))
    }
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) series: Piece,
    pub(super) symbols: Piece,
    pub(super) losses: Piece,
    pub(super) series_count: usize,
    pub(super) string_count: usize,
    pub(super) location_count: usize,
    pub(super) stack_count: usize,
    pub(super) entry_count: u32,
    pub(super) stacks: Vec<Piece>,
    pub(super) layout: Layout,
    pub(super) pages: Vec<Piece>,
    pub(super) filters: Vec<Piece>,
    pub(super) blocks: Vec<BlockAt>,
}

impl Footer {
    /// All pieces, in the order in which they lie.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        let Self { stacks, blocks, pages, filters, series, symbols, losses, .. } = self;
        let blocks = blocks.iter().map(|block| &block.piece);
        stacks.iter().chain(blocks).chain(pages).chain(filters).chain([series, symbols, losses])
    }

    /// How many span entries a block has.
    pub(super) fn entries_of(&self, block: usize) -> usize {
        let behind = self.blocks.get(block + 1).map_or(self.entry_count, |next| next.first_entry);
        (behind - self.blocks[block].first_entry) as usize
    }

    /// Bytes of the index in the file.
    pub(super) fn index_bytes(&self) -> u64 {
        self.pages.iter().chain(&self.filters).map(|piece| u64::from(piece.stored)).sum()
    }

    /// Its bytes in the version that is written.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_pieces(&mut out, &[self.series, self.symbols, self.losses]);
        for count in [self.series_count, self.string_count, self.location_count, self.stack_count] {
            put(&mut out, count as u64);
        }
        put(&mut out, u64::from(self.entry_count));
        put_pieces(&mut out, &self.stacks);
        put(&mut out, u64::from(self.layout.hash_bits));
        put_pieces(&mut out, &self.pages);
        put(&mut out, self.layout.filter_pages);
        put_pieces(&mut out, &self.filters);
        put_pieces(&mut out, &self.blocks.iter().map(|block| block.piece).collect::<Vec<_>>());
        let mut column = |value: &dyn Fn(&BlockAt) -> u64| {
            put_column(&mut out, &self.blocks.iter().map(value).collect::<Vec<_>>());
        };
        column(&|block| u64::from(block.first_entry));
        column(&|block| u64::from(block.first_series));
        column(&|block| u64::from(block.last_series));
        column(&|block| zigzag(block.range.start_ms));
        column(&|block| block.range.end_ms.wrapping_sub(block.range.start_ms) as u64);
        out
    }

    /// Reads the footer of a file of this version whose pieces end at `end`.
    pub(super) fn decode(bytes: &[u8], version: u32, end: u64) -> Result<Self> {
        let mut input = Input(bytes);
        let fixed = pieces(&mut input, end)?;
        let [series, symbols, losses] = fixed[..] else { return Err(CodecError("pieces are missing")) };
        let mut count = || input.small().map(|count| count as usize);
        let [series_count, string_count, location_count, stack_count] =
            [count()?, count()?, count()?, count()?];
        let entry_count = input.small()?;
        let stacks = pieces(&mut input, end)?;
        let hash_bits = input.small()?;
        let pages = pieces(&mut input, end)?;
        let (filter_pages, filters) = match version < FILTERS_SINCE {
            true => (0, Vec::new()),
            false => (input.number()?, self::pieces(&mut input, end)?),
        };
        let layout = Layout { pages: pages.len() as u64, hash_bits, filter_pages };
        let at = pieces(&mut input, end)?;
        let first_entries = input.column_below(at.len(), entry_count as usize + 1)?;
        let first_series = input.column_below(at.len(), series_count)?;
        let last_series = input.column_below(at.len(), series_count)?;
        let starts = input.column(at.len())?;
        let lengths = input.column(at.len())?;
        at_end(&input)?;
        if !layout.is_possible(filters.len())
            || stacks.len() != stack_count.div_ceil(STACKS)
            || !first_entries.is_sorted()
            || first_entries.first().is_some_and(|n| *n != 0)
        {
            return Err(CodecError("parts do not fit together"));
        }
        let block = |number: usize| {
            let start_ms = unzigzag(starts[number]);
            BlockAt {
                piece: at[number],
                first_entry: first_entries[number],
                first_series: first_series[number],
                last_series: last_series[number],
                range: TimeRange { start_ms, end_ms: start_ms.wrapping_add(lengths[number] as i64) },
            }
        };
        let blocks = (0..at.len()).map(block).collect();
        let footer = Self {
            series,
            symbols,
            losses,
            series_count,
            string_count,
            location_count,
            stack_count,
            entry_count,
            stacks,
            layout,
            pages,
            filters,
            blocks,
        };
        // In the order in which they are written: no bytes are read twice, so reading all takes what the file is long.
        let mut before = HEADER_BYTES;
        for piece in footer.pieces() {
            if piece.offset < before || piece.stored == 0 {
                return Err(CodecError("pieces are not side by side"));
            }
            before = piece.range().end;
        }
        if before > end {
            return Err(CodecError("piece beyond the end"));
        }
        Ok(footer)
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.stacks)
            + size_of_val(&*self.pages)
            + size_of_val(&*self.filters)
            + size_of_val(&*self.blocks)
    }
}

fn put_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    put(out, pieces.len() as u64);
    let mut column =
        |value: &dyn Fn(&Piece) -> u64| put_column(out, &pieces.iter().map(value).collect::<Vec<_>>());
    column(&|piece| piece.offset);
    column(&|piece| u64::from(piece.stored));
    column(&|piece| u64::from(piece.raw));
    column(&|piece| u64::from(piece.sum));
}

fn pieces(input: &mut Input<'_>, end: u64) -> Result<Vec<Piece>> {
    let count = input.small()? as usize;
    // Each takes a byte at least, in the file if not here.
    if count > MAX_BLOCKS || count as u64 > end {
        return Err(CodecError("more pieces than a segment has"));
    }
    let offsets = input.column(count)?;
    let stored = input.column_below(count, MAX_PIECE_BYTES as usize)?;
    let raw = input.column_below(count, MAX_PIECE_BYTES as usize)?;
    let sums = input.column_below(count, usize::MAX)?;
    let piece = |at: usize| Piece { offset: offsets[at], stored: stored[at], raw: raw[at], sum: sums[at] };
    if offsets.iter().any(|offset| *offset > 1 << 62) {
        return Err(CodecError("piece beyond the end"));
    }
    Ok((0..count).map(piece).collect())
}

/// A segment in the making.
pub(super) struct Sink {
    pub(super) bytes: Vec<u8>,
}

impl Sink {
    pub(super) fn new() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        Self { bytes }
    }

    /// Appends a piece as it is.
    pub(super) fn store(&mut self, raw: &[u8]) -> Piece {
        self.append(raw, raw.len())
    }

    /// Appends a piece, deflated if that makes it smaller.
    pub(super) fn deflate(&mut self, raw: &[u8]) -> Piece {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(raw).expect("memory takes it");
        let deflated = encoder.finish().expect("memory takes it");
        if deflated.len() < raw.len() { self.append(&deflated, raw.len()) } else { self.store(raw) }
    }

    fn append(&mut self, stored: &[u8], raw: usize) -> Piece {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(stored);
        let length = |length: usize| u32::try_from(length).expect("a segment is far smaller than 4 GiB");
        Piece { offset, stored: length(stored.len()), raw: length(raw), sum: crc32fast::hash(stored) }
    }

    /// Ends the file, and tells how long its end is.
    pub(super) fn finish(mut self, footer: &Footer) -> (Vec<u8>, u64) {
        let piece = self.deflate(&footer.encode());
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        for number in [piece.stored, piece.raw, piece.sum, VERSION] {
            trailer.extend_from_slice(&number.to_le_bytes());
        }
        trailer.extend_from_slice(&MAGIC);
        let sum = crc32fast::hash(&trailer);
        trailer.extend_from_slice(&sum.to_le_bytes());
        self.bytes.extend_from_slice(&trailer);
        (self.bytes, u64::from(piece.stored) + TRAILER_BYTES as u64)
    }
}

/// A piece's bytes, checked and inflated.
pub(super) fn open(stored: Vec<u8>, piece: &Piece) -> Result<Vec<u8>> {
    if stored.len() != piece.stored as usize || crc32fast::hash(&stored) != piece.sum {
        return Err(CodecError("checksum does not fit"));
    }
    if piece.raw == piece.stored {
        return Ok(stored);
    }
    if u64::from(piece.raw) > u64::from(piece.stored) * MAX_DEFLATED {
        return Err(CodecError("cannot be inflated"));
    }
    let mut raw = Vec::with_capacity(piece.raw as usize);
    let read = DeflateDecoder::new(&*stored).take(u64::from(piece.raw) + 1).read_to_end(&mut raw);
    match read {
        Ok(bytes) if bytes == piece.raw as usize => Ok(raw),
        _ => Err(CodecError("cannot be inflated")),
    }
}

/// Whether these are the bytes that a segment of this version begins with.
pub(super) fn is_header(bytes: &[u8], version: u32) -> bool {
    bytes
        .split_at_checked(MAGIC.len())
        .is_some_and(|(magic, of_file)| magic == MAGIC && of_file == version.to_le_bytes())
}

/// What the end of a segment says.
pub(super) enum End {
    /// Where everything lies.
    Footer(Box<Footer>),
    /// It is of this version, which is not known.
    Version(u32),
}

/// Reads the end of a segment, which begins at `at`: footer and trailer.
pub(super) fn read_end(end: &[u8], at: u64) -> Result<End> {
    let (footer, trailer) =
        end.split_at_checked(end.len().wrapping_sub(TRAILER_BYTES)).ok_or(CodecError("ends too early"))?;
    let number = |at: usize| u32::from_le_bytes(trailer[at..at + 4].try_into().expect("four bytes"));
    if number(24) != crc32fast::hash(&trailer[..24]) || trailer[16..24] != MAGIC {
        return Err(CodecError("no trailer"));
    }
    let version = number(12);
    if !is_readable(version) {
        return Ok(End::Version(version));
    }
    let piece = Piece { offset: 0, stored: number(0), raw: number(4), sum: number(8) };
    Footer::decode(&open(footer.to_vec(), &piece)?, version, at).map(|footer| End::Footer(Box::new(footer)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Where the pieces of [`footer`] end.
    const END: u64 = 1390;

    fn footer() -> Footer {
        let piece = |number: u32| Piece {
            offset: u64::from(number) * 100,
            stored: 90,
            raw: 90,
            sum: number * 77_777,
        };
        let block = |number: u32| BlockAt {
            piece: piece(3 + number),
            first_entry: number * 10,
            first_series: 0,
            last_series: number,
            range: TimeRange { start_ms: -5, end_ms: i64::from(number) },
        };
        Footer {
            series: piece(11),
            symbols: piece(12),
            losses: piece(13),
            series_count: 6,
            string_count: 7,
            location_count: 8,
            stack_count: 300,
            entry_count: 60,
            stacks: vec![piece(1), piece(2)],
            layout: Layout { pages: 1, hash_bits: 17, filter_pages: 5 },
            pages: vec![piece(9)],
            filters: vec![piece(10)],
            blocks: (0..6).map(block).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = footer().encode();
        assert_eq!(Footer::decode(&bytes, VERSION, END).unwrap(), footer());
        assert!((0..bytes.len()).all(|cut| Footer::decode(&bytes[..cut], VERSION, END).is_err()));
        assert!(Footer::decode(&bytes, VERSION, END - 1).is_err(), "a piece that lies in the footer");
        let wrong = |footer: Footer| Footer::decode(&footer.encode(), VERSION, END).is_err();
        assert!(wrong(Footer { stack_count: 600, ..footer() }), "stack traces that lie nowhere");
        assert!(wrong(Footer { filters: Vec::new(), ..footer() }), "no filter in front of a page");
        assert!(wrong(Footer { losses: footer().symbols, ..footer() }), "two pieces at one place");
    }

    #[test]
    fn pieces_are_checked_and_inflated() {
        let mut sink = Sink::new();
        let raw = vec![7; 1000];
        let piece = sink.deflate(&raw);
        assert!(piece.stored < 100);
        let stored = |sink: &Sink| sink.bytes[piece.offset as usize..][..piece.stored as usize].to_vec();
        assert_eq!(open(stored(&sink), &piece).unwrap(), raw);
        // A piece that says less or more than it holds is none, and takes no memory beyond what it says.
        for raw in [999, 1001, 5, 1 << 29] {
            assert!(open(stored(&sink), &Piece { raw, ..piece }).is_err());
        }
        sink.bytes[piece.offset as usize] ^= 1;
        assert!(open(stored(&sink), &piece).is_err());
    }

    proptest! {
        #[test]
        fn no_change_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
            let mut bytes = footer().encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(footer) = Footer::decode(&bytes, VERSION, END) {
                assert_eq!(footer.layout.pages as usize, footer.pages.len());
                assert!(footer.blocks.is_sorted_by_key(|block| block.first_entry));
            }
        }

        #[test]
        fn no_end_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            assert!(read_end(&bytes, 1000).is_err());
        }
    }
}
