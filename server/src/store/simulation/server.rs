//! One of several servers that share a bucket: its disk, its store, and what it is in the middle of.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::fake_disk::FakeDisk;
use super::super::objects::Objects;
use super::super::source::Source;
use super::super::writer::{Request, Writer};
use super::super::{Deletion, Store, StoreError, StoreOptions};
use super::chance::Chance;
use super::reach::{Bucket, Line, Reach};
use super::sky::{Sky, weather};
use super::task::Task;
use super::work::take_ids_from;
use crate::model::{Profile, TenantId};

/// What a server does that takes requests of the bucket.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Open,
    Publish,
    Refresh,
    Merge,
    Retain,
    Bury,
    Delete(Deletion),
    Sweep,
    Prune,
    Stop,
}

type Opened = Result<(Store, Writer, UnboundedReceiver<Request>), StoreError>;

/// What came of it.
pub(super) enum Done {
    Opened(Box<Opened>),
    Worked(Result<(), StoreError>),
}

/// What it is in the middle of.
pub(super) struct Running {
    task: Task<Done>,
    pub(super) work: Work,
    /// Since when, and what had gone wrong before.
    pub(super) since_ms: i64,
    pub(super) faults: u64,
    /// Profiles that it is about.
    pub(super) about: Vec<usize>,
}

/// An append that is not answered yet.
pub(super) struct Waiting {
    pub(super) numbers: Range<usize>,
    answer: Pin<Box<dyn Future<Output = Result<(), StoreError>>>>,
}

impl Waiting {
    /// The answer, if there is one.
    pub(super) fn ask(&mut self) -> Option<Result<(), StoreError>> {
        match self.answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }
}

/// A query that goes on for a while, with what it must find.
pub(super) struct Held {
    pub(super) tenant: TenantId,
    pub(super) sources: Vec<Arc<dyn Source>>,
    pub(super) certain: BTreeSet<usize>,
    pub(super) since_ms: i64,
}

/// What there is of a server that is open. Whoever has the store goes before the store does.
pub(super) struct Open {
    pub(super) waiting: Vec<Waiting>,
    pub(super) held: Vec<Held>,
    writer: Writer,
    requests: UnboundedReceiver<Request>,
    pub(super) store: Arc<Store>,
    /// What looks for segments that nobody names found.
    unnamed: Arc<Mutex<BTreeSet<String>>>,
    /// When it knew all that there was.
    pub(super) refreshed_ms: i64,
}

pub(super) struct Server {
    /// The number of its data directory; none has that of an earlier one.
    pub(super) home: u64,
    pub(super) disk: FakeDisk,
    pub(super) sky: Arc<Mutex<Sky>>,
    pub(super) line: Arc<Mutex<Line>>,
    bucket: Bucket,
    pub(super) options: StoreOptions,
    pub(super) open: Option<Open>,
    pub(super) running: Option<Running>,
    pub(super) asleep_until_ms: i64,
}

impl Server {
    /// One that is not open, with an empty disk, whose clock is off by `skew_ms`.
    pub(super) fn new(
        chance: &mut Chance,
        bucket: &Bucket,
        home: u64,
        skew_ms: i64,
        mut options: StoreOptions,
    ) -> Self {
        let sky = Sky::new(chance.fork(), bucket.now_ms() + skew_ms);
        let clock = Arc::clone(&sky);
        options.clock = Arc::new(move || clock.lock().now_ms);
        let mut server = Self {
            home,
            disk: FakeDisk::default(),
            sky,
            line: Line::new(chance.fork()),
            bucket: bucket.clone(),
            options,
            open: None,
            running: None,
            asleep_until_ms: 0,
        };
        server.take_disk(FakeDisk::default());
        server
    }

    /// Has this disk from now on, and power.
    pub(super) fn take_disk(&mut self, disk: FakeDisk) {
        self.disk = disk;
        self.disk.set_weather(weather(&self.sky, || {}));
        let mut sky = self.sky.lock();
        (sky.dead, sky.fuse) = (false, None);
    }

    /// Lets everything go well, or as it may.
    pub(super) fn calm(&self, calm: bool) {
        self.sky.lock().calm = calm;
        self.line.lock().calm = calm;
    }

    /// How much went wrong so far.
    pub(super) fn faults(&self) -> u64 {
        self.sky.lock().faults + self.line.lock().faults
    }

