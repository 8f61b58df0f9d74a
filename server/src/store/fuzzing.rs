//! Ways for fuzz targets into parsers that are private. Not compiled otherwise but for tests.

use std::sync::Arc;

use uuid::Uuid;

use super::cache::BlockCache;
use super::head::Partition;
use super::log::format::{contents, header, put_record};
use super::manifest::{self, Change, Manifest};
use super::memory_objects::Memory;
use super::objects::Objects;
use super::segment::{self, Recipe, Segment, SegmentMeta, unpacked};
use super::source::{NO_SPAN, Source, SpanEntry, SpanLookup};
use super::{StoreError, codec};
use crate::model::{Profile, TenantId, TimeRange};

/// Reads a file of the log as a start does: as it is, and as what lies behind a whole record, which is always found.
pub fn log_file(bytes: &[u8]) {
    const SEQUENCE: u64 = 1;
    read_file(bytes, SEQUENCE);
    let (payload, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = header(SEQUENCE, 0).to_vec();
    put_record(&mut file, SEQUENCE, 0, payload);
    let whole = file.len() - payload.len()..file.len();
    file.extend_from_slice(rest);
    assert_eq!(contents(&file, SEQUENCE).payloads.first(), Some(&whole));
    read_file(&file, SEQUENCE);
}

fn read_file(file: &[u8], sequence: u64) {
    let contents = contents(file, sequence);
    let mut end = 0;
    for range in &contents.payloads {
        assert!(end <= range.start && range.end <= contents.end, "records lie side by side");
        end = range.end;
        log_payload(&file[range.clone()]);
    }
    assert!(contents.end <= file.len());
}

/// Reads the payload of a record as a start does.
pub fn log_payload(bytes: &[u8]) {
    if let Ok((_, profiles)) = codec::decode(bytes) {
        keep(profiles);
    }
}

/// Keeps profiles as an append does, and checks that they read back.
pub fn keep(profiles: Vec<Profile>) {
    let tenant = TenantId::anonymous();
    let mut payload = Vec::new();
    codec::encode(&tenant, &profiles, &mut payload);
    assert_eq!(codec::decode(&payload), Ok((tenant.clone(), profiles.clone())));
    let partition = Partition::new(0);
    partition.insert(&tenant, &profiles);
    if let Some(source) = partition.tenant(&tenant) {
        source.all_spans(None, None, &mut |_| ()).expect("memory is readable");
    }
}

/// Reads a segment as queries, `verify` and compaction do: every piece and every way of looking something up. What is
/// answered must fit together, whoever wrote the file; what a look-up finds is what all entries say.
pub fn segment(bytes: &[u8]) {
    const MOST: u64 = 1 << 16;
    let objects = Arc::new(Memory::default());
    let meta = SegmentMeta {
        name: "segments/fuzzed.segment".to_owned(),
        version: segment::VERSION,
        tenant: TenantId::anonymous(),
        bytes: bytes.len() as u64,
        footer_bytes: unpacked::footer_bytes(bytes).unwrap_or(bytes.len() as u64),
        level: 0,
        created_ms: 0,
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        profiles: MOST,
        rows: MOST,
        spans: MOST,
        symbol_bytes: 0,
        index_bytes: 0,
    };
    objects.0.lock().insert(meta.name.clone(), bytes.to_vec());
    let _ = segment::check(&meta, &*objects, &mut |_| ());
    let cache = Arc::new(BlockCache::new(64 << 20));
    let segment = Arc::new(Segment::new(meta, objects, cache));
    if let Err(error) = read_all(&*segment) {
        assert!(segment.is_damaged() || matches!(error, StoreError::Version { .. }), "{error}");
        return;
    }
    let tenant = TenantId::anonymous();
    let name = "segments/merged.segment".to_owned();
    let recipe = Recipe { name, tenant: &tenant, level: 1, now_ms: 0, keep: None, pace: &|| Ok(()) };
    let (profiles, rows) = counts(&*segment).expect("all of it was read before");
    let merged = segment::write(recipe, &[segment as Arc<dyn Source>]).expect("all of it was read before");
    assert_eq!(merged.map_or((0, 0), |merged| (merged.meta.profiles, merged.meta.rows)), (profiles, rows));
}

/// A segment as [`segment_packed`] takes it, easier to change; none if it is no segment.
pub fn segment_unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    unpacked::unpack(bytes)
}

/// A segment made of its unpacked form, with checksums that fit.
pub fn segment_packed(bytes: &[u8]) -> Option<Vec<u8>> {
    unpacked::pack(bytes)
}

