//! Several servers and the bucket that they share, what happens to them, and what must hold all the while.
//!
//! What a server does stops in the middle of its requests, and others go on; which ones follows from the seed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::super::cache::BlockCache;
use super::super::fake_disk::FakeDisk;
use super::super::manifest::{Change, Manifest, remove_old};
use super::super::objects::Objects;
use super::super::offline::verify;
use super::super::segment::Segment;
use super::super::share::LEASE_MS;
use super::super::source::Source;
use super::super::{Acknowledge, Retention, Shared, StoreError, StoreOptions};
use super::Life;
use super::chance::Chance;
use super::model::{Fate, Model, Seen};
use super::reach::{Bucket, LATE_MS, Reach};
use super::server::{Done, Held, Running, Server, Work};
use super::work::{
    AGE_MS, BYTES, HOUR_MS, TENANTS, deletion, keep, lookups, profiles, range, segment_id, take_ids_from,
    takes, tenant,
};
use crate::model::TenantId;
use uuid::Uuid;

/// Clocks are off from the bucket's by this much at the most, and nobody sleeps for longer in the middle of something.
const SKEW_MS: i64 = 2 * HOUR_MS;
const SLEEP_MS: i64 = 8 * HOUR_MS;
/// How long objects stay that are no longer named.
const REMOVAL_MS: i64 = 600_000;
/// Who has no data directory.
const NOBODY: u64 = u64::MAX;
/// What is told of when something does not hold.
const TOLD: usize = 60;

/// How a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// The process.
    Kill,
    /// With what was not synced.
    Power,
    /// With its disk.
    Disk,
}

pub(super) struct Servers {
    chance: Chance,
    runtime: tokio::runtime::Runtime,
    bucket: Bucket,
    servers: Vec<Server>,
    acknowledge: Acknowledge,
    model: Model,
    /// What somebody is about to delete.
    deletions: Vec<super::super::Deletion>,
    homes: u64,
    starts: u64,
    told: VecDeque<String>,
}

impl Servers {
    pub(super) fn new(chance: &mut Chance) -> Self {
        take_ids_from(chance.fork());
        let bucket = Bucket::new(crate::testing::START_MS);
        let acknowledge = *chance.pick(&[Acknowledge::Local, Acknowledge::Object]);
        let mut options = StoreOptions::new("/data");
        options.head_bytes = *chance.pick(&[60_000, 200_000, 1 << 20]);
        options.log_file_bytes = *chance.pick(&[1500, 6000, 1 << 20]);
        options.cache_bytes = *chance.pick(&[0, 1 << 20]);
        options.reserve_bytes = 0;
        options.compaction.fan_out = *chance.pick(&[2, 3, 5]);
        options.retention = Retention { of_tenant: Arc::new(keep), total_bytes: None };
        options.segment_ids = segment_id;
        options.stored_at_once = 1;
        let place = super::super::Bucket::parse("s3://profiles").expect("a bucket");
        let removal_ms = REMOVAL_MS as u64;
        options.shared = Some(Shared { acknowledge, removal_ms, ..Shared::new(place) });
        let count = 2 + chance.below(3);
        let servers = (0..count).map(|home| {
            let skew_ms = chance.below(2 * SKEW_MS as u64) as i64 - SKEW_MS;
            Server::new(chance, &bucket, home, skew_ms, options.clone())
        });
        let servers = servers.collect();
        let mut world = Self {
            chance: chance.fork(),
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
            bucket,
            servers,
            acknowledge,
            model: Model::default(),
            deletions: Vec::new(),
            homes: count,
            starts: 0,
            told: VecDeque::new(),
        };
        world.others_are_busy();
        world
    }

    /// The last that happened.
    pub(super) fn told(&self) -> Vec<String> {
        self.told.iter().cloned().collect()
    }

    fn tell(&mut self, at: usize, what: impl Into<String>) {
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        let ms = self.bucket.now_ms() - crate::testing::START_MS;
        self.told.push_back(format!("{ms:>10} server {at}: {}", what.into()));
    }