    /// Begins some work. Nothing of it is done before [`Self::resume`].
    pub(super) fn begin(&mut self, work: Work, about: Vec<usize>, ids: Chance) {
        let of = work.clone();
        let task = match (&work, &self.open) {
            (Work::Open, _) => {
                let (disk, options) = (self.disk.clone(), self.options.clone());
                let reach = Reach {
                    bucket: self.bucket.clone(),
                    line: Arc::clone(&self.line),
                    sky: Arc::clone(&self.sky),
                };
                Task::new(move || {
                    take_ids_from(ids);
                    let objects = |_: &Path| Ok(Arc::new(reach) as Arc<dyn Objects>);
                    Done::Opened(Box::new(Store::prepare(Arc::new(disk), objects, options, false)))
                })
            }
            (_, Some(Open { store, unnamed, .. })) => {
                let (store, unnamed) = (Arc::clone(store), Arc::clone(unnamed));
                Task::new(move || {
                    take_ids_from(ids);
                    Done::Worked(of.run(&store, &unnamed))
                })
            }
            (_, None) => panic!("a server that is not open does nothing else"),
        };
        let (since_ms, faults) = (self.bucket.now_ms(), self.faults());
        self.running = Some(Running { task, work, since_ms, faults, about });
    }

    /// Goes on with what it is in the middle of, until it waits again or is done.
    pub(super) fn resume(&mut self) -> Option<(Running, Done)> {
        let mut running = self.running.take()?;
        self.calm(false);
        let done = running.task.resume();
        self.calm(true);
        match done {
            Some(done) => Some((running, done)),
            None => {
                self.running = Some(running);
                None
            }
        }
    }

    /// It is open now.
    pub(super) fn opened(&mut self, store: Store, writer: Writer, requests: UnboundedReceiver<Request>) {
        self.open = Some(Open {
            waiting: Vec::new(),
            held: Vec::new(),
            writer,
            requests,
            store: Arc::new(store),
            unnamed: Arc::default(),
            refreshed_ms: self.bucket.now_ms(),
        });
    }

    /// Whether an append would wait for what it is in the middle of.
    pub(super) fn is_busy(&self) -> bool {
        let full = self.open.as_ref().is_none_or(|open| open.store.view.bytes() >= self.options.head_bytes);
        self.running.as_ref().is_some_and(|running| full || matches!(running.work, Work::Stop))
    }

    /// Appends all of these at once; their answers may come later.
    pub(super) fn append(&mut self, appends: Vec<(TenantId, Vec<Profile>, Range<usize>)>) -> Vec<Waiting> {
        self.calm(false);
        let Open { writer, requests, store, .. } = self.open.as_mut().expect("it is open");
        let mut all = Vec::new();
        for (tenant, profiles, numbers) in appends {
            let of = Arc::clone(store);
            let answer = Box::pin(async move { of.append(&tenant, profiles).await });
            let mut waiting = Waiting { numbers, answer };
            // Encoding happens on another thread; until it is in the queue nothing else does.
            let queued = store.queued_bytes.load(Ordering::Relaxed);
            while store.queued_bytes.load(Ordering::Relaxed) == queued {
                assert!(waiting.ask().is_none(), "nobody can answer yet");
                std::thread::yield_now();
            }
            all.push(waiting);
        }
        // It is counted a moment before it is in the queue.
        let first = requests.blocking_recv().expect("the store has the other end");
        writer.step(first, requests);
        self.calm(true);
        all
    }
}

impl Work {
    fn run(&self, store: &Store, unnamed: &Mutex<BTreeSet<String>>) -> Result<(), StoreError> {
        let flusher = &store.flusher;
        match self {
            Self::Open => panic!("there is no store before it"),
            Self::Publish => store.flush(),
            Self::Refresh => flusher.refresh(),
            Self::Merge => flusher.compact().map(drop),
            Self::Retain => flusher.retain(),
            Self::Bury => {
                flusher.bury();
                Ok(())
            }
            Self::Delete(deletion) => store.delete(deletion).map(drop),
            Self::Sweep => flusher.sweep(unnamed),
            Self::Prune => flusher.prune(),
            Self::Stop => {
                store.shutdown();
                Ok(())
            }
        }
    }
}
