//! Samples of formats that count stack traces and say nothing else: what is counted is said by the end of the application's
//! name, as in `shop.alloc_space`.

use crate::ingest::assemble::{self, Assembler, Frame, Header, LabelValue};
use crate::ingest::{IngestError, Limits, SeriesLabels};
use crate::model::ProfileType;

/// What stack traces are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// The profile's name.
    pub(super) profile: &'static str,
    sample_type: &'static str,
    unit: &'static str,
}

const fn kind(profile: &'static str, sample_type: &'static str, unit: &'static str) -> Kind {
    Kind { profile, sample_type, unit }
}

/// Samples taken while on CPU.
pub(super) const CPU: Kind = kind("process_cpu", "cpu", "nanoseconds");
/// Samples taken whether on CPU or not.
pub(super) const WALL: Kind = kind("wall", "wall", "nanoseconds");
/// Bytes of something.
pub(super) const BYTES: Kind = kind("memory", "samples", "bytes");

/// Ends of application names and what they stand for.
const KINDS: [(&str, Kind); 25] = [
    ("cpu", CPU),
    ("itimer", CPU),
    ("wall", WALL),
    ("seconds", WALL),
    ("milliseconds", WALL),
    ("microseconds", WALL),
    ("nanoseconds", WALL),
    ("bytes", BYTES),
    ("inuse_objects", kind("memory", "inuse_objects", "count")),
    ("inuse_space", kind("memory", "inuse_space", "bytes")),
    ("alloc_objects", kind("memory", "alloc_objects", "count")),
    ("alloc_space", kind("memory", "alloc_space", "bytes")),
    ("alloc_in_new_tlab_objects", kind("memory", "alloc_in_new_tlab_objects", "count")),
    ("alloc_in_new_tlab_bytes", kind("memory", "alloc_in_new_tlab_bytes", "bytes")),
    ("alloc_outside_tlab_objects", kind("memory", "alloc_outside_tlab_objects", "count")),
    ("alloc_outside_tlab_bytes", kind("memory", "alloc_outside_tlab_bytes", "bytes")),
    ("live", kind("memory", "live", "count")),
    ("goroutines", kind("goroutine", "goroutines", "count")),
    ("mutex_count", kind("mutex", "contentions", "count")),
    ("mutex_duration", kind("mutex", "delay", "nanoseconds")),
    ("block_count", kind("block", "contentions", "count")),
    ("block_duration", kind("block", "delay", "nanoseconds")),
    ("lock_count", kind("block", "contentions", "count")),
    ("lock_duration", kind("block", "delay", "nanoseconds")),
    ("exceptions", kind("exceptions", "samples", "count")),
];

/// The service and what is counted, if the end of the application's name tells it; else the service has the whole name.
pub(super) fn split(app: &str) -> (&str, Option<Kind>) {
    let known = app.rsplit_once('.').and_then(|(service, end)| {
        let (_, kind) = KINDS.iter().find(|(name, _)| *name == end)?;
        (!service.is_empty()).then_some((service, *kind))
    });
    known.map_or((app, None), |(service, kind)| (service, Some(kind)))
}

/// How often samples were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Samples a second; 0 if they are no samples of time but counted one by one.
    pub(super) hertz: u32,
}

impl Rate {
    /// What is assumed where no rate is told.
    pub(super) const DEFAULT: Self = Self { hertz: 100 };

    /// Nanoseconds that a sample stands for, 0 if it stands for none.
    pub(super) fn period_nanos(self) -> i64 {
        1_000_000_000i64.checked_div(self.hertz.into()).unwrap_or(0)
    }
}

impl Kind {
    /// Whether samples stand for time, each for one period.
    pub(super) fn is_time(self) -> bool {
        self == CPU || self == WALL
    }