    // ---- What happens.

    pub(super) fn step(&mut self) {
        let little = self.chance.below(2000) as i64;
        self.pass(little);
        let at = self.chance.index(self.servers.len());
        match self.chance.below(120) {
            0..2 => self.pass_time(),
            2 => self.others_are_busy(),
            3..8 => self.change_weather(at),
            8..10 => {
                let most_ms = *self.chance.pick(&[HOUR_MS / 6, 5 * HOUR_MS]);
                let ms = self.chance.below(most_ms as u64) as i64;
                self.servers[at].asleep_until_ms = self.bucket.now_ms() + ms;
                self.tell(at, format!("sleeps for {ms} ms"));
            }
            _ => {}
        }
        let server = &self.servers[at];
        if server.asleep_until_ms > self.bucket.now_ms() {
            return;
        }
        if server.running.is_some() {
            self.go_on(at);
        } else if server.open.is_none() {
            if self.chance.one_in(8) {
                self.die(at, Death::Disk);
            }
            self.begin(at, Work::Open);
        } else {
            self.act(at);
        }
        if self.servers[at].sky.lock().dead {
            self.die(at, Death::Power);
        }
    }

    /// Something that a server begins.
    fn act(&mut self, at: usize) {
        let work = match self.chance.below(100) {
            0..32 => return self.append(at),
            32..50 => Work::Publish,
            50..56 => Work::Refresh,
            56..66 => Work::Merge,
            66..70 => Work::Retain,
            70..72 => Work::Bury,
            72..75 => {
                let now_ms = self.bucket.now_ms();
                Work::Delete(deletion(&mut self.chance, now_ms))
            }
            75..78 => Work::Sweep,
            78..81 => Work::Prune,
            81 => Work::Stop,
            82 => return self.die_somehow(at),
            83..95 => return self.look(at),
            _ => return self.hold(at),
        };
        self.begin(at, work);
    }

    /// A server that is in the middle of something goes on with it, or something else happens to it.
    fn go_on(&mut self, at: usize) {
        let is_open = self.servers[at].open.is_some();
        match self.chance.below(100) {
            0..10 if is_open && !self.servers[at].is_busy() => self.append(at),
            10..14 if is_open && !self.servers[at].line.lock().reading => self.peek(at),
            14 => self.die_somehow(at),
            15..18 if is_open => {
                let open = self.servers[at].open.as_ref().expect("it is open");
                let flusher = &open.store.flusher;
                // As the threads of a server do; who holds the manifest lets nobody in.
                if flusher.manifest.try_lock().is_some() {
                    flusher.refresh().expect("nothing goes wrong");
                    self.answers(at);
                }
            }
            _ => self.resume(at),
        }
    }

    fn begin(&mut self, at: usize, work: Work) {
        let home = self.servers[at].home;
        let mut about = Vec::new();
        match &work {
            Work::Publish | Work::Stop => {
                let is = |sent: &super::model::Sent| sent.home == home && sent.fate == Fate::Kept;
                let sent = self.model.sent.iter().enumerate().filter(|(_, sent)| is(sent));
                about.extend(sent.map(|(number, _)| number));
            }
            Work::Delete(deletion) => {
                self.look(at);
                let seen = self.seen(at, &deletion.tenant);
                for (number, sent) in self.model.sent.iter_mut().enumerate() {
                    if takes(deletion, sent) {
                        sent.going = true;
                        about.extend(seen.contains_key(&number).then_some(number));
                    }
                }
                self.deletions.push(deletion.clone());
            }
            _ => {}
        }
        let ids = self.chance.fork();
        self.starts += u64::from(matches!(work, Work::Open));
        self.tell(at, format!("begins {work:?}"));
        self.servers[at].begin(work, about, ids);
        self.resume(at);
    }

    fn resume(&mut self, at: usize) {
        if let Some((running, done)) = self.servers[at].resume() {
            self.done(at, running, done);
        }
        self.answers(at);
    }

