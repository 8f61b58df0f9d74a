//! Judges whether stacks are whole enough to be trusted, and names what most likely keeps them from being so.

use super::SamplerStats;
use crate::config::Unwinder;

/// The share of stacks that should reach their thread's entry.
const ENOUGH: f64 = 0.9;
/// Samples to judge by; before that, the walks made at the start.
const SAMPLES: u64 = 200;

/// What is wrong with the stacks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Complaint {
    /// The share of stacks that reach their thread's entry, 0 to 1.
    pub(crate) complete: f64,
    pub(crate) likely_cause: &'static str,
}

/// What is wrong with the stacks so far, if anything is.
pub(crate) fn complaint(stats: &SamplerStats) -> Option<Complaint> {
    let (complete, of) = if stats.samples >= SAMPLES {
        (stats.reached_entry, stats.samples)
    } else {
        (stats.self_test.complete.into(), stats.self_test.stacks.into())
    };
    let complete = complete as f64 / of as f64;
    // Of no stacks at all there is nothing to say.
    (complete < ENOUGH).then(|| Complaint { complete, likely_cause: likely_cause(stats) })
}

fn likely_cause(stats: &SamplerStats) -> &'static str {
    let strays = stats.bad_read + stats.no_progress;
    let causes = [stats.too_deep, stats.no_module, stats.no_rule, strays];
    let most = causes.iter().max().filter(|most| **most > 0);
    match (stats.unwinder, most.and_then(|most| causes.iter().position(|cause| cause == most))) {
        (_, Some(0)) => "stacks deeper than what is kept of them",
        (Unwinder::FramePointers, _) => {
            "code without frame pointers; build everything with -C force-frame-pointers=yes, or use the unwinder `tables`"
        }
        (Unwinder::Tables, Some(1)) => "generated code, which has no unwind tables",
        (Unwinder::Tables, Some(3)) => "code whose unwind tables do not describe it",
        (Unwinder::Tables, _) => "code without unwind tables: assembly, or an .eh_frame that was stripped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::SelfTest;

    #[test]
    fn nine_in_ten_are_enough_and_the_most_frequent_end_is_blamed() {
        let fine =
            SamplerStats { samples: 1000, reached_entry: 900, no_rule: 100, ..SamplerStats::default() };
        assert_eq!(complaint(&fine), None);
        let blamed = |stats: SamplerStats| complaint(&stats).expect("too few").likely_cause;
        let poor = SamplerStats { reached_entry: 899, too_deep: 1, ..fine };
        assert_eq!(complaint(&poor).map(|complaint| complaint.complete), Some(0.899));
        assert!(blamed(poor).contains("without unwind tables"));
        assert!(blamed(SamplerStats { too_deep: 101, ..poor }).contains("deeper"));
        assert!(blamed(SamplerStats { no_module: 101, ..poor }).contains("generated"));
        assert!(blamed(SamplerStats { bad_read: 60, no_progress: 60, ..poor }).contains("do not describe"));
        let frame_pointers = SamplerStats { unwinder: Unwinder::FramePointers, ..poor };
        assert!(blamed(frame_pointers).contains("force-frame-pointers"));
    }

    #[test]
    fn before_there_are_samples_the_walks_at_the_start_are_judged() {
        assert_eq!(complaint(&SamplerStats::default()), None, "nothing was walked");
        let tested = |complete| {
            let self_test = SelfTest { stacks: 2, complete };
            SamplerStats { self_test, samples: 199, reached_entry: 199, ..SamplerStats::default() }
        };
        assert_eq!(complaint(&tested(2)), None);
        assert_eq!(complaint(&tested(1)).map(|complaint| complaint.complete), Some(0.5));
        assert_eq!(complaint(&SamplerStats { samples: 200, reached_entry: 200, ..tested(1) }), None);
    }
}
