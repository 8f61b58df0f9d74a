//! A segment without what keeps chance from changing it in a way that matters: its pieces inflated, its footer plain, and
//! no checksums. For fuzz targets.

use super::footer::{End, Footer, Sink, TRAILER_BYTES, open, read_end};
use super::{Piece, VERSION, is_readable};

/// The segment's pieces inflated and side by side, then its footer plain, then the length of that; none if it is none.
pub(in crate::store) fn unpack(file: &[u8]) -> Option<Vec<u8>> {
    let trailer = file.len().checked_sub(TRAILER_BYTES)?;
    let stored = u32::from_le_bytes(file[trailer..trailer + 4].try_into().ok()?);
    let at = trailer.checked_sub(stored as usize)?;
    let Ok(End::Footer(mut footer)) = read_end(&file[at..], at as u64) else { return None };
    let mut sink = Sink::new();
    for piece in pieces(&mut footer) {
        let bytes = file.get(piece.range().start as usize..piece.range().end as usize)?;
        *piece = sink.store(&open(bytes.to_vec(), piece).ok()?);
    }
    let mut unpacked = sink.bytes;
    let footer = footer.encode();
    unpacked.extend_from_slice(&footer);
    unpacked.extend_from_slice(&(footer.len() as u32).to_le_bytes());
    Some(unpacked)
}

/// A segment made of what [`unpack`] gave, with the checksums that belong to what it says now; none if its footer says
/// nothing.
pub(in crate::store) fn pack(unpacked: &[u8]) -> Option<Vec<u8>> {
    let (rest, length) = unpacked.split_last_chunk::<4>()?;
    let at = rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
    let (body, footer) = rest.split_at(at);
    let mut footer = Footer::decode(footer, VERSION, at as u64).ok()?;
    for piece in pieces(&mut footer) {
        let bytes = body.get(piece.range().start as usize..piece.range().end as usize)?;
        *piece = Piece { raw: piece.stored, sum: crc32fast::hash(bytes), ..*piece };
    }
    Some(Sink { bytes: body.to_vec() }.finish(&footer).0)
}

/// All pieces, in the order in which they lie.
fn pieces(footer: &mut Footer) -> impl Iterator<Item = &mut Piece> {
    let Footer { stacks, blocks, pages, filters, series, symbols, losses, .. } = footer;
    let blocks = blocks.iter_mut().map(|block| &mut block.piece);
    stacks.iter_mut().chain(blocks).chain(pages).chain(filters).chain([series, symbols, losses])
}

/// How long the footer and the trailer of a file are by what it says, and whether it is of a version that is known.
pub(in crate::store) fn footer_bytes(file: &[u8]) -> Option<u64> {
    let trailer = file.len().checked_sub(TRAILER_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(file[trailer + at..trailer + at + 4].try_into().ok()?));
    let stored = u64::from(number(0)?);
    (is_readable(number(12)?) && stored <= trailer as u64).then_some(stored + TRAILER_BYTES as u64)
}
