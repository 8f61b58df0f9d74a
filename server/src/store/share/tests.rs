//! Servers that share a bucket: one of them dies at every step, and nothing acknowledged is lost or there twice.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::super::disk::Disk;
use super::super::fake_disk::{FakeDisk, FakeObjects, Fault, LOSSES, Loss};
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
    /// How many reads are left until one fails; 0 if none does.
    gets: Arc<AtomicI64>,
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
        // The last one before there are none left fails.
        match self.gets.load(Ordering::Relaxed) {
            0 => self.bucket.get(name),
            _ if self.gets.fetch_sub(1, Ordering::Relaxed) == 1 => Err(io::ErrorKind::TimedOut.into()),
            _ => self.bucket.get(name),
        }
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
    gets: Arc<AtomicI64>,
}

impl World {
    /// A server with this disk. Nothing happens on it but what is asked for.
    fn open(&self, disk: &FakeDisk, acknowledge: Acknowledge) -> Result<Store, StoreError> {
        self.open_at("s3://profiles", disk, acknowledge)
    }

    fn open_at(&self, place: &str, disk: &FakeDisk, acknowledge: Acknowledge) -> Result<Store, StoreError> {
        let mut options = StoreOptions::new("/data");
        options.compaction.fan_out = 2;
        options.cache_bytes = 1 << 20;
        let now_ms = Arc::clone(&self.now_ms);
        options.clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
        let bucket = Bucket::parse(place).expect("a bucket");
        options.shared = Some(Shared { acknowledge, ..Shared::new(bucket) });
        let bucket = FakeObjects { disk: self.bucket.clone(), root: PathBuf::from("/bucket") };
        let reached = Reached { bucket, server: disk.clone(), gets: Arc::clone(&self.gets) };
        let objects = |_: &Path| Ok(Arc::new(reached) as Arc<dyn Objects>);
        Store::open_on(Arc::new(disk.clone()), objects, options, false)
    }

    /// Another world whose bucket has what this one has by now.
    fn as_it_is(&self) -> Self {
        Self { bucket: self.bucket.after(Loss::Nothing), ..self.clone() }
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
            let world = world.as_it_is();
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
            let back = world.open(&disk.after(Loss::Nothing), acknowledge).unwrap();
            check(&back, &acknowledged, &context);
            check(&world.local(), &acknowledged, &context);
        }
    }
}

/// What a server finds that is new.
fn published(world: &World) -> Vec<(u64, u64)> {
    seen(&world.local()).into_iter().collect()
}

#[test]
fn of_two_servers_on_copies_of_a_directory_the_first_takes_nothing_any_more_and_loses_nothing() {
    for acknowledge in [Acknowledge::Local, Acknowledge::Object] {
        let (world, disk) = (World::default(), FakeDisk::default());
        let first = world.open(&disk, acknowledge).unwrap();
        append(&first, 1).unwrap();
        first.flush().unwrap();
        let copy = disk.after(Loss::Nothing);
        // Both have a log file of the same number from here on, with other profiles.
        let taken = append(&first, 2);
        assert!(taken.is_ok());
        let second = world.open(&copy, acknowledge).unwrap();
        append(&second, 3).unwrap();
        second.flush().unwrap();

        let told = append(&first, 4).or_else(|_| first.flusher.refresh().and_then(|()| append(&first, 4)));
        if acknowledge == Acknowledge::Local {
            assert!(told.is_ok(), "it has not looked yet");
        }
        let _ = first.flusher.refresh();
        let error = append(&first, 5).unwrap_err();
        assert!(matches!(error, StoreError::Copied(_)), "{error}");
        assert!(!first.status().accepts_writes);
        assert!(matches!(first.refusal(), Some(StoreError::Copied(_))), "no load balancer sends it anything");
        assert!(second.refusal().is_none());
        assert!(matches!(first.flush(), Err(StoreError::Copied(_))));
        let of_first: Vec<u64> = seen(&first).into_keys().collect();
        assert!([1, 2, 3].iter().all(|number| of_first.contains(number)), "{of_first:?}");
        drop(first);
        assert!(
            matches!(world.open(&disk, acknowledge), Err(StoreError::Copied(_))),
            "it is another's by now"
        );

        // The way out that it tells of.
        disk.remove(Path::new("/data/server-id")).unwrap();
        let first = world.open(&disk, acknowledge).unwrap();
        first.flush().unwrap();
        append(&first, 6).unwrap();
        first.flush().unwrap();
        append(&second, 7).unwrap();
        second.flush().unwrap();
        // With `object` the fourth was refused, but only once it was in the log.
        assert_eq!(published(&world), [1, 2, 3, 4, 6, 7].map(|number| (number, 1)));
    }
}

