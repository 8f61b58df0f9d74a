//! When windows begin and end: by the wall clock where they are, by the monotonic clock how long they last.

use std::time::{Duration, Instant, SystemTime};

use super::collector::DRAIN_EVERY;

/// A window never covers more: Grafana looks for a span's profile close to the span.
const LONGEST: Duration = Duration::from_secs(15);
/// Windows end by this time, as a look at the clock is up to [`DRAIN_EVERY`] late, and somewhat more.
const LAST_LOOK: Duration = LONGEST.saturating_sub(DRAIN_EVERY.saturating_mul(2));
/// A wall clock that is behind by less than this was slewed, not set.
const SLEWED: Duration = Duration::from_secs(1);

/// The window that is being filled.
pub(super) struct Times {
    begun: Instant,
    begun_at: SystemTime,
    /// Windows end here, except those that cannot be handed over.
    due: Instant,
    interval: Duration,
}

impl Times {
    /// The first window is cut short at random, lest a whole fleet upload at the same second.
    pub(super) fn new(interval: Duration, now: Instant, wall: SystemTime, random: f64) -> Self {
        let interval = interval.min(LAST_LOOK);
        let due = now + interval.mul_f64(0.2 + 0.8 * random);
        Self { begun: now, begun_at: wall, due, interval }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Whether the window cannot go on.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.due && now >= self.begun + LAST_LOOK
    }

    /// Ends the window and begins the next: where this one began, and how long it lasted. The next one is shorter than
    /// the interval by a random tenth of it at most, so that processes that fell into step fall out of it again.
    ///
    /// Windows neither overlap nor leave a gap while the wall clock goes right; where it is set, the next window follows
    /// it.
    pub(super) fn cut(&mut self, now: Instant, wall: SystemTime, random: f64) -> (SystemTime, Duration) {
        let (start, duration) = (self.begun_at, now.saturating_duration_since(self.begun));
        let end = start + duration;
        self.begun_at = match end.duration_since(wall) {
            Ok(behind) if behind < SLEWED => end,
            _ => wall,
        };
        self.begun = now;
        self.due = now + self.interval.mul_f64(0.9 + 0.1 * random);
        (start, duration)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(seconds: f64) -> (Instant, SystemTime) {
        static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let origin = *ORIGIN.get_or_init(Instant::now);
        let time = Duration::from_secs_f64(seconds);
        (origin + time, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + time)
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_the_next_window_and_shortens_none() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (now, wall) = after(0.0);
        let mut times = Times::new(Duration::from_secs(10), now, wall, 0.5);
        let ten = Duration::from_secs(10);
        let (now, wall) = after(10.0);
        assert_eq!(times.cut(now, wall - HOUR, 0.5), (wall - ten, ten));
        let (now, wall) = after(20.0);
        assert_eq!(times.cut(now, wall + HOUR, 0.5), (wall - ten - HOUR, ten));
        let (now, wall) = after(30.0);
        assert_eq!(times.cut(now, wall, 0.5), (wall - ten + HOUR, ten));
        // The machine slept for an hour, which the monotonic clock does not count.
        let (now, _) = after(40.0);
        let (_, later) = after(3640.0);
        assert_eq!(times.cut(now, later, 0.5).1, ten);
        let (now, _) = after(50.0);
        assert_eq!(times.cut(now, later + ten, 0.5), (later, ten));
    }

    proptest! {
        #[test]
        fn windows_follow_each_other_and_are_due_in_time(
            interval in 1.0f64..=15.0,
            randoms in proptest::collection::vec(0.0f64..1.0, 2..20),
            slew in proptest::collection::vec(-0.4f64..0.4, 20),
        ) {
            let interval = Duration::from_secs_f64(interval);
            let (now, wall) = after(1.0);
            let mut times = Times::new(interval, now, wall, randoms[0]);
            prop_assert!(times.due <= now + interval && times.due > now);
            let mut end: Option<SystemTime> = None;
            let interval = interval.min(LAST_LOOK);
            for (random, slew) in randoms.iter().zip(&slew) {
                // The clock is looked at when a drain is done.
                let now = times.due + DRAIN_EVERY;
                prop_assert!(times.is_due(now) && now - times.begun <= LONGEST);
                prop_assert!(times.is_over(times.begun + LONGEST - DRAIN_EVERY), "or it may grow beyond");
                let seconds = (now - after(0.0).0).as_secs_f64();
                let (start, duration) = times.cut(now, after(seconds + slew).1, *random);
                prop_assert!(end.is_none_or(|end| start >= end), "no overlap");
                prop_assert!(times.due - now >= interval.mul_f64(0.89) && times.due - now <= interval);
                end = Some(start + duration);
            }
        }
    }
}
