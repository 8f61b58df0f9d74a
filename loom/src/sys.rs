//! The bridge's sources of this name, as far as a model needs them.

#[path = "../../bridge/src/sys/published.rs"]
pub(crate) mod published;

/// Memory of rings and span tables.
pub(crate) mod pages {
    use crate::sync::AtomicU64;

    pub(crate) fn words(count: usize) -> Option<&'static [AtomicU64]> {
        let words: Vec<_> = (0..count).map(|_| AtomicU64::new(0)).collect();
        Some(Vec::leak(words))
    }

    pub(crate) fn forget(_words: &'static [AtomicU64]) {}
}
