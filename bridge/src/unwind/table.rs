//! Sorted unwind rows of one module, and the modules of a process by address.

use std::sync::Arc;

use super::rule::{Rule, SideRule};

/// A page of text for the index: small enough that it holds one or two rows, large enough that the index stays smaller
/// than the rows.
const PAGE_SHIFT: u32 = 6;

/// `rule` holds from `start` (bytes from the module's text) to the next row's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) start: u32,
    pub(super) rule: Rule,
}

/// All unwind rules of one module, independent of where it is loaded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Box<[Row]>,
    /// For each page, the last row that starts at or before the page does; one more for the end.
    pages: Box<[u32]>,
    side: Box<[SideRule]>,
    not_expressible: u32,
}

impl Table {
    /// `rows` must be sorted by start; whatever comes before the first is unknown.
    pub(super) fn new(rows: Vec<Row>, text_len: u32, side: Vec<SideRule>, not_expressible: u32) -> Self {
        debug_assert!(rows.is_sorted_by_key(|row| row.start), "rows come sorted");
        let mut all = Vec::with_capacity(rows.len() + 1);
        if rows.first().is_none_or(|first| first.start > 0) {
            all.push(Row { start: 0, rule: Rule::UNKNOWN });
        }
        all.extend(rows);
        let mut last = 0;
        let pages = (0..=(text_len >> PAGE_SHIFT) + 1)
            .map(|page| {
                let start = u64::from(page) << PAGE_SHIFT;
                while all.get(last + 1).is_some_and(|row: &Row| u64::from(row.start) <= start) {
                    last += 1;
                }
                last as u32
            })
            .collect();
        Self { rows: all.into(), pages, side: side.into(), not_expressible }
    }

    /// The rule for the instruction at `offset` bytes into the module's text.
    #[inline]
    pub(super) fn rule(&self, offset: u32) -> Rule {
        let page = (offset >> PAGE_SHIFT) as usize;
        let Some([first, last]) = self.pages.get(page..page + 2) else { return Rule::UNKNOWN };
        let Some(rows) = self.rows.get(*first as usize..=*last as usize) else { return Rule::UNKNOWN };
        // So few that one after the other is quickest.
        let mut rule = Rule::UNKNOWN;
        for row in rows.iter().take_while(|row| row.start <= offset) {
            rule = row.rule;
        }
        rule
    }

    /// Where rules change, and to what.
    #[cfg(test)]
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    #[inline]
    pub(super) fn side_rule(&self, index: usize) -> Option<&SideRule> {
        self.side.get(index)
    }

    /// Memory in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.pages) + size_of_val(&*self.side)
    }

    /// Rows of the module that no rule could express; a walk ends there.
    pub(crate) fn not_expressible(&self) -> u32 {
        self.not_expressible
    }
}

/// A module's table at the address where it is loaded.
#[derive(Debug)]
pub(crate) struct LoadedTable {
    /// First address of the module's text.
    pub(crate) start: u64,
    /// Length of its text in bytes.
    pub(crate) len: u64,
    pub(crate) table: Arc<Table>,
}

impl LoadedTable {
    #[inline]
    pub(super) fn offset(&self, address: u64) -> Option<u32> {
        let offset = address.wrapping_sub(self.start);
        (offset < self.len).then_some(offset as u32)
    }
}

/// The tables of all loaded modules, by address.
#[derive(Debug, Default)]
pub(crate) struct CodeMap {
    modules: Box<[LoadedTable]>,
}

impl CodeMap {
    pub(crate) fn new(mut modules: Vec<LoadedTable>) -> Self {
        modules.sort_by_key(|module| module.start);
        Self { modules: modules.into() }
    }

    /// The module whose text holds `address`, and how far into it that is.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<(&LoadedTable, u32)> {
        // Halving by slices indexes nothing that could panic.
        let mut modules = &*self.modules;
        while modules.len() > 1 {
            let (before, after) = modules.split_at(modules.len() / 2);
            modules =
                if after.first().is_some_and(|module| module.start <= address) { after } else { before };
        }
        let module = modules.first()?;
        module.offset(address).map(|offset| (module, offset))
    }
}
