//! What lies in a data directory, read without having it: a server may be at work there.
//!
//! Nothing here writes, and no lock is taken. Objects are immutable and log files only grow, so what is read is what was
//! written. What goes meanwhile is in something else by then, which is found by looking again.

mod inspect;
mod verify;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

pub use self::inspect::{Formats, Inspection, LogFacts, ManifestFacts, SegmentFacts, TenantFacts, inspect};
pub use self::verify::{Damage, Verified, verify};
use super::cache::BlockCache;
use super::codec;
use super::head::Partition;
use super::log::{LogDir, format};
use super::manifest::{Manifest, State};
use super::objects::{Bucket, BucketObjects, LocalObjects, Objects};
use super::segment::{Segment, SegmentMeta};
use super::source::Source;
use super::{StoreError, server_id, system_clock};
use crate::model::{TenantId, TimeRange};

#[cfg(test)]
mod tests;

/// How often a directory is looked at again when what it held a moment ago is gone.
const LOOKS: usize = 100;
/// Memory for pieces of segments.
const CACHE_BYTES: u64 = 64 << 20;

/// Where the data lies.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The data directory, with the log and, without a bucket, with the objects.
    pub data_dir: &'a Path,
    /// The bucket with the objects. There may be no data directory then.
    pub bucket: Option<&'a Bucket>,
}

impl<'a> From<&'a Path> for Place<'a> {
    fn from(data_dir: &'a Path) -> Self {
        Self { data_dir, bucket: None }
    }
}

impl Place<'_> {
    /// The objects, which have to be there.
    fn objects(self) -> Result<Arc<dyn Objects>, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::io("find a store: open", &path, error)
        };
        if let Some(bucket) = self.bucket {
            let place = PathBuf::from(bucket.to_string());
            return Ok(Arc::new(BucketObjects::open(bucket).map_err(failed(&place))?));
        }
        let root = self.data_dir.join("objects");
        Ok(Arc::new(LocalObjects::shared(&root).map_err(failed(&root))?))
    }
}

/// A data directory as it was at one moment.
pub struct Offline {
    objects: Arc<dyn Objects>,
    cache: Arc<BlockCache>,
    server: Option<Uuid>,
    state: State,
    /// Log files whose profiles are in no segment, oldest first.
    logs: Vec<LogFile>,
}

/// A log file, open: it stays readable when a server removes it.
struct LogFile {
    sequence: u64,
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// All that is in it by now.
    fn read(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.rewind()
            .and_then(|()| file.read_to_end(&mut bytes))
            .map_err(|error| StoreError::io("read", &self.path, error))?;
        match format::version(&bytes) {
            Some(found) if !(1..=format::VERSION).contains(&found) => {
                Err(StoreError::Version { path: self.path.clone(), found, supported: format::VERSION })
            }
            _ => Ok(bytes),
        }
    }
}

impl Offline {
    /// Looks at the data directory.
    ///
    /// # Errors
    /// When it is none, when its manifest cannot be read, or when something is of a version that is not known.
    pub fn open<'a>(place: impl Into<Place<'a>>) -> Result<Self, StoreError> {
        let place = place.into();
        let (objects, data_dir) = (place.objects()?, place.data_dir);
        let server = server_id::existing(data_dir)?;
        let mut looks = LOOKS;
        loop {
            // Log files first: one that is gone by then is covered by the manifest that is read later.
            let mut logs = open_logs(&data_dir.join("log"))?;
            looks -= 1;
            match Manifest::load(Arc::clone(&objects), system_clock(), server.unwrap_or_default()) {
                Ok(manifest) => {
                    manifest.check_versions()?;
                    let state = manifest.state().clone();
                    let covered = state.logs_of(server.unwrap_or_default());
                    logs.retain(|log| !covered.contains(log.sequence));
                    let cache = Arc::new(BlockCache::new(CACHE_BYTES));
                    return Ok(Self { objects, cache, server, state, logs });
                }
                // Entries go once there are checkpoints that say the same.
                Err(StoreError::Io { error, .. }) if error.kind() == ErrorKind::NotFound && looks > 0 => {}
                Err(StoreError::Damaged { .. }) if looks > LOOKS - 3 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What the manifest says about each segment.
    pub(super) fn segments(&self) -> impl Iterator<Item = &SegmentMeta> {
        self.state.segments.values()
    }

    /// Visits what a tenant has of this time, one part after another with its name: segments, then log files. A name is
    /// never another part's.
    ///
    /// # Errors
    /// With the first that `visit` has, or when a log file cannot be read. Records that are damaged are passed over.
    pub(crate) fn sources<E: From<StoreError>>(
        &self,
        tenant: &TenantId,
        range: Option<TimeRange>,
        mut visit: impl FnMut(&str, &dyn Source) -> Result<(), E>,
    ) -> Result<(), E> {
        let wanted = |meta: &&SegmentMeta| {
            meta.tenant == *tenant && range.is_none_or(|range| range.overlaps(&meta.range()))
        };
        for meta in self.segments().filter(wanted) {
            let segment = Segment::new(meta.clone(), Arc::clone(&self.objects), Arc::clone(&self.cache));
            let visited = visit(&meta.name, &segment);
            segment.forget();
            visited?;
        }
        for log in &self.logs {
            let bytes = log.read()?;
            let partition = Partition::new(0);
            for payload in format::contents(&bytes, log.sequence).payloads {
                match codec::decode(&bytes[payload.clone()]) {
                    Ok((of, profiles)) if of == *tenant => partition.insert(tenant, &profiles),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(path = %log.path.display(), offset = payload.start, %error, "record cannot be read");
                    }
                }
            }
            if let Some(part) = partition.tenant(tenant) {
                visit(&format!("log/{}", log.sequence), part.as_ref())?;
            }
        }
        Ok(())
    }

    /// Whether the object is still there; log files that were opened are.
    pub(crate) fn has(&self, part: &str) -> bool {
        let gone = |error: io::Error| error.kind() == ErrorKind::NotFound;
        part.starts_with("log/") || !self.objects.read(part, 0..1).is_err_and(gone)
    }
}

/// The files of a log, oldest first; none if there is no such directory.
fn open_logs(dir: &Path) -> Result<Vec<LogFile>, StoreError> {
    let failed = |action, path: &Path, error| Err(StoreError::io(action, path, error));
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return failed("list", dir, error),
    };
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return failed("list", dir, error),
    };
    let mut logs = Vec::new();
    for entry in listed {
        let Some(sequence) = entry.file_name().to_str().and_then(LogDir::sequence_of) else { continue };
        let path = entry.path();
        match File::open(&path) {
            Ok(file) => logs.push(LogFile { sequence, path, file }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return failed("open", &path, error),
        }
    }
    logs.sort_unstable_by_key(|log| log.sequence);
    Ok(logs)
}
