//! What a data directory holds, in numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::codec;
use super::super::manifest;
use super::{Offline, Place, format};
use crate::model::{TenantId, TimeRange};
use crate::store::StoreError;

/// What a data directory holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Whose log files these are.
    pub server_id: Option<String>,
    /// Versions of the formats that are here.
    pub formats: Formats,
    /// The manifest.
    pub manifest: ManifestFacts,
    /// What the manifest says about each segment, by tenant and time.
    pub segments: Vec<SegmentFacts>,
    /// Log files whose profiles are in no segment yet.
    pub log_files: Vec<LogFacts>,
    /// Sums of each tenant.
    pub tenants: Vec<TenantFacts>,
    /// Segments that the manifest does not name: they are being written, or go at the next start.
    pub unlisted: Vec<String>,
}

/// Versions of formats.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Formats {
    /// Of log files.
    pub log: BTreeSet<u32>,
    /// Of the manifest.
    pub manifest: BTreeSet<u32>,
    /// Of segments.
    pub segment: BTreeSet<u32>,
}

/// The objects of a manifest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFacts {
    /// How many entries there are.
    pub entries: u64,
    /// The number of the first.
    pub first_entry: Option<u64>,
    /// The number of the last.
    pub last_entry: Option<u64>,
    /// Numbers of the checkpoints.
    pub checkpoints: Vec<u64>,
    /// Bytes of all.
    pub bytes: u64,
}

/// A segment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentFacts {
    /// The object's name.
    pub name: String,
    /// Whose profiles it holds.
    pub tenant: String,
    /// How often they were merged.
    pub level: u32,
    /// When the first began, in Unix milliseconds.
    pub start_ms: i64,
    /// When the last ended, in Unix milliseconds.
    pub end_ms: i64,
    /// When it was written, in Unix milliseconds.
    pub created_ms: i64,
    /// Profiles.
    pub profiles: u64,
    /// Samples: rows of a stack trace and a span.
    pub samples: u64,
    /// Distinct spans.
    pub spans: u64,
    /// Its size.
    pub bytes: u64,
}

/// A log file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFacts {
    /// Its number.
    pub number: u64,
    /// Version of its format; none if its header is not whole.
    pub version: Option<u32>,
    /// Its size.
    pub bytes: u64,
    /// Whole records.
    pub records: u64,
    /// Profiles in them.
    pub profiles: u64,
    /// Bytes that are no records though others lie behind.
    pub damaged_bytes: u64,
    /// Bytes behind the last whole record: a write that is under way, or was never finished.
    pub unfinished_bytes: u64,
}

/// What a tenant has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantFacts {
    /// Its id.
    pub tenant: String,
    /// Segments.
    pub segments: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
    /// Profiles in them.
    pub segment_profiles: u64,
    /// Samples in them.
    pub segment_samples: u64,
    /// Bytes of records of the log.
    pub log_bytes: u64,
    /// Profiles in them.
    pub log_profiles: u64,
    /// Samples in them.
    pub log_samples: u64,
    /// When the oldest profile began, in Unix milliseconds.
    pub oldest_ms: i64,
    /// When the newest ended, in Unix milliseconds.
    pub newest_ms: i64,
    /// Bytes of segments for each of their samples; none without any.
    pub bytes_per_sample: Option<f64>,
}

impl TenantFacts {
    fn new(tenant: &TenantId) -> Self {
        Self {
            tenant: tenant.to_string(),
            segments: 0,
            segment_bytes: 0,
            segment_profiles: 0,
            segment_samples: 0,
            log_bytes: 0,
            log_profiles: 0,
            log_samples: 0,
            oldest_ms: i64::MAX,
            newest_ms: i64::MIN,
            bytes_per_sample: None,
        }
    }

    fn cover(&mut self, range: TimeRange) {
        self.oldest_ms = self.oldest_ms.min(range.start_ms);
        self.newest_ms = self.newest_ms.max(range.end_ms);
    }
}

