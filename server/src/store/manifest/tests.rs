//! Servers that share a manifest, and what they find of it.

use std::path::PathBuf;
use std::time::Duration;

use super::super::ErrorKind;
use super::super::fake_disk::{FakeDisk, FakeObjects, Fault, LOSSES, Loss};
use super::*;
use crate::model::TenantId;

fn objects(disk: &FakeDisk) -> Arc<dyn Objects> {
    Arc::new(FakeObjects { disk: disk.clone(), root: PathBuf::from("/objects") })
}

fn load_at(disk: &FakeDisk, server: u128, now_ms: i64) -> Result<Manifest, StoreError> {
    Manifest::load(objects(disk), Arc::new(move || now_ms), Uuid::from_u128(server))
}

fn load(disk: &FakeDisk, server: u128) -> Manifest {
    load_at(disk, server, 0).unwrap()
}

fn segment(name: &str) -> SegmentMeta {
    SegmentMeta {
        name: name.to_owned(),
        version: 1,
        tenant: TenantId::anonymous(),
        bytes: 1,
        footer_bytes: 1,
        level: 0,
        created_ms: 0,
        start_ms: 0,
        end_ms: 0,
        profiles: 1,
        rows: 1,
        spans: 1,
        symbol_bytes: 1,
        index_bytes: 1,
    }
}

fn add(name: &str, log: u64) -> Change {
    Change { add: vec![segment(name)], logs: vec![log], logs_from: log, ..Change::default() }
}

fn names(manifest: &Manifest) -> Vec<&str> {
    manifest.state().segments.keys().map(String::as_str).collect()
}

#[test]
fn servers_take_numbers_in_turn_and_see_the_same() {
    let disk = FakeDisk::default();
    let (mut a, mut b) = (load(&disk, 1), load(&disk, 2));
    assert!(a.commit(add("a", 1)).unwrap());
    assert!(b.commit(add("b", 1)).unwrap(), "a log file of another server is another");
    assert_eq!(names(&b), ["a", "b"]);
    a.refresh().unwrap();
    assert_eq!(a.state(), b.state());
    assert_eq!(load(&disk, 3).state(), a.state());
}

#[test]
fn of_two_that_replace_the_same_segments_one_wins() {
    let disk = FakeDisk::default();
    let (mut a, mut b) = (load(&disk, 1), load(&disk, 2));
    assert!(a.commit(add("x", 1)).unwrap() && a.commit(add("y", 2)).unwrap());
    b.refresh().unwrap();
    let merge = |name: &str| Change {
        add: vec![segment(name)],
        remove: vec!["x".to_owned(), "y".to_owned()],
        ..Change::default()
    };
    assert!(a.commit(merge("a")).unwrap());
    assert!(!b.commit(merge("b")).unwrap());
    assert_eq!((names(&a), names(&b)), (vec!["a"], vec!["a"]));
    assert_eq!(names(&load(&disk, 1)), ["a"]);
}

#[test]
fn an_entry_that_got_through_after_all_is_found_by_the_next_attempt() {
    for step in 0..8 {
        let disk = FakeDisk::default();
        let mut manifest = load(&disk, 1);
        assert!(manifest.commit(add("before", 1)).unwrap());
        let first = disk.steps();
        let disk = disk.with_fault(first + step, Fault::Once(std::io::ErrorKind::Other));
        let done = manifest.commit(add("first", 2));
        if done.is_err() {
            let again = manifest.commit(add("second", 2)).unwrap();
            assert_eq!(again, names(&manifest).contains(&"second"));
        }
        let (first, second) = (names(&manifest).contains(&"first"), names(&manifest).contains(&"second"));
        assert!(first != second, "step {step}");
        for loss in LOSSES {
            assert_eq!(load(&disk.after(loss), 1).state(), manifest.state(), "step {step}, {loss:?}");
        }
    }
}