#[test]
fn a_copy_that_starts_after_its_original_has_started_again_is_refused() {
    let (world, disk) = (World::default(), FakeDisk::default());
    drop(world.open(&disk, Acknowledge::Local).unwrap());
    let copy = disk.after(Loss::Nothing);
    let first = world.open(&disk, Acknowledge::Local).unwrap();
    let refused = world.open(&copy, Acknowledge::Local).err().expect("it is refused");
    assert!(matches!(refused, StoreError::Copied(_)), "{refused}");
    append(&first, 1).unwrap();
    first.flush().unwrap();
    assert_eq!(published(&world), [(1, 1)]);
}

#[test]
fn who_was_away_learns_of_a_copy_too() {
    let (world, disk) = (World::default(), FakeDisk::default());
    let first = world.open(&disk, Acknowledge::Local).unwrap();
    append(&first, 1).unwrap();
    let second = world.open(&disk.after(Loss::Nothing), Acknowledge::Local).unwrap();
    second.flush().unwrap();
    // So long that it reads the manifest anew.
    world.later(3_600_000);
    assert!(matches!(first.flush(), Err(StoreError::Copied(_))));
    first.flusher.refresh().unwrap();
    assert_eq!(seen(&first).get(&1), Some(&2), "it cannot know that the copy has it too, and keeps it");
}

#[test]
fn a_start_whose_entry_got_through_although_it_failed_is_followed_by_another() {
    let world = World::default();
    let steps = {
        let disk = FakeDisk::default();
        drop(world.open(&disk, Acknowledge::Local).unwrap());
        disk.steps()
    };
    for step in 0..steps + 2 {
        let world = World::default();
        let disk = FakeDisk::default().with_fault(step, Fault::PowerFailure);
        let _ = world.open(&disk, Acknowledge::Local);
        for loss in LOSSES {
            let (world, disk) = (world.as_it_is(), disk.after(loss));
            let store = world.open(&disk, Acknowledge::Local).unwrap();
            append(&store, 1).unwrap();
            drop(store);
            let store = world.open(&disk, Acknowledge::Local).unwrap();
            assert!(seen(&store).contains_key(&1), "step {step}, {loss:?}");
        }
    }
}

#[test]
fn a_server_whose_disk_is_full_starts() {
    let (world, disk) = (World::default(), FakeDisk::default());
    let store = world.open(&disk, Acknowledge::Local).unwrap();
    append(&store, 1).unwrap();
    drop(store);
    disk.set_room(Some(0));
    let store = world.open(&disk, Acknowledge::Local).unwrap();
    assert!(seen(&store).contains_key(&1));
    assert!(store.flush().is_ok(), "the bucket has room");
}

