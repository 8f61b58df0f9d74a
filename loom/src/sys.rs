//! The bridge's sources of this name, as far as a model needs them.

#[path = "../../bridge/src/sys/published.rs"]
pub(crate) mod published;

/// Memory. A ring, which asks for much, gets so little that it wraps soon.
pub(crate) mod pages {
    use crate::sync::AtomicU64;

    const RING: usize = 8;
    const MUCH: usize = 4096;

    pub(crate) fn words(count: usize) -> Option<&'static [AtomicU64]> {
        let count = if count > MUCH { RING } else { count };
        let words: Vec<_> = (0..count).map(|_| AtomicU64::new(0)).collect();
        Some(Vec::leak(words))
    }

    pub(crate) fn forget(_words: &'static [AtomicU64]) {}
}
