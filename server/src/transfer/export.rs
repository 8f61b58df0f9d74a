//! Out of a data directory: a file for each profile, in a directory for each series.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use buffa::Message;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest;

use super::message::{Part, message, parts};
use crate::model::{Labels, Loss, TenantId, TimeRange};
use crate::selector::LabelSelector;
use crate::store::{Bucket, Chunk, Offline, Place, SeriesEntry, Source, StoreError};

/// The longest part of a directory's name that is taken from one label, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The data directory. A server may be at work there.
    pub data_dir: PathBuf,
    /// The bucket with the segments; none for the data directory itself.
    pub bucket: Option<Bucket>,
    /// Whose profiles.
    pub tenant: TenantId,
    /// Those that overlap this time; none for all.
    pub range: Option<TimeRange>,
    /// Those of series that pass.
    pub selector: LabelSelector,
    /// A directory that is empty or not there yet.
    pub out: PathBuf,
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files written, one for each profile.
    pub files: u64,
    /// Directories written, one for each series.
    pub series: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What could not be read, which is missing.
    pub damages: Vec<String>,
}

/// Why nothing more can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The data directory cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A selector that asks for a part of profiles.
    #[error("selector: span_name is no label of a series, and profiles are exported whole: leave it out")]
    SpanName,
    /// There is something already.
    #[error("{}: is not empty: name a directory that is, or that is not there yet", .0.display())]
    NotEmpty(PathBuf),
    /// The files cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Writes profiles into files, gzipped pprof each, of which `import` makes the same profiles again. One profile is in
/// memory at a time, beside a log file or pieces of a segment.
///
/// # Errors
/// When the data directory cannot be read, or files cannot be written. What was written before stays.
pub fn export(options: &ExportOptions) -> Result<Exported, ExportError> {
    if options.selector.selects_span_names() {
        return Err(ExportError::SpanName);
    }
    let out = &options.out;
    let failed = |error| ExportError::Write { path: out.clone(), error };
    fs::create_dir_all(out).map_err(failed)?;
    if fs::read_dir(out).map_err(failed)?.next().is_some() {
        return Err(ExportError::NotEmpty(out.clone()));
    }
    let mut export = Export { options, exported: Exported::default(), series: BTreeSet::new(), again: false };
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut missing: BTreeSet<String> = BTreeSet::new();
    loop {
        let directory =
            Offline::open(Place { data_dir: &options.data_dir, bucket: options.bucket.as_ref() })?;
        let mut look_again = false;
        directory.sources(&options.tenant, options.range, |name, source| {
            if done.contains(name) {
                return Ok(());
            }
            match export.part(source) {
                Err(ExportError::Store(_)) if !directory.has(name) && missing.insert(name.to_owned()) => {
                    // What it held is in another segment by now, or has reached its retention.
                    look_again = true;
                }
                Err(ExportError::Store(error)) => {
                    export.exported.damages.push(error.to_string());
                    done.insert(name.to_owned());
                }
                other => {
                    other?;
                    done.insert(name.to_owned());
                }
            }
            Ok::<(), ExportError>(())
        })?;
        if !look_again {
            break;
        }
        export.again = true;
    }
    let Export { mut exported, series, .. } = export;
    exported.series = series.len() as u64;
    Ok(exported)
}

struct Export<'a> {
    options: &'a ExportOptions,
    exported: Exported,
    /// Names of directories.
    series: BTreeSet<String>,
    /// Whether profiles may be met that were exported already: they were moved meanwhile.
    again: bool,
}