    /// Goes on with what a server is in the middle of until it is done.
    fn drain(&mut self, at: usize) {
        while self.servers[at].running.is_some() {
            self.resume(at);
        }
    }

    fn done(&mut self, at: usize, running: Running, done: Done) {
        let well = self.servers[at].faults() == running.faults;
        let result = match done {
            Done::Opened(opened) => opened.map(|(store, writer, requests)| {
                let status = store.status();
                assert!(
                    status.damaged_bytes == 0 || self.servers[at].faults() > 0,
                    "damage where there is none"
                );
                assert_eq!(status.unreadable_files, 0, "nothing keeps the log from being read");
                self.servers[at].opened(store, writer, requests);
            }),
            Done::Worked(result) => result,
        };
        let told = result.as_ref().map_or_else(ToString::to_string, |()| "done".into());
        self.tell(at, format!("{:?}: {told}", running.work));
        if let Err(error) = &result {
            assert!(!matches!(error, StoreError::Copied(_) | StoreError::Elsewhere { .. }), "{error}");
            // Who takes long may find that things went that it was about to read.
            let long = self.bucket.now_ms() - running.since_ms >= REMOVAL_MS;
            let full = self.servers[at].disk.is_full();
            assert!(!well || long || full, "{:?}: {error}, though nothing went wrong", running.work);
            assert!(long || !matches!(error, StoreError::Damaged { .. }), "{:?}: {error}", running.work);
        }
        // One whose power fails in the end tells nothing any more.
        let ok = result.is_ok() && !self.servers[at].sky.lock().dead;
        match running.work {
            Work::Open if ok => self.started(at),
            Work::Publish if ok => self.published(&running.about),
            Work::Stop => {
                if well {
                    self.published(&running.about);
                }
                self.answers(at);
                self.die(at, Death::Kill);
            }
            Work::Delete(deletion) => {
                let place = self.deletions.iter().position(|other| *other == deletion);
                self.deletions.swap_remove(place.expect("it was begun"));
                if ok {
                    running.about.iter().for_each(|number| self.model.sent[*number].fate = Fate::Gone);
                    self.observe();
                }
            }
            Work::Refresh if ok => {
                self.servers[at].open.as_mut().expect("it is open").refreshed_ms = running.since_ms;
            }
            _ => {}
        }
    }

    /// A server told that it has published these.
    fn published(&mut self, numbers: &[usize]) {
        numbers.iter().for_each(|number| self.model.sent[*number].published = true);
        self.observe();
    }

    /// What a start makes certain: what was not acknowledged and is not in the log is nowhere and never will be.
    fn started(&mut self, at: usize) {
        let home = self.servers[at].home;
        let mut all = Seen::new();
        for name in TENANTS {
            all.extend(self.seen(at, &tenant(name)));
        }
        for (number, sent) in self.model.sent.iter_mut().enumerate().filter(|(_, sent)| sent.home == home) {
            if sent.fate == Fate::Unknown && !sent.going && !all.contains_key(&number) {
                sent.fate = Fate::Gone;
            }
        }
        self.tell(at, format!("started, {} profiles are there", all.len()));
        self.look(at);
    }

