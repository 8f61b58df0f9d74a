//! Burns measured amounts of CPU for the examples, so that what a flame graph should show is known beforehand.
//! It knows nothing of spans or profiles.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The CPU time that the calling thread has used so far.
///
/// A thread that is preempted uses none, so that a burn is as long on a busy machine as on an idle one.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A thread's CPU clock starts at zero and does not go back.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

/// Repeats `unit` until the calling thread has spent `cpu`, and returns what it spent: up to one unit more.
///
/// Always inlined: the samples belong to the function that asked for the work.
#[inline(always)]
pub fn spend(cpu: Duration, mut unit: impl FnMut()) -> Duration {
    let start = thread_cpu_time();
    loop {
        let spent = thread_cpu_time().saturating_sub(start);
        if spent >= cpu {
            return spent;
        }
        unit();
    }
}

/// How long to work before others get their turn: one to three milliseconds, uneven as real work is.
///
/// Even slices would march in step with the kernel's tick, which takes the samples: of two spans that take turns one
/// could be hit every time and the other never.
pub fn slice() -> Duration {
    let seed = thread_cpu_time().subsec_nanos().wrapping_mul(2_654_435_761);
    Duration::from_micros(1_000 + u64::from(seed >> 21))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spends_what_was_asked_and_no_more_than_a_unit_above() {
        let asked = Duration::from_millis(20);
        let mut units = 0u32;
        let mut longest = Duration::ZERO;
        let before = thread_cpu_time();
        let spent = spend(asked, || {
            let start = thread_cpu_time();
            std::hint::black_box((0..20_000u64).fold(0, |sum, n| sum ^ n.wrapping_mul(n)));
            longest = longest.max(thread_cpu_time() - start);
            units += 1;
        });
        assert!(units > 0);
        assert!(spent >= asked, "{spent:?}");
        assert!(spent <= thread_cpu_time() - before);
        // Reading the clock is part of what is spent: as much again as the longest unit leaves room for it.
        assert!(spent <= asked + longest * 2, "{spent:?} with units of up to {longest:?}");
    }

    #[test]
    fn slices_are_uneven_and_bounded() {
        let slices: Vec<Duration> = std::iter::repeat_with(slice).take(100).collect();
        assert!(slices.iter().all(|slice| (1_000..3_100).contains(&slice.as_micros())), "{slices:?}");
        assert!(slices.windows(2).any(|pair| pair[0] != pair[1]), "{slices:?}");
    }

    #[test]
    fn nothing_to_spend_runs_nothing() {
        spend(Duration::ZERO, || unreachable!("no time was asked for"));
    }
}
