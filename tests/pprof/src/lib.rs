//! Reads pprof and the push request around it, from the formats' field numbers. It shares no code with the bridge, so
//! that a mistake cannot hide by being made twice.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::read::GzDecoder;
use prost::Message;

use self::message::{Location, Profile};

pub mod message;

/// Bounds what is read, in bytes.
pub const BODY_LIMIT: usize = 64 << 20;

/// Decompresses.
///
/// # Panics
/// When it is not gzip, or too large.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).take(BODY_LIMIT as u64).read_to_end(&mut plain).expect("it is gzip");
    assert!(plain.len() < BODY_LIMIT, "more than {BODY_LIMIT} bytes decompressed");
    plain
}

/// `push.v1.PushRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    /// The series, each with its profiles.
    #[prost(message, repeated, tag = 1)]
    pub series: Vec<RawProfileSeries>,
}

/// `push.v1.RawProfileSeries`.
#[derive(Clone, PartialEq, Message)]
pub struct RawProfileSeries {
    /// What the profiles have in common.
    #[prost(message, repeated, tag = 1)]
    pub labels: Vec<LabelPair>,
    /// The profiles.
    #[prost(message, repeated, tag = 2)]
    pub samples: Vec<RawSample>,
}

/// `types.v1.LabelPair`.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// The label's name.
    #[prost(string, tag = 1)]
    pub name: String,
    /// The label's value.
    #[prost(string, tag = 2)]
    pub value: String,
}

/// `push.v1.RawSample`.
#[derive(Clone, PartialEq, Message)]
pub struct RawSample {
    /// pprof, usually gzipped.
    #[prost(bytes = "vec", tag = 1)]
    pub raw_profile: Vec<u8>,
}

/// One sample of a profile: a stack and what was spent there.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The functions' names, outermost first, inlined ones included.
    pub stack: Vec<String>,
    /// The values, by `type/unit`.
    pub values: BTreeMap<String, i64>,
    /// The labels that are strings.
    pub labels: BTreeMap<String, String>,
    /// The labels that are numbers.
    pub numbers: BTreeMap<String, i64>,
}

impl Sample {
    /// How much CPU time, in nanoseconds.
    pub fn cpu(&self) -> i64 {
        self.values.get("cpu/nanoseconds").copied().unwrap_or_default()
    }

    /// How many samples of the clock.
    pub fn count(&self) -> i64 {
        self.values.get("samples/count").copied().unwrap_or_default()
    }

    /// The id of the span it belongs to.
    pub fn span_id(&self) -> Option<&str> {
        self.labels.get("span_id").map(String::as_str)
    }

    /// A label that holds a span id as a number, as the sixteen hexadecimal characters it stands for.
    pub fn id_number(&self, name: &str) -> Option<String> {
        self.numbers.get(name).map(|id| format!("{:016x}", id.cast_unsigned()))
    }

    /// Whether a function is on the stack, see [`is_function`].
    pub fn runs(&self, function: &str) -> bool {
        self.stack.iter().any(|name| is_function(name, function))
    }
}

/// Whether a symbol is the function whose path ends so. Not its closures, nor functions that have it for a parameter.
pub fn is_function(symbol: &str, function: &str) -> bool {
    symbol.strip_suffix(function).is_some_and(|path| path.is_empty() || path.ends_with("::"))
}

/// Reads a profile, gzipped or not: its interval in Unix nanoseconds, and its samples.
///
/// # Panics
/// When it is not a profile, or one with references into nowhere.
pub fn read(bytes: &[u8]) -> (std::ops::Range<i64>, Vec<Sample>) {
    let plain = if bytes.starts_with(&[0x1f, 0x8b]) { gunzip(bytes) } else { bytes.to_vec() };
    let profile = Profile::decode(plain.as_slice()).expect("it is a profile");
    let text = |index: i64| {
        let index = usize::try_from(index).expect("indices are not negative");
        profile.string_table.get(index).expect("indices are within the string table").clone()
    };
    let functions: BTreeMap<u64, String> =
        profile.function.iter().map(|function| (function.id, text(function.name))).collect();
    let locations: BTreeMap<u64, &Location> =
        profile.location.iter().map(|location| (location.id, location)).collect();
    let types: Vec<String> = profile
        .sample_type
        .iter()
        .map(|value| format!("{}/{}", text(value.kind), text(value.unit)))
        .collect();

    let samples = profile.sample.iter().map(|sample| {
        // Both lists begin with the innermost: the location that ran, the line that was inlined last.
        let lines = sample.location_id.iter().flat_map(|id| &locations[id].line);
        let mut stack: Vec<String> = lines.map(|line| functions[&line.function_id].clone()).collect();
        stack.reverse();
        assert_eq!(sample.value.len(), types.len(), "a sample has one value of each type");
        let labels = || sample.label.iter().map(|label| (text(label.key), label));
        Sample {
            stack,
            values: types.iter().cloned().zip(sample.value.iter().copied()).collect(),
            labels: labels()
                .filter(|(_, label)| label.str != 0)
                .map(|(key, label)| (key, text(label.str)))
                .collect(),
            numbers: labels()
                .filter(|(_, label)| label.str == 0)
                .map(|(key, label)| (key, label.num))
                .collect(),
        }
    });
    (profile.time_nanos..profile.time_nanos + profile.duration_nanos, samples.collect())
}
