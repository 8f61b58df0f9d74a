//! Whether all bytes of a data directory are those that were written.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;

use super::super::segment::{self, Flaw, SegmentMeta};
use super::super::{codec, manifest};
use super::{LogFile, Offline, Place, format};
use crate::store::StoreError;

/// Bytes that are not those that were written, or say what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Damage {
    /// The object or file.
    pub object: String,
    /// Where in it, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// What that costs.
    pub means: String,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Entries and checkpoints of the manifest.
    pub manifest_objects: u64,
    /// Segments.
    pub segments: u64,
    /// Pieces of segments.
    pub pieces: u64,
    /// Log files.
    pub log_files: u64,
    /// Records of the log.
    pub records: u64,
    /// Bytes of all that.
    pub bytes: u64,
    /// Bytes at the end of the log that are no record: a write that is under way, or was never acknowledged. Damage of the
    /// very last record looks the same.
    pub unfinished_bytes: u64,
    /// Damages found.
    pub damages: u64,
}

/// Reads everything in a data directory, checks it, and tells each damage. A server may be at work there.
///
/// # Errors
/// When it is none, or something is of a version that is not known.
pub fn verify<'a>(place: impl Into<Place<'a>>, mut tell: impl FnMut(Damage)) -> Result<Verified, StoreError> {
    let place = place.into();
    let mut verified = Verified::default();
    let mut damages = 0;
    let mut tell = |damage| {
        damages += 1;
        tell(damage);
    };
    let audit = manifest::audit(&*place.objects()?, &mut |name, what, means| {
        tell(Damage { object: name.to_owned(), offset: 0, what, means: means.to_owned() });
    })?;
    verified.manifest_objects = (audit.entries.len() + audit.checkpoints.len()) as u64;
    verified.bytes = audit.bytes;
    let mut checked = BTreeSet::new();
    let mut first = true;
    loop {
        let directory = match Offline::open(place) {
            Ok(directory) => directory,
            Err(StoreError::Damaged { name, what, why }) => {
                let what = format!("{what}: {why}");
                let means = "a server does not start, and which segments there are is not known".to_owned();
                tell(Damage { object: name, offset: 0, what, means });
                break;
            }
            Err(error) => return Err(error),
        };
        // Profiles of a log file that goes meanwhile are in segments that are looked at then.
        if std::mem::take(&mut first) {
            for (at, log) in directory.logs.iter().enumerate() {
                check_log(log, at + 1 == directory.logs.len(), &mut verified, &mut tell)?;
            }
        }
        let mut gone: Vec<&SegmentMeta> = Vec::new();
        for meta in directory.segments().filter(|meta| !checked.contains(&meta.name)) {
            let object = meta.name.clone();
            let mut flaws = Vec::new();
            match segment::check(meta, &*directory.objects, &mut |flaw| flaws.push(flaw)) {
                Ok(pieces) => {
                    verified.segments += 1;
                    verified.pieces += pieces;
                    verified.bytes += meta.bytes;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    gone.push(meta);
                    continue;
                }
                Err(error) => return Err(StoreError::io("read", Path::new(&object), error)),
            }
            for Flaw { offset, what, means } in flaws {
                tell(Damage { object: object.clone(), offset, what, means });
            }
        }
        if gone.is_empty() {
            break;
        }
        // It is damage if the manifest names it still. Whatever came in its place is looked at in the next round.
        let now = Offline::open(place)?;
        for meta in gone.iter().filter(|meta| now.state.segments.contains_key(&meta.name)) {
            let SegmentMeta { name, profiles, start_ms, end_ms, .. } = meta;
            let means = format!("its {profiles} profiles from {start_ms} to {end_ms} ms are lost");
            tell(Damage { object: name.clone(), offset: 0, what: "the object is gone".into(), means });
        }
        checked.extend(directory.segments().map(|meta| meta.name.clone()));
    }
    verified.damages = damages;
    Ok(verified)
}

fn check_log(
    log: &LogFile,
    last: bool,
    verified: &mut Verified,
    tell: &mut dyn FnMut(Damage),
) -> Result<(), StoreError> {
    let object = log.path.display().to_string();
    let mut damaged = |offset: usize, what: String, means: &str| {
        tell(Damage { object: object.clone(), offset: offset as u64, what, means: means.to_owned() });
    };
    verified.log_files += 1;
    let bytes = match log.read() {
        Ok(bytes) => bytes,
        Err(error @ StoreError::Version { .. }) => return Err(error),
        Err(error) => {
            damaged(0, error.to_string(), "a server goes on without it, and its profiles are not served");
            return Ok(());
        }
    };
    verified.bytes += bytes.len() as u64;
    let contents = format::contents(&bytes, log.sequence);
    verified.records += contents.payloads.len() as u64;
    let lost = "records that were here are lost";
    for range in &contents.damaged {
        damaged(range.start, format!("{} bytes are no record", range.len()), lost);
    }
    for payload in contents.payloads {
        if let Err(error) = codec::decode(&bytes[payload.clone()]) {
            damaged(payload.start, format!("record: {error}"), "its profiles are lost");
        }
    }
    let unfinished = bytes.len() - contents.end;
    // The last file may be in the middle of a write, and one without records has nothing to lose.
    if last {
        verified.unfinished_bytes += unfinished as u64;
    } else if unfinished > 0 && bytes.len() > format::HEADER_BYTES {
        damaged(contents.end, format!("{unfinished} bytes at the end are no record"), lost);
    }
    Ok(())
}
