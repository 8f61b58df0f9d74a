//! A bucket in memory as servers reach it: requests take a while, in which others go on, and some go wrong, before they took
//! effect or after, or take effect once nobody waits for them any more.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::super::objects::Objects;
use super::chance::Chance;
use super::sky::Sky;
use super::task::pause;

/// How long a request may be on its way that nobody waits for any more.
pub(super) const LATE_MS: u64 = 120_000;

/// The bucket. Clones share it.
#[derive(Clone)]
pub(super) struct Bucket(Arc<Mutex<State>>);

struct State {
    /// What there is, with the time of its creation.
    objects: BTreeMap<String, (Vec<u8>, i64)>,
    /// What is on its way still, and when it arrives at the latest.
    late: Vec<(i64, Change)>,
    now_ms: i64,
}

#[derive(Clone)]
enum Change {
    Create(String, Vec<u8>),
    Remove(String),
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Create(name, _) | Self::Remove(name) => name,
        }
    }
}

impl State {
    /// Makes a change; tells whether an object was created, or none was to be.
    fn make(&mut self, change: Change) -> bool {
        match change {
            Change::Create(name, _) if self.objects.contains_key(&name) => false,
            Change::Create(name, bytes) => {
                self.objects.insert(name, (bytes, self.now_ms));
                true
            }
            Change::Remove(name) => {
                self.objects.remove(&name);
                true
            }
        }
    }
}

impl Bucket {
    pub(super) fn new(now_ms: i64) -> Self {
        Self(Arc::new(Mutex::new(State { objects: BTreeMap::new(), late: Vec::new(), now_ms })))
    }

