//! Crashes at every step of a workload, with every kind of loss: nothing acknowledged is lost, nothing is there twice,
//! nothing is there that nobody sent.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoErrorKind;
use std::path::PathBuf;

use super::fake_disk::{Failure, FakeDisk, FakeObjects, Fault, LOSSES, Loss, Operation};
use super::*;
use crate::model::TimeRange;
use crate::testing::PprofBuilder;

/// Appends of the workload.
const APPENDS: u64 = 12;

fn open(disk: &FakeDisk) -> Result<Store, StoreError> {
    open_with(disk, |_| ())
}

fn open_with(disk: &FakeDisk, change: impl FnOnce(&mut StoreOptions)) -> Result<Store, StoreError> {
    let mut options = StoreOptions::new("/data");
    // A new file every few appends.
    options.log_file_bytes = 900;
    options.clock = Arc::new(|| 0);
    options.compaction.fan_out = 2;
    options.cache_bytes = 1 << 20;
    options.reserve_bytes = 2000;
    change(&mut options);
    let objects = |root: &Path| {
        let disk = disk.clone();
        Ok(Arc::new(FakeObjects { disk, root: root.to_owned() }) as Arc<dyn Objects>)
    };
    Store::open_on(Arc::new(disk.clone()), objects, options, false)
}

/// One whose memory holds few of the profiles.
fn open_small(disk: &FakeDisk) -> Store {
    open_with(disk, |options| options.head_bytes = 40_000).unwrap()
}

/// The files of the log.
fn log_files(disk: &FakeDisk) -> Vec<PathBuf> {
    let mut paths = disk.paths();
    paths.retain(|path| path.starts_with("/data/log"));
    paths
}

fn profiles(number: u64) -> Vec<Profile> {
    let name = number.to_string();
    PprofBuilder::new().sample(&["main", &name], number as i64, &[]).profiles(&[("number", &name)])
}

fn append(store: &Store, number: u64) -> Result<(), StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.append(&TenantId::anonymous(), profiles(number)))
}

/// The appends that queries see, with how often.
fn seen(store: &Store) -> BTreeMap<u64, u64> {
    let mut seen = BTreeMap::new();
    for source in store.snapshot(&TenantId::anonymous()) {
        let series = source.series(None).unwrap();
        for chunk in source.chunks(&series.iter().map(|s| s.id).collect::<Vec<_>>(), None).unwrap() {
            let labels = &series[chunk.series as usize].labels;
            let number = labels.get("number").unwrap().parse().unwrap();
            assert_eq!(chunk.totals[0], number as i64, "what was sent is what is there");
            *seen.entry(number).or_default() += 1;
        }
    }
    seen
}

#[derive(Default)]
struct Outcome {
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
}

/// Appends 1, 2, … and tells which were acknowledged.
fn work(disk: &FakeDisk) -> Outcome {
    work_with(disk, |_, _| ())
}

/// The same, with profiles becoming segments meanwhile.
fn work_and_flush(disk: &FakeDisk) -> Outcome {
    work_with(disk, |store, number| {
        if number % 4 == 2 {
            // When it fails all is as it was.
            let _ = store.flush();
        }
    })
}

/// The same, with segments being merged as well, two at a time.
fn work_and_compact(disk: &FakeDisk) -> Outcome {
    work_with(disk, |store, number| {
        if number % 2 == 0 {
            let _ = store.flush();
            for _ in 0..3 {
                let _ = store.flusher.compact();
            }
            store.flusher.bury();
            let _ = store.flusher.prune();
        }
    })
}