#[test]
fn checkpoints_say_the_same_and_old_entries_go() {
    let disk = FakeDisk::default();
    let mut manifest = load_at(&disk, 1, 10 * KEPT_MS).unwrap();
    let count = |disk: &FakeDisk, dir: &str| disk.paths().iter().filter(|path| path.starts_with(dir)).count();
    for number in 1..=5 * CHECKPOINT_ENTRIES {
        assert!(manifest.commit(add(&format!("segment-{number}"), number)).unwrap());
        if number > 1 {
            let remove = vec![format!("segment-{}", number - 1)];
            assert!(manifest.commit(Change { remove, ..Change::default() }).unwrap());
        }
    }
    let found = load(&disk, 1);
    assert_eq!((found.state(), found.next), (manifest.state(), manifest.next));
    let covered = found.state().logs_of(Uuid::from_u128(1));
    assert_eq!(covered.logs.len(), 1, "only the last is remembered");
    assert!(covered.contains(1), "a file that comes back, as with a copy, is known to be in segments");
    assert_eq!(count(&disk, "/objects/checkpoints"), 9);
    assert_eq!(count(&disk, "/objects/manifest") as u64, manifest.next - 1, "they are all of this hour");

    let mut later = load_at(&disk, 1, 12 * KEPT_MS).unwrap();
    for number in 0..3 * CHECKPOINT_ENTRIES {
        assert!(later.commit(add(&format!("later-{number}"), 1000 + number)).unwrap());
    }
    let go_on = || true;
    remove_old(&*objects(&disk), 10 * KEPT_MS, usize::MAX, go_on).unwrap();
    assert_eq!(count(&disk, "/objects/manifest") as u64, later.next - 1, "they were all of this hour");
    remove_old(&*objects(&disk), 12 * KEPT_MS, 10, go_on).unwrap();
    assert_eq!(count(&disk, "/objects/checkpoints"), 9 + 3 - 8, "first what leads to the others");
    assert_eq!(count(&disk, "/objects/manifest") as u64, later.next - 1 - 2);
    assert_eq!(load(&disk, 1).state(), later.state());
    remove_old(&*objects(&disk), 12 * KEPT_MS, usize::MAX, || false).unwrap();
    assert_eq!(count(&disk, "/objects/manifest") as u64, later.next - 1 - 2);
    remove_old(&*objects(&disk), 12 * KEPT_MS, usize::MAX, go_on).unwrap();
    assert!(count(&disk, "/objects/manifest") as u64 <= 5 * CHECKPOINT_ENTRIES);
    assert_eq!(load(&disk, 1).state(), later.state());
    remove_old(&*objects(&disk), 20 * KEPT_MS, usize::MAX, go_on).unwrap();
    assert_eq!(count(&disk, "/objects/checkpoints"), 2, "the last may turn out damaged");
    assert_eq!(load(&disk, 1).state(), later.state());

    // The last checkpoint may be damaged: the one before leads to the same.
    let last = disk.paths().into_iter().rfind(|path| path.starts_with("/objects/checkpoints")).unwrap();
    disk.rot(&last, |bytes| bytes[30] ^= 1);
    assert_eq!(load(&disk, 1).state(), later.state());
}

#[test]
fn what_is_kept_of_a_busy_manifest_does_not_grow() {
    const STEP_MS: i64 = 20_000;
    let disk = FakeDisk::default();
    let now_ms = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let clock = Arc::clone(&now_ms);
    let clock: Clock = Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed));
    let mut manifest = Manifest::load(objects(&disk), clock, Uuid::from_u128(1)).unwrap();
    let hour = (KEPT_MS / STEP_MS) as u64;
    for number in 1..=4 * hour {
        assert!(manifest.commit(add(&number.to_string(), number)).unwrap());
        let at_ms = now_ms.fetch_add(STEP_MS, std::sync::atomic::Ordering::Relaxed);
        if number % 50 == 0 {
            remove_old(&*objects(&disk), at_ms, 1000, || true).unwrap();
            let entries = objects(&disk).list(ENTRIES, "").unwrap().len() as u64;
            assert!(entries <= hour + 2 * CHECKPOINT_ENTRIES, "{entries} after {number}");
        }
    }
    assert_eq!(load(&disk, 1).state(), manifest.state());
}

