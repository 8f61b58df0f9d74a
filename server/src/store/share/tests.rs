//! Servers that share a bucket: one of them dies at every step, and nothing acknowledged is lost or there twice.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::super::disk::Disk;
use super::super::fake_disk::{FakeDisk, FakeObjects, Fault, LOSSES};
use super::super::objects::Objects;
use super::super::{Acknowledge, Bucket, Shared, Store, StoreOptions};
use super::*;
use crate::model::{Profile, TenantId};
use crate::testing::PprofBuilder;

/// A bucket as one server reaches it: once the server's disk has failed, so has the server, be it before or after its
/// request has reached the bucket.
struct Reached {
    bucket: FakeObjects,
    server: FakeDisk,
}

impl Reached {
    fn alive(&self) -> io::Result<()> {
        match self.server.remove(Path::new("/nothing")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(&FakeObjects) -> io::Result<T>) -> io::Result<T> {
        self.alive()?;
        let answer = ask(&self.bucket);
        self.alive().and(answer)
    }
}

impl Objects for Reached {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        self.ask(|bucket| bucket.create(name, bytes))
    }

    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.bucket.read(name, range)
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        self.bucket.get(name)
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        // A fake directory has no others below it.
        let below = self.bucket.disk.paths();
        let below = below.iter().filter_map(|path| path.strip_prefix(&self.bucket.root).ok()?.to_str());
        let within = format!("{prefix}/");
        let names = below.filter(|name| name.starts_with(&within) && !name.contains('#') && *name > after);
        Ok(names.map(str::to_owned).collect())
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        self.bucket.modified_ms(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(|bucket| bucket.remove(name))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn settle(&self, _prefix: &str) -> io::Result<()> {
        Ok(())
    }
}

/// A bucket, and a clock for all.
#[derive(Clone, Default)]
struct World {
    bucket: FakeDisk,
    now_ms: Arc<AtomicI64>,
}

impl World {
    /// A server with this disk. Nothing happens on it but what is asked for.
    fn open(&self, disk: &FakeDisk, acknowledge: Acknowledge) -> Result<Store, StoreError> {
        let mut options = StoreOptions::new("/data");
        options.compaction.fan_out = 2;
        options.cache_bytes = 1 << 20;
        let now_ms = Arc::clone(&self.now_ms);
        options.clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
        let bucket = Bucket::parse("s3://profiles").expect("a bucket");
        options.shared = Some(Shared { acknowledge, ..Shared::new(bucket) });
        let bucket = FakeObjects { disk: self.bucket.clone(), root: PathBuf::from("/bucket") };
        let objects = |_: &Path| Ok(Arc::new(Reached { bucket, server: disk.clone() }) as Arc<dyn Objects>);
        Store::open_on(Arc::new(disk.clone()), objects, options, false)
    }

    fn local(&self) -> Store {
        self.open(&FakeDisk::default(), Acknowledge::Local).unwrap()
    }

    fn objects(&self, dir: &str) -> usize {
        self.bucket.paths().iter().filter(|path| path.starts_with(Path::new("/bucket").join(dir))).count()
    }