fn work_with(disk: &FakeDisk, meanwhile: impl Fn(&Store, u64)) -> Outcome {
    let mut outcome = Outcome::default();
    // A disk that refuses the first file is asked again, as who starts a server would.
    let Some(store) = (0..10).find_map(|_| open(disk).ok()) else { return outcome };
    for number in 1..=APPENDS {
        match append(&store, number) {
            Ok(()) => outcome.acknowledged.push(number),
            Err(_) => outcome.refused.push(number),
        }
        let check = || {
            let seen = seen(&store);
            assert_eq!(
                seen.keys().copied().collect::<Vec<_>>(),
                outcome.acknowledged,
                "seen at once, and only then"
            );
            assert!(seen.values().all(|times| *times == 1), "{seen:?}");
        };
        check();
        meanwhile(&store, number);
        check();
    }
    outcome
}

fn check(disk: &FakeDisk, outcome: &Outcome, context: &str) -> Store {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let seen = seen(&store);
    for number in &outcome.acknowledged {
        assert_eq!(seen.get(number), Some(&1), "{context}: {number} was acknowledged, seen {seen:?}");
    }
    for (number, times) in &seen {
        assert_eq!(*times, 1, "{context}: {number}");
        assert!((1..=APPENDS).contains(number), "{context}: {number} was never sent");
    }
    store
}

type Work = fn(&FakeDisk) -> Outcome;

fn steps_of(work: Work) -> usize {
    let disk = FakeDisk::default();
    let outcome = work(&disk);
    assert_eq!(outcome.acknowledged.len() as u64, APPENDS);
    disk.steps()
}

#[test]
fn power_failure_at_every_step() {
    power_fails_at_every_step_of(work);
}

#[test]
fn power_failure_at_every_step_of_becoming_segments() {
    let disk = FakeDisk::default();
    work_and_flush(&disk);
    let store = open(&disk).unwrap();
    assert!(store.status().segments >= 3, "the workload makes segments");
    power_fails_at_every_step_of(work_and_flush);
}

#[test]
fn power_failure_at_every_step_of_merging_segments() {
    let disk = FakeDisk::default();
    work_and_compact(&disk);
    let store = open(&disk).unwrap();
    assert!(store.status().segments < 3, "the workload merges segments");
    power_fails_at_every_step_of(work_and_compact);
}

fn power_fails_at_every_step_of(work: Work) {
    let steps = steps_of(work);
    assert!(steps > 2 * APPENDS as usize, "the workload begins new files");
    for step in 0..steps {
        let disk = FakeDisk::default().with_fault(step, Fault::PowerFailure);
        let outcome = work(&disk);
        for loss in LOSSES {
            let context = format!("power failure at step {step}, {loss:?}");
            let disk = disk.after(loss);
            let store = check(&disk, &outcome, &context);
            assert_eq!(store.status().damaged_bytes, 0, "{context}: a crash is no damage");
            // It goes on, and stands a second loss.
            append(&store, APPENDS + 1).unwrap();
            store.flush().unwrap();
            drop(store);
            let store = open(&disk.after(Loss::Everything)).unwrap();
            assert_eq!(store.status().partitions, 0, "{context}: all of it is in segments");
            let seen = seen(&store);
            for number in outcome.acknowledged.iter().chain([&(APPENDS + 1)]) {
                assert_eq!(seen.get(number), Some(&1), "{context}, then another: {number}");
            }
        }
    }
}

#[test]
fn power_failure_during_recovery() {
    for (work, first) in [(work as Work, 25), (work_and_flush, 60), (work_and_flush, 90)] {
        let disk = FakeDisk::default().with_fault(first, Fault::PowerFailure);
        let outcome = work(&disk);
        for loss in LOSSES {
            for step in 0..16 {
                let recovering = disk.after(loss).with_fault(step, Fault::PowerFailure);
                drop(open(&recovering));
                for second in LOSSES {
                    let context = format!("{first}, {loss:?}, again at {step}, {second:?}");
                    check(&recovering.after(second), &outcome, &context);
                }
            }
        }
    }
}

#[test]
fn errors_at_every_step_refuse_writes_and_lose_nothing() {
    errors_at_every_step_of(work);
}

#[test]
fn errors_at_every_step_of_becoming_segments_lose_nothing() {
    errors_at_every_step_of(work_and_flush);
}