#[test]
fn without_a_whole_checkpoint_the_entries_are_read_if_all_are_there() {
    let disk = FakeDisk::default();
    let mut manifest = load(&disk, 1);
    for number in 1..=CHECKPOINT_ENTRIES + 3 {
        assert!(manifest.commit(add(&number.to_string(), number)).unwrap());
    }
    let checkpoint = disk.paths().into_iter().find(|path| path.starts_with("/objects/checkpoints")).unwrap();
    disk.rot(&checkpoint, |bytes| bytes[30] ^= 1);
    let tell = |disk: &FakeDisk| {
        let mut told = Vec::new();
        audit(&*objects(disk), &mut |name, _, means| told.push((name.to_owned(), means))).unwrap();
        told
    };
    let told = tell(&disk);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].0.starts_with("checkpoints/") && told[0].1.contains("a server starts without it"),
        "{told:?}"
    );
    let mut found = load(&disk, 1);
    assert_eq!((found.state(), found.next), (manifest.state(), manifest.next));
    assert!(found.commit(add("more", 1000)).unwrap());
    assert_eq!(disk.paths().iter().filter(|path| path.starts_with("/objects/checkpoints")).count(), 2);

    let disk = disk.after(Loss::Nothing);
    let last = disk.paths().into_iter().rfind(|path| path.starts_with("/objects/checkpoints")).unwrap();
    disk.rot(&last, |bytes| bytes[30] ^= 1);
    objects(&disk).remove("manifest/00000000000000000001").unwrap();
    let error = load_at(&disk, 1, 0).err().unwrap().to_string();
    assert!(error.contains("checkpoints/"), "{error}");
    assert!(tell(&disk).iter().any(|(_, means)| means.contains("does not start")), "{:?}", tell(&disk));
}

#[test]
fn a_log_file_that_stays_does_not_make_the_manifest_grow() {
    let disk = FakeDisk::default();
    let mut manifest = load(&disk, 1);
    // The third cannot be read, the fifth not be removed.
    let mut size = 0;
    for number in (1..=400).filter(|number| *number != 3) {
        let files: Vec<u64> =
            [3, 5].into_iter().filter(|file| *file < number).chain(std::iter::once(number)).collect();
        let change = manifest.covered().and(number, &files);
        assert!(manifest.commit(Change { add: vec![segment("s")], ..change }).unwrap());
        let remove = vec!["s".to_owned()];
        assert!(manifest.commit(Change { remove, ..Change::default() }).unwrap());
        let bytes = serde_json::to_vec(manifest.state()).unwrap().len();
        size = if number == 100 { bytes } else { size };
        assert!(number <= 100 || bytes <= size, "{bytes} bytes at {number}, {size} at 100");
    }
    for manifest in [&manifest, &load(&disk, 1)] {
        let covered = manifest.covered();
        let open: Vec<u64> = (1..=401).filter(|file| !covered.contains(*file)).collect();
        assert_eq!((open, covered.last()), (vec![3, 401], Some(400)));
    }
    // It can be read again after all.
    let change = manifest.covered().and(3, &[3, 5, 401]);
    assert!(manifest.commit(change).unwrap());
    let covered = load(&disk, 1).covered();
    assert!((1..=400).all(|file| covered.contains(file)) && !covered.contains(401));
    assert_eq!(covered.last(), Some(400));
}

/// A bucket with a clock.
#[derive(Default)]
struct Dated {
    objects: super::super::memory_objects::Memory,
    dates: parking_lot::Mutex<BTreeMap<String, i64>>,
    now_ms: std::sync::atomic::AtomicI64,
}

impl Objects for Dated {
    fn create(&self, name: &str, bytes: Vec<u8>) -> std::io::Result<bool> {
        let now_ms = self.now_ms.load(std::sync::atomic::Ordering::Relaxed);
        self.dates.lock().entry(name.to_owned()).or_insert(now_ms);
        self.objects.create(name, bytes)
    }
    fn read(&self, name: &str, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
        self.objects.read(name, range)
    }
    fn get(&self, name: &str) -> std::io::Result<Vec<u8>> {
        self.objects.get(name)
    }
    fn list(&self, prefix: &str, after: &str) -> std::io::Result<Vec<String>> {
        self.objects.list(prefix, after)
    }
    fn modified_ms(&self, name: &str) -> std::io::Result<i64> {
        Ok(self.dates.lock()[name])
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.objects.remove(name)
    }
    fn is_shared(&self) -> bool {
        true
    }
    fn settle(&self, prefix: &str) -> std::io::Result<()> {
        self.objects.settle(prefix)
    }
}

