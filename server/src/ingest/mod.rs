//! Input becomes the model: decoding, limits, validation and normalisation of profiles.
//!
//! Foreign bytes are bounded before they are believed. Nothing is stored or asked here.

mod error;
mod labels;
mod limits;
mod normalise;
mod pprof;

use bytes::Bytes;

pub use error::IngestError;
pub use limits::Limits;

use crate::model::Profile;

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
    let series = labels::SeriesLabels::new(labels, limits)?;
    let bytes = pprof::decompress(raw_profile, limits)?;
    let profile = pprof::decode(&bytes, limits)?;
    normalise::normalise(&profile, &series, limits, received_ms)
}
