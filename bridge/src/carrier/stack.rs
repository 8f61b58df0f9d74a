//! A thread's own stack of labels, used where OpenTelemetry's stack of contexts cannot be observed. The latest entry
//! that is still held is the thread's label.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::live;
use crate::sampler;
use crate::spans::SpanKey;

/// The deepest a stack gets, as OpenTelemetry's. Entries beyond are not taken, and the label stays.
const MAX_DEPTH: usize = u16::MAX as usize;

thread_local! {
    static STACK: RefCell<Stack> = const { RefCell::new(Stack { keys: Vec::new() }) };
}

/// Labels the calling thread until the entry is dropped. `None` if that is not possible: too deep, or the thread is
/// past its end.
pub(super) fn push(key: SpanKey) -> Option<Entry> {
    // Published without the borrow, as a thread's first time allocates.
    let pushed = STACK.try_with(|stack| stack.try_borrow_mut().ok()?.push(key));
    let position = pushed.ok().flatten()?;
    publish(key);
    Some(Entry { position, _on_its_thread: PhantomData })
}

/// A place in the stack of the thread that made it.
#[derive(Debug)]
pub(super) struct Entry {
    position: usize,
    _on_its_thread: PhantomData<*const ()>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let label = STACK.try_with(|stack| Some(stack.try_borrow_mut().ok()?.remove(self.position)));
        if let Ok(Some(key)) = label {
            publish(key);
        }
    }
}

/// Labels the calling thread, unless OpenTelemetry's stack does: an entry may be from before that was observed.
fn publish(key: SpanKey) {
    if !live::observed() {
        sampler::publish(key);
    }
}

struct Stack {
    /// `None` where an entry was dropped before a later one. Never at the top.
    keys: Vec<Option<SpanKey>>,
}

impl Stack {
    fn push(&mut self, key: SpanKey) -> Option<usize> {
        let position = self.keys.len();
        (position < MAX_DEPTH).then(|| {
            self.keys.push(Some(key));
            position
        })
    }

    /// Removes an entry and says what the label is now.
    fn remove(&mut self, position: usize) -> SpanKey {
        if let Some(key) = self.keys.get_mut(position) {
            *key = None;
        }
        while let Some(None) = self.keys.last() {
            self.keys.pop();
        }
        self.keys.last().copied().flatten().unwrap_or(SpanKey::NONE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_latest_entry_that_is_held_is_the_label(steps in prop::collection::vec(any::<Option<prop::sample::Index>>(), 0..200)) {
            let mut stack = Stack { keys: Vec::new() };
            let mut held: Vec<(usize, SpanKey)> = Vec::new();
            for (number, step) in (1u64..).zip(steps) {
                let label = match step.filter(|_| !held.is_empty()) {
                    None => {
                        let key = SpanKey(number);
                        held.push((stack.push(key).expect("not that deep"), key));
                        key
                    }
                    Some(which) => stack.remove(held.remove(which.index(held.len())).0),
                };
                prop_assert_eq!(label, held.last().map_or(SpanKey::NONE, |(_, key)| *key));
                prop_assert!(stack.keys.last() != Some(&None));
            }
            for (position, _) in held {
                stack.remove(position);
            }
            prop_assert!(stack.keys.is_empty());
        }
    }

    #[test]
    fn a_stack_that_is_too_deep_takes_no_more_and_keeps_its_label() {
        let mut stack = Stack { keys: Vec::new() };
        for number in 0..MAX_DEPTH {
            assert_eq!(stack.push(SpanKey(number as u64 + 1)), Some(number));
        }
        assert_eq!(stack.push(SpanKey(u64::MAX)), None);
        assert_eq!(stack.remove(MAX_DEPTH - 1), SpanKey(MAX_DEPTH as u64 - 1));
    }

    #[test]
    fn entries_held_past_their_thread_s_stack_are_dropped_in_peace() {
        thread_local! {
            // Initialized before the stack, so it outlives it.
            static LATE: RefCell<Option<Entry>> = const { RefCell::new(None) };
        }
        let thread = std::thread::spawn(|| {
            LATE.with(|_| ());
            let entry = push(SpanKey(1));
            assert!(entry.is_some());
            LATE.set(entry);
        });
        thread.join().expect("no panic");
    }

    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[test]
    fn an_entry_from_before_contexts_were_observed_leaves_their_labels_alone() {
        let _turn = crate::sampler::TURN.lock();
        let live = live::Live::get();
        // While none runs, threads have no label.
        let sampler = sampler::Sampler::start(sampler::Options::new(1, &live.table)).expect("starts");
        let entry = push(SpanKey(1));
        crate::context::install(live);
        sampler::publish(SpanKey(7));
        drop(entry);
        assert_eq!(sampler::label(), SpanKey(7));
        drop(push(SpanKey(2)));
        assert_eq!(sampler::label(), SpanKey(7));
        sampler::publish(SpanKey::NONE);
        drop(sampler);
    }
}