#[test]
fn a_log_that_was_written_for_another_bucket_is_not_taken_for_this_ones() {
    let (here, there, disk) = (World::default(), World::default(), FakeDisk::default());
    let open = |world: &World, place: &str, disk: &FakeDisk| world.open_at(place, disk, Acknowledge::Local);
    let store = open(&here, "s3://here", &disk).unwrap();
    for number in 1..=5 {
        append(&store, number).unwrap();
        store.flush().unwrap();
    }
    drop(store);
    // It crashes there with a log that is not published.
    let store = open(&there, "s3://there", &disk).unwrap();
    append(&store, 6).unwrap();
    let crashed = disk.after(Loss::Everything);
    drop(store);

    let error = open(&here, "s3://here", &crashed).err().expect("it is refused");
    assert!(matches!(error, StoreError::Elsewhere { log: 1, .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("s3://here") && told.contains("s3://there"), "{told}");
    assert!(told.contains("/data/server-id"), "{told}");
    // Both ways out that it tells of keep what was acknowledged.
    let other = crashed.after(Loss::Nothing);
    other.remove(Path::new("/data/server-id")).unwrap();
    let store = open(&here, "s3://here", &other).unwrap();
    assert_eq!(seen(&store).into_iter().collect::<Vec<_>>(), (1..=6).map(|n| (n, 1)).collect::<Vec<_>>());
    drop(store);
    drop(open(&there, "s3://there", &crashed).unwrap());
    let store = open(&here, "s3://here", &crashed).unwrap();
    append(&store, 7).unwrap();
    drop(store);
    assert_eq!(published(&there), [(6, 1)]);
    assert!(published(&here).contains(&(7, 1)));
}

#[test]
fn a_log_of_a_server_that_was_forgotten_is_not_taken_without_asking() {
    const MONTH_MS: i64 = super::super::manifest::FORGOTTEN_MS;
    let (world, disk) = (World::default(), FakeDisk::default());
    let first = world.open(&disk, Acknowledge::Local).unwrap();
    append(&first, 1).unwrap();
    // It dies after its entry and before its log file goes, and comes back after a long time.
    let before = disk.after(Loss::Nothing);
    first.flush().unwrap();
    drop(first);
    world.later(MONTH_MS - 1);
    drop(world.local());
    drop(world.open(&before.after(Loss::Nothing), Acknowledge::Local).unwrap());
    assert_eq!(published(&world), [(1, 1)], "it is remembered, and so is what its log holds");
    world.later(MONTH_MS + 1);
    drop(world.local());
    let refused = world.open(&before, Acknowledge::Local).err().expect("it is refused");
    assert!(matches!(refused, StoreError::Forgotten { log: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("/data/server-id"), "{refused}");
    // Both ways out that it tells of.
    let kept = before.after(Loss::Nothing);
    kept.remove(Path::new("/data/server-id")).unwrap();
    let elsewhere = world.as_it_is();
    elsewhere.open(&kept, Acknowledge::Local).unwrap().flush().unwrap();
    assert_eq!(published(&elsewhere), [(1, 2)], "as it said");
    for path in before.paths().iter().filter(|path| path.starts_with("/data/log")) {
        before.remove(path).unwrap();
    }
    let back = world.open(&before, Acknowledge::Local).unwrap();
    append(&back, 2).unwrap();
    back.flush().unwrap();
    assert_eq!(published(&world), [(1, 1), (2, 1)]);
}

#[test]
fn a_server_that_nobody_remembers_publishes_what_it_took_lately() {
    let (world, disk) = (World::default(), FakeDisk::default());
    drop(world.open(&disk, Acknowledge::Local).unwrap());
    let other = World { bucket: FakeDisk::default(), ..world.clone() };
    let store = world.open(&disk, Acknowledge::Local).unwrap();
    append(&store, 1).unwrap();
    let crashed = disk.after(Loss::Everything);
    // As if all of the bucket had been forgotten.
    let back = other.open(&crashed, Acknowledge::Local).unwrap();
    back.flush().unwrap();
    assert_eq!(published(&other), [(1, 1)]);
}

/// Counts who is in the middle of keeping or reading a segment, and lets nobody through before there are as many as wanted.
struct Crowd {
    inner: Reached,
    state: parking_lot::Mutex<Meeting>,
    changed: parking_lot::Condvar,
    keeping: usize,
    reading: usize,
}

#[derive(Default)]
struct Meeting {
    now: usize,
    most: usize,
    /// Objects that were read, whole or in part.
    read: Vec<String>,
}

impl Crowd {
    fn new(world: &World, disk: &FakeDisk, keeping: usize, reading: usize) -> Arc<Self> {
        let bucket = FakeObjects { disk: world.bucket.clone(), root: PathBuf::from("/bucket") };
        let inner = Reached { bucket, server: disk.clone(), gets: Arc::clone(&world.gets) };
        let (state, changed) = Default::default();
        Arc::new(Self { inner, state, changed, keeping, reading })
    }

    fn open(self: &Arc<Self>, disk: &FakeDisk) -> Store {
        let mut options = StoreOptions::new("/data");
        options.shared = Some(Shared::new(Bucket::parse("s3://profiles").unwrap()));
        let objects = Arc::clone(self) as Arc<dyn Objects>;
        Store::open_on(Arc::new(disk.clone()), |_: &Path| Ok(objects), options, false).unwrap()
    }

    fn meet<T>(&self, wanted: usize, ask: impl FnOnce() -> T) -> T {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut state = self.state.lock();
        state.now += 1;
        state.most = state.most.max(state.now);
        self.changed.notify_all();
        while state.most < wanted && !self.changed.wait_until(&mut state, deadline).timed_out() {}
        drop(state);
        let answer = ask();
        self.state.lock().now -= 1;
        answer
    }
}

impl Objects for Crowd {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let wanted = if name.starts_with("segments/") { self.keeping } else { 0 };
        self.meet(wanted, || self.inner.create(name, bytes))
    }

    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.state.lock().read.push(name.to_owned());
        self.meet(self.reading, || self.inner.read(name, range))
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        self.inner.get(name)
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        self.inner.list(prefix, after)
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        self.inner.modified_ms(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_read_whole(&self, name: &str, _bytes: u64) -> bool {
        !self.state.lock().read.iter().any(|read| read == name)
    }

    fn settle(&self, prefix: &str) -> io::Result<()> {
        self.inner.settle(prefix)
    }
}

#[test]
fn segments_of_many_tenants_are_on_their_way_at_once() {
    let (world, disk) = (World::default(), FakeDisk::default());
    let crowd = Crowd::new(&world, &disk, 8, 0);
    let store = crowd.open(&disk);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let tenants: Vec<TenantId> =
        (0..20).map(|number| TenantId::new(&format!("tenant-{number}")).unwrap()).collect();
    for tenant in &tenants {
        runtime.block_on(store.append(tenant, profiles(1))).unwrap();
    }
    store.flush().unwrap();
    assert_eq!(crowd.state.lock().most, 8);
    assert!(tenants.iter().all(|tenant| store.snapshot(tenant).len() == 1));
    assert_eq!((store.status().partitions, world.objects("segments")), (0, 20));
    // One that cannot be kept takes the others along, and nothing of it stays.
    for tenant in &tenants {
        runtime.block_on(store.append(tenant, profiles(2))).unwrap();
    }
    let disk = disk.clone().with_fault(disk.steps() + 9, Fault::For(4, io::ErrorKind::Other));
    assert!(store.flush().is_err());
    assert_eq!(store.status().partitions, 1);
    store.flush().unwrap();
    assert_eq!((store.status().partitions, store.status().segments), (0, 40));
    drop(disk);
}

#[test]
fn a_query_reads_small_segments_of_others_at_once() {
    let world = World::default();
    let writer = world.local();
    for number in 1..=40 {
        append(&writer, number).unwrap();
        writer.flush().unwrap();
    }
    let disk = FakeDisk::default();
    let crowd = Crowd::new(&world, &disk, 0, 16);
    let reader = crowd.open(&disk);
    reader.read_ahead(&TenantId::anonymous());
    assert_eq!(crowd.state.lock().most, 16);
    assert_eq!(crowd.state.lock().read.len(), 40);
    reader.read_ahead(&TenantId::anonymous());
    assert_eq!(crowd.state.lock().read.len(), 40, "what is here is not read again");
    assert_eq!(seen(&reader).len(), 40);
    // One of another tenant costs nothing.
    reader.read_ahead(&TenantId::new("other").unwrap());
}

#[test]
fn what_was_read_before_the_bucket_failed_is_shown() {
    let world = World::default();
    let (writer, reader) = (world.local(), world.local());
    for number in 1..=3 {
        append(&writer, number).unwrap();
        writer.flush().unwrap();
    }
    // The first entry is read, the second is not.
    world.gets.store(2, Ordering::Relaxed);
    reader.flusher.refresh().unwrap_err();
    assert_eq!(world.gets.load(Ordering::Relaxed), 0);
    let entries: BTreeMap<u64, u64> = seen(&reader);
    assert_eq!(entries.len(), 1, "{entries:?}");
    reader.flusher.refresh().unwrap();
    assert_eq!(seen(&reader).len(), 3);
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
fn a_merged_segment_that_others_merged_again_stays_for_those_who_read_it() {
    let world = World::default();
    let disk = FakeDisk::default();
    let (a, b) = (world.open(&disk, Acknowledge::Local).unwrap(), world.local());
    let two = |store: &Store, first| {
        for number in first..first + 2 {
            append(store, number).unwrap();
            store.flush().unwrap();
        }
    };
    two(&a, 1);
    // The entry gets through, and the server is told that it did not.
    let levels = |store: &Store| {
        let manifest = store.flusher.manifest.lock();
        manifest.state().segments.values().map(|segment| segment.level).collect::<Vec<_>>()
    };
    // The lease and the segment are a request each, and each is seen to fail before it or after it.
    let step = disk.steps() + 5;
    let disk = disk.with_fault(step, Fault::Once(io::ErrorKind::Other));
    assert!(a.flusher.compact().is_err());
    b.flusher.refresh().unwrap();
    assert_eq!(levels(&b), [1], "it got through");
    drop(disk);
    let reading = b.snapshot(&TenantId::anonymous());
    two(&b, 3);
    assert!(b.flusher.compact().unwrap() && b.flusher.compact().unwrap());
    assert_eq!(levels(&b), [2]);
    a.flusher.refresh().unwrap();
    a.flush().unwrap();
    a.flusher.bury();
    assert!(reading.iter().all(|source| source.series(None).is_ok()), "a query goes on that began before");
    assert_eq!((seen(&a).len(), seen(&b).len()), (4, 4));
    drop(reading);
    world.later(700_000);
    a.flusher.bury();
    b.flusher.bury();
    // What both were about to remove is gone, and what nobody is goes later.
    let unnamed = Mutex::default();
    world.later(STRANGER_MS + 1);
    a.flusher.sweep(&unnamed).unwrap();
    a.flusher.sweep(&unnamed).unwrap();
    assert_eq!(world.objects("segments"), 1);
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
    let disk = disk.with_fault(before + 2, Fault::Once(io::ErrorKind::Other));
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
