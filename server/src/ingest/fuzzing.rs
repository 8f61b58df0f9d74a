//! Ways for fuzz targets into decoders that are private. Not compiled otherwise.

use super::assemble::Header;
use super::jfr::{Files, decode_jfr};
use super::{Budget, IngestError, Limits, SeriesLabels};
use crate::model::Profile;

/// Reads a recording of Java Flight Recorder, with labels unless there are none.
pub fn jfr(recording: &[u8], labels: &[u8], limits: &Limits) -> Result<Vec<Profile>, IngestError> {
    let files = Files {
        recording: recording.to_vec().into(),
        labels: (!labels.is_empty()).then(|| labels.to_vec().into()),
    };
    let series = |name: &str| SeriesLabels::new([("__name__", name)].into_iter(), limits);
    decode_jfr(series, &[], files, Header::default(), limits, &mut Budget::new(limits), 0)
}
