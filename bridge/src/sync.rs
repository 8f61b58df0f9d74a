//! The atomics behind what signal handlers share with other threads. They come from here and nowhere else, so that
//! `loom/` at the repository's root can put those of a model checker in their place and run every interleaving.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

/// Words of a ring, a power of two. A model checker's rings wrap sooner.
pub(crate) const RING_WORDS: usize = 8192;

/// A constructor that is `const` here. A model checker's atomics are not made at compile time.
macro_rules! constructor {
    ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
        $(#[$attribute])*
        $visibility const fn $($rest)*
    };
}
pub(crate) use constructor;
