//! A profile in a file of its own: pprof, as profilers write it and as the store is exported.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spanflame_wire::google::v1::__buffa::view::ProfileView;

use super::normalise::{self, Dialect};
use super::{Budget, IngestError, Limits, SeriesLabels, pprof, upload};
use crate::model::{Profile, ProfileId};

/// Begins the comment of an exported profile that says where it comes from.
const MARK: &str = "spanflame.profile ";
/// The longest such comment, in bytes: labels have limits, but here nobody knows them.
const MAX_BYTES: usize = 1 << 20;

/// What a pprof cannot say of a profile of the store: a comment of the file does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The profile's id.
    pub(crate) id: String,
    /// Its name, as `process_cpu`.
    pub(crate) name: String,
    /// The labels of its series.
    pub(crate) labels: BTreeMap<String, String>,
}

impl Origin {
    /// The comment that says it.
    pub(crate) fn comment(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).expect("texts are JSON"))
    }

    fn of(pprof: &ProfileView<'_>) -> Result<Option<Self>, IngestError> {
        let text = |index: &i64| pprof.string_table.get(usize::try_from(*index).ok()?).copied();
        let Some(json) = pprof.comment.iter().filter_map(text).find_map(|text| text.strip_prefix(MARK))
        else {
            return Ok(None);
        };
        if json.len() > MAX_BYTES {
            let message = format!("expected {MAX_BYTES} bytes at most after {MARK:?}, got {}", json.len());
            return Err(IngestError::invalid("comment", message));
        }
        let origin = serde_json::from_str(json)
            .map_err(|error| IngestError::invalid("comment", format!("after {MARK:?}: {error}")))?;
        Ok(Some(origin))
    }
}

/// The labels of a profile's series, and its id if the file tells it.
struct Described {
    /// `__name__` is among them.
    labels: BTreeMap<String, String>,
    /// The profile's id.
    id: Option<ProfileId>,
    /// Whether the file tells them: it was exported from a store.
    exported: bool,
}

/// What a file says of its series, and where it says nothing what its sample types are usually called. Labels that are given
/// win.
fn describe(pprof: &ProfileView<'_>, given: &[(String, String)]) -> Result<Described, IngestError> {
    let origin = Origin::of(pprof)?;
    let exported = origin.is_some();
    let (mut labels, id) = match origin {
        Some(Origin { id, name, mut labels }) => {
            let id = id.parse().map_err(|error| IngestError::invalid("comment: id", format!("{error}")))?;
            labels.insert("__name__".to_owned(), name);
            (labels, Some(id))
        }
        None => {
            let name = upload::profile_name(pprof, &HashMap::new());
            (BTreeMap::from([("__name__".to_owned(), name)]), None)
        }
    };
    labels.extend(given.iter().cloned());
    Ok(Described { labels, id, exported })
}

/// Reads one pprof, gzipped or not, that lay in a file and is taken over at this time. These labels of the series win over
/// those that an exported file names; a file of another profiler is named by its sample types.
///
/// # Errors
/// When it is no pprof, or over a limit.
pub fn decode_file(
    raw_profile: Bytes,
    labels: &[(String, String)],
    limits: &Limits,
    now_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let mut budget = Budget::new(limits);
    let bytes = pprof::decompress(raw_profile, limits, &mut budget)?;
    let pprof = pprof::decode(&bytes, limits)?;
    let Described { labels, id, exported } = describe(&pprof, labels)?;
    let mut limits = limits.clone();
    if exported {
        // Its name was none of its labels when they were counted, nor was a service's that was added.
        limits.max_labels_per_series = limits.max_labels_per_series.saturating_add(2);
    }
    let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let series = SeriesLabels::new(pairs, &limits)?;
    let mut profiles =
        normalise::normalise(&pprof, &series, &Dialect::default(), &limits, &mut budget, now_ms)?;
    profiles.iter_mut().for_each(|profile| profile.id = id.unwrap_or(profile.id));
    Ok(profiles)
}
