//! Reading the log back after a stop of any kind.
//!
//! What was being written when the power went is cut off. What was whole once and no longer is (bit rot, a lost block) is
//! reported, a copy of the file is set aside for people to look at, and everything that is still whole is kept.
//!
//! Files know nothing of one another, so what is in them is looked at on several threads. All else happens on the caller's,
//! file by file in order of their numbers: what is told, what is changed on the disk, and what becomes of the records.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::ScopedJoinHandle;

use super::LogDir;
use super::format::{Contents, HEADER_BYTES, VERSION, contents, header, put_record, version};
use crate::store::manifest::Covered;
use crate::store::{Clock, StoreError};

/// How the log was found.
#[derive(Debug, Default, PartialEq, Eq)]
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

/// What the records of a log are read for.
pub(in crate::store) trait Replay: Sync {
    /// What the records of one file come to.
    type Part: Default + Send;

    /// Adds the payload of a record, or says why it is none. Called for several files at a time.
    fn add(&self, part: &mut Self::Part, payload: &[u8]) -> Result<(), String>;

    /// Takes what a file came to: file by file in order of their numbers, on the thread that reads the log.
    fn take(&self, sequence: u64, part: Self::Part);

    /// Whether there is memory for so many bytes of files, and what they come to, beside all that was taken. One file at a
    /// time is read in any case.
    fn has_room(&self, bytes: usize) -> bool;
}

/// A file whose records are being read.
struct Reading<'scope, P> {
    sequence: u64,
    bytes: usize,
    records: io::Result<ScopedJoinHandle<'scope, Records<P>>>,
}

/// What was found in a file.
struct Records<P> {
    file: Vec<u8>,
    contents: Contents,
    /// Where payloads lie that were turned down, and why.
    refused: Vec<(Range<usize>, String)>,
    part: P,
}

/// Adds the payloads of a file's whole records to what `replay` makes of them, in order.
fn read_records<R: Replay>(replay: &R, sequence: u64, file: Vec<u8>) -> Records<R::Part> {
    let mut contents = contents(&file, sequence);
    let (mut part, mut refused) = (R::Part::default(), Vec::new());
    contents.payloads.retain(|range| match replay.add(&mut part, &file[range.clone()]) {
        Ok(()) => true,
        Err(error) => {
            refused.push((range.clone(), error));
            false
        }
    });
    Records { file, contents, refused, part }
}

/// Has `replay` take the payloads of all whole records, those of at most `at_once` files at a time. A payload that it turns
/// down counts as damage. Files that are `covered` by segments are removed unread.
pub(in crate::store) fn recover(
    dir: &LogDir,
    clock: &Clock,
    covered: &Covered,
    replay: &impl Replay,
    at_once: usize,
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
    let last = sequences.last().copied();
    let mut finish = |reading: Reading<'_, _>| {
        let Reading { sequence, records, .. } = reading;
        let records = records.map(|records| records.join().unwrap_or_else(|panic| resume_unwind(panic)));
        recovered.finish(dir, clock, replay, (sequence, last == Some(sequence)), records)
    };
    std::thread::scope(|scope| {
        let mut under_way = VecDeque::new();
        // The memory of a file that is done: the system takes longer to find new memory than to read a file into it.
        let mut spare = Vec::new();
        for &sequence in &sequences {
            // While the others are looked at.
            let mut file = std::mem::take(&mut spare);
            let file = dir.disk.read_into(&dir.file(sequence), &mut file).map(|()| file);
            let bytes = file.as_ref().map_or(0, Vec::len);
            loop {
                let in_memory = under_way.iter().map(|reading: &Reading<'_, _>| reading.bytes).sum::<usize>();
                if under_way.len() < at_once && replay.has_room(in_memory + bytes) {
                    break;
                }
                let Some(first) = under_way.pop_front() else { break };
                spare = finish(first)?;
            }
            let records = file.map(|file| scope.spawn(move || read_records(replay, sequence, file)));
            under_way.push_back(Reading { sequence, bytes, records });
        }
        under_way.into_iter().try_for_each(|reading| finish(reading).map(drop))
    })?;
    // Names that were removed without it, before the stop, stay away from now on.
    if let Err(error) = dir.sync() {
        tracing::warn!(path = %dir.path.display(), %error, "what was refused before the stop may be found at a later start");
    }
    Ok(recovered)
}

impl Recovered {
    /// Takes what was found in a file, of which is known whether it is the last, and tidies the file up. The memory of its
    /// bytes is given back.
    fn finish<R: Replay>(
        &mut self,
        dir: &LogDir,
        clock: &Clock,
        replay: &R,
        (sequence, last): (u64, bool),
        records: io::Result<Records<R::Part>>,
    ) -> Result<Vec<u8>, StoreError> {
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        let path = dir.file(sequence);
        let Records { file, mut contents, refused, part } = match records {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "log file cannot be read, going on without it");
                self.unreadable_files += 1;
                return Ok(Vec::new());
            }
        };
        let found = check_version(path.clone(), &file)?;
        for (range, error) in refused {
            tracing::error!(path = %path.display(), offset = range.start, %error, "record cannot be read");
            contents.damaged.push(range);
        }
        replay.take(sequence, part);
        let torn = file.len() - contents.end;
        // Only the last file can have been in the middle of a write. An unfinished end of another one may be a lost end;
        // a file that did not get beyond its header has nothing to lose.
        if !last && torn > 0 && file.len() > HEADER_BYTES {
            contents.damaged.push(contents.end..file.len());
        }
        let kept = if !contents.damaged.is_empty() {
            let bytes: usize = contents.damaged.iter().map(|range| range.len()).sum();
            self.damaged_bytes += bytes as u64;
            tracing::error!(path = %path.display(), ranges = ?contents.damaged, bytes,
                records = contents.payloads.len(), "log file is damaged: keeping the records that are whole");
            set_aside(dir, sequence, clock, &file, &contents)
        } else if contents.payloads.is_empty() {
            self.torn_bytes += torn as u64;
            dir.disk.remove(&path)
        } else if torn > 0 {
            self.torn_bytes += torn as u64;
            tracing::warn!(path = %path.display(), bytes = torn, "cutting off an unfinished write");
            cut(dir, &path, contents.end as u64)
        } else {
            // The process that died may have cut it off or written to it last: what was found is what stays.
            dir.disk.open(&path).and_then(|mut file| file.sync())
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
                self.open_end = Some((sequence, contents.end as u64));
            }
            Ok(()) => {}
        }
        Ok(file)
    }
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

#[cfg(test)]
mod tests;