#[test]
fn errors_at_every_step_of_merging_segments_lose_nothing() {
    errors_at_every_step_of(work_and_compact);
}

/// Deletes the odd ones of half of the appends.
fn delete_some(store: &Store) -> Result<u64, StoreError> {
    let minute = |number: i64| crate::testing::START_MS + number * 60_000;
    let range = TimeRange { start_ms: minute(3), end_ms: minute(6) };
    store.delete(&Deletion { tenant: TenantId::anonymous(), range: Some(range) })
}

#[test]
fn power_failure_at_every_step_of_deleting_takes_only_what_was_to_go() {
    let began = |number: u64| {
        let name = number.to_string();
        PprofBuilder::new()
            .sample(&["main", &name], number as i64, &[])
            .at(crate::testing::START_MS + number as i64 * 60_000, 1000)
            .profiles(&[("number", &name)])
    };
    let work = |disk: &FakeDisk| {
        let Ok(store) = open(disk) else { return (0, None) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for number in 1..=9 {
            if runtime.block_on(store.append(&TenantId::anonymous(), began(number))).is_err() {
                return (number - 1, None);
            }
            if number % 4 == 0 {
                let _ = store.flush();
            }
        }
        let deleted = delete_some(&store);
        store.flusher.bury();
        (9, Some(deleted))
    };
    let disk = FakeDisk::default();
    let (acknowledged, deleted) = work(&disk);
    assert_eq!((acknowledged, deleted.unwrap().unwrap()), (9, 4));
    assert_eq!(seen(&open(&disk).unwrap()).into_keys().collect::<Vec<_>>(), [1, 2, 7, 8, 9]);
    for step in 0..disk.steps() {
        let disk = FakeDisk::default().with_fault(step, Fault::PowerFailure);
        let (acknowledged, deleted) = work(&disk);
        for loss in LOSSES {
            let seen = seen(&open(&disk.after(loss)).unwrap());
            let context = format!("step {step}, {loss:?}: {seen:?}");
            assert!(seen.values().all(|times| *times == 1), "{context}");
            for number in 1..=acknowledged {
                let goes = (3..=6).contains(&number);
                assert!(seen.contains_key(&number) || goes && deleted.is_some(), "{number}, {context}");
                assert!(!(goes && matches!(deleted, Some(Ok(_))) && seen.contains_key(&number)), "{context}");
            }
        }
    }
}

fn errors_at_every_step_of(work: Work) {
    let faults = [
        Fault::Once(IoErrorKind::Other),
        Fault::Once(IoErrorKind::StorageFull),
        Fault::For(2, IoErrorKind::Other),
        Fault::For(9, IoErrorKind::StorageFull),
    ];
    for step in 0..steps_of(work) {
        for fault in faults {
            let disk = FakeDisk::default().with_fault(step, fault);
            let outcome = work(&disk);
            assert!(
                outcome.acknowledged.len() as u64 >= APPENDS - 9,
                "{fault:?} at {step}: it recovers by itself"
            );
            for loss in LOSSES {
                let context = format!("{fault:?} at step {step}, then {loss:?}");
                let store = check(&disk.after(loss), &outcome, &context);
                if matches!(fault, Fault::Once(_)) {
                    assert_eq!(store.status().damaged_bytes, 0, "{context}");
                    let seen = seen(&store);
                    assert!(
                        outcome.refused.iter().all(|n| !seen.contains_key(n)),
                        "{context}: refused is refused"
                    );
                }
            }
        }
    }
}

#[test]
fn what_a_start_finds_after_errors_is_what_later_starts_find() {
    for step in 0..steps_of(work) {
        for fault in [Fault::For(2, IoErrorKind::Other), Fault::For(3, IoErrorKind::StorageFull)] {
            let disk = FakeDisk::default().with_fault(step, fault);
            work(&disk);
            let killed = disk.after_kill();
            let found = seen(&open(&killed).unwrap());
            for loss in LOSSES {
                let later = seen(&open(&killed.after(loss)).unwrap());
                assert_eq!(later, found, "{fault:?} at step {step}, then {loss:?}");
            }
        }
    }
}

#[test]
fn a_full_disk_is_told_and_ends() {
    let disk = FakeDisk::default();
    let store = open(&disk).unwrap();
    append(&store, 1).unwrap();
    let disk = disk.clone().with_fault(disk.steps(), Fault::For(6, IoErrorKind::StorageFull));
    let error = append(&store, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("no space left in /data/log"), "{error}");
    assert!(!store.status().accepts_writes);
    assert_eq!(seen(&store).len(), 1, "reads go on");
    while append(&store, 3).is_err() {}
    assert!(store.status().accepts_writes);
    drop(store);
    let store = open(&disk.after(Loss::Everything)).unwrap();
    assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn damage_anywhere_costs_only_what_it_hits_and_is_set_aside() {
    let disk = FakeDisk::default();
    work(&disk);
    let files = log_files(&disk);
    assert!(files.len() > 2);
    let length = disk.read(&files[0]).unwrap().len();
    for at in (0..length).step_by(7) {
        let disk = disk.after(Loss::Nothing);
        disk.rot(&files[0], |bytes| bytes[at] ^= 0x10);
        let store = open(&disk).unwrap();
        let found = seen(&store).len() as u64;
        let lost = u64::from(at >= log::format::HEADER_BYTES);
        assert_eq!(found, APPENDS - lost, "byte {at}");
        assert!(store.status().damaged_bytes > 0, "byte {at}");
        drop(store);
        assert_eq!(disk.paths().iter().filter(|path| path.to_string_lossy().contains("damaged")).count(), 1);
        let store = open(&disk).unwrap();
        assert_eq!(seen(&store).len() as u64, APPENDS - lost, "byte {at}, opened again");
        assert_eq!(store.status().damaged_bytes, 0, "it was set aside once");
    }
}

#[test]
fn a_newer_version_is_refused() {
    let disk = FakeDisk::default();
    work(&disk);
    let path = &log_files(&disk)[0];
    disk.rot(path, |bytes| {
        bytes[8] = 3;
        let sum = crc32fast::hash(&bytes[..28]).to_le_bytes();
        bytes[28..32].copy_from_slice(&sum);
    });
    let error = open(&disk).err().unwrap();
    assert!(error.to_string().contains("written in format version 3"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
}

#[test]
fn an_earlier_version_is_read_and_written_no_further() {
    let disk = FakeDisk::default();
    work(&disk);
    let files = log_files(&disk);
    for path in &files {
        disk.rot(path, |bytes| {
            bytes[8] = 1;
            let sum = crc32fast::hash(&bytes[..28]).to_le_bytes();
            bytes[28..32].copy_from_slice(&sum);
        });
    }
    let store = open(&disk).unwrap();
    assert_eq!((seen(&store).len() as u64, store.status().damaged_bytes), (APPENDS, 0));
    append(&store, APPENDS + 1).unwrap();
    assert_eq!(log_files(&disk).len(), files.len() + 1, "servers of that version read their own files still");
    drop(store);
    assert_eq!(seen(&open(&disk).unwrap()).len() as u64, APPENDS + 1);
}

#[test]
fn a_full_disk_refuses_writes_once_memory_is_full_and_loses_nothing() {
    let disk = FakeDisk::default();
    let mut acknowledged = Vec::new();
    {
        let store = open_small(&disk);
        let mut number = 0;
        // Segments cannot be written while the log still can.
        disk.refuse_below("/data/objects", IoErrorKind::StorageFull);
        let error = loop {
            number += 1;
            match append(&store, number) {
                Ok(()) => acknowledged.push(number),
                Err(error) => break error,
            }
            assert!(number < 1000, "nothing was ever refused");
        };
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("max_head_bytes"), "{error}");
        assert!(error.to_string().contains("no space left in /data/objects/segments"), "{error}");
        assert!(!store.status().accepts_writes && store.status().failed_flushes > 0);
        assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), acknowledged, "reads go on");
    }
    {
        let store = open_small(&disk);
        assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), acknowledged, "and after a restart");
        assert!(append(&store, 2000).is_err());
        disk.refuse_nothing();
        append(&store, 2000).unwrap();
        acknowledged.push(2000);
        assert!(store.status().accepts_writes && store.status().segments > 0);
    }
    let store = open_small(&disk.after(Loss::Everything));
    assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), acknowledged);
}

