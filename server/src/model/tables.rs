//! Append-only tables that keep many small lists in one allocation, and how their entries are found.

use hashbrown::HashTable;

/// Lists of `T`, numbered from 0, in one flat buffer: a list costs its elements and four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTable<T> {
    items: Vec<T>,
    ends: Vec<u32>,
}

impl<T> Default for ListTable<T> {
    fn default() -> Self {
        Self { items: Vec::new(), ends: Vec::new() }
    }
}

impl<T: Copy> ListTable<T> {
    /// Appends a list and tells its number.
    ///
    /// # Panics
    /// When the table would hold more than `u32::MAX` elements; whoever fills it bounds its bytes far below.
    #[inline]
    pub fn push(&mut self, list: &[T]) -> u32 {
        let index = u32::try_from(self.ends.len()).expect("a table has fewer than 2^32 lists");
        self.items.extend_from_slice(list);
        self.ends.push(u32::try_from(self.items.len()).expect("a table has fewer than 2^32 elements"));
        index
    }

    /// The list with this number.
    ///
    /// # Panics
    /// When there is no such list.
    #[inline]
    pub fn get(&self, index: u32) -> &[T] {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.items[start..self.ends[index] as usize]
    }

    /// How many lists there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.items) + size_of_val(&*self.ends)
    }

    /// The lists in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[T]> {
        (0..self.ends.len()).map(|index| self.get(index as u32))
    }
}

/// Strings, numbered from 0, in one flat buffer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StringTable {
    text: String,
    ends: Vec<u32>,
}

impl StringTable {
    /// Appends a string and tells its number.
    ///
    /// # Panics
    /// When the table would hold more than `u32::MAX` bytes; whoever fills it bounds its bytes far below.
    #[inline]
    pub fn push(&mut self, text: &str) -> u32 {
        let index = u32::try_from(self.ends.len()).expect("a table has fewer than 2^32 strings");
        self.text.push_str(text);
        self.ends.push(u32::try_from(self.text.len()).expect("a table has fewer than 2^32 bytes"));
        index
    }

    /// The string with this number.
    ///
    /// # Panics
    /// When there is no such string.
    #[inline]
    pub fn get(&self, index: u32) -> &str {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[start..self.ends[index] as usize]
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.ends)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|index| self.get(index as u32))
    }
}

/// Finds entries of a table by their hashes. It keeps those, so that it grows without looking at entries.
#[derive(Debug, Default)]
pub(crate) struct HashIndex(HashTable<(u32, u32)>);

/// Memory of one entry of a [`HashIndex`], at a load of three quarters.
pub(crate) const INDEXED_BYTES: usize = 12;

/// What is kept of a hash, and what of that the table goes by: places by its lowest bits, tags by its highest.
fn kept(hash: u64) -> (u32, u64) {
    let kept = (hash ^ hash >> 32) as u32;
    (kept, spread(kept))
}

fn spread(kept: u32) -> u64 {
    u64::from(kept) << 32 | u64::from(kept)
}

impl HashIndex {
    /// The entry with this hash that `is` the one.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let (kept, hash) = kept(hash);
        self.0.find(hash, |&(of, entry)| of == kept && is(entry)).map(|&(_, entry)| entry)
    }

    /// Adds an entry that is not there.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u64, entry: u32) {
        let (kept, hash) = kept(hash);
        self.0.insert_unique(hash, (kept, entry), |&(kept, _)| spread(kept));
    }

    /// Makes room for so many more.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.0.reserve(entries, |&(kept, _)| spread(kept));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_hash_and_by_what_they_are() {
        let mut index = HashIndex::default();
        // Each hash is that of two entries.
        let hash = |entry: u32| u64::from(entry / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for entry in 0..1000 {
            assert_eq!(index.find(hash(entry), |other| other == entry), None);
            index.insert(hash(entry), entry);
        }
        index.reserve(5000);
        assert!((0..1000).all(|entry| index.find(hash(entry), |other| other == entry) == Some(entry)));
        assert_eq!(index.find(hash(1000), |_| true), None);
        assert_eq!(index.len(), 1000);
    }
}