#[test]
fn clocks_that_differ_remove_no_entry_that_somebody_needs() {
    const HOUR_MS: i64 = 3_600_000;
    let bucket = Arc::new(Dated::default());
    let load = |server: u128, now_ms| {
        let objects = Arc::clone(&bucket) as Arc<dyn Objects>;
        Manifest::load(objects, Arc::new(move || now_ms), Uuid::from_u128(server)).unwrap().shared()
    };
    let entries = || bucket.list(ENTRIES, "").unwrap().len() as u64;
    // One has looked a moment ago; one is two hours behind and writes; one is two hours ahead and tidies up.
    let (mut looked, mut behind) = (load(1, 0), load(2, -2 * HOUR_MS));
    for number in 1..=3 * CHECKPOINT_ENTRIES {
        assert!(behind.commit(add(&number.to_string(), number)).unwrap());
    }
    remove_old(&*bucket, 2 * HOUR_MS, usize::MAX, || true).unwrap();
    assert_eq!(entries(), 3 * CHECKPOINT_ENTRIES, "they are all of this moment");
    assert!(looked.commit(add("mine", 1)).unwrap());
    assert!(names(&load(3, 0)).contains(&"mine"), "what was told to be there is");
    // By the bucket's clock an hour has passed between two checkpoints.
    bucket.now_ms.store(HOUR_MS, std::sync::atomic::Ordering::Relaxed);
    for number in 1..=CHECKPOINT_ENTRIES {
        assert!(behind.commit(add(&format!("later-{number}"), 1000 + number)).unwrap());
    }
    remove_old(&*bucket, -2 * HOUR_MS, usize::MAX, || true).unwrap();
    assert!(entries() < 2 * CHECKPOINT_ENTRIES, "{}", entries());
    assert_eq!(load(3, 0).state(), behind.state());
}

#[test]
fn servers_that_are_silent_for_long_are_forgotten() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let disk = FakeDisk::default();
    let at = |server: u128, now_ms| load_at(&disk, server, now_ms).unwrap();
    let begin = |manifest: &mut Manifest| assert!(manifest.begin(Uuid::new_v4(), &[]).unwrap());
    let mut size = 0;
    // One that begins anew each day, with an empty directory, beside one that goes on.
    for day in 0..100 {
        let mut next = at(1000 + day as u128, day * DAY_MS);
        assert!(!next.remembers());
        begin(&mut next);
        assert!(next.commit(add(&format!("{day}"), 1)).unwrap());
        assert!(at(1, day * DAY_MS).commit(add(&format!("one-{day}"), 1 + day as u64)).unwrap());
        let remove = vec![format!("{day}"), format!("one-{day}")];
        next.refresh().unwrap();
        assert!(next.commit(Change { remove, ..Change::default() }).unwrap());
        let state = load(&disk, 1).state().clone();
        let bytes = serde_json::to_vec(&state).unwrap().len();
        size = if day == 40 { bytes + 8 } else { size };
        assert!(day <= 40 || bytes <= size, "{bytes} bytes on day {day}, {size} on day 40");
        assert!(state.heard.len() <= 32 && state.logs.len() <= 32 && state.starts.len() <= 31, "{state:?}");
        assert_eq!(state, *next.state());
    }
    let now = 99 * DAY_MS;
    assert!(at(1, now).remembers() && at(1070, now).remembers() && !at(1060, now).remembers());
    assert!(at(1, now).covered().contains(1), "it is long ago, but its server goes on");
    // Those of whom an earlier version took no note are remembered from now on.
    let mut old = at(1, now).state().clone();
    old.heard.clear();
    old.forget(now);
    assert!(old.heard.values().all(|ms| *ms == now) && old.heard.len() == at(1, now).state().heard.len());
    let damages = audit(&*objects(&disk), &mut |name, what, _| panic!("{name}: {what}"));
    assert!(damages.is_ok());
}

