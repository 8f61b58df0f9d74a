//! Stack traces in sorted order, each written as what it has beyond the one before.

use super::super::codec::{CodecError, Input, put};
use super::columns::put_column;
use crate::model::ListTable;

/// Stack traces of one piece.
pub(super) const STACKS: usize = 256;

/// Locations of a stack trace at most.
pub(super) const MAX_DEPTH: usize = 1 << 16;
/// Locations that the stack traces of one piece have together; what they share takes no bytes.
const MAX_LOCATIONS: usize = STACKS * MAX_DEPTH;

/// Locations that are compared at a time.
const LOCATIONS_OF_KEY: usize = 4;

/// Sorts the numbers of stack traces by what these are: by their locations from the root.
///
/// Stack traces share their beginnings, so all are compared at one depth before any at the next, and what was found equal
/// is not looked at again (multikey quicksort).
pub(super) fn sort<'a>(numbers: &mut [u32], stack: impl Fn(u32) -> &'a [u32]) {
    // The next locations from the root, each one higher than its number: 0 is behind the leaf.
    let key = |number: u32, depth: usize| {
        let mut locations = stack(number).iter().rev().skip(depth).map(|location| u128::from(*location) + 1);
        (0..LOCATIONS_OF_KEY).fold(0, |key, _| key << 32 | locations.next().unwrap_or(0))
    };
    let mut keyed: Vec<(u128, u32)> = Vec::new();
    let mut unsorted = vec![(0..numbers.len(), 0)];
    while let Some((range, depth)) = unsorted.pop() {
        keyed.clear();
        keyed.extend(numbers[range.clone()].iter().map(|number| (key(*number, depth), *number)));
        keyed.sort_unstable_by_key(|(key, _)| *key);
        let mut start = range.start;
        for equal in keyed.chunk_by(|(a, _), (b, _)| a == b) {
            let end = start + equal.len();
            numbers[start..end].iter_mut().zip(equal).for_each(|(number, (_, sorted))| *number = *sorted);
            // Those that have come to their leaf are the same throughout.
            if equal.len() > 1 && equal[0].0 as u32 != 0 {
                unsorted.push((start..end, depth + LOCATIONS_OF_KEY));
            }
            start = end;
        }
    }
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
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn order(a: &[u32], b: &[u32]) -> Ordering {
        a.iter().rev().cmp(b.iter().rev())
    }

    proptest! {
        #[test]
        fn numbers_are_sorted_by_what_they_stand_for(
            stacks in prop::collection::vec(prop::collection::vec(0..2u32, 0..20), 0..STACKS),
        ) {
            let mut numbers: Vec<u32> = (0..stacks.len() as u32).rev().collect();
            sort(&mut numbers, |number| &stacks[number as usize]);
            prop_assert!(numbers.is_sorted_by(|a, b| order(&stacks[*a as usize], &stacks[*b as usize]).is_le()));
            numbers.sort_unstable();
            prop_assert!(numbers.into_iter().eq(0..stacks.len() as u32));
        }

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
