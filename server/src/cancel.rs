//! Work that is told to stop because nobody waits for it any more. Says nothing of who works or waits.
//!
//! The word is passed by the thread, so that what is deep below need not be handed it: loops that may take long call
//! [`check`] now and then.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Nobody waits for the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody waits for the answer any more")]
pub struct Cancelled;

/// Whether some work is to stop.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

thread_local! {
    static CURRENT: RefCell<Option<Cancel>> = const { RefCell::new(None) };
}

/// Whether the work of this thread is to go on.
///
/// # Errors
/// When it is to stop. It may leave what it did half done: nobody will see it.
pub fn check() -> Result<(), Cancelled> {
    let stop = CURRENT
        .with_borrow(|current| current.as_ref().is_some_and(|Cancel(stop)| stop.load(Ordering::Relaxed)));
    if stop { Err(Cancelled) } else { Ok(()) }
}

/// Does work elsewhere that is told to stop when that of this thread is.
pub(crate) fn carry<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = CURRENT.with_borrow(Clone::clone);
    move || match current {
        Some(cancel) => cancel.within(work),
        None => work(),
    }
}

impl Cancel {
    /// Works on this thread, within which [`check`] asks this.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        /// Puts back what was there, after a panic too: the thread does other work later.
        struct Before(Option<Cancel>);

        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.replace(self.0.take());
            }
        }

        let _before = Before(CURRENT.replace(Some(self)));
        work()
    }

    /// Tells the work to stop when this is dropped.
    pub fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

/// See [`Cancel::on_drop`].
#[derive(Debug)]
pub struct OnDrop(Cancel);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_its_work_alone() {
        assert_eq!(check(), Ok(()));
        let cancel = Cancel::default();
        let other = Cancel::default();
        drop(cancel.on_drop());
        cancel.clone().within(|| {
            assert_eq!(check(), Err(Cancelled));
            other.within(|| assert_eq!(check(), Ok(())));
            assert_eq!(check(), Err(Cancelled));
        });
        let panicked = std::panic::catch_unwind(|| cancel.within(|| panic!("no matter")));
        assert!(panicked.is_err());
        assert_eq!(check(), Ok(()));
    }
}
