//! Recordings of Java Flight Recorder as Pyroscope's Java agent uploads them, with the labels of their contexts beside them.

use super::{Parts, Upload};
use crate::ingest::assemble::{Header, LabelValue};
use crate::ingest::jfr::{Files, decode_jfr};
use crate::ingest::{Budget, IngestError, Limits};
use crate::model::Profile;

/// Reads a recording, and its labels if there are any.
pub(super) fn decode(
    upload: &Upload,
    parts: &Parts,
    header: Header,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let files = Files { recording: parts.profile.clone(), labels: parts.labels.clone() };
    let span: Vec<(&str, LabelValue<'_>)> = upload.name.span().collect();
    let series = |profile: &str| upload.name.series(profile, upload.name.app(), &upload.spy_name, limits);
    let header = Header { period: upload.rate.period_nanos(), ..header };
    decode_jfr(series, &span, files, header, limits, budget, received_ms)
}
