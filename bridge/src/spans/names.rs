//! Span names as small numbers, so that a record stays fixed-size and the handler never touches a string.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

/// The longest name that is kept, in bytes; of a longer one, the beginning. Servers refuse a whole profile for one label
/// value above their limit, which is 2048 on Pyroscope.
const MAX_NAME: usize = 256;

/// A span name's number. Zero is the empty name: none was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NameId(pub(crate) u32);

impl NameId {
    /// No name was recorded.
    pub(crate) const NONE: Self = Self(0);
    /// What every name past the limit is called.
    pub(crate) const OTHER: Self = Self(1);
}

/// The names seen so far, at most `limit` of them; a span whose name is one too many is called `other`.
pub(crate) struct Names {
    limit: AtomicUsize,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    ids: HashMap<Arc<str>, NameId>,
    names: Vec<Arc<str>>,
}

impl Names {
    pub(crate) fn new(limit: usize) -> Self {
        let names = vec![Arc::from(""), Arc::from("other")];
        let ids = names.iter().cloned().zip([NameId::NONE, NameId::OTHER]).collect();
        Self { limit: AtomicUsize::new(limit), inner: RwLock::new(Inner { ids, names }) }
    }

    /// Changes how many names are told apart; those already seen stay.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The number of `name`. Names that begin with the same 256 bytes are one.
    pub(crate) fn intern(&self, name: &str) -> NameId {
        let name = cut(name);
        if let Some(id) = self.inner.read().ids.get(name) {
            return *id;
        }
        let mut inner = self.inner.write();
        if let Some(id) = inner.ids.get(name) {
            return *id;
        }
        // The two fixed names do not count.
        if inner.names.len() >= self.limit.load(Ordering::Relaxed) + 2 {
            return NameId::OTHER;
        }
        let id = NameId(inner.names.len() as u32);
        let name: Arc<str> = Arc::from(name);
        inner.names.push(name.clone());
        inner.ids.insert(name, id);
        id
    }

    /// The name behind a number that [`intern`](Self::intern) gave out.
    pub(crate) fn get(&self, id: NameId) -> Arc<str> {
        let inner = self.inner.read();
        inner.names.get(id.0 as usize).unwrap_or(&inner.names[0]).clone()
    }
}

/// As much of the beginning of `name` as is kept: whole characters.
fn cut(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_numbers_and_the_excess_is_called_other() {
        let names = Names::new(2);
        let pay = names.intern("GET /pay");
        let cart = names.intern("GET /cart");
        assert_eq!(names.intern("GET /pay"), pay);
        assert_eq!(names.intern("GET /one-too-many"), NameId::OTHER);
        assert_eq!(&*names.get(pay), "GET /pay");
        assert_eq!(&*names.get(cart), "GET /cart");
        assert_eq!(&*names.get(NameId::OTHER), "other");
        assert_eq!(&*names.get(NameId::NONE), "");
        assert_eq!(names.intern(""), NameId::NONE);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let names = Names::new(10);
        let long = format!("SELECT {}", "é".repeat(100_000));
        let id = names.intern(&long);
        let kept = names.get(id);
        // The bound falls into the middle of a character of two bytes.
        assert_eq!((kept.len(), long.starts_with(&*kept)), (MAX_NAME - 1, true));
        assert_eq!(names.intern(&kept), id);
        let whole = "x".repeat(MAX_NAME);
        assert_eq!(*names.get(names.intern(&whole)), *whole);
        assert_eq!(*names.get(names.intern(&format!("{whole}y"))), *whole);
    }
}