/// A log of a full head, as segments cannot be written, and what is in it.
fn full_head(disk: &FakeDisk) -> (usize, Vec<u64>) {
    let store = open_small(disk);
    disk.refuse_below("/data/objects", IoErrorKind::StorageFull);
    let acknowledged: Vec<u64> = (1..1000).take_while(|&number| append(&store, number).is_ok()).collect();
    assert!(acknowledged.len() > 10 && log_files(disk).len() > 5);
    (store.status().partitions, acknowledged)
}

#[test]
fn a_full_head_is_opened_as_it_was() {
    let disk = FakeDisk::default();
    let (partitions, acknowledged) = full_head(&disk);
    for refused in [true, false] {
        if !refused {
            disk.refuse_nothing();
        }
        let store = open_small(&disk);
        let status = store.status();
        assert_eq!((status.partitions, status.flushes, status.failed_flushes), (partitions, 0, 0));
        assert!(status.head_bytes >= 40_000, "it is full");
        assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), acknowledged);
        // The next write makes room for itself, or is told why there is none.
        assert_eq!(append(&store, 2000).is_err(), refused);
        assert_eq!(store.status().head_bytes < 40_000, !refused);
    }
}

#[test]
fn a_head_that_may_have_less_than_before_is_opened_nevertheless() {
    let open_less = |disk: &FakeDisk| open_with(disk, |options| options.head_bytes = 10_000).unwrap();
    let disk = FakeDisk::default();
    let (partitions, acknowledged) = full_head(&disk);
    {
        let store = open_less(&disk);
        assert_eq!((store.status().partitions, store.status().failed_flushes), (partitions, 1), "tried once");
        assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), acknowledged);
        assert_eq!(append(&store, 2000).unwrap_err().kind(), ErrorKind::Full);
    }
    disk.refuse_nothing();
    let store = open_less(&disk);
    // A partition has an eighth of what the head might have before.
    assert!(store.status().head_bytes <= 10_000 + 40_000 / 8 + 2_000, "{:?}", store.status());
    let seen_times = seen(&store);
    assert!(seen_times.values().all(|times| *times == 1), "{seen_times:?}");
    assert_eq!(seen_times.into_keys().collect::<Vec<_>>(), acknowledged);
    append(&store, 2000).unwrap();
    assert!(store.status().head_bytes <= 10_000 + 2_000);
}