    fn append(&mut self, at: usize) {
        let home = self.servers[at].home;
        let now_ms = self.bucket.now_ms();
        let mut appends = Vec::new();
        for _ in 0..1 + self.chance.below(3) {
            let name = self.chance.pick(&TENANTS);
            let tenant = tenant(name);
            let profiles = profiles(&mut self.chance, now_ms);
            let numbers = self.model.add(&tenant, &profiles, home);
            for sent in &mut self.model.sent[numbers.clone()] {
                // Somebody may let go of bytes, or of these, any moment.
                sent.going = tenant.as_str() == "sized" || self.deletions.iter().any(|of| takes(of, sent));
            }
            appends.push((tenant, profiles, numbers));
        }
        let count = appends.len();
        let server = &mut self.servers[at];
        let faults = server.faults();
        let waiting = {
            let _entered = self.runtime.enter();
            server.append(appends)
        };
        let well = server.faults() == faults && !server.disk.is_full();
        let mut refused = None;
        for mut waiting in waiting {
            let fate = match waiting.ask() {
                Some(Ok(())) => Fate::Kept,
                Some(Err(error)) => {
                    assert!(!well || matches!(error, StoreError::Unpublished(_)), "append: {error}");
                    refused = Some(error);
                    Fate::Refused
                }
                None => {
                    assert_eq!(self.acknowledge, Acknowledge::Object);
                    self.servers[at].open.as_mut().expect("it is open").waiting.push(waiting);
                    continue;
                }
            };
            // An answer at once is a promise as well.
            let published = fate == Fate::Kept && self.acknowledge == Acknowledge::Object;
            for sent in &mut self.model.sent[waiting.numbers.clone()] {
                (sent.fate, sent.published) = (fate, published);
            }
        }
        let told = refused.map_or("taken".into(), |error| error.to_string());
        self.tell(at, format!("{count} appends: {told}"));
        self.answers(at);
    }

    /// Takes note of answers that have come meanwhile.
    fn answers(&mut self, at: usize) {
        let Some(open) = &mut self.servers[at].open else { return };
        for mut waiting in std::mem::take(&mut open.waiting) {
            match waiting.ask() {
                Some(Ok(())) => {
                    for sent in &mut self.model.sent[waiting.numbers.clone()] {
                        // What was deleted since is so still.
                        if sent.fate == Fate::Unknown {
                            sent.fate = Fate::Kept;
                        }
                        sent.published = true;
                    }
                }
                Some(Err(_)) => {}
                None => open.waiting.push(waiting),
            }
        }
    }

    /// The time by somebody's clock.
    fn skewed_ms(&mut self) -> i64 {
        self.bucket.now_ms() + self.chance.below(2 * SKEW_MS as u64) as i64 - SKEW_MS
    }

    fn pass(&mut self, by_ms: i64) {
        self.bucket.pass(by_ms);
        for server in &self.servers {
            server.sky.lock().now_ms += by_ms;
        }
        // Whose clock is ahead may let go of these.
        let now_ms = self.bucket.now_ms() + SKEW_MS;
        for sent in self.model.sent.iter_mut().filter(|sent| sent.tenant.as_str() == "aged") {
            sent.going |= sent.range().end_ms < now_ms - AGE_MS;
        }
    }

    fn pass_time(&mut self) {
        let most = *self.chance.pick(&[60_000, HOUR_MS, 10 * HOUR_MS]);
        let by_ms = self.chance.below(most as u64) as i64;
        for at in 0..self.servers.len() {
            let since_ms = self.servers[at].running.as_ref().map(|running| running.since_ms);
            if since_ms.is_some_and(|since_ms| self.bucket.now_ms() + by_ms - since_ms > SLEEP_MS) {
                self.drain(at);
                if self.servers[at].sky.lock().dead {
                    self.die(at, Death::Power);
                }
            }
        }
        self.tell(0, format!("and all others: {by_ms} ms pass"));
        self.pass(by_ms);
    }

    /// Servers that nothing happens to write many entries.
    fn others_are_busy(&mut self) {
        let now_ms = self.skewed_ms();
        let count = 20 + self.chance.below(150);
        let id = Uuid::from_u128(1 + u128::from(self.chance.below(3)));
        let other = Manifest::load(Reach::of(&self.bucket), Arc::new(move || now_ms), id);
        let mut other = other.expect("the manifest can be read").shared();
        for _ in 0..count {
            assert!(other.commit(Change::default()).expect("nothing goes wrong"));
        }
        let prunes = self.chance.one_in(2);
        if prunes {
            let now_ms = self.skewed_ms();
            remove_old(&*Reach::of(&self.bucket), now_ms, usize::MAX, || true).expect("nothing goes wrong");
        }
        self.tell(0, format!("and all others: {count} entries come, old ones go: {prunes}"));
    }

