//! A value that signal handlers read without a lock while another thread replaces it.
#![allow(unsafe_code)] // reclaiming what handlers may still read

use std::ptr::null_mut;

use crate::sync::{AtomicBool, AtomicPtr, Ordering, constructor};

/// A reader's place: one per thread that may read.
pub(crate) trait Reader {
    /// Raised while the place's owner reads. Only [`Published`] may write it.
    fn reading(&self) -> &AtomicBool;
}

/// Holds at most one value; readers announce themselves in one of a fixed set of places, so that a replaced value is
/// freed only after every place was seen empty.
pub(crate) struct Published<T: 'static, R: 'static> {
    current: AtomicPtr<T>,
    readers: &'static [R],
}

impl<T, R: Reader> Published<T, R> {
    constructor! {
        /// Holds nothing yet.
        pub(crate) fn new(readers: &'static [R]) -> Self {
            Self { current: AtomicPtr::new(null_mut()), readers }
        }
    }

    /// The place at `index`, if there is one.
    #[inline]
    pub(crate) fn reader(&self, index: usize) -> Option<&'static R> {
        self.readers.get(index)
    }

    /// Takes the place at `index` for as long as `look` takes, and shows it what is published. `Err` when the place is
    /// taken: its owner was interrupted while reading. No guard gives the place back, as a signal handler that has one
    /// would reach the unwinder's code; a `look` that panics keeps it, and with it all that is retired later.
    #[inline]
    pub(crate) fn read<O>(&self, index: usize, look: impl FnOnce(Option<&T>) -> O) -> Result<O, Taken> {
        let Some(reader) = self.readers.get(index) else { return Ok(look(None)) };
        let flag = reader.reading();
        // Sequentially consistent with the load below and with `replace` and `reclaim`: either they see the flag, or
        // this sees the new value.
        if flag.swap(true, Ordering::SeqCst) {
            return Err(Taken);
        }
        let value = self.current.load(Ordering::SeqCst);
        // SAFETY: null or a value from `Box::into_raw` that `reclaim` does not free while the flag is up.
        let outcome = look(unsafe { value.as_ref() });
        flag.store(false, Ordering::Release);
        Ok(outcome)
    }

    /// Publishes `value`, or nothing; the former one comes back for [`reclaim`](Self::reclaim).
    pub(crate) fn replace(&self, value: Option<Box<T>>) -> Option<Retired<T>> {
        let old = self.current.swap(value.map_or(null_mut(), Box::into_raw), Ordering::SeqCst);
        (!old.is_null()).then_some(Retired(old))
    }

    /// Frees `retired` if no reader can hold any of it; else it stays for the next try.
    pub(crate) fn reclaim(&self, retired: &mut Vec<Retired<T>>) {
        if retired.is_empty() || self.readers.iter().any(|reader| reader.reading().load(Ordering::SeqCst)) {
            return;
        }
        for Retired(old) in retired.drain(..) {
            // SAFETY: `replace` made it from a box and took it out of `current` before this look at the flags: who was
            // reading then has finished, who came later reads another value.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}

/// The place is in use.
#[derive(Debug)]
pub(crate) struct Taken;

/// A replaced value that readers may still hold. Dropping it leaks the value.
pub(crate) struct Retired<T>(*mut T);

// SAFETY: it owns a `T` like a box does.
unsafe impl<T: Send + Sync> Send for Retired<T> {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Place(AtomicBool);

    impl Reader for Place {
        fn reading(&self) -> &AtomicBool {
            &self.0
        }
    }

    struct Value(u64, u64, Arc<AtomicUsize>);

    impl Drop for Value {
        fn drop(&mut self) {
            self.1 = 0;
            self.2.fetch_add(1, Ordering::Relaxed);
        }
    }

    static PLACES: [Place; 3] = [const { Place(AtomicBool::new(false)) }; 3];

    #[test]
    fn readers_see_whole_values_and_replaced_ones_are_freed_once() {
        let published: Published<Value, Place> = Published::new(&PLACES);
        let freed = Arc::new(AtomicUsize::new(0));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for place in 0..2 {
                let (published, done) = (&published, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let look = |value: Option<&Value>| {
                            let Some(value) = value else { return };
                            assert_eq!(value.0, !value.1);
                            assert!(published.read(place, |_| ()).is_err(), "taken while reading");
                        };
                        published.read(place, look).expect("the place is this thread's");
                    }
                });
            }
            let mut retired = Vec::new();
            for i in 0..20_000u64 {
                retired.extend(published.replace(Some(Box::new(Value(i, !i, freed.clone())))));
                published.reclaim(&mut retired);
            }
            retired.extend(published.replace(None));
            done.store(true, Ordering::Relaxed);
            while !retired.is_empty() {
                published.reclaim(&mut retired);
            }
        });
        assert_eq!(freed.load(Ordering::Relaxed), 20_000);
        let nothing = |place| published.read(place, |value| value.is_none()).expect("free");
        assert!(nothing(2), "a place");
        assert!(nothing(3), "no such place");
    }
}