impl Export<'_> {
    fn part(&mut self, source: &dyn Source) -> Result<(), ExportError> {
        let ExportOptions { range, selector, .. } = self.options;
        let wanted = |series: &SeriesEntry| {
            range.is_none_or(|range| range.overlaps(&series.range))
                && series.types.iter().any(|kind| selector.matches_series(&series.labels, kind))
        };
        let mut losses: HashMap<(u32, i64, i64), Vec<Loss>> = HashMap::new();
        source.losses(&mut |series, range, lost| {
            let of_profile = losses.entry((series, range.start_ms, range.end_ms)).or_default();
            of_profile.extend_from_slice(lost);
        })?;
        for series in source.series(None)?.iter().filter(|series| wanted(series)) {
            let parts: Vec<(Part, String)> = parts(&series.types)
                .into_iter()
                .map(|part| {
                    let directory = directory(&series.labels, &part.name);
                    (part, directory)
                })
                .collect();
            let mut failed = Ok(());
            let visited = source.chunks_of(series.id, &mut |chunk| {
                if failed.is_ok() && range.is_none_or(|range| range.overlaps(&chunk.interval())) {
                    let time = chunk.interval();
                    // The first profile of a time tells what was lost before it.
                    let lost = losses.remove(&(series.id, time.start_ms, time.end_ms)).unwrap_or_default();
                    let written = self.profile(source, series, chunk, &parts, &lost);
                    failed = self.unless_damaged(written);
                }
            });
            failed?;
            self.unless_damaged(visited.map_err(ExportError::Store))?;
        }
        Ok(())
    }

    /// Notes damage of a part of a segment: the rest may be whole.
    fn unless_damaged(&mut self, result: Result<(), ExportError>) -> Result<(), ExportError> {
        match result {
            Err(ExportError::Store(error @ StoreError::Damaged { what, .. })) if what != "object" => {
                let error = error.to_string();
                if !self.exported.damages.contains(&error) {
                    self.exported.damages.push(error);
                }
                Ok(())
            }
            other => other,
        }
    }

    fn profile(
        &mut self,
        source: &dyn Source,
        series: &SeriesEntry,
        chunk: &Chunk,
        parts: &[(Part, String)],
        losses: &[Loss],
    ) -> Result<(), ExportError> {
        for (at, (part, directory)) in parts.iter().enumerate() {
            let losses = if at == 0 { losses } else { &[] };
            let message = message(source, series, chunk, part, losses)?;
            let Some((mut file, path)) = self.create(directory, chunk)? else { continue };
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let written = encoder
                .write_all(&message.encode_to_vec())
                .and_then(|()| encoder.finish())
                .and_then(|bytes| file.write_all(&bytes).map(|()| bytes.len()));
            self.exported.bytes += written.map_err(|error| ExportError::Write { path, error })? as u64;
            self.exported.files += 1;
        }
        Ok(())
    }

    /// A new file for a profile, none if it has one already.
    fn create(&mut self, directory: &str, chunk: &Chunk) -> Result<Option<(File, PathBuf)>, ExportError> {
        let dir = self.options.out.join(directory);
        if self.series.insert(directory.to_owned()) {
            fs::create_dir_all(&dir).map_err(|error| ExportError::Write { path: dir.clone(), error })?;
        }
        let stem = format!("{}-{}", chunk.start_nanos.div_euclid(1_000_000), chunk.id);
        let mut path = dir.join(format!("{stem}.pb.gz"));
        // Profiles that were sent twice under one id are told apart by a number.
        for number in 2u64.. {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Some((file, path))),
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(ExportError::Write { path, error });
                }
                Err(_) if self.again => break,
                Err(_) => path = dir.join(format!("{stem}-{number}.pb.gz")),
            }
        }
        Ok(None)
    }
}

/// The name of a series' directory: what people know it by, as far as that is safe in a name, and a hash of all of it.
fn directory(labels: &Labels, name: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for text in labels.iter().flat_map(|(name, value)| [name, value]).chain([name]) {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    let hash: String = hash.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{}.{hash}", safe(labels.service()), safe(name))
}

/// A text as a part of a file's name on any system.
fn safe(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    text.chars().map(keep).take(MAX_NAME_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_are_safe_and_tell_series_apart() {
        let name = |service: &str| directory(&Labels::new([("service_name", service)]), "process_cpu");
        for hostile in [
            "../../etc/passwd",
            "",
            ".",
            "a/b\\c:d",
            "-rf",
            "ü\u{202e}\0\n",
            &"x".repeat(2000),
            "CON",
            "$(id)`;|",
        ] {
            let name = name(hostile);
            assert!(name.len() < 160 && name.ends_with(|c: char| c.is_ascii_hexdigit()), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)), "{name}");
            assert!(name.contains(".process_cpu."), "{name}");
        }
        assert_ne!(name("a/b"), name("a_b"));
        assert!(name("checkout").starts_with("checkout.process_cpu."));
    }
}