#[test]
fn many_servers_that_want_the_same_number_all_get_one() {
    /// Requests take a while, so that some meet.
    struct Slow(super::super::memory_objects::Memory, std::sync::atomic::AtomicU64);
    impl Objects for Slow {
        fn create(&self, name: &str, bytes: Vec<u8>) -> std::io::Result<bool> {
            std::thread::sleep(Duration::from_millis(2));
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.create(name, bytes)
        }
        fn read(&self, name: &str, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
            self.0.read(name, range)
        }
        fn get(&self, name: &str) -> std::io::Result<Vec<u8>> {
            std::thread::sleep(Duration::from_millis(1));
            self.0.get(name)
        }
        fn list(&self, prefix: &str, after: &str) -> std::io::Result<Vec<String>> {
            self.0.list(prefix, after)
        }
        fn modified_ms(&self, name: &str) -> std::io::Result<i64> {
            self.0.modified_ms(name)
        }
        fn remove(&self, name: &str) -> std::io::Result<()> {
            self.0.remove(name)
        }
        fn settle(&self, prefix: &str) -> std::io::Result<()> {
            self.0.settle(prefix)
        }
    }
    const SERVERS: u64 = 8;
    const EACH: u64 = 12;
    let slow = Arc::new(Slow(Default::default(), Default::default()));
    let objects = || Arc::clone(&slow) as Arc<dyn Objects>;
    std::thread::scope(|scope| {
        for server in 1..=SERVERS {
            let mut manifest =
                Manifest::load(objects(), Arc::new(|| 0), Uuid::from_u128(server.into())).unwrap().shared();
            scope.spawn(move || {
                for log in 1..=EACH {
                    assert!(manifest.commit(add(&format!("{server}-{log}"), log)).unwrap());
                }
            });
        }
    });
    let all = Manifest::load(objects(), Arc::new(|| 0), Uuid::nil()).unwrap();
    assert_eq!((all.state().segments.len() as u64, all.next), (SERVERS * EACH, SERVERS * EACH + 1));
    let tries = slow.1.load(std::sync::atomic::Ordering::Relaxed);
    println!("{SERVERS} servers wrote {EACH} entries each with {tries} tries");
    // Without pauses each entry is tried by nearly all of them at once.
    assert!(tries < SERVERS * EACH * SERVERS / 2, "{tries} tries");
}

#[test]
fn a_damaged_or_missing_entry_is_not_passed_over() {
    let disk = FakeDisk::default();
    let mut manifest = load(&disk, 1);
    for number in 1..=3 {
        assert!(manifest.commit(add(&number.to_string(), number)).unwrap());
    }
    let path = PathBuf::from("/objects/manifest/00000000000000000002");
    let length = objects(&disk).get("manifest/00000000000000000002").unwrap().len();
    for at in 0..length {
        let disk = disk.after(Loss::Nothing);
        disk.rot(&path, |bytes| bytes[at] ^= 4);
        let error = load_at(&disk, 1, 0).err().unwrap().to_string();
        assert!(error.contains("00000000000000000002"), "{error}");
    }
    objects(&disk).remove("manifest/00000000000000000002").unwrap();
    let error = load_at(&disk, 1, 0).err().unwrap().to_string();
    assert!(error.contains("00000000000000000002") && error.contains("missing"), "{error}");
}

#[test]
fn a_newer_version_is_refused() {
    let disk = FakeDisk::default();
    assert!(load(&disk, 1).commit(add("a", 1)).unwrap());
    disk.rot(&PathBuf::from("/objects/manifest/00000000000000000001"), |bytes| bytes[8] = 2);
    let error = load_at(&disk, 1, 0).err().unwrap();
    assert!(error.to_string().contains("written in format version 2, this version reads up to 1"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    let disk = FakeDisk::default();
    let newer = SegmentMeta { version: 9, ..segment("a") };
    let mut manifest = load(&disk, 1);
    assert!(manifest.commit(Change { add: vec![newer], ..Change::default() }).unwrap());
    assert!(manifest.check_versions().unwrap_err().to_string().contains("format version 9"));
}