    fn change_weather(&mut self, at: usize) {
        let server = &self.servers[at];
        let room = self.chance.one_in(4).then(|| self.chance.index(8000));
        server.disk.set_room(room);
        let errors = [*self.chance.pick(&[0, 0, 10, 60]), *self.chance.pick(&[0, 0, 10, 60, 300, 1000])];
        let fuse = self.chance.one_in(6).then(|| self.chance.below(60));
        {
            let mut sky = server.sky.lock();
            sky.errors = errors[0];
            sky.fuse = fuse;
        }
        server.line.lock().errors = errors[1];
        self.tell(at, format!("weather: room {room:?}, {errors:?} errors in a thousand, power for {fuse:?}"));
    }

    fn die_somehow(&mut self, at: usize) {
        let death = *self.chance.pick(&[Death::Kill, Death::Power, Death::Disk]);
        self.die(at, death);
    }

    /// A server ends, in the middle of whatever it does.
    fn die(&mut self, at: usize, death: Death) {
        let server = &mut self.servers[at];
        server.sky.lock().dead = true;
        while server.running.is_some() {
            if let Some((Running { work: Work::Delete(deletion), .. }, _)) = server.resume() {
                let place = self.deletions.iter().position(|other| *other == deletion);
                self.deletions.swap_remove(place.expect("it was begun"));
            }
        }
        server.open = None;
        let home = server.home;
        let chance = &mut self.chance;
        let disk = match death {
            Death::Kill => server.disk.after_kill(),
            Death::Power => server.disk.after_power_failure(&mut |end| chance.index(end)),
            Death::Disk => {
                server.home = self.homes;
                self.homes += 1;
                FakeDisk::default()
            }
        };
        server.take_disk(disk);
        if death == Death::Disk {
            // Of those that it alone had nobody knows.
            self.observe();
        }
        for sent in self.model.sent.iter_mut().filter(|sent| sent.home == home) {
            let lost = death == Death::Disk && sent.fate == Fate::Kept && !sent.published;
            if sent.fate == Fate::Refused || lost {
                sent.fate = Fate::Unknown;
            }
        }
        self.tell(at, format!("died: {death:?}"));
    }

    // ---- What must hold.

    /// All that a server shows of a tenant, while nothing goes wrong.
    fn seen(&self, at: usize, tenant: &TenantId) -> Seen {
        let open = self.servers[at].open.as_ref().expect("it is open");
        let sources = open.store.snapshot(tenant);
        self.model.read(tenant, &sources, None, false).expect("nothing goes wrong")
    }

    /// Asks a server that knows all that there is.
    fn look(&mut self, at: usize) {
        let home = self.servers[at].home;
        let now_ms = self.bucket.now_ms();
        let open = self.servers[at].open.as_mut().expect("it is open");
        open.store.flusher.refresh().expect("nothing goes wrong");
        open.refreshed_ms = now_ms;
        let store = Arc::clone(&open.store);
        for name in TENANTS {
            let tenant = tenant(name);
            let segments = store.view.segments_of(&tenant);
            let segments: Vec<_> = segments.into_iter().map(|segment| segment as Arc<dyn Source>).collect();
            let deep = self.chance.one_in(4);
            let seen = self.model.read(&tenant, &segments, None, deep).expect("what is named is there");
            self.model.publish(&seen);
            let seen = self.seen(at, &tenant);
            self.model.check(&tenant, &seen, None, home);
            self.model.check_whole(&tenant, &seen);
            self.model.miss(&tenant, &seen);
            let range = range(&mut self.chance, now_ms);
            let sources = store.snapshot(&tenant);
            let seen = self.model.read(&tenant, &sources, Some(range), deep).expect("nothing goes wrong");
            self.model.check(&tenant, &seen, Some(range), home);
            for lookup in lookups(&mut self.chance) {
                let found = self.model.look_up(&tenant, &sources, lookup, home);
                found.expect("nothing goes wrong");
            }
        }
        self.answers(at);
    }