    /// With all that has arrived by now.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock();
        let now_ms = state.now_ms;
        let due: Vec<_> = state.late.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).collect();
        for (_, change) in due {
            state.make(change);
        }
        state
    }

    /// Time passes.
    pub(super) fn pass(&self, by_ms: i64) {
        self.0.lock().now_ms += by_ms;
    }

    /// Its own time, which all others differ from.
    pub(super) fn now_ms(&self) -> i64 {
        self.0.lock().now_ms
    }

    /// Names of the objects below a prefix.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        state.objects.keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Writes all objects as files below a directory.
    pub(super) fn save(&self, root: &Path) -> io::Result<()> {
        for (name, (bytes, _)) in &self.state().objects {
            let path = root.join(name);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// How well somebody reaches the bucket.
pub(super) struct Line {
    chance: Chance,
    /// Of a thousand requests so many go wrong.
    pub(super) errors: u64,
    /// Nothing goes wrong, and nobody comes between.
    pub(super) calm: bool,
    /// A piece of a segment is being read: whoever wants the same waits for it.
    pub(super) reading: bool,
    pub(super) faults: u64,
    pub(super) requests: u64,
    /// A sum of all that was asked, in its order.
    pub(super) digest: u64,
}

/// What goes wrong with a request.
enum Trouble {
    /// It does not arrive.
    Lost,
    /// It arrives, and nobody is told.
    Unanswered,
    /// It arrives after so long, and nobody is told.
    Late(i64),
    /// It is sent again though it had arrived, and that is what is answered.
    Again,
}

impl Line {
    pub(super) fn new(chance: Chance) -> Arc<Mutex<Self>> {
        let (errors, faults, requests, digest) = Default::default();
        Arc::new(Mutex::new(Self { chance, errors, calm: true, reading: false, faults, requests, digest }))
    }

    fn note(&mut self, what: &str, name: &str) {
        self.requests += 1;
        let mut hasher = std::hash::DefaultHasher::new();
        (what, name, self.digest).hash(&mut hasher);
        self.digest = hasher.finish();
    }

    fn trouble(&mut self) -> Option<Trouble> {
        if self.calm || self.chance.below(1000) >= self.errors {
            return None;
        }
        self.faults += 1;
        Some(match self.chance.below(4) {
            0 => Trouble::Lost,
            1 => Trouble::Unanswered,
            2 => Trouble::Late(self.chance.below(LATE_MS) as i64),
            _ => Trouble::Again,
        })
    }
}

/// The bucket as one start of a server reaches it: once its disk has failed, so has the server.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) bucket: Bucket,
    pub(super) line: Arc<Mutex<Line>>,
    pub(super) sky: Arc<Mutex<Sky>>,
}

impl Reach {
    /// By somebody whom nothing happens to.
    pub(super) fn of(bucket: &Bucket) -> Arc<dyn Objects> {
        let sky = Sky::new(Chance::new(0), bucket.now_ms());
        Arc::new(Self { bucket: bucket.clone(), line: Line::new(Chance::new(0)), sky })
    }

    fn alive(&self) -> io::Result<()> {
        if self.sky.lock().dead { Err(ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    /// Others may come between.
    fn wait(&self) {
        let waits = {
            let mut line = self.line.lock();
            !line.calm && line.chance.one_in(3)
        };
        if waits {
            pause();
        }
    }

    fn look<T>(&self, what: &str, name: &str, look: impl FnOnce(&State) -> io::Result<T>) -> io::Result<T> {
        self.alive()?;
        self.line.lock().note(what, name);
        self.wait();
        self.alive()?;
        let trouble = self.line.lock().trouble();
        let answer = look(&self.bucket.state());
        self.wait();
        self.alive()?;
        // One that is sent again is answered as the first would have been.
        if trouble.is_some_and(|trouble| !matches!(trouble, Trouble::Again)) {
            return Err(ErrorKind::TimedOut.into());
        }
        answer
    }

    fn change(&self, change: Change) -> io::Result<bool> {
        self.alive()?;
        self.line.lock().note("change", change.name());
        self.wait();
        let mut trouble = self.line.lock().trouble();
        if self.alive().is_err() {
            // It was on its way when the server died.
            let mut line = self.line.lock();
            let late = line.chance.one_in(2).then(|| line.chance.below(LATE_MS) as i64);
            trouble = Some(late.map_or(Trouble::Lost, Trouble::Late));
        }
        let answer = {
            let mut state = self.bucket.state();
            match trouble {
                None => Some(state.make(change)),
                Some(Trouble::Again) => {
                    state.make(change.clone());
                    Some(state.make(change))
                }
                Some(Trouble::Unanswered) => {
                    state.make(change);
                    None
                }
                Some(Trouble::Late(by_ms)) => {
                    let at_ms = state.now_ms + by_ms;
                    state.late.push((at_ms, change));
                    None
                }
                Some(Trouble::Lost) => None,
            }
        };
        self.wait();
        self.alive()?;
        answer.ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

impl Objects for Reach {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        self.change(Change::Create(name.to_owned(), bytes))
    }

    fn read(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        self.line.lock().reading = true;
        let read = self.look("read", name, |state| {
            let (bytes, _) = state.objects.get(name).ok_or(ErrorKind::NotFound)?;
            let part = bytes.get(range.start as usize..range.end as usize);
            part.map(<[u8]>::to_vec).ok_or_else(|| ErrorKind::UnexpectedEof.into())
        });
        self.line.lock().reading = false;
        read
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        self.look("get", name, |state| {
            let object = state.objects.get(name).ok_or(ErrorKind::NotFound)?;
            Ok(object.0.clone())
        })
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        let within = format!("{prefix}/");
        self.look("list", prefix, |state| {
            let names = state.objects.keys().filter(|name| name.starts_with(&within));
            Ok(names.filter(|name| name.as_str() > after).cloned().collect())
        })
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        self.look("date", name, |state| Ok(state.objects.get(name).ok_or(ErrorKind::NotFound)?.1))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Change::Remove(name.to_owned())).map(drop)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn settle(&self, _prefix: &str) -> io::Result<()> {
        Ok(())
    }

    fn pause(&self, _lost: u32) {
        pause();
    }
}
