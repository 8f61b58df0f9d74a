//! A store on a disk in memory, what happens to both, and what must hold all the while.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::fake_disk::{FakeDisk, FakeObjects};
use super::super::objects::Objects;
use super::super::source::{Source, SpanLookup};
use super::super::writer::{Request, Writer};
use super::super::{LogDir, Retention, Store, StoreError, StoreOptions};
use super::Life;
use super::chance::Chance;
use super::model::{Fate, Model, Seen, Sent};
use super::sky::{Sky, weather};
use super::work::{
    AGE_MS, BYTES, HOUR_MS, TENANTS, deletion, keep, lookups, profiles, range, segment_id, take_ids_from,
    takes, tenant,
};
use crate::model::{TenantId, TraceId};

/// The one data directory.
const HOME: u64 = 0;
/// What is told of when something does not hold.
const TOLD: usize = 40;

/// The store as it stands, and what must be in it.
type Now = (Rc<Store>, Rc<RefCell<Model>>);

thread_local! {
    /// What queries in the middle of an operation look at.
    static NOW: RefCell<Option<Now>> = const { RefCell::new(None) };
}

/// Queries that are kept open while the store goes on, with what they must find.
struct Held {
    tenant: TenantId,
    sources: Vec<Arc<dyn Source>>,
    certain: BTreeSet<usize>,
}

/// Bytes that were flipped in a file.
struct Rot {
    path: PathBuf,
    was: Vec<u8>,
}

pub(super) struct World {
    chance: Chance,
    runtime: tokio::runtime::Runtime,
    disk: FakeDisk,
    sky: Arc<Mutex<Sky>>,
    options: StoreOptions,
    store: Option<Rc<Store>>,
    writer: Option<(Writer, UnboundedReceiver<Request>)>,
    model: Rc<RefCell<Model>>,
    held: Vec<Held>,
    rots: Vec<Rot>,
    /// Damage was told of.
    reported: bool,
    starts: u64,
    told: VecDeque<String>,
}

impl World {
    pub(super) fn new(chance: &mut Chance) -> Self {
        let sky = Sky::new(chance.fork(), crate::testing::START_MS);
        take_ids_from(chance.fork());
        let mut options = StoreOptions::new("/data");
        options.head_bytes = *chance.pick(&[60_000, 200_000, 1 << 20]);
        options.flush_bytes = 1 << 20;
        options.flush_after_ms = *chance.pick(&[60_000, 600_000]);
        options.log_file_bytes = *chance.pick(&[1500, 6000, 1 << 20]);
        options.cache_bytes = *chance.pick(&[0, 1 << 20]);
        options.reserve_bytes = *chance.pick(&[0, 3000]);
        options.compaction.fan_out = *chance.pick(&[2, 3, 5]);
        let total_bytes = chance.one_in(5).then_some(40_000);
        let of_tenant = Arc::new(keep);
        options.retention = Retention { of_tenant, total_bytes };
        let clock = Arc::clone(&sky);
        options.clock = Arc::new(move || clock.lock().now_ms);
        options.segment_ids = segment_id;
        let mut world = Self {
            chance: chance.fork(),
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            disk: FakeDisk::default(),
            sky,
            options,
            store: None,
            writer: None,
            model: Rc::default(),
            held: Vec::new(),
            rots: Vec::new(),
            reported: false,
            starts: 0,
            told: VecDeque::new(),
        };
        world.disk.set_weather(weather(&world.sky, ask_in_between));
        world.open();
        world
    }

