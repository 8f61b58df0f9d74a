//! By when a profiler must be done: told once, as it is asked to stop, and known at once to all of its threads, whatever
//! they wait for.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longer than anyone waits, and no risk of a time that cannot be told.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// `timeout` from now.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(EVER)
}

#[derive(Debug, Default)]
pub(crate) struct Deadline(OnceLock<Instant>);

impl Deadline {
    /// The first call counts.
    pub(crate) fn set(&self, at: Instant) {
        let _ = self.0.set(at);
    }

    /// `None` until the profiler is asked to stop.
    pub(crate) fn get(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    /// Until when to wait for what was begun at `begun`: for `patience`, but for half of the time that was left then at
    /// most, lest nothing be left for what comes after.
    pub(crate) fn limit(&self, begun: Instant, patience: Duration) -> Instant {
        let left = self.get().map(|end| end.saturating_duration_since(begun));
        begun + left.map_or(patience, |left| patience.min(left / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_half_of_what_is_left_at_most() {
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = Deadline::default();
        assert_eq!(deadline.limit(begun, 5 * second), begun + 5 * second);
        deadline.set(begun + 4 * second);
        deadline.set(begun + 400 * second);
        assert_eq!(deadline.get(), Some(begun + 4 * second), "the first call counts");
        assert_eq!(deadline.limit(begun, 5 * second), begun + 2 * second);
        assert_eq!(deadline.limit(begun, second), begun + second);
        assert_eq!(deadline.limit(begun + 3 * second, 5 * second), begun + 3 * second + second / 2);
        assert_eq!(deadline.limit(begun + 9 * second, 5 * second), begun + 9 * second);
        assert!(after(Duration::MAX) > begun);
    }
}
