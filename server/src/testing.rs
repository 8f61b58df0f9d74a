//! What the tests of several modules need: pprof messages and profiles made from a few words.

use buffa::Message;
use bytes::Bytes;
use spanflame_wire::google::v1::{Function, Label, Line, Location, Profile as Pprof, Sample, ValueType};

use crate::ingest::{Limits, decode_series};
use crate::model::{Profile, ProfileId};

/// 2026-01-01T00:00:00Z in Unix milliseconds.
pub(crate) const START_MS: i64 = 1_767_225_600_000;
pub(crate) const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
pub(crate) const SAMPLES: &str = "process_cpu:samples:count:cpu:nanoseconds";
const PERIOD: i64 = 10_000_000;

/// A pprof in the making: `samples/count` and `cpu/nanoseconds`, 100 Hz, 10 seconds from [`START_MS`].
#[derive(Default)]
pub(crate) struct PprofBuilder {
    pub(crate) pprof: Pprof,
}

impl PprofBuilder {
    pub(crate) fn new() -> Self {
        let mut builder = Self::default();
        builder.string("");
        let value_type = |builder: &mut Self, kind: &str, unit: &str| ValueType {
            r#type: builder.string(kind),
            unit: builder.string(unit),
            ..Default::default()
        };
        builder.pprof.sample_type = vec![
            value_type(&mut builder, "samples", "count"),
            value_type(&mut builder, "cpu", "nanoseconds"),
        ];
        builder.pprof.period_type = value_type(&mut builder, "cpu", "nanoseconds").into();
        builder.pprof.period = PERIOD;
        builder.pprof.time_nanos = START_MS * 1_000_000;
        builder.pprof.duration_nanos = 10_000_000_000;
        builder
    }

    pub(crate) fn string(&mut self, text: &str) -> i64 {
        let known = self.pprof.string_table.iter().position(|s| s == text);
        known.unwrap_or_else(|| {
            self.pprof.string_table.push(text.into());
            self.pprof.string_table.len() - 1
        }) as i64
    }

    fn location(&mut self, function: &str) -> u64 {
        let name = self.string(function);
        if let Some(at) = self.pprof.function.iter().position(|f| f.name == name) {
            return at as u64 + 1;
        }
        let id = self.pprof.function.len() as u64 + 1;
        self.pprof.function.push(Function { id, name, system_name: name, ..Default::default() });
        let line = vec![Line { function_id: id, line: 1, ..Default::default() }];
        self.pprof.location.push(Location { id, line, ..Default::default() });
        id
    }

    /// Adds a sample that was seen `count` times in these functions, the root first. A label's value is a string, or a
    /// number after `#`.
    pub(crate) fn sample(mut self, frames: &[&str], count: i64, labels: &[(&str, &str)]) -> Self {
        let location_id = frames.iter().rev().map(|frame| self.location(frame)).collect();
        let label = labels
            .iter()
            .map(|(key, value)| {
                let key = self.string(key);
                match value.strip_prefix('#') {
                    Some(number) => {
                        Label { key, num: number.parse::<u64>().unwrap() as i64, ..Default::default() }
                    }
                    None => Label { key, str: self.string(value), ..Default::default() },
                }
            })
            .collect();
        let value = vec![count, count * PERIOD];
        self.pprof.sample.push(Sample { location_id, value, label, ..Default::default() });
        self
    }

    pub(crate) fn at(mut self, start_ms: i64, duration_ms: i64) -> Self {
        self.pprof.time_nanos = start_ms * 1_000_000;
        self.pprof.duration_nanos = duration_ms * 1_000_000;
        self
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.pprof.encode_to_vec().into()
    }

    /// The profiles of a service called `checkout` or as `labels` say.
    pub(crate) fn profiles(&self, labels: &[(&str, &str)]) -> Vec<Profile> {
        decode_series(series_labels(labels), self.bytes(), &Limits::default(), START_MS + 10_000).unwrap()
    }
}

/// The profiles as if they had one id, to be compared by all else.
pub(crate) fn without_ids(mut profiles: Vec<Profile>) -> Vec<Profile> {
    profiles.iter_mut().for_each(|profile| profile.id = ProfileId::derived(0));
    profiles
}

pub(crate) fn series_labels(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = vec![("__name__", "process_cpu")];
    if !labels.iter().any(|(name, _)| *name == "service_name") {
        all.push(("service_name", "checkout"));
    }
    all.extend(labels);
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
