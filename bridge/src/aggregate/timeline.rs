//! When windows begin, for readers: wall-clock times that never run backwards for a clock's correction.

use std::time::{Duration, SystemTime};

/// A wall clock that was set back by no more than this is waited for: windows follow on each other, and who looks for a
/// span's profile looks that far around the span. One set back further is believed, as the spans' times are its.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Timeline {
    /// When the window that is filled now began.
    start: SystemTime,
}

impl Timeline {
    pub(super) fn new(wall: SystemTime) -> Self {
        Self { start: wall }
    }

    /// Ends a window that took `duration` by a clock nobody sets, and gives its start. The next one begins where it ends,
    /// or later if the wall clock says so.
    pub(super) fn cut(&mut self, duration: Duration, wall: SystemTime) -> SystemTime {
        let start = self.start;
        let end = start + duration;
        let set_back = end.duration_since(wall).unwrap_or_default();
        self.start = if set_back <= PATIENCE { end.max(wall) } else { wall };
        start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn a_step_of_an_hour_is_followed_from_the_next_window_on() {
        let ten = Duration::from_secs(10);
        let mut timeline = Timeline::new(at(0));
        assert_eq!(timeline.cut(ten, at(10)), at(0));
        assert_eq!(timeline.cut(ten, at(20) + HOUR), at(10), "its start was right when it began");
        assert_eq!(timeline.cut(ten, at(30) + HOUR), at(20) + HOUR);
        assert_eq!(timeline.cut(ten, at(40)), at(30) + HOUR);
        assert_eq!(timeline.cut(ten, at(50)), at(40), "back in the hour that the spans are in");
        assert_eq!(timeline.cut(ten, at(60)), at(50));
    }

    proptest! {
        /// Steps of the wall clock before each cut, in milliseconds.
        #[test]
        fn windows_never_overlap_unless_the_clock_is_set_back_far(
            cuts in proptest::collection::vec((1..15_000u64, -40_000..40_000i64, prop::bool::weighted(0.2)), 1..60),
        ) {
            let mut wall = at(0);
            let mut timeline = Timeline::new(wall);
            let mut end = wall;
            for (millis, step, steps) in cuts {
                let duration = Duration::from_millis(millis);
                wall += duration;
                if steps {
                    let by = Duration::from_millis(step.unsigned_abs());
                    wall = if step < 0 { wall - by } else { wall + by };
                }
                let start = timeline.cut(duration, wall);
                prop_assert!(start >= end || end.duration_since(start).expect("earlier") > PATIENCE);
                end = start + duration;
                // Grafana looks half a minute around a span.
                prop_assert!(end.duration_since(wall).unwrap_or_default() <= PATIENCE || timeline.start == wall);
            }
        }
    }
}
