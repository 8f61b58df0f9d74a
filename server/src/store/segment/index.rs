//! The span index of a segment: from a span's or a trace's id to the blocks that name it.
//!
//! An id that is in no block is named with a chance of about one in a thousand, which costs a look into one block; one
//! that is in a block is always found. Pages have the same share of the hashes each, so no table leads to them. A filter
//! in front of each row of pages keeps those that are in none of them from being looked for there.

use super::super::codec::{CodecError, Input, put};
use super::super::source::SpanLookup;
use super::columns::put_column;
use super::filter::Filter;
use crate::model::{SpanId, SpanRef, TraceId};

type Result<T> = std::result::Result<T, CodecError>;

/// Bits of a hash that are kept while a segment is written.
const HASH_BITS: u32 = 40;
/// Bits of a block's number.
const BLOCK_BITS: u32 = 64 - HASH_BITS;
/// Blocks that a segment may have.
pub(super) const MAX_BLOCKS: usize = 1 << BLOCK_BITS;
/// Bits of a hash beyond those that tell the entries of a segment apart.
const SPARE_BITS: u32 = 10;
/// Entries that a page has on the average.
const PAGE_ENTRIES: u64 = 512;
/// Pages behind one filter, which takes less than 64 KiB for so many.
const FILTER_PAGES: u64 = 64;

/// Spreads the bits of an id (the finalizer of MurmurHash3).
fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits = (bits ^ bits >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (bits ^ bits >> 33) >> (64 - HASH_BITS)
}

fn of_span(id: SpanId) -> u64 {
    spread(id.get())
}

fn of_trace(id: TraceId) -> u64 {
    let bits = id.get();
    // A trace is never where a span with the same low bits is.
    spread((bits as u64) ^ spread((bits >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15))
}

/// The hash that a look-up asks for.
pub(super) fn hash(lookup: SpanLookup) -> u64 {
    match lookup {
        SpanLookup::Span(id)
        | SpanLookup::Children(id)
        | SpanLookup::LocalRoot(id)
        | SpanLookup::Family(id) => of_span(id),
        SpanLookup::Trace(id) => of_trace(id),
    }
}

/// An index in the making.
#[derive(Default)]
pub(super) struct IndexBuilder {
    /// Hashes with the numbers of blocks below them.
    pairs: Vec<u64>,
    /// Hashes of spans with samples of their own.
    spans: Vec<u64>,
}

impl IndexBuilder {
    /// Adds the ids that a block names.
    pub(super) fn add<'a>(&mut self, block: usize, spans: impl Iterator<Item = &'a SpanRef>) {
        let start = self.pairs.len();
        for span in spans {
            let ids = [span.span_id, span.parent, span.local_root].into_iter().flatten().map(of_span);
            let hashes = ids.chain(span.trace_id.map(of_trace));
            self.pairs.extend(hashes.map(|hash| hash << BLOCK_BITS | block as u64));
            self.spans.extend(span.span_id.map(of_span));
        }
        self.pairs[start..].sort_unstable();
        // Those of this block are at the end: what is sorted twice is cheap.
        let mut kept = start;
        for at in start..self.pairs.len() {
            if kept == start || self.pairs[kept - 1] != self.pairs[at] {
                self.pairs[kept] = self.pairs[at];
                kept += 1;
            }
        }
        self.pairs.truncate(kept);
    }

    /// The finished index.
    pub(super) fn finish(mut self) -> Index {
        self.spans.sort_unstable();
        self.spans.dedup();
        let spans = self.spans.len() as u64;
        let layout = Layout::of(self.pairs.len() as u64);
        let drop = HASH_BITS - layout.hash_bits;
        let shorten = |pair: u64| (pair >> BLOCK_BITS >> drop) << BLOCK_BITS | pair & (MAX_BLOCKS as u64 - 1);
        self.pairs.sort_unstable();
        let mut pages = Vec::with_capacity(layout.pages as usize);
        let mut filters = Vec::new();
        let mut filtered: Vec<u64> = Vec::new();
        let mut rest = self.pairs.as_slice();
        for number in 0..layout.pages {
            let (of_page, behind) =
                rest.split_at(rest.partition_point(|pair| layout.page(pair >> BLOCK_BITS) <= number));
            rest = behind;
            filtered.extend(of_page.iter().map(|pair| pair >> BLOCK_BITS));
            if (number + 1).is_multiple_of(FILTER_PAGES) || number + 1 == layout.pages {
                filtered.dedup();
                filters.push(Filter::of(&filtered).encode());
                filtered.clear();
            }
            let mut entries: Vec<u64> = of_page.iter().map(|pair| shorten(*pair)).collect();
            entries.sort_unstable();
            entries.dedup();
            pages.push(encode(&entries));
        }
        Index { layout, pages, filters, spans }
    }
}

/// An index ready to be stored.
pub(super) struct Index {
    pub(super) layout: Layout,
    pub(super) pages: Vec<Vec<u8>>,
    pub(super) filters: Vec<Vec<u8>>,
    /// How many distinct spans with samples of their own there are.
    pub(super) spans: u64,
}

/// How an index is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// How many pages there are.
    pub(super) pages: u64,
    /// Bits that are kept of a hash.
    pub(super) hash_bits: u32,
    /// How many pages there are behind one filter; 0 if there are no filters.
    pub(super) filter_pages: u64,
}

impl Layout {
    fn of(pairs: u64) -> Self {
        let bits = u64::BITS - pairs.leading_zeros() + SPARE_BITS;
        let hash_bits = bits.min(HASH_BITS);
        Self { pages: pairs.div_ceil(PAGE_ENTRIES), hash_bits, filter_pages: FILTER_PAGES }
    }

