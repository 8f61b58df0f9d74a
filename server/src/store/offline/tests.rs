use super::super::*;
use super::*;
use crate::testing::PprofBuilder;

fn profiles(number: u64) -> Vec<crate::model::Profile> {
    let span = format!("{:016x}", number + 1);
    let name = format!("function_{number}");
    let labels =
        [("span_id", &*span), ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"), ("span_name", "GET /")];
    PprofBuilder::new().sample(&["main", &name], 1, &labels).sample(&["idle"], 2, &[]).profiles(&[])
}

/// A directory with two segments of two tenants and a log with five records.
fn directory() -> tempfile::TempDir {
    // The tests themselves run outside of the runtime, as the commands do: reading blocks.
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(filled())
}

async fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    for number in 0..20 {
        let tenant = if number < 15 { "anonymous" } else { "other" };
        store.append(&TenantId::new(tenant).unwrap(), profiles(number)).await.unwrap();
    }
    store.flush().unwrap();
    for number in 20..25 {
        store.append(&TenantId::anonymous(), profiles(number)).await.unwrap();
    }
    dir
}

fn damages(dir: &Path) -> Vec<Damage> {
    let mut damages = Vec::new();
    let verified = verify(dir, |damage| damages.push(damage)).unwrap();
    assert_eq!(verified.damages, damages.len() as u64);
    damages
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn a_directory_is_told_as_it_is() {
    let dir = directory();
    let before: Vec<_> =
        files(dir.path()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    let found = inspect(dir.path()).unwrap();
    let sums: Vec<_> = found
        .tenants
        .iter()
        .map(|t| {
            (&*t.tenant, t.segments, t.segment_profiles, t.segment_samples, t.log_profiles, t.log_samples)
        })
        .collect();
    assert_eq!(sums, [("anonymous", 1, 15, 30, 5, 10), ("other", 1, 5, 10, 0, 0)]);
    assert_eq!((found.segments.len(), found.segments[0].spans, found.segments[1].spans), (2, 15, 5));
    assert_eq!((found.manifest.entries, found.manifest.last_entry), (1, Some(1)));
    assert_eq!(
        (found.log_files.len(), found.log_files[0].records, found.log_files[0].damaged_bytes),
        (1, 5, 0)
    );
    assert!(found.unlisted.is_empty() && found.server_id.is_some());
    let bytes = found.tenants[0].bytes_per_sample.unwrap();
    assert_eq!(bytes, found.tenants[0].segment_bytes as f64 / 30.0);
    let mut none = 0;
    let verified = verify(dir.path(), |_| none += 1).unwrap();
    assert_eq!((none, verified.segments, verified.log_files, verified.records), (0, 2, 1, 5));
    let after: Vec<_> =
        files(dir.path()).into_iter().map(|path| (std::fs::read(&path).unwrap(), path)).collect();
    assert!(before == after, "nothing was written");
}

#[test]
fn every_flipped_byte_is_told_and_nothing_else() {
    let dir = directory();
    assert_eq!(damages(dir.path()), []);
    for path in files(&dir.path().join("objects")).into_iter().chain(files(&dir.path().join("log"))) {
        let whole = std::fs::read(&path).unwrap();
        // A different share of the bytes of each.
        let step = whole.len() / 60 + 1;
        for at in (0..whole.len()).step_by(step) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x41;
            std::fs::write(&path, &flipped).unwrap();
            let mut found = Vec::new();
            // The version that a manifest says has no checksum: another is refused, as one that is not known.
            match verify(dir.path(), |damage| found.push(damage)) {
                Ok(verified) => {
                    let file = path.file_name().unwrap().to_str().unwrap();
                    assert!(
                        verified.unfinished_bytes > 0
                            || found.iter().any(|damage| damage.object.contains(file)),
                        "{file} {at} {found:?}"
                    );
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Version { .. }), "{error}");
                    assert!((8..12).contains(&at), "{at} {error}");
                }
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn what_is_gone_or_cut_is_told_with_what_it_costs() {
    let dir = directory();
    let segment = files(&dir.path().join("objects/segments")).remove(0);
    let whole = std::fs::read(&segment).unwrap();
    std::fs::remove_file(&segment).unwrap();
    let found = damages(dir.path());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].what, "the object is gone");
    assert!(found[0].means.contains("profiles from"), "{found:?}");
    std::fs::write(&segment, &whole[..whole.len() - 1]).unwrap();
    assert!(damages(dir.path()).iter().all(|damage| damage.object.ends_with(".segment")));
    assert!(!damages(dir.path()).is_empty());
    std::fs::write(&segment, [&whole[..], b"x"].concat()).unwrap();
    let found = damages(dir.path());
    assert!(found.len() == 1 && found[0].what.contains("longer"), "{found:?}");
    std::fs::write(&segment, &whole).unwrap();
    // An unfinished write at the end of the log is none.
    let log = files(&dir.path().join("log")).remove(0);
    let records = std::fs::read(&log).unwrap();
    std::fs::write(&log, &records[..records.len() - 3]).unwrap();
    assert_eq!(damages(dir.path()), []);
    assert!(inspect(dir.path()).unwrap().log_files[0].unfinished_bytes > 0);
    std::fs::write(&log, &records).unwrap();
    std::fs::remove_file(files(&dir.path().join("objects/manifest")).remove(0)).unwrap();
    // Without its entry nobody knows the segments, and the log does not say that they are missing.
    assert_eq!(inspect(dir.path()).unwrap().unlisted.len(), 2);
}

#[test]
fn a_segment_that_says_other_than_the_manifest_is_told() {
    let dir = directory();
    let segments = files(&dir.path().join("objects/segments"));
    let (one, other) = (std::fs::read(&segments[0]).unwrap(), std::fs::read(&segments[1]).unwrap());
    // Whole in itself, and not the one that was written under this name.
    std::fs::write(&segments[0], other).unwrap();
    let found = damages(dir.path());
    assert!(
        !found.is_empty() && found.iter().all(|damage| segments[0].ends_with(&damage.object[9..])),
        "{found:?}"
    );
    std::fs::write(&segments[0], one).unwrap();
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = inspect(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("find a store: open"), "{error}");
    assert!(verify(dir.path(), |_| ()).is_err());
    assert!(files(dir.path()).is_empty(), "nothing was made");
}
