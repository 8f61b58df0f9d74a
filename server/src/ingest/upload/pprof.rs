//! pprof as agents upload it: without the profile's name, and with the habits of some agents.

use std::collections::HashMap;

use serde::Deserialize;
use spanflame_wire::google::v1::__buffa::view::ProfileView;

use super::{Parts, Upload};
use crate::ingest::normalise::{self, Dialect, FileNames};
use crate::ingest::{Budget, IngestError, Limits, pprof};
use crate::json::Object;
use crate::model::Profile;

/// How large the description of the sample types may be, in bytes: it is a handful of lines.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// What agents say of a sample type. They also send its unit, how it is summed up, whether it counts from the start of the
/// process and whether it is sampled, all of which the profile says itself.
#[derive(Deserialize)]
pub(in crate::ingest) struct SampleType {
    #[serde(rename = "display-name", default)]
    display_name: String,
}

pub(in crate::ingest) type SampleTypes = HashMap<String, Object<SampleType>>;

/// Reads one pprof, gzipped or not.
pub(super) fn decode(
    upload: &Upload,
    parts: &Parts,
    limits: &Limits,
    budget: &mut Budget,
    received_ms: i64,
) -> Result<Vec<Profile>, IngestError> {
    let config = parts.sample_type_config.as_deref().map(sample_types).transpose()?.unwrap_or_default();
    let bytes = pprof::decompress(parts.profile.clone(), limits, budget)?;
    let profile = pprof::decode(&bytes, limits)?;
    let name = profile_name(&profile.tables, &config);
    let series = upload.name.series(&name, upload.name.app(), &upload.spy_name, limits)?;
    let spy = upload.spy_name.as_str();
    let dialect = Dialect {
        start_nanos: Some(upload.from_nanos),
        file_names: match spy {
            "pyspy" => FileNames::BeforeNamesIfRelative,
            "rbspy" | "scripting" => FileNames::BeforeNames,
            _ => FileNames::Apart,
        },
        // Its agent once sent nothing else that tells it.
        dotnet: spy == "dotnetspy" || spy == "unknown" && config.contains_key("inuse-space"),
        span: upload.name.span().collect(),
    };
    normalise::normalise(&profile, &series, &dialect, limits, budget, received_ms)
}

fn sample_types(json: &[u8]) -> Result<SampleTypes, IngestError> {
    let field = "sample_type_config";
    if json.len() > MAX_CONFIG_BYTES {
        let message = format!("has {} bytes, expected {MAX_CONFIG_BYTES} at most", json.len());
        return Err(IngestError::invalid(field, message));
    }
    serde_json::from_slice(json).map_err(|error| IngestError::invalid(field, error.to_string()))
}

/// What the profile is called, told by the types of its samples: their names, or those to show.
///
/// References out of range are of no account here; they are refused later.
pub(in crate::ingest) fn profile_name(profile: &ProfileView<'_>, config: &SampleTypes) -> String {
    let types = || {
        let index = profile.sample_type.iter().map(|sample_type| usize::try_from(sample_type.r#type));
        index.filter_map(|index| profile.string_table.get(index.ok()?).copied())
    };
    if types().any(|name| name == "wall") {
        return "wall".to_owned();
    }
    let mut last = "unknown";
    for name in types() {
        let shown = config.get(name).map(|Object(config)| config.display_name.as_str());
        last = shown.filter(|shown| !shown.is_empty()).unwrap_or(name);
        for (profile, parts) in [
            ("process_cpu", &["cpu"][..]),
            ("memory", &["alloc_", "inuse_"]),
            ("mutex", &["mutex_"]),
            ("block", &["block_"]),
            ("goroutines", &["goroutines"]),
        ] {
            let plain = profile == "memory" && (last == "space" || last == "objects");
            if plain || parts.iter().any(|part| last.contains(part)) {
                return profile.to_owned();
            }
        }
    }
    last.to_owned()
}