    fn later(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

fn profiles(number: u64) -> Vec<Profile> {
    let name = number.to_string();
    PprofBuilder::new().sample(&["main", &name], number as i64, &[]).profiles(&[("number", &name)])
}

/// Appends, and publishes until that is acknowledged or cannot be.
fn append(store: &Store, number: u64) -> Result<(), StoreError> {
    let appending = async { store.append(&TenantId::anonymous(), profiles(number)).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    std::thread::scope(|scope| {
        let appended = scope.spawn(|| runtime.block_on(appending));
        let mut failures = 0;
        while !appended.is_finished() {
            if store.flusher.sharing.is_some_and(|sharing| sharing.acknowledge_published) {
                failures += u32::from(store.flush().is_err());
            }
            if failures > 2 {
                store.flusher.unpublished.close();
            }
            std::thread::yield_now();
        }
        appended.join().expect("appending does not panic")
    })
}

/// The appends that queries see, with how often.
fn seen(store: &Store) -> BTreeMap<u64, u64> {
    let mut seen = BTreeMap::new();
    for source in store.snapshot(&TenantId::anonymous()) {
        let series = source.series(None).unwrap();
        for chunk in source.chunks(&series.iter().map(|s| s.id).collect::<Vec<_>>(), None).unwrap() {
            let number = series[chunk.series as usize].labels.get("number").unwrap().parse().unwrap();
            *seen.entry(number).or_default() += 1;
        }
    }
    seen
}

/// Two servers write in turn and merge what both wrote. The first may die; tells what was acknowledged.
fn work(world: &World, first: &FakeDisk, acknowledge: Acknowledge) -> Vec<u64> {
    let second = world.open(&FakeDisk::default(), acknowledge).unwrap();
    let first = world.open(first, acknowledge);
    let mut acknowledged = Vec::new();
    for number in 1..=8 {
        let store = if number % 2 == 0 { Some(&second) } else { first.as_ref().ok() };
        let Some(store) = store else { continue };
        if append(store, number).is_ok() {
            acknowledged.push(number);
        }
        let _ = store.flush();
        if number >= 4 {
            let _ = store.flusher.refresh();
            let _ = store.flusher.compact();
            world.later(700_000);
            store.flusher.bury();
        }
    }
    second.flusher.refresh().unwrap();
    let seen = seen(&second);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    acknowledged
}

fn steps_of(acknowledge: Acknowledge) -> usize {
    let (world, disk) = (World::default(), FakeDisk::default());
    assert_eq!(work(&world, &disk, acknowledge), (1..=8).collect::<Vec<_>>());
    disk.steps()
}

fn check(store: &Store, acknowledged: &[u64], context: &str) {
    store.flusher.refresh().unwrap();
    let seen = seen(store);
    for number in acknowledged {
        assert_eq!(seen.get(number), Some(&1), "{context}: {number} was acknowledged, seen {seen:?}");
    }
    assert!(
        seen.iter().all(|(number, times)| *times == 1 && (1..=8).contains(number)),
        "{context}: {seen:?}"
    );
}

#[test]
fn a_server_that_dies_at_any_step_has_its_log_when_it_comes_back() {
    for step in 0..steps_of(Acknowledge::Local) {
        let world = World::default();
        let disk = FakeDisk::default().with_fault(step, Fault::PowerFailure);
        let acknowledged = work(&world, &disk, Acknowledge::Local);
        for loss in LOSSES {
            let context = format!("step {step}, {loss:?}");
            let world =
                World { bucket: world.bucket.after(super::super::fake_disk::Loss::Nothing), ..world.clone() };
            let back = world.open(&disk.after(loss), Acknowledge::Local).unwrap();
            check(&back, &acknowledged, &context);
            back.flush().unwrap();
            check(&back, &acknowledged, &context);
            check(&world.local(), &acknowledged, &context);
        }
    }
}

#[test]
fn what_the_bucket_acknowledged_needs_no_disk() {
    for step in 0..steps_of(Acknowledge::Object) {
        let world = World::default();
        let disk = FakeDisk::default().with_fault(step, Fault::PowerFailure);
        let acknowledged = work(&world, &disk, Acknowledge::Object);
        check(&world.local(), &acknowledged, &format!("step {step}"));
    }
}

#[test]
fn an_error_at_any_step_loses_and_doubles_nothing() {
    for acknowledge in [Acknowledge::Local, Acknowledge::Object] {
        for step in 0..steps_of(acknowledge) {
            let world = World::default();
            let disk = FakeDisk::default().with_fault(step, Fault::Once(io::ErrorKind::Other));
            let acknowledged = work(&world, &disk, acknowledge);
            let context = format!("{acknowledge:?}, step {step}");
            let back = world.open(&disk.after(super::super::fake_disk::Loss::Nothing), acknowledge).unwrap();
            check(&back, &acknowledged, &context);
            check(&world.local(), &acknowledged, &context);
        }
    }
}

#[test]
fn a_lease_is_one_server_s_until_it_gives_it_back_or_time_passes() {
    let world = World::default();
    let (a, b) = (world.local(), world.local());
    let held = a.flusher.lease("work").unwrap().expect("nobody has it");
    assert!(b.flusher.lease("work").unwrap().is_none());
    assert!(b.flusher.lease("other-work").unwrap().is_some());
    drop(held);
    let lost = b.flusher.lease("work").unwrap().expect("it was given back");
    world.later(LEASE_MS + 1);
    let taken = a.flusher.lease("work").unwrap().expect("it has run out");
    drop(lost);
    assert!(b.flusher.lease("work").unwrap().is_none(), "who had it before takes nothing away");
    drop(taken);
    assert_eq!(world.objects("leases"), 0);
}

#[test]
fn merged_segments_stay_for_those_who_still_read_them() {
    let world = World::default();
    let (a, b) = (world.local(), world.local());
    for number in 1..=2 {
        append(&a, number).unwrap();
        a.flush().unwrap();
    }
    b.flusher.refresh().unwrap();
    let reading = b.snapshot(&TenantId::anonymous());
    assert!(a.flusher.compact().unwrap());
    a.flusher.bury();
    assert_eq!(world.objects("segments"), 3, "the inputs are there still");
    for source in &reading {
        assert_eq!(source.series(None).unwrap().len(), 1, "a query that has begun finishes");
    }
    b.flusher.refresh().unwrap();
    assert_eq!(seen(&b).into_values().collect::<Vec<_>>(), [1, 1]);
    drop(reading);
    b.flusher.bury();
    world.later(600_000);
    b.flusher.bury();
    assert_eq!(world.objects("segments"), 3, "they are not another's to remove");
    a.flusher.bury();
    assert_eq!(world.objects("segments"), 1);
}

#[test]
fn a_segment_that_is_gone_is_told_as_such_and_what_took_its_place_is_read_next() {
    let world = World::default();
    let (a, b) = (world.local(), world.local());
    for number in 1..=2 {
        append(&a, number).unwrap();
        a.flush().unwrap();
    }
    b.flusher.refresh().unwrap();
    let late = b.snapshot(&TenantId::anonymous());
    assert!(a.flusher.compact().unwrap());
    world.later(600_000);
    a.flusher.bury();
    let error = late[0].series(None).unwrap_err();
    assert!(matches!(error, StoreError::Gone(_)), "{error}");
    b.flusher.refresh().unwrap();
    assert_eq!(seen(&b).into_values().collect::<Vec<_>>(), [1, 1]);
    assert_eq!(b.status().damaged_segments, 0);
}

#[test]
fn what_nobody_names_goes_only_when_nobody_can_be_about_to_name_it() {
    let world = World::default();
    let store = world.local();
    append(&store, 1).unwrap();
    store.flush().unwrap();
    store.flusher.store("segments/stranger.segment", vec![1]).unwrap();
    let unnamed = Mutex::default();
    let sweep = || {
        store.flusher.sweep(&unnamed).unwrap();
        world.objects("segments")
    };
    assert_eq!((sweep(), sweep()), (2, 2), "it is new: its server may be about to name it");
    world.later(STRANGER_MS + 1);
    unnamed.lock().clear();
    assert_eq!(sweep(), 2, "it may have been named until a moment ago, and be read");
    assert_eq!(sweep(), 1);
    assert_eq!(seen(&store).len(), 1);
}

#[test]
fn segments_that_were_kept_long_ago_are_made_anew_before_they_are_named() {
    let world = World::default();
    let disk = FakeDisk::default();
    let store = world.open(&disk, Acknowledge::Local).unwrap();
    append(&store, 1).unwrap();
    // The segment gets through, the entry does not.
    let before = disk.steps();
    let disk = disk.with_fault(before + 2, Fault::For(2, io::ErrorKind::Other));
    let failed = store.flush();
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(store.flusher.unsettled.lock().len(), 1);
    drop(disk);
    let kept = world.bucket.paths();
    world.later(TOO_OLD_MS + 1);
    store.flush().unwrap();
    let named: Vec<String> = store.flusher.manifest.lock().state().segments.keys().cloned().collect();
    assert_eq!(named.len(), 1);
    assert!(!kept.iter().any(|path| path.ends_with(&named[0])), "the first one may be swept away any moment");
    assert_eq!(seen(&store).into_values().collect::<Vec<_>>(), [1]);
    assert_eq!(seen(&world.local()).into_values().collect::<Vec<_>>(), [1]);
}