#[test]
fn a_disk_that_takes_segments_and_no_entries_does_not_fill_up() {
    let disk = FakeDisk::default();
    let store = open(&disk).unwrap();
    for number in 1..=3 {
        append(&store, number).unwrap();
    }
    disk.refuse_below("/data/objects/manifest", IoErrorKind::StorageFull);
    let segments = || disk.paths().iter().filter(|path| path.starts_with("/data/objects/segments")).count();
    for _ in 0..5 {
        assert_eq!(store.flush().unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(segments(), 1, "the one that may be in force");
    }
    disk.refuse_nothing();
    store.flush().unwrap();
    assert_eq!((store.status().segments, segments(), store.status().partitions), (1, 1, 0));
    assert_eq!(seen(&store).len(), 3);
    assert!(log_files(&disk).is_empty());
}

/// A store with segments on a disk that is full to the last byte, and whether everything is to expire.
fn full(disk: &FakeDisk) -> (Store, Arc<std::sync::atomic::AtomicBool>) {
    let expires = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&expires);
    let of_tenant =
        move |_: &TenantId| Keep { bytes: asked.load(Ordering::Relaxed).then_some(0), age_ms: None };
    let store = open_with(disk, |options| {
        options.retention = Retention { of_tenant: Arc::new(of_tenant), total_bytes: None };
    })
    .unwrap();
    for number in 1..=6 {
        append(&store, number).unwrap();
        if number % 2 == 0 {
            store.flush().unwrap();
        }
    }
    append(&store, 7).unwrap();
    disk.set_room(Some(0));
    assert_eq!(append(&store, 8).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(store.flush().unwrap_err().kind(), ErrorKind::Full);
    (store, expires)
}

#[test]
fn segments_expire_on_a_full_disk_and_writing_goes_on() {
    let disk = FakeDisk::default();
    let (store, expires) = full(&disk);
    expires.store(true, Ordering::Relaxed);
    store.flusher.retain().unwrap();
    store.flusher.bury();
    expires.store(false, Ordering::Relaxed);
    append(&store, 9).unwrap();
    store.flush().unwrap();
    drop(store);
    let store = open(&disk.after(Loss::Everything)).unwrap();
    assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), [7, 9]);
}