    /// Whether there can be such an index, with so many filters.
    pub(super) fn is_possible(&self, filters: usize) -> bool {
        let expected =
            self.pages.checked_div(self.filter_pages).map_or(0, |_| self.pages.div_ceil(self.filter_pages));
        self.hash_bits <= HASH_BITS && self.pages < 1 << BLOCK_BITS && filters as u64 == expected
    }

    /// The filter in front of a page; none if there are no filters.
    pub(super) fn filter(&self, page: u64) -> Option<u64> {
        page.checked_div(self.filter_pages)
    }

    /// The page of a hash.
    pub(super) fn page(&self, hash: u64) -> u64 {
        (hash * self.pages) >> HASH_BITS
    }
}

fn encode(entries: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, entries.len() as u64);
    let hashes = || entries.iter().map(|entry| entry >> BLOCK_BITS);
    let before = std::iter::once(0).chain(hashes());
    put_column(&mut out, &hashes().zip(before).map(|(hash, before)| hash - before).collect::<Vec<_>>());
    put_column(&mut out, &entries.iter().map(|entry| entry & (MAX_BLOCKS as u64 - 1)).collect::<Vec<_>>());
    out
}

/// A page as queries read it: shortened hashes with the numbers of blocks below them, sorted.
#[derive(Debug)]
pub(super) struct Page(Vec<u64>);

impl Page {
    /// Reads a page of an index over `blocks` blocks.
    pub(super) fn decode(bytes: &[u8], blocks: usize) -> Result<Self> {
        let mut input = Input(bytes);
        let count = input.number()?;
        // No two entries are the same, so each takes a bit at least, unless all are of one hash in one block each, or they
        // are so few that chance put them side by side.
        if count > (bytes.len() as u64 * 8).max(blocks as u64) {
            return Err(CodecError("more entries than a page has"));
        }
        let deltas = input.column(count as usize)?;
        let numbers = input.column_below(count as usize, blocks)?;
        let mut hash = 0u64;
        let mut entries = Vec::with_capacity(deltas.len());
        for (delta, number) in deltas.into_iter().zip(numbers) {
            hash = hash.wrapping_add(delta);
            entries.push(hash << BLOCK_BITS | u64::from(number));
        }
        if input.0.is_empty() && entries.is_sorted() {
            Ok(Self(entries))
        } else {
            Err(CodecError("page is not in order"))
        }
    }

    /// The blocks that name something with this hash, and perhaps others.
    pub(super) fn blocks(&self, layout: Layout, hash: u64) -> impl Iterator<Item = usize> {
        let hash = hash >> (HASH_BITS - layout.hash_bits);
        let start = self.0.partition_point(|entry| entry >> BLOCK_BITS < hash);
        let found = self.0[start..].iter().take_while(move |entry| **entry >> BLOCK_BITS == hash);
        found.map(|entry| (entry & (MAX_BLOCKS as u64 - 1)) as usize)
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(number: u64) -> SpanRef {
        SpanRef {
            span_id: SpanId::new(number),
            trace_id: TraceId::new(u128::from(number) << 3),
            ..SpanRef::default()
        }
    }

    #[test]
    fn every_id_leads_to_its_blocks_and_others_seldom_lead_anywhere() {
        let mut builder = IndexBuilder::default();
        let blocks = 40u64;
        let spans: Vec<Vec<SpanRef>> = (0..blocks)
            .map(|block| (block * 100..block * 100 + 150).map(|n| span(n + 1)).collect())
            .collect();
        for (number, of_block) in spans.iter().enumerate() {
            builder.add(number, of_block.iter());
        }
        let Index { layout, pages, filters, spans: distinct } = builder.finish();
        assert_eq!(distinct, blocks * 100 + 50);
        assert!(layout.is_possible(filters.len()) && !layout.is_possible(filters.len() + 1));
        let filters: Vec<Filter> = filters.iter().map(|bytes| Filter::decode(bytes).unwrap()).collect();
        assert_eq!(pages.len() as u64, layout.pages);
        assert!(pages.len() > 5);
        let pages: Vec<Page> =
            pages.iter().map(|page| Page::decode(page, blocks as usize).unwrap()).collect();
        let find = |lookup| {
            let hash = hash(lookup);
            let page = layout.page(hash);
            let found = pages[page as usize].blocks(layout, hash).collect::<Vec<_>>();
            (filters[layout.filter(page).unwrap() as usize].may_have(hash), found)
        };
        let leads = |lookup, block: usize| {
            let (filtered, found) = find(lookup);
            filtered && found.contains(&block)
        };
        for (number, of_block) in spans.iter().enumerate() {
            for span in of_block {
                assert!(leads(SpanLookup::Span(span.span_id.unwrap()), number));
                assert!(leads(SpanLookup::Trace(span.trace_id.unwrap()), number));
            }
        }
        let absent: Vec<(bool, Vec<usize>)> =
            (1_000_000..1_010_000).map(|n| find(SpanLookup::Children(SpanId::new(n).unwrap()))).collect();
        assert!(absent.iter().map(|(_, found)| found.len()).sum::<usize>() < 50);
        assert!(absent.iter().filter(|(filtered, _)| *filtered).count() < 150);
    }

    #[test]
    fn an_empty_index_is_none() {
        let Index { layout, pages, filters, spans } = IndexBuilder::default().finish();
        assert_eq!((layout.pages, pages.len(), filters.len(), spans), (0, 0, 0, 0));
    }

    #[test]
    fn a_page_that_leads_nowhere_or_back_is_none() {
        let page = encode(&[5 << BLOCK_BITS | 3, 9 << BLOCK_BITS | 1]);
        assert!(Page::decode(&page, 4).is_ok());
        assert!(Page::decode(&page, 3).is_err());
        assert!(Page::decode(&page[..page.len() - 1], 4).is_err());
    }
}
