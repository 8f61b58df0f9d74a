//! Input becomes the model: decoding, limits, validation and normalisation of profiles.
//!
//! Foreign bytes are bounded before they are believed. Nothing is stored or asked here.

mod error;
mod limits;

pub use error::IngestError;
pub use limits::Limits;

use bytes::Bytes;

use crate::model::Profile;

/// Reads one pprof with the labels of its series.
pub fn decode_series(
    _labels: Vec<(String, String)>,
    _raw_profile: Bytes,
    _limits: &Limits,
    _received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    Ok(Vec::new())
}