    /// Asks a server that is in the middle of something, and may not know of others' latest.
    fn peek(&mut self, at: usize) {
        let Server { home, open, .. } = &self.servers[at];
        let open = open.as_ref().expect("it is open");
        for name in TENANTS {
            let tenant = tenant(name);
            match self.model.read(&tenant, &open.store.snapshot(&tenant), None, false) {
                Ok(seen) => {
                    let twice = seen.iter().find(|(_, times)| **times > 1);
                    assert!(twice.is_none(), "a profile is there more than once: {twice:?}");
                    let own = |number: &&usize| self.model.sent[**number].home == *home;
                    let certain = self.model.certain(&tenant, *home);
                    let lost = certain.iter().filter(own).find(|number| !seen.contains_key(number));
                    assert!(lost.is_none(), "profile {lost:?} was acknowledged here and is not there");
                }
                Err(error) => self.excuse_gone(&error, open.refreshed_ms),
            }
        }
    }

    /// What is no longer named stays for a while for those who do not know.
    fn excuse_gone(&self, error: &StoreError, since_ms: i64) {
        assert!(matches!(error, StoreError::Gone(_)), "{error}");
        let age_ms = self.bucket.now_ms() - since_ms;
        assert!(age_ms >= REMOVAL_MS, "{error}, {age_ms} ms after it was named");
    }

    /// Begins a query that goes on for a while, or ends one.
    fn hold(&mut self, at: usize) {
        let end = self.chance.one_in(2);
        let open = self.servers[at].open.as_mut().expect("it is open");
        if end || open.held.len() > 2 {
            if !open.held.is_empty() {
                let which = self.chance.index(open.held.len());
                let held = open.held.swap_remove(which);
                self.check_held(&held);
            }
            return;
        }
        self.look(at);
        let name = self.chance.pick(&TENANTS);
        let tenant = tenant(name);
        let certain = self.model.certain(&tenant, self.servers[at].home);
        let since_ms = self.bucket.now_ms();
        let open = self.servers[at].open.as_mut().expect("it is open");
        let sources = open.store.snapshot(&tenant);
        open.held.push(Held { tenant, sources, certain, since_ms });
    }

    fn check_held(&self, held: &Held) {
        match self.model.read(&held.tenant, &held.sources, None, false) {
            Ok(seen) => {
                assert!(seen.values().all(|times| *times == 1), "an open query sees a profile twice");
                let lost = held.certain.iter().find(|number| !seen.contains_key(number));
                assert!(lost.is_none(), "an open query lost profile {lost:?}");
            }
            Err(error) => self.excuse_gone(&error, held.since_ms),
        }
    }

    /// Reads what is published, as somebody who comes new; gives it, and the names of the segments.
    fn observe(&mut self) -> (Seen, BTreeSet<String>) {
        let objects: Arc<dyn Objects> = Reach::of(&self.bucket);
        let manifest = Manifest::load(Arc::clone(&objects), Arc::new(|| 0), Uuid::nil());
        let manifest = manifest.expect("the manifest can be read");
        let cache = Arc::new(BlockCache::new(0));
        let mut all = Seen::new();
        for name in TENANTS {
            let tenant = tenant(name);
            let metas = manifest.state().segments.values().filter(|meta| meta.tenant == tenant);
            let segments = metas.map(|meta| {
                Arc::new(Segment::new(meta.clone(), Arc::clone(&objects), Arc::clone(&cache)))
                    as Arc<dyn Source>
            });
            let segments: Vec<_> = segments.collect();
            let seen = self.model.read(&tenant, &segments, None, false).expect("what is named is there");
            self.model.publish(&seen);
            self.model.check(&tenant, &seen, None, NOBODY);
            self.model.check_whole(&tenant, &seen);
            self.model.miss(&tenant, &seen);
            all.extend(seen);
        }
        (all, manifest.state().segments.keys().cloned().collect())
    }