#[test]
fn a_tenant_can_be_deleted_on_a_full_disk() {
    let disk = FakeDisk::default();
    let (store, _) = full(&disk);
    let deletion = Deletion { tenant: TenantId::anonymous(), range: None };
    assert_eq!(store.delete(&deletion).unwrap(), 7);
    append(&store, 9).unwrap();
    assert_eq!(seen(&store).into_keys().collect::<Vec<_>>(), [9]);
    drop(store);
    assert_eq!(seen(&open(&disk.after(Loss::Everything)).unwrap()).into_keys().collect::<Vec<_>>(), [9]);
}

#[test]
fn a_segment_that_the_disk_cannot_read_is_set_aside_and_what_passes_is_not() {
    let disk = FakeDisk::default();
    work_and_flush(&disk);
    let store = open(&disk).unwrap();
    let all = seen(&store).len();
    drop(store);
    for (kind, aside) in [(IoErrorKind::InvalidData, 1), (IoErrorKind::Other, 0)] {
        let store = open(&disk).unwrap();
        let failing = Arc::new(std::sync::atomic::AtomicBool::new(true));
        disk.set_weather(Arc::new(move |operation| {
            let fails = operation == Operation::Read && failing.swap(false, Ordering::Relaxed);
            fails.then_some(Failure { kind, done: 0 })
        }));
        let source = store.snapshot(&TenantId::anonymous()).remove(0);
        assert!(source.series(None).is_err());
        assert_eq!(store.status().damaged_segments, aside);
        assert_eq!(seen(&store).len() == all, aside == 0, "{kind:?}");
    }
}

#[test]
fn a_damaged_piece_is_told_and_the_other_segments_are_served() {
    let disk = FakeDisk::default();
    work_and_flush(&disk);
    let segments: Vec<PathBuf> = disk
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "segment"))
        .collect();
    let all = seen(&open(&disk).unwrap()).len();
    let length = disk.read(&segments[0]).unwrap().len();
    for at in (0..length).step_by(5) {
        let disk = disk.after(Loss::Nothing);
        disk.rot(&segments[0], |bytes| bytes[at] ^= 0x10);
        let store = open(&disk).unwrap();
        // Some bytes are not looked at for this question: then nothing is missing.
        let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| seen(&store).len()));
        match whole {
            Ok(count) => assert_eq!(count, all, "byte {at}"),
            Err(_) => {
                assert_eq!(store.status().damaged_segments, 1, "byte {at}");
                let left = seen(&store).len();
                assert!((all - 4..all).contains(&left), "byte {at}: the rest is served, {left}");
            }
        }
    }
}
