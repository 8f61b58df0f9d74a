//! loom's atomics under the names that the bridge's sources use.

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Words of a ring: so few that it wraps soon.
pub(crate) const RING_WORDS: usize = 8;

/// A constructor: not `const`, as each run of a model makes its own atomics.
macro_rules! constructor {
    ($($function:tt)*) => { $($function)* };
}
pub(crate) use constructor;

/// What loom leaves out of a sequentially consistent operation.
fn before(order: Ordering) {
    if order == Ordering::SeqCst {
        fence(Ordering::SeqCst);
    }
}

#[derive(Default)]
pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub(crate) fn load(&self, order: Ordering) -> bool {
        before(order);
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: bool, order: Ordering) {
        before(order);
        self.0.store(value, order);
    }

    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        before(order);
        self.0.swap(value, order)
    }
}

pub(crate) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) fn new(value: *mut T) -> Self {
        Self(loom::sync::atomic::AtomicPtr::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        before(order);
        self.0.load(order)
    }

    pub(crate) fn swap(&self, value: *mut T, order: Ordering) -> *mut T {
        before(order);
        self.0.swap(value, order)
    }
}