fn counts(source: &dyn Source) -> Result<(u64, u64), StoreError> {
    let (mut profiles, mut rows) = (0, 0);
    for series in source.series(None)? {
        source.chunks_of(series.id, &mut |chunk| {
            profiles += 1;
            rows += chunk.stacks.len() as u64;
        })?;
    }
    Ok((profiles, rows))
}

fn read_all(source: &dyn Source) -> Result<(), StoreError> {
    // As many of each as a query of this size would want; a segment may have far more.
    const SOME: usize = 64;
    let series = source.series(None)?;
    let numbers: Vec<u32> = series.iter().map(|series| series.id).collect();
    for number in &numbers {
        for name in source.span_names(*number)? {
            source.string(name)?;
        }
    }
    let chunks = source.chunks(&numbers, None)?;
    source.chunks(&numbers, Some(TimeRange { start_ms: -1000, end_ms: 1000 }))?;
    for chunk in &chunks {
        assert_eq!(chunk.values.len(), chunk.totals.len() * chunk.stacks.len());
        let rows: usize = (0..chunk.runs.len()).map(|run| chunk.rows(run).len()).sum();
        assert_eq!(rows, chunk.stacks.len(), "runs fill their profile");
    }
    for chunk in chunks.iter().take(SOME) {
        let entries: Vec<u32> =
            chunk.runs.iter().map(|run| run.entry).filter(|entry| *entry != NO_SPAN).collect();
        assert_eq!(source.entries(&entries)?.len(), entries.len());
    }
    let stacks: Vec<u32> = (0..source.stack_count()?).collect();
    source.stacks(&stacks, &mut |_, symbols, stack| {
        for location in stack {
            for line in symbols.lines(symbols.location(*location)) {
                symbols.string(symbols.function_name(line.function));
            }
        }
    })?;
    source.losses(&mut |number, _, _| assert!((number as usize) < series.len()))?;
    let mut entries: Vec<SpanEntry> = Vec::new();
    source.all_spans(None, None, &mut |entry| {
        if entries.len() < SOME {
            entries.push(entry.clone());
        }
    })?;
    for entry in &entries {
        source.string(entry.span.name)?;
        source.runs(&[entry.id])?;
        let ids = [entry.span.span_id.map(SpanLookup::Span), entry.span.trace_id.map(SpanLookup::Trace)];
        let more =
            [entry.span.parent.map(SpanLookup::Children), entry.span.local_root.map(SpanLookup::LocalRoot)];
        for lookup in ids.into_iter().chain(more).flatten() {
            source.spans(lookup, &mut |found| assert!(lookup.finds(&found.span)))?;
        }
    }
    Ok(())
}

/// Reads entries and checkpoints of the manifest as a start does, one JSON text a line, a checkpoint's after a `C`; then
/// changes something. Whoever reads it next comes to the same.
pub fn manifest(bytes: &[u8]) {
    let _ = manifest::read_any(bytes);
    let objects = Arc::new(Memory::default());
    let mut entries = 0;
    for line in bytes.split(|byte| *byte == b'\n').take(200) {
        let (name, json) = match line.strip_prefix(b"C") {
            Some(json) => (manifest::checkpoint_name(entries + 1), json),
            None => {
                entries += 1;
                (manifest::entry_name(entries), line)
            }
        };
        objects.0.lock().insert(name, manifest::framed(json));
    }
    let load = || {
        let objects = Arc::clone(&objects) as Arc<dyn Objects>;
        Manifest::load(objects, Arc::new(|| 0), Uuid::nil())
    };
    let Ok(mut manifest) = load() else { return };
    let _ = manifest.check_versions();
    let remove: Vec<String> = manifest.state().segments.keys().take(1).cloned().collect();
    let logs = vec![manifest.state().logs_of(Uuid::nil()).last().unwrap_or(0).saturating_add(1)];
    let change = Change { remove, logs, ..Change::default() };
    // The number of the last log file may be the greatest that there is.
    let _ = manifest.commit(change);
    assert_eq!(load().expect("what was read is read again").state(), manifest.state());
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let seeds: Vec<_> = files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect();
        assert!(seeds.len() > 1);
        seeds
    }

    #[test]
    fn the_seeds_are_segments_and_their_unpacked_form_is_packed_again() {
        for (path, seed) in seeds("segment") {
            segment(&seed);
            let unpacked = segment_unpacked(&seed).unwrap_or_else(|| panic!("{path:?} is none"));
            let packed = segment_packed(&unpacked).unwrap();
            segment(&packed);
            assert_eq!(segment_unpacked(&packed).unwrap(), unpacked);
        }
    }

    #[test]
    fn the_seeds_are_manifests() {
        for (_, seed) in seeds("manifest") {
            manifest(&seed);
        }
    }
}
