//! Recordings of Java Flight Recorder, as Pyroscope's Java agent sends those of async-profiler.
//!
//! A recording holds events of several kinds, each of which becomes a profile of its own. Its bytes are foreign: each loop
//! ends with them, and what is kept of them is counted. [`jfrs`](https://crates.io/crates/jfrs) reads the format too, but
//! rests since 2023 and believes the lengths that it reads.

mod chunk;
mod collect;
mod names;
mod reader;
mod stacks;
mod types;

use std::collections::HashMap;

use buffa::{DecodeError, DecodeOptions};
use bytes::Bytes;
use foldhash::fast::RandomState;
use spanflame_wire::jfr::v1::__buffa::view::{ContextView, LabelsSnapshotView};

use self::chunk::Chunk;
use self::collect::{Kind, Recording};
use self::reader::Fault;
use super::assemble::{Header, LabelValue};
use super::labels::SeriesLabels;
use super::pprof::gunzip;
use super::{Budget, IngestError, Limits};
use crate::model::Profile;

#[cfg(test)]
mod tests;

const FIELD: &str = "jfr";

/// What an agent sends of a recording.
pub(super) struct Files {
    /// The recording, gzipped or not.
    pub(super) recording: Bytes,
    /// The labels of its contexts, gzipped or not.
    pub(super) labels: Option<Bytes>,
}

/// Reads a recording and the labels that came beside it.
///
/// `series` makes the labels of a profile of this name. `span` is what every sample knows of a span unless its event says
/// otherwise. `header` is what the sender told beside the recording: its period is the time between samples in
/// nanoseconds, 10 ms if 0; a start of 0 stands for the recording's own time. Gives a profile for each kind of event and
/// each set of labels.
///
/// # Errors
/// When the bytes are no recording or a damaged one (the message tells which chunk and byte), or when a limit or the
/// budget does not suffice.
pub(super) fn decode_jfr(
    series: impl Fn(&str) -> Result<SeriesLabels, IngestError>,
    span: &[(&str, LabelValue<'_>)],
    files: Files,
    header: Header,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let series = Kind::ALL.into_iter().map(|kind| series(kind.name()));
    let series: Vec<SeriesLabels> = series.collect::<Result<_, _>>()?;
    let bytes = gunzip(FIELD, files.recording, limits, budget)?;
    let snapshot = files
        .labels
        .filter(|raw| !raw.is_empty())
        .map(|raw| gunzip("labels", raw, limits, budget))
        .transpose()?
        .unwrap_or_default();
    let snapshot = Snapshot::read(&snapshot, limits)?;

    let mut memory = Memory { left: limits.max_decoded_bytes, max: limits.max_decoded_bytes };
    let mut rest = &bytes[..];
    let mut whole: Option<Recording<'_>> = None;
    for number in 0.. {
        let begins = bytes.len() - rest.len();
        let located = |fault: Fault| match fault {
            Fault::Refused(error) => error,
            Fault::Damaged { at, what } => {
                IngestError::invalid(format!("{FIELD}: chunk[{number}], byte {}", begins + at), what)
            }
        };
        let (chunk, after) = Chunk::read(rest, &mut memory).map_err(located)?;
        let recording = match &mut whole {
            Some(recording) => recording,
            None => {
                let header = match header.start_nanos {
                    0 => Header {
                        start_nanos: chunk.header.start_nanos,
                        duration_nanos: chunk.header.duration_nanos,
                        ..header
                    },
                    _ => header,
                };
                let header = header.check("from", limits, received_ms)?;
                whole.insert(Recording::new(&series, span, header, limits)?)
            }
        };
        recording.add(&chunk, &snapshot, &mut memory).map_err(located)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    whole.map_or(Ok(Vec::new()), |recording| recording.finish(budget))
}

/// Memory that a recording's parts may take while it is read.
#[derive(Debug)]
struct Memory {
    left: usize,
    max: usize,
}

impl Memory {
    fn take(&mut self, bytes: usize) -> Result<(), IngestError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let got = (self.max - self.left).saturating_add(bytes);
                Err(IngestError::over(FIELD, "max_decoded_bytes", self.max, got))
            }
        }
    }
}

/// The labels of each context that events may name.
struct Snapshot<'a> {
    contexts: HashMap<i64, ContextView<'a>, RandomState>,
    strings: HashMap<i64, &'a str, RandomState>,
}

impl<'a> Snapshot<'a> {
    fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, IngestError> {
        let options = DecodeOptions::new()
            .with_max_message_size(limits.max_profile_bytes)
            .with_element_memory_limit(limits.max_decoded_bytes);
        let view: LabelsSnapshotView<'a> = options.decode_view(bytes).map_err(|error| match error {
            DecodeError::ElementMemoryLimitExceeded => {
                let max = limits.max_decoded_bytes;
                IngestError::over("labels", "max_decoded_bytes", max, max.saturating_add(1))
            }
            error => IngestError::invalid(
                "labels",
                format!("are no snapshot of labels, or a damaged one: {error}"),
            ),
        })?;
        let max = limits.max_labels_per_sample;
        for (id, context) in view.contexts.iter() {
            let got = context.labels.len();
            if got > max {
                return Err(IngestError::over(
                    format!("labels: context {id}"),
                    "max_labels_per_sample",
                    max,
                    got,
                ));
            }
        }
        Ok(Self {
            contexts: view.contexts.into_iter().collect(),
            strings: view.strings.into_iter().collect(),
        })
    }

    /// The string with this number.
    fn string(&self, number: i64) -> Option<&'a str> {
        self.strings.get(&number).copied()
    }

    /// The labels of a context, with both of their parts known.
    fn labels(&self, context: i64) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        let context = self.contexts.get(&context);
        let pairs = context.into_iter().flat_map(|context| context.labels.iter());
        pairs.filter_map(|&(name, value)| Some((self.string(name)?, self.string(value)?)))
    }
}
