//! The bridge's sources of this name, as far as a model needs them.

#[path = "../../bridge/src/sys/published.rs"]
pub(crate) mod published;

/// Memory of a ring: so little that it wraps soon.
pub(crate) mod pages {
    use crate::sync::AtomicU64;

    const WORDS: usize = 8;

    pub(crate) fn words(_count: usize) -> Option<&'static [AtomicU64]> {
        let words: Vec<_> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Some(Vec::leak(words))
    }

    pub(crate) fn forget(_words: &'static [AtomicU64]) {}
}