    /// The type of its values at this rate, the period, and what to multiply a count with.
    pub(super) fn at(self, rate: Rate) -> (ProfileType, i64, i64) {
        let period = if self.is_time() { rate.period_nanos() } else { 0 };
        let (value, of_period) = match (self.is_time(), period) {
            (true, 0) => (("samples", "count"), ("", "")),
            (true, _) => ((self.sample_type, self.unit), ("cpu", "nanoseconds")),
            (false, _) => ((self.sample_type, self.unit), ("", "")),
        };
        let kind = ProfileType {
            name: self.profile.into(),
            sample_type: value.0.into(),
            sample_unit: value.1.into(),
            period_type: of_period.0.into(),
            period_unit: of_period.1.into(),
        };
        (kind, period, period.max(1))
    }
}

/// Takes counted stack traces of one kind.
pub(super) struct Tally<'a> {
    pub(super) profiles: Assembler<'a>,
    /// How many frames of a stack trace are kept, from the root on: naming more would be in vain.
    pub(super) depth: usize,
    scale: i64,
}

impl<'a> Tally<'a> {
    /// A tally of samples that were taken at this rate; every one of them has this span.
    pub(super) fn new<'l>(
        series: &'a SeriesLabels,
        kind: Kind,
        rate: Rate,
        header: Header,
        span: impl Iterator<Item = (&'l str, LabelValue<'l>)>,
        limits: &'a Limits,
    ) -> Self {
        let (kind, period, scale) = kind.at(rate);
        let mut profiles = Assembler::new(series, vec![kind], Header { period, ..header }, limits);
        profiles.for_all(span);
        Self { profiles, depth: limits.max_stack_depth, scale }
    }

    /// The number of a frame of which only the name is known.
    pub(super) fn frame(&mut self, name: &str) -> u32 {
        self.profiles.frame(Frame { name, ..Frame::default() })
    }

    /// Adds a stack trace, the root first, that was seen so many times.
    pub(super) fn add(&mut self, path: &[u32], count: i64) -> Result<(), IngestError> {
        let value = count.saturating_mul(self.scale);
        debug_assert!(value == 0 || assemble::counts(&[value]), "decoders refuse negative counts");
        self.profiles.path(path, [], &[value])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_name_tells_what_is_counted() {
        let id = |app: &str, hertz: u32| {
            let (service, kind) = split(app);
            let (kind, period, scale) = kind.unwrap_or(CPU).at(Rate { hertz });
            (service.to_owned(), kind.to_string(), period, scale)
        };
        for (app, hertz, service, kind, period, scale) in [
            ("shop", 100, "shop", "process_cpu:cpu:nanoseconds:cpu:nanoseconds", 10_000_000, 10_000_000),
            ("shop.cpu", 1000, "shop", "process_cpu:cpu:nanoseconds:cpu:nanoseconds", 1_000_000, 1_000_000),
            ("shop.cpu", 0, "shop", "process_cpu:samples:count::", 0, 1),
            ("shop.wall", 100, "shop", "wall:wall:nanoseconds:cpu:nanoseconds", 10_000_000, 10_000_000),
            (
                "my.service",
                100,
                "my.service",
                "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
                10_000_000,
                10_000_000,
            ),
            ("a.b.alloc_space", 100, "a.b", "memory:alloc_space:bytes::", 0, 1),
            ("a.goroutines", 100, "a", "goroutine:goroutines:count::", 0, 1),
            ("a.lock_duration", 100, "a", "block:delay:nanoseconds::", 0, 1),
            (".cpu", 100, ".cpu", "process_cpu:cpu:nanoseconds:cpu:nanoseconds", 10_000_000, 10_000_000),
        ] {
            assert_eq!(id(app, hertz), (service.to_owned(), kind.to_owned(), period, scale), "{app}");
        }
        for (_, kind) in KINDS {
            let (kind, ..) = kind.at(Rate { hertz: 100 });
            assert_eq!(kind.to_string().parse::<ProfileType>().as_ref(), Ok(&kind));
        }
    }
}
