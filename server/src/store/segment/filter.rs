//! Which ids are not in a part of the span index: a small piece of memory in place of a look into a page.
//!
//! A split block Bloom filter, as Parquet specifies it: an id sets eight bits of one block of 256, so that asking touches
//! one line of the processor's cache. An id that was put in is always said to be there; one that was not, seldom.

use super::super::codec::CodecError;

/// Bits for each id: one of about two hundred that are not there is said to be.
const BITS: usize = 12;
/// Words of a block.
const WORDS: usize = 8;
const BLOCK_BYTES: usize = WORDS * 4;

/// Odd numbers by which a key is multiplied for the bit that it sets in each word, as Parquet has them.
const SALT: [u32; WORDS] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The ids of a part of an index, by their hashes.
#[derive(Debug)]
pub(super) struct Filter(Vec<[u32; WORDS]>);

impl Filter {
    /// A filter that these hashes are in.
    pub(super) fn of(hashes: &[u64]) -> Self {
        let mut filter = Self(vec![[0; WORDS]; (hashes.len() * BITS).div_ceil(BLOCK_BYTES * 8).max(1)]);
        for &hash in hashes {
            let (block, key) = filter.place(hash);
            filter.0[block].iter_mut().zip(mask(key)).for_each(|(word, bit)| *word |= bit);
        }
        filter
    }

    /// Whether a hash may be in it. If not, it is not.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let (block, key) = self.place(hash);
        self.0[block].iter().zip(mask(key)).fold(true, |all, (word, bit)| all & (word & bit != 0))
    }

    /// The block of a hash and its key there. Those of one filter have their first bits in common, so all bits are spread.
    fn place(&self, hash: u64) -> (usize, u32) {
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let spread = spread ^ spread >> 32;
        let block = (u128::from(spread) * self.0.len() as u128) >> 64;
        (block as usize, spread as u32)
    }

    /// Its bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.0.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`Filter::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        if blocks.is_empty() || !rest.is_empty() {
            return Err(CodecError("no whole blocks of a filter"));
        }
        let word = |block: &[u8; BLOCK_BYTES], at: usize| {
            u32::from_le_bytes(block[at * 4..][..4].try_into().expect("four bytes"))
        };
        Ok(Self(blocks.iter().map(|block| std::array::from_fn(|at| word(block, at))).collect()))
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// The bit of each word that a key sets.
fn mask(key: u32) -> [u32; WORDS] {
    SALT.map(|salt| 1 << (key.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of 40 bits that begin alike, as those of one filter do.
    fn hashes(seed: u64, count: u64) -> Vec<u64> {
        let spread = |n: u64| (n + seed).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29);
        (0..count).map(|n| 0x5a << 32 | spread(n).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32).collect()
    }

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        for count in [1, 21, 22, 500, 30_000] {
            let kept = hashes(1, count);
            let filter = Filter::of(&kept);
            let read = Filter::decode(&filter.encode()).unwrap();
            assert!(kept.iter().all(|hash| read.may_have(*hash)));
            assert!(filter.bytes() <= count as usize * 2 + 32);
            let wrong = hashes(1 << 40, 20_000).into_iter().filter(|hash| read.may_have(*hash)).count();
            assert!(wrong < 300, "{wrong} of 20,000 beside {count}");
        }
    }

    #[test]
    fn a_filter_of_nothing_has_nothing() {
        let filter = Filter::of(&[]);
        assert!(hashes(7, 1000).iter().all(|hash| !filter.may_have(*hash)));
        assert!(Filter::decode(&filter.encode()).is_ok());
    }

    #[test]
    fn pieces_of_blocks_are_no_filter() {
        assert!(Filter::decode(&[]).is_err());
        assert!(Filter::decode(&[0; 33]).is_err());
    }
}
