//! Reads what the bridge exports: the fields of pprof that a benchmark looks at.

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Read;

/// More than any profile of a benchmark.
const MAX_BYTES: u64 = 256 << 20;

/// A profile with its references resolved.
pub(crate) struct Decoded {
    pub(crate) samples: Vec<Sample>,
}

/// One of its samples.
pub(crate) struct Sample {
    pub(crate) functions: Vec<String>,
    pub(crate) count: u64,
    pub(crate) nanos: u64,
    /// Labels with a text.
    pub(crate) labels: HashMap<String, String>,
}

/// Decodes a gzipped profile whose values are `samples/count` and `cpu/nanoseconds`.
pub(crate) fn decode(gzipped: &[u8]) -> Result<Decoded> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzipped).take(MAX_BYTES).read_to_end(&mut bytes).context("gzip")?;
    let profile = RawProfile::decode(bytes.as_slice()).context("pprof")?;
    let text = |index: i64| -> Result<String> {
        let index = usize::try_from(index)?;
        Ok(profile.string_table.get(index).context("string index")?.clone())
    };
    let functions: HashMap<u64, i64> = profile.function.iter().map(|f| (f.id, f.name)).collect();
    let locations: HashMap<u64, &RawLocation> = profile.location.iter().map(|l| (l.id, l)).collect();
    let sample = |raw: &RawSample| -> Result<Sample> {
        let lines = raw.location_id.iter().filter_map(|id| locations.get(id)).flat_map(|l| &l.line);
        let names = lines.filter_map(|line| functions.get(&line.function_id)).map(|name| text(*name));
        let labels = raw.label.iter().filter(|label| label.str != 0);
        Ok(Sample {
            functions: names.collect::<Result<_>>()?,
            count: raw.value.first().copied().context("samples/count")?.try_into()?,
            nanos: raw.value.get(1).copied().context("cpu/nanoseconds")?.try_into()?,
            labels: labels.map(|label| Ok((text(label.key)?, text(label.str)?))).collect::<Result<_>>()?,
        })
    };
    Ok(Decoded { samples: profile.sample.iter().map(sample).collect::<Result<_>>()? })
}

#[derive(Clone, PartialEq, Message)]
struct RawProfile {
    #[prost(message, repeated, tag = "2")]
    sample: Vec<RawSample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<RawLocation>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<RawFunction>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RawSample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<RawLabel>,
}

#[derive(Clone, PartialEq, Message)]
struct RawLabel {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RawLocation {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<RawLine>,
}

#[derive(Clone, PartialEq, Message)]
struct RawLine {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct RawFunction {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}
