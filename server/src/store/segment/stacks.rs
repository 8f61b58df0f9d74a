//! Stack traces in sorted order, each written as what it has beyond the one before.

use std::cmp::Ordering;

use super::super::codec::{CodecError, Input, put};
use super::columns::put_column;
use crate::model::ListTable;

/// Stack traces of one piece.
pub(super) const STACKS: usize = 256;

/// Locations of a stack trace at most.
pub(super) const MAX_DEPTH: usize = 1 << 16;
/// Locations that the stack traces of one piece have together; what they share takes no bytes.
const MAX_LOCATIONS: usize = STACKS * MAX_DEPTH;

/// The order of stack traces: by their locations from the root.
pub(super) fn order(a: &[u32], b: &[u32]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// Writes stack traces, the leaf first each.
pub(super) fn encode<'a>(stacks: impl Iterator<Item = &'a [u32]>) -> Vec<u8> {
    let (mut shared, mut lengths, mut locations) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: &[u32] = &[];
    for stack in stacks {
        let same = before.iter().rev().zip(stack.iter().rev()).take_while(|(a, b)| a == b).count();
        shared.push(same as u64);
        lengths.push((stack.len() - same) as u64);
        stack.iter().rev().skip(same).for_each(|location| put(&mut locations, u64::from(*location)));
        before = stack;
    }
    let mut out = Vec::new();
    put(&mut out, shared.len() as u64);
    put_column(&mut out, &shared);
    put_column(&mut out, &lengths);
    out.extend_from_slice(&locations);
    out
}

/// Reads what [`encode`] wrote, where there are `locations` locations.
pub(super) fn decode(bytes: &[u8], locations: usize) -> Result<ListTable<u32>, CodecError> {
    let mut input = Input(bytes);
    let count = input.number()?;
    if count > STACKS as u64 {
        return Err(CodecError("more stack traces than a piece has"));
    }
    let shared = input.column(count as usize)?;
    let lengths = input.column(count as usize)?;
    let mut table = ListTable::default();
    // The root first, and the leaf first.
    let (mut stack, mut leaf_first): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut all = 0;
    for (shared, length) in shared.into_iter().zip(lengths) {
        if shared > stack.len() as u64 || length > input.0.len() as u64 {
            return Err(CodecError("reference to nothing"));
        }
        stack.truncate(shared as usize);
        for _ in 0..length {
            stack.push(input.below(locations)?);
        }
        all += stack.len();
        if all > MAX_LOCATIONS {
            return Err(CodecError("more locations than a piece has"));
        }
        leaf_first.clear();
        leaf_first.extend(stack.iter().rev());
        table.push(&leaf_first);
    }
    super::at_end(&input).map(|()| table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(mut stacks in prop::collection::vec(prop::collection::vec(0..5u32, 0..8), 0..STACKS)) {
            stacks.sort_by(|a, b| order(a, b));
            let bytes = encode(stacks.iter().map(Vec::as_slice));
            let table = decode(&bytes, 5).unwrap();
            prop_assert_eq!(table.iter().map(<[u32]>::to_vec).collect::<Vec<_>>(), stacks);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes, 5);
        }
    }
}