    /// The last that happened.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.iter().cloned().collect()
    }

    fn tell(&mut self, what: impl Into<String>) {
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        let sky = self.sky.lock();
        let line = format!("{:>6} {:>5} {}", sky.operations, sky.faults, what.into());
        self.told.push_back(line);
    }

    fn store(&self) -> Rc<Store> {
        Rc::clone(self.store.as_ref().expect("open between steps"))
    }

    // ---- What happens.

    pub(super) fn step(&mut self) {
        self.change_weather();
        match self.chance.below(100) {
            0..34 => self.append(),
            34..44 => self.turn(),
            44..54 => self.flush(),
            54..66 => self.compact(),
            66..70 => self.delete(),
            70..76 => self.pass_time(),
            76..80 => self.hold(),
            80..82 => self.rot(),
            82..84 => self.crash(),
            84..94 => self.look(false),
            _ => self.look(true),
        }
        if self.sky.lock().dead {
            self.crash();
        }
    }

    fn change_weather(&mut self) {
        if self.chance.one_in(12) {
            let room = self.chance.one_in(3).then(|| self.chance.index(8000));
            self.disk.set_room(room);
            let mut sky = self.sky.lock();
            sky.errors = *self.chance.pick(&[0, 0, 10, 60, 400]);
            sky.delays = *self.chance.pick(&[0, 50]);
            let line = format!("weather: room {room:?}, {} errors in a thousand", sky.errors);
            drop(sky);
            self.tell(line);
        }
        if self.chance.one_in(25) {
            let operations = self.chance.below(60);
            self.sky.lock().fuse = Some(operations);
            self.tell(format!("the power fails in {operations} operations"));
        }
    }

    /// Does something to the store in whatever weather there is; an error is all right if something went wrong on the disk.
    fn during<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let store = self.store();
        let before = {
            let mut sky = self.sky.lock();
            sky.calm = false;
            sky.faults
        };
        let done = work(&store);
        let went_wrong = {
            let mut sky = self.sky.lock();
            sky.calm = true;
            sky.dead || sky.faults > before
        };
        self.tell(format!("{what}: {}", done.as_ref().map_or_else(ToString::to_string, |_| "done".into())));
        if let Err(error) = &done {
            let full = self.disk.is_full() && error.kind() == super::super::ErrorKind::Full;
            // A flipped bit may make another version of it.
            let rotten = !self.rots.is_empty()
                && matches!(error, StoreError::Damaged { .. } | StoreError::Version { .. });
            self.reported |= rotten;
            assert!(went_wrong || full || rotten, "{what}: {error}, though the disk did all it was asked");
        }
        done
    }

    fn append(&mut self) {
        let store = self.store();
        let count = 1 + self.chance.below(4);
        let mut waiting = Vec::new();
        for _ in 0..count {
            let name = self.chance.pick(&TENANTS);
            let tenant = tenant(name);
            let now_ms = self.sky.lock().now_ms;
            let profiles = profiles(&mut self.chance, now_ms);
            let numbers = self.model.borrow_mut().add(&tenant, &profiles, HOME);
            let mut append: Pin<Box<dyn Future<Output = Result<(), StoreError>> + '_>> = {
                let store: &Store = &store;
                Box::pin(async move { store.append(&tenant, profiles).await })
            };
            // Encoding happens on another thread; until it is in the queue nothing else does.
            let queued = store.queued_bytes.load(std::sync::atomic::Ordering::Relaxed);
            let _entered = self.runtime.enter();
            while store.queued_bytes.load(std::sync::atomic::Ordering::Relaxed) == queued {
                let answer = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(answer.is_pending(), "nobody can answer yet");
                std::thread::yield_now();
            }
            waiting.push((numbers, append));
        }
        let (mut writer, mut requests) = self.writer.take().expect("open between steps");
        let model = Rc::clone(&self.model);
        let answers = self.during(&format!("{count} appends"), |_| {
            let first = requests.try_recv().expect("it is in the queue");
            writer.step(first, &mut requests);
            let mut refused = Ok(());
            for (numbers, append) in &mut waiting {
                let Poll::Ready(answer) = append.as_mut().poll(&mut Context::from_waker(Waker::noop()))
                else {
                    panic!("the writer answers all that it takes");
                };
                let fate = if answer.is_ok() { Fate::Kept } else { Fate::Refused };
                let mut model = model.borrow_mut();
                model.sent[numbers.clone()].iter_mut().for_each(|sent| sent.fate = fate);
                refused = refused.and(answer);
            }
            refused
        });
        drop(answers);
        self.writer = Some((writer, requests));
    }

    /// What the flusher's thread does again and again.
    fn turn(&mut self) {
        let others = self.expect_to_go();
        let turned = self.during("turn", |store| {
            let failed = store.flusher.turn();
            // Why is told in the log only.
            if failed {
                return Err(StoreError::NoSpace(PathBuf::new()));
            }
            // That nothing could be let go of is told in the log only: on a full disk the next turn does it.
            store.flusher.settle()?;
            store.flusher.retain()?;
            store.flusher.settle()
        });
        if turned.is_ok() {
            self.let_go_by_retention(&others);
        }
    }

    fn flush(&mut self) {
        let _ = self.during("flush", Store::flush);
    }

    fn compact(&mut self) {
        let compacted = self.during("merge", |store| store.flusher.compact());
        if compacted.is_ok() {
            self.store().flusher.bury();
            let _ = self.store().flusher.prune();
        }
    }

    /// Whatever may expire from now on is no longer certain; gives what was not before.
    fn expect_to_go(&mut self) -> BTreeSet<usize> {
        let store = self.store();
        let going = |(_, sent): &(usize, &Sent)| sent.going;
        let others =
            self.model.borrow().sent.iter().enumerate().filter(going).map(|(number, _)| number).collect();
        // Delays may make it later than it is.
        let now_ms = self.sky.lock().now_ms + HOUR_MS;
        let all = store.flusher.retention.total_bytes.is_some();
        for sent in &mut self.model.borrow_mut().sent {
            let goes = match sent.tenant.as_str() {
                "aged" => sent.range().end_ms < now_ms - AGE_MS,
                "sized" => true,
                _ => false,
            };
            sent.going |= goes || all;
        }
        others
    }

    /// Retention was brought about: what is left is what it says, and what went is what it says.
    fn let_go_by_retention(&mut self, others: &BTreeSet<usize>) {
        let store = self.store();
        let now_ms = self.sky.lock().now_ms;
        let mut bytes = 0;
        for (of, segments) in store.view.whole_segments() {
            let sum: u64 = segments.iter().map(|segment| segment.meta().bytes).sum();
            bytes += sum;
            assert!(of.as_str() != "sized" || sum <= BYTES, "{sum} bytes stay");
            let fresh = segments.iter().all(|s| s.meta().end_ms >= now_ms - AGE_MS - HOUR_MS);
            assert!(of.as_str() != "aged" || fresh, "segments stay that are too old");
        }
        let total = store.flusher.retention.total_bytes;
        assert!(total.is_none_or(|total| bytes <= total), "{bytes} bytes stay in all");
        for name in TENANTS {
            let seen = self.seen(&tenant(name));
            let model = self.model.borrow();
            let went = |(number, sent): &(usize, &Sent)| {
                sent.tenant == tenant(name)
                    && !others.contains(number)
                    && sent.fate == Fate::Kept
                    && !sent.at_risk
                    && !seen.contains_key(number)
            };
            for (number, sent) in model.sent.iter().enumerate().filter(went) {
                let old = sent.range().end_ms < now_ms - AGE_MS;
                assert!(name != "aged" || old || total.is_some(), "profile {number} went too early");
            }
        }
        self.settle_what_goes();
    }

    fn settle_what_goes(&mut self) {
        let mut all = Seen::new();
        for name in TENANTS {
            all.extend(self.seen(&tenant(name)));
        }
        self.model.borrow_mut().let_go(&all);
    }

    fn delete(&mut self) {
        let now_ms = self.sky.lock().now_ms;
        let deletion = deletion(&mut self.chance, now_ms);
        let goes = |sent: &Sent| takes(&deletion, sent);
        self.model.borrow_mut().sent.iter_mut().filter(|sent| goes(sent)).for_each(|sent| sent.going = true);
        let deleted = self.during(&format!("delete {deletion:?}"), |store| store.delete(&deletion));
        if deleted.is_ok() {
            let seen = self.seen(&deletion.tenant);
            let model = self.model.borrow();
            let left = seen.keys().find(|number| goes(&model.sent[**number]));
            assert!(left.is_none(), "profile {left:?} was deleted and is there");
            drop(model);
            self.settle_what_goes();
        }
    }

    fn pass_time(&mut self) {
        let most = *self.chance.pick(&[60_000, HOUR_MS, 30 * HOUR_MS]);
        let by = self.chance.below(most as u64) as i64;
        self.sky.lock().now_ms += by;
        self.tell(format!("{by} ms pass"));
    }

    /// Begins a query that stays open, or ends one.
    fn hold(&mut self) {
        if self.held.len() > 2 || self.chance.one_in(2) {
            if !self.held.is_empty() {
                let at = self.chance.index(self.held.len());
                let held = self.held.swap_remove(at);
                self.check_held(&held);
            }
            return;
        }
        let name = self.chance.pick(&TENANTS);
        let tenant = tenant(name);
        let sources = self.store().snapshot(&tenant);
        let certain = self.model.borrow().certain(&tenant, HOME);
        self.held.push(Held { tenant, sources, certain });
    }

    /// What was there when the query began is there for it, whatever became of it meanwhile.
    fn check_held(&self, held: &Held) {
        let model = self.model.borrow();
        let Ok(seen) = model.read(&held.tenant, &held.sources, None, false) else {
            assert!(!self.rots.is_empty(), "an open query cannot read on");
            return;
        };
        assert!(seen.values().all(|times| *times == 1), "an open query sees a profile twice");
        let lost =
            held.certain.iter().find(|number| !seen.contains_key(number) && !model.sent[**number].at_risk);
        assert!(lost.is_none(), "an open query lost profile {lost:?}");
    }

    /// Flips a bit in a file of the log, a segment or the manifest.
    fn rot(&mut self) {
        if !self.chance.one_in(3) || self.rots.len() > 1 {
            return;
        }
        let mut paths = self.disk.paths();
        paths.retain(|path| {
            ["/data/log", "/data/objects"].iter().any(|dir| path.starts_with(dir))
                && !path.to_string_lossy().contains(['#'])
                && path.extension().is_none_or(|ext| ext == "log" || ext == "segment")
                && self.disk.bytes_of(path).is_some_and(|bytes| !bytes.is_empty())
        });
        if paths.is_empty() {
            return;
        }
        let path = self.chance.pick(&paths).clone();
        let was = self.disk.bytes_of(&path).expect("it is there");
        self.put_at_risk(&path);
        let (at, bit) = (self.chance.index(was.len()), self.chance.below(8));
        self.disk.rot(&path, |bytes| bytes[at] ^= 1 << bit);
        self.tell(format!("a bit of byte {at} of {} in {} flips", was.len(), path.display()));
        self.rots.push(Rot { path, was });
    }

    /// Takes note of what a file holds before it is damaged.
    fn put_at_risk(&self, path: &std::path::Path) {
        let store = self.store();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let partition = LogDir::sequence_of(name).and_then(|sequence| store.view.existing(sequence));
        let parts = partition.iter().flat_map(|partition| partition.tenants());
        let mut sources: Vec<Arc<dyn Source>> = parts.map(|(_, part)| part as Arc<dyn Source>).collect();
        for (_, segments) in store.view.whole_segments() {
            let named = segments.into_iter().filter(|segment| path.ends_with(&segment.meta().name));
            sources.extend(named.map(|segment| segment as Arc<dyn Source>));
        }
        if sources.is_empty() && name.ends_with(".segment") {
            // It is not known whether its entry was made: it may be found at a start, in place of a log file.
            for sequence in store.view.closed() {
                let parts =
                    store.view.existing(sequence).into_iter().flat_map(|partition| partition.tenants());
                sources.extend(parts.map(|(_, part)| part as Arc<dyn Source>));
            }
        }
        let mut model = self.model.borrow_mut();
        for source in sources {
            // One that is damaged already cannot be read.
            let Ok(series) = source.series(None) else { continue };
            let numbers: Vec<u32> = series.iter().map(|series| series.id).collect();
            for chunk in source.chunks(&numbers, None).unwrap_or_default() {
                let number = model.number(&chunk);
                model.sent[number].at_risk = true;
            }
        }
    }

    /// The process dies, and perhaps the power fails with it; then it starts again.
    fn crash(&mut self) {
        let power = self.sky.lock().dead || self.chance.one_in(2);
        self.held.clear();
        NOW.with(|now| now.borrow_mut().take());
        self.writer = None;
        self.store = None;
        let chance = &mut self.chance;
        self.disk = if power {
            self.disk.after_power_failure(&mut |end| chance.index(end))
        } else {
            self.disk.after_kill()
        };
        self.disk.set_weather(weather(&self.sky, ask_in_between));
        {
            let mut sky = self.sky.lock();
            (sky.dead, sky.fuse) = (false, None);
        }
        self.tell(if power { "the power failed" } else { "the process was killed" });
        self.open();
    }

    /// Starts, as often as it takes: the disk may fail again while the log is read back.
    fn open(&mut self) {
        for attempt in 0.. {
            assert!(attempt < 20, "it does not start");
            self.starts += 1;
            if attempt < 3 && self.chance.one_in(3) {
                let mut sky = self.sky.lock();
                sky.calm = false;
                sky.fuse = Some(self.chance.below(40));
            }
            let disk = self.disk.clone();
            let objects = |root: &std::path::Path| {
                Ok(Arc::new(FakeObjects { disk, root: root.to_owned() }) as Arc<dyn Objects>)
            };
            let faults = self.sky.lock().faults;
            let opened = Store::prepare(Arc::new(self.disk.clone()), objects, self.options.clone(), false);
            let (dead, went_wrong) = {
                let mut sky = self.sky.lock();
                (sky.calm, sky.fuse) = (true, None);
                (std::mem::take(&mut sky.dead), sky.faults > faults)
            };
            match opened {
                // The process died while it started.
                _ if dead => {
                    let chance = &mut self.chance;
                    self.disk = self.disk.after_power_failure(&mut |end| chance.index(end));
                    self.disk.set_weather(weather(&self.sky, ask_in_between));
                    // What that start told of is not told again.
                    self.reported |= !self.rots.is_empty();
                    self.tell("the power failed at a start");
                }
                Ok((store, writer, requests)) => {
                    let status = store.status();
                    // Damage of the very last record cannot be told from a write that was never finished.
                    let cut_off = status.torn_bytes > 0 && !self.rots.is_empty();
                    self.reported |= status.damaged_bytes > 0 || cut_off;
                    assert!(
                        store.status().damaged_bytes == 0 || !self.rots.is_empty() || self.had_errors(),
                        "damage where there is none"
                    );
                    let unread = store.status().unreadable_files;
                    assert_eq!(unread, 0, "nothing keeps the log from being read");
                    let store = Rc::new(store);
                    self.store = Some(Rc::clone(&store));
                    self.writer = Some((writer, requests));
                    NOW.with(|now| *now.borrow_mut() = Some((store, Rc::clone(&self.model))));
                    let mut all = Seen::new();
                    for name in TENANTS {
                        all.extend(self.seen(&tenant(name)));
                    }
                    self.model.borrow_mut().started(&all, went_wrong);
                    self.tell(format!("started, {} profiles are there", all.len()));
                    self.look(true);
                    return;
                }
                Err(error @ (StoreError::Damaged { .. } | StoreError::Version { .. })) => {
                    // A flipped bit may make another version of it.
                    let name = match error {
                        StoreError::Version { path, .. } => path.display().to_string(),
                        StoreError::Damaged { name, .. } => name,
                        _ => String::new(),
                    };
                    let rot = self.rots.iter().position(|rot| rot.path.ends_with(&name));
                    let at = rot.unwrap_or_else(|| panic!("{name} is whole, and told to be damaged"));
                    // Somebody puts the file back from a copy.
                    let Rot { path, was } = self.rots.swap_remove(at);
                    self.disk.rot(&path, |bytes| *bytes = was);
                    self.reported = true;
                    self.tell(format!("{name} was refused, and put back"));
                }
                Err(error) => {
                    let full = self.disk.is_full();
                    assert!(went_wrong || full, "it does not start: {error}");
                    self.tell(format!("it does not start: {error}"));
                    if full {
                        self.disk.set_room(None);
                    }
                }
            }
        }
    }

    /// Whether appends failed in a way that leaves bytes behind.
    fn had_errors(&self) -> bool {
        self.sky.lock().faults > 0
    }

    // ---- What must hold.

    /// All profiles of a tenant, in fair weather; what is damaged is told and set aside.
    fn seen(&self, tenant: &TenantId) -> Seen {
        for _ in 0..20 {
            let sources = self.store().snapshot(tenant);
            match self.model.borrow().read(tenant, &sources, None, false) {
                Ok(seen) => return seen,
                Err(StoreError::Damaged { .. }) => assert!(!self.rots.is_empty(), "nothing is damaged"),
                Err(error) => panic!("the disk is well, and still: {error}"),
            }
        }
        panic!("the damaged segment is not set aside")
    }

    /// Asks for things in fair weather, and compares them with what must be.
    fn look(&mut self, deep: bool) {
        let store = self.store();
        for name in TENANTS {
            let tenant = tenant(name);
            let seen = self.seen(&tenant);
            let model = self.model.borrow();
            model.check(&tenant, &seen, None, HOME);
            let lost = model.sent.iter().enumerate().find(|(number, sent)| {
                sent.tenant == tenant && sent.fate == Fate::Kept && !sent.going && !seen.contains_key(number)
            });
            if let Some((number, _)) = lost {
                let told = self.reported || store.status().damaged_segments > 0;
                assert!(told, "profile {number} is lost to damage that nobody was told of");
            }
            let now_ms = self.sky.lock().now_ms;
            let range = range(&mut self.chance, now_ms);
            let sources = store.snapshot(&tenant);
            match model.read(&tenant, &sources, Some(range), deep) {
                Ok(seen) => model.check(&tenant, &seen, Some(range), HOME),
                Err(error) => assert!(!self.rots.is_empty(), "{error}"),
            }
            for lookup in lookups(&mut self.chance) {
                if let Err(error) = model.look_up(&tenant, &store.snapshot(&tenant), lookup, HOME) {
                    assert!(!self.rots.is_empty(), "{error}");
                }
            }
        }
    }

    /// The weather clears up: everything goes on by itself, and ends in good order.
    pub(super) fn end(&mut self) -> Life {
        self.disk.set_room(None);
        {
            let mut sky = self.sky.lock();
            (sky.errors, sky.delays, sky.fuse) = (0, 0, None);
        }
        self.tell("the weather clears up");
        // A file that was in the middle of a failed sync is given up with the first of these.
        self.append();
        self.append();
        assert!(self.store().status().accepts_writes, "writes are accepted again");
        let flushed = self.during("flush", Store::flush);
        assert!(flushed.is_ok(), "{flushed:?}");
        while self.rots.is_empty()
            && self.during("merge", |store| store.flusher.compact()).is_ok_and(|more| more)
        {}
        self.turn();
        for held in std::mem::take(&mut self.held) {
            self.check_held(&held);
        }
        self.store().flusher.bury();
        self.look(true);
        assert_eq!(self.store().status().partitions, 0, "all of it is in segments");
        self.sky.lock().dead = true;
        self.crash();
        self.look(true);
        let status = self.store().status();
        let left =
            self.disk.paths().iter().filter(|path| path.extension().is_some_and(|e| e == "segment")).count();
        assert_eq!(left as u64, status.segments, "no object is left that nobody knows");
        let sky = self.sky.lock();
        Life {
            digest: sky.digest,
            profiles: self.model.borrow().sent.len() as u64,
            operations: sky.operations,
            faults: sky.faults,
            starts: self.starts,
            rots: self.rots.len() as u64,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        NOW.with(|now| now.borrow_mut().take());
    }
}

/// A query in the middle of an operation on the disk: whatever is under way, it sees each profile once.
fn ask_in_between() {
    let now = NOW.with(|now| now.borrow().clone());
    let Some((store, model)) = now else { return };
    // Somebody is writing to the model: nothing of the store is under way.
    let Ok(model) = model.try_borrow() else { return };
    for name in TENANTS {
        let tenant = tenant(name);
        // A damaged segment is told and set aside, which is checked elsewhere.
        if let Ok(seen) = model.read(&tenant, &store.snapshot(&tenant), None, false) {
            model.check(&tenant, &seen, None, HOME);
        }
        let trace = SpanLookup::Trace(TraceId::new(3).expect("not zero"));
        let _ = model.look_up(&tenant, &store.snapshot(&tenant), trace, HOME);
    }
}
