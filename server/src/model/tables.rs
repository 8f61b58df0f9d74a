//! Append-only tables that keep many small lists in one allocation.

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
