//! Reading the log back after a stop of any kind.
//!
//! What was being written when the power went is cut off. What was whole once and no longer is (bit rot, a lost block) is
//! reported, a copy of the file is set aside for people to look at, and everything that is still whole is kept.

use std::io;
use std::path::{Path, PathBuf};

use super::LogDir;
use super::format::{Contents, HEADER_BYTES, VERSION, contents, header, put_record, version};
use crate::store::manifest::Covered;
use crate::store::{Clock, StoreError};

/// How the log was found.
#[derive(Debug, Default)]
pub(in crate::store) struct Recovered {
    /// The number that the next new file gets.
    pub(in crate::store) next_sequence: u64,
    /// The file that writing may go on in, and its end.
    pub(in crate::store) open_end: Option<(u64, u64)>,
    /// Bytes cut off that were never written to their end.
    pub(in crate::store) torn_bytes: u64,
    /// Bytes lost to damage.
    pub(in crate::store) damaged_bytes: u64,
    /// Files that could not be read at all.
    pub(in crate::store) unreadable_files: u64,
}

/// Refuses files of versions that cannot be read, before anything is changed.
pub(in crate::store) fn check_versions(dir: &LogDir, covered: &Covered) -> Result<(), StoreError> {
    let names = dir.disk.list(&dir.path).map_err(|error| StoreError::io("list", &dir.path, error))?;
    let sequences = names.iter().filter_map(|name| LogDir::sequence_of(name));
    for sequence in sequences.filter(|sequence| !covered.contains(*sequence)) {
        let path = dir.file(sequence);
        // One that cannot be read is told when all of it is.
        let Ok(beginning) = dir.disk.beginning(&path, HEADER_BYTES) else { continue };
        check_version(path, &beginning)?;
    }
    Ok(())
}

/// The version of a file, none if its header is not whole.
fn check_version(path: PathBuf, file: &[u8]) -> Result<Option<u32>, StoreError> {
    match version(file) {
        Some(found) if !(1..=VERSION).contains(&found) => {
            Err(StoreError::Version { path, found, supported: VERSION })
        }
        found => Ok(found),
    }
}

/// Hands the payload of every whole record to `visit` with the number of its file, in order. A payload that `visit` turns
/// down counts as damage. Files that are `covered` by segments are removed unread.
pub(in crate::store) fn recover(
    dir: &LogDir,
    clock: &Clock,
    covered: &Covered,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<Recovered, StoreError> {
    let names = dir.disk.list(&dir.path).map_err(|error| StoreError::io("list", &dir.path, error))?;
    for name in names.iter().filter(|name| name.ends_with(".tmp")) {
        let _ = dir.disk.remove(&dir.path.join(name));
    }
    let mut sequences: Vec<u64> = names.iter().filter_map(|name| LogDir::sequence_of(name)).collect();
    sequences.sort_unstable();
    // A number that segments cover is never used again, whether its file is still there or not.
    let next_sequence = covered.last().map_or(1, |last| last + 1);
    let mut recovered = Recovered { next_sequence, ..Recovered::default() };
    for &sequence in sequences.iter().filter(|sequence| covered.contains(**sequence)) {
        let path = dir.file(sequence);
        if let Err(error) = dir.disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "log file that is in segments stays on disk");
        }
    }
    sequences.retain(|sequence| !covered.contains(*sequence));
    for (at, &sequence) in sequences.iter().enumerate() {
        recovered.next_sequence = recovered.next_sequence.max(sequence.saturating_add(1));
        let path = dir.file(sequence);
        let file = match dir.disk.read(&path) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "log file cannot be read, going on without it");
                recovered.unreadable_files += 1;
                continue;
            }
        };
        let found = check_version(path.clone(), &file)?;
        let mut contents = contents(&file, sequence);
        contents.payloads.retain(|range| match visit(sequence, &file[range.clone()]) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(path = %path.display(), offset = range.start, %error, "record cannot be read");
                contents.damaged.push(range.clone());
                false
            }
        });
        let last = at + 1 == sequences.len();
        let torn = file.len() - contents.end;
        // Only the last file can have been in the middle of a write. An unfinished end of another one may be a lost end;
        // a file that did not get beyond its header has nothing to lose.
        if !last && torn > 0 && file.len() > HEADER_BYTES {
            contents.damaged.push(contents.end..file.len());
        }
        let kept = if !contents.damaged.is_empty() {
            let bytes: usize = contents.damaged.iter().map(|range| range.len()).sum();
            recovered.damaged_bytes += bytes as u64;
            tracing::error!(path = %path.display(), ranges = ?contents.damaged, bytes,
                records = contents.payloads.len(), "log file is damaged: keeping the records that are whole");
            set_aside(dir, sequence, clock, &file, &contents)
        } else if contents.payloads.is_empty() {
            recovered.torn_bytes += torn as u64;
            dir.disk.remove(&path)
        } else if torn > 0 {
            recovered.torn_bytes += torn as u64;
            tracing::warn!(path = %path.display(), bytes = torn, "cutting off an unfinished write");
            cut(dir, &path, contents.end as u64)
        } else {
            Ok(())
        };
        match kept {
            Err(error) => {
                // The records are in memory and on disk; the file just stays as it is.
                tracing::error!(path = %path.display(), %error, "log file could not be tidied up");
            }
            // What is written now would be damage to whoever still reads an earlier version.
            Ok(())
                if last
                    && found == Some(VERSION)
                    && contents.damaged.is_empty()
                    && !contents.payloads.is_empty() =>
            {
                recovered.open_end = Some((sequence, contents.end as u64));
            }
            Ok(()) => {}
        }
    }
    if !sequences.is_empty() {
        let _ = dir.sync();
    }
    Ok(recovered)
}

fn cut(dir: &LogDir, path: &Path, end: u64) -> io::Result<()> {
    let mut file = dir.disk.open(path)?;
    file.truncate(end)?;
    file.sync()
}

/// Copies a damaged file aside, then puts one with its whole records in its place. At every moment the name leads to the
/// one or the other.
fn set_aside(dir: &LogDir, sequence: u64, clock: &Clock, file: &[u8], contents: &Contents) -> io::Result<()> {
    let path = dir.file(sequence);
    let names = dir.disk.list(&dir.path)?;
    let aside = |number: u32| format!("{sequence:020}.log.damaged-{number}");
    let free = (1..).map(aside).find(|name| !names.contains(name)).expect("names do not run out");
    replace(dir, &dir.path.join(free), file)?;
    if contents.payloads.is_empty() {
        dir.disk.remove(&path)?;
        return dir.disk.sync_dir(&dir.path);
    }
    let mut whole = header(sequence, clock()).to_vec();
    for range in &contents.payloads {
        put_record(&mut whole, sequence, 0, &file[range.clone()]);
    }
    replace(dir, &path, &whole)
}

fn replace(dir: &LogDir, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = dir.disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    dir.disk.rename(&temporary, path)?;
    dir.disk.sync_dir(&dir.path)
}