    /// The weather clears up: everything goes on by itself, and ends in good order.
    pub(super) fn end(&mut self) -> Life {
        self.pass(LATE_MS as i64);
        for at in 0..self.servers.len() {
            let server = &mut self.servers[at];
            server.disk.set_room(None);
            {
                let mut sky = server.sky.lock();
                (sky.errors, sky.fuse) = (0, None);
            }
            server.line.lock().errors = 0;
            self.drain(at);
            if self.servers[at].open.is_none() {
                self.begin(at, Work::Open);
                self.drain(at);
            }
            assert!(self.servers[at].open.is_some(), "it starts in fair weather");
        }
        self.tell(0, "and all others: the weather clears up");
        for at in 0..self.servers.len() {
            // A file that was in the middle of a failed sync is given up with the first, and a publication clears the way.
            self.append(at);
            self.finish(at, Work::Publish);
            self.append(at);
            self.finish(at, Work::Publish);
            let open = self.servers[at].open.as_ref().expect("it is open");
            assert!(
                open.store.status().accepts_writes && open.waiting.is_empty(),
                "writes are accepted again"
            );
            assert_eq!(open.store.status().partitions, 0, "all of it is in segments");
        }
        // A lease that nobody knows to have may hold on: by the clock that is behind until all others think that it ran out.
        self.pass(LEASE_MS + 2 * SKEW_MS);
        for at in 0..self.servers.len() {
            self.finish(at, Work::Merge);
            self.finish(at, Work::Retain);
        }
        self.check_retention();
        let (published, _) = self.observe();
        for at in 0..self.servers.len() {
            self.look(at);
            let mut all = Seen::new();
            TENANTS.iter().for_each(|name| all.extend(self.seen(at, &tenant(name))));
            assert_eq!(all, published, "all servers show the same");
            let held = std::mem::take(&mut self.servers[at].open.as_mut().expect("it is open").held);
            held.iter().for_each(|held| self.check_held(held));
        }
        for by_ms in [REMOVAL_MS, 28 * HOUR_MS, HOUR_MS] {
            self.pass(by_ms);
            for at in 0..self.servers.len() {
                self.finish(at, Work::Bury);
                self.finish(at, Work::Sweep);
                self.finish(at, Work::Prune);
            }
        }
        let (_, named) = self.observe();
        assert_eq!(BTreeSet::from_iter(self.bucket.names("segments/")), named, "nobody knows the others");
        assert!(self.bucket.names("leases/").is_empty(), "leases stay");
        let dir = tempfile::tempdir().expect("a directory");
        self.bucket.save(&dir.path().join("objects")).expect("it has room");
        let mut damages = Vec::new();
        verify(dir.path(), |damage| damages.push(damage)).expect("it can be read");
        assert!(damages.is_empty(), "{damages:?}");
        self.die(0, Death::Disk);
        self.begin(0, Work::Open);
        self.drain(0);
        self.look(0);
        let mut life =
            Life { profiles: self.model.sent.len() as u64, starts: self.starts, ..Life::default() };
        for Server { sky, line, .. } in &self.servers {
            let (sky, line) = (sky.lock(), line.lock());
            life.operations += sky.operations + line.requests;
            life.faults += sky.faults + line.faults;
            life.digest = life.digest.rotate_left(7) ^ sky.digest ^ line.digest.rotate_left(1);
        }
        life
    }

    /// Does some work to its end, in fair weather.
    fn finish(&mut self, at: usize, work: Work) {
        self.begin(at, work);
        self.drain(at);
    }

    /// What is left is what retention says.
    fn check_retention(&self) {
        let objects = Reach::of(&self.bucket);
        let manifest = Manifest::load(objects, Arc::new(|| 0), Uuid::nil()).expect("it can be read");
        let of = |name: &'static str| {
            manifest.state().segments.values().filter(move |meta| meta.tenant.as_str() == name)
        };
        let bytes: u64 = of("sized").map(|meta| meta.bytes).sum();
        assert!(bytes <= BYTES, "{bytes} bytes stay");
        let eldest_ms = self.bucket.now_ms() - AGE_MS - SKEW_MS;
        assert!(of("aged").all(|meta| meta.end_ms >= eldest_ms), "segments stay that are too old");
    }
}
