//! Input becomes the model: decoding, limits, validation and normalisation of profiles and spans.
//!
//! Foreign bytes are bounded before they are believed. Nothing is stored or asked here.

mod assemble;
mod budget;
mod error;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod jfr;
mod labels;
mod limits;
mod losses;
mod normalise;
mod otlp;
mod pprof;
mod upload;

use bytes::Bytes;

pub use budget::Budget;
pub use error::IngestError;
pub(crate) use file::Origin;
pub use file::decode_file;
pub use labels::SeriesLabels;
pub use limits::Limits;
pub use otlp::{
    Dropped, Exported, ExportedSpans, MAX_SPAN_BYTES, SpanBatch, decode as decode_otlp, decode_spans,
    span_weight, spans_to_protobuf as spans_from_json, to_protobuf as otlp_from_json,
};
pub use upload::{AppName, Format, Parts, Upload};

use crate::model::Profile;
use normalise::Dialect;

#[cfg(test)]
mod tests;

/// Reads one pprof, gzipped or not, that was sent with these labels of its series and received at this time.
///
/// Gives one profile for each set of string labels that its samples carry (span and trace ids and span names are not
/// such labels but columns), and none if no sample has a value. A profile without a time began when it was received.
pub fn decode_series(
    labels: Vec<(String, String)>,
    raw_profile: Bytes,
    limits: &Limits,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let series = SeriesLabels::new(pairs, limits)?;
    decode_profile(&series, raw_profile, limits, &mut Budget::new(limits), received_ms)
}

/// [`decode_series`] for one of several profiles of a push, which share its budget and may share a series.
pub fn decode_profile(
    series: &SeriesLabels,
    raw_profile: Bytes,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let bytes = pprof::decompress(raw_profile, limits, budget)?;
    let profile = pprof::decode(&bytes, limits)?;
    normalise::normalise(&profile, series, &Dialect::default(), limits, budget, received_ms)
}