/// Looks at what a data directory holds. A server may be at work there.
///
/// # Errors
/// When it is none, when its manifest or log cannot be read, or when something is of a version that is not known.
pub fn inspect<'a>(place: impl Into<Place<'a>>) -> Result<Inspection, StoreError> {
    let directory = Offline::open(place)?;
    let audit = manifest::audit(&*directory.objects, &mut |_, _, _| {})?;
    let listed = directory.objects.list("segments", "");
    let listed =
        listed.map_err(|error| StoreError::io("list", &directory.objects.place("segments"), error))?;
    let known = &directory.state.segments;
    let mut tenants: BTreeMap<TenantId, TenantFacts> = BTreeMap::new();
    let mut formats = Formats { log: BTreeSet::new(), manifest: BTreeSet::new(), segment: BTreeSet::new() };
    if !audit.entries.is_empty() || !audit.checkpoints.is_empty() {
        formats.manifest.insert(manifest::VERSION);
    }
    for meta in directory.segments() {
        formats.segment.insert(meta.version);
        let facts = tenants.entry(meta.tenant.clone()).or_insert_with(|| TenantFacts::new(&meta.tenant));
        facts.segments += 1;
        facts.segment_bytes += meta.bytes;
        facts.segment_profiles += meta.profiles;
        facts.segment_samples += meta.rows;
        facts.cover(meta.range());
    }
    let log_files = logs(&directory, &mut tenants, &mut formats)?;
    for facts in tenants.values_mut().filter(|facts| facts.segment_samples > 0) {
        facts.bytes_per_sample = Some(facts.segment_bytes as f64 / facts.segment_samples as f64);
    }
    Ok(Inspection {
        server_id: directory.server.map(|id| id.to_string()),
        formats,
        manifest: ManifestFacts {
            entries: audit.entries.len() as u64,
            first_entry: audit.entries.first().copied(),
            last_entry: audit.entries.last().copied(),
            checkpoints: audit.checkpoints,
            bytes: audit.bytes,
        },
        segments: segments(&directory),
        log_files,
        tenants: tenants.into_values().collect(),
        unlisted: listed.into_iter().filter(|name| !known.contains_key(name)).collect(),
    })
}

fn segments(directory: &Offline) -> Vec<SegmentFacts> {
    let mut segments: Vec<_> = directory.segments().collect();
    segments.sort_by(|a, b| (&a.tenant, a.start_ms, &a.name).cmp(&(&b.tenant, b.start_ms, &b.name)));
    segments
        .into_iter()
        .map(|meta| SegmentFacts {
            name: meta.name.clone(),
            tenant: meta.tenant.to_string(),
            level: meta.level,
            start_ms: meta.start_ms,
            end_ms: meta.end_ms,
            created_ms: meta.created_ms,
            profiles: meta.profiles,
            samples: meta.rows,
            spans: meta.spans,
            bytes: meta.bytes,
        })
        .collect()
}

fn logs(
    directory: &Offline,
    tenants: &mut BTreeMap<TenantId, TenantFacts>,
    formats: &mut Formats,
) -> Result<Vec<LogFacts>, StoreError> {
    let mut files = Vec::new();
    for log in &directory.logs {
        let bytes = log.read()?;
        let contents = format::contents(&bytes, log.sequence);
        let version = format::version(&bytes);
        formats.log.extend(version);
        let mut facts = LogFacts {
            number: log.sequence,
            version,
            bytes: bytes.len() as u64,
            records: contents.payloads.len() as u64,
            profiles: 0,
            damaged_bytes: contents.damaged.iter().map(|range| range.len() as u64).sum(),
            unfinished_bytes: (bytes.len() - contents.end) as u64,
        };
        for payload in contents.payloads {
            let Ok((tenant, profiles)) = codec::decode(&bytes[payload.clone()]) else {
                facts.damaged_bytes += payload.len() as u64;
                continue;
            };
            facts.profiles += profiles.len() as u64;
            let of_tenant = tenants.entry(tenant.clone()).or_insert_with(|| TenantFacts::new(&tenant));
            of_tenant.log_bytes += payload.len() as u64;
            of_tenant.log_profiles += profiles.len() as u64;
            for profile in &profiles {
                of_tenant.log_samples += profile.rows() as u64;
                of_tenant.cover(profile.interval());
            }
        }
        files.push(facts);
    }
    Ok(files)
}
