//! The exporter's thread: encodes windows, keeps what could not be delivered yet within a budget of bytes, and tries
//! again with growing, random pauses. The oldest profile is the first to go when the budget is spent.

#[cfg(test)]
mod tests;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::Context;

use super::encoder::Encoder;
use super::{ExportError, Profile, ProfileExporter, gzip};
use crate::aggregate::Window;
use crate::aggregate::collector::{Job, random_fraction};
use crate::deadline::after;
use crate::error::FlushError;
use crate::labels::ProfileLabels;

/// Compressed profiles that wait: minutes of a busy service, hours of a quiet one.
const QUEUE_BYTES: usize = 8 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest that the receiving end may ask for.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(120);
/// Errors of changing wording are told this often at most.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// For the last delivery if the profiler's other threads have ended by a panic.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// While symbols are still being read.
const LOOK_FOR_SYMBOLS: Duration = Duration::from_secs(1);

pub(crate) struct Worker {
    encoder: Encoder,
    exporter: Box<dyn ProfileExporter>,
    labels: Arc<ProfileLabels>,
    queue: VecDeque<Profile>,
    queued_bytes: usize,
    /// How many bytes may wait.
    budget: usize,
    pause: Pause,
    probe: Pause,
    /// The receiving end has not been asked what it is since the last failure.
    unknown: bool,
    /// A refusal that no flush has told of yet.
    refused: Option<ExportError>,
    /// Why the oldest profile still waits.
    failure: Option<ExportError>,
    complaints: Complaints,
    /// What there is to say at the start, once the receiving end has been asked what it is.
    announce: Option<Announce>,
}

/// Takes what the receiving end calls itself, if it has answered.
pub(crate) type Announce = Box<dyn FnOnce(Option<String>) + Send>;

impl Worker {
    pub(crate) fn new(
        encoder: Encoder,
        exporter: Box<dyn ProfileExporter>,
        labels: Arc<ProfileLabels>,
        announce: Announce,
    ) -> Self {
        Self {
            encoder,
            exporter,
            labels,
            queue: VecDeque::new(),
            queued_bytes: 0,
            budget: QUEUE_BYTES,
            pause: Pause::default(),
            probe: Pause::default(),
            unknown: true,
            refused: None,
            failure: None,
            complaints: Complaints::default(),
            announce: Some(announce),
        }
    }

    /// The thread's body: until told to stop, or until nobody can tell any more.
    pub(crate) fn run(mut self, jobs: &Channel<Job>) {
        // Pushing a profile must not make spans that make profiles.
        let _suppressed = Context::enter_telemetry_suppressed_scope();
        self.identify();
        loop {
            let wait = self.until_due();
            match jobs.recv_timeout(wait) {
                Ok(Job::Window(window)) => {
                    self.take(window.window());
                    window.arrived();
                }
                #[cfg(feature = "pyroscope")]
                // Only asked for where there is no exporter.
                Ok(Job::Encode(window, reply)) => {
                    drop(reply.send(self.encoder.encode(window.window())));
                    window.arrived();
                }
                Ok(Job::Flush { deadline, reply, place: _place }) => {
                    if Instant::now() < deadline && !self.is_stopping() {
                        self.identify();
                    }
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(self.deliver_all(deadline));
                    continue;
                }
                Ok(Job::Stop(reply)) => {
                    let result = self.last_delivery(self.end());
                    let _ = reply.send(result);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.last_delivery(self.end());
                    return;
                }
            }
            if self.is_stopping() {
                // What is left of the time is for all that waits together.
                continue;
            }
            if self.unknown && self.probe.is_over() {
                self.identify();
            }
            if self.pause.is_over() {
                // One at a time, so that windows are taken in even if the receiving end is slow. An error has been
                // logged and a pause is due: nothing else to do about it here.
                let _ = self.deliver();
            }
        }
    }

    fn until_due(&mut self) -> Duration {
        let mut wait = Duration::from_secs(3600);
        if self.is_stopping() {
            return wait;
        }
        if self.encoder.rest() {
            wait = LOOK_FOR_SYMBOLS;
        }
        if !self.queue.is_empty() {
            wait = wait.min(self.pause.left());
        }
        if self.unknown {
            wait = wait.min(self.probe.left());
        }
        wait
    }

    /// Whether the profiler was asked to stop: this thread is told when there is nothing more to come.
    fn is_stopping(&self) -> bool {
        self.encoder.counters.deadline.get().is_some()
    }

    /// When the last attempt to deliver may start, at the latest.
    fn end(&self) -> Instant {
        self.encoder.counters.deadline.get().unwrap_or_else(|| after(LAST_PATIENCE))
    }

    /// Asks the receiving end what it is, unless it has answered since the last failure.
    fn identify(&mut self) {
        if !self.unknown {
            return;
        }
        let exporter = &mut self.exporter;
        // Someone else's code: a bug in it is an answer that did not come.
        match catch_unwind(AssertUnwindSafe(|| exporter.receiver())).ok().flatten() {
            Some(receiver) => {
                self.unknown = false;
                self.probe = Pause::default();
                let name = receiver.name.clone();
                if self.encoder.suit(receiver) {
                    tracing::info!(server = %name, scope = ?self.encoder.tagging(), "profiles are received");
                }
            }
            None => self.probe.lengthen(None),
        }
        if let Some(announce) = self.announce.take() {
            announce((!self.unknown).then(|| self.encoder.receiver().to_owned()));
        }
    }

    fn take(&mut self, window: &Window) {
        if self.unknown && self.probe.is_over() && !self.is_stopping() {
            self.identify();
        }
        let labels = self.labels.current();
        for encoded in self.encoder.encode(window) {
            let profile = Profile {
                pprof: gzip(&encoded.bytes),
                labels: labels.clone(),
                start: window.start,
                duration: window.duration,
                samples: encoded.samples,
            };
            self.queued_bytes += profile.pprof.len();
            self.queue.push_back(profile);
        }
        while self.queued_bytes > self.budget
            && let Some(oldest) = self.pop()
        {
            self.encoder.counters.queue_full.add(oldest.samples);
        }
        self.encoder.counters.queued_bytes.set(self.queued_bytes as u64);
    }

    fn pop(&mut self) -> Option<Profile> {
        let profile = self.queue.pop_front()?;
        self.queued_bytes -= profile.pprof.len();
        self.encoder.counters.queued_bytes.set(self.queued_bytes as u64);
        Some(profile)
    }

    /// Delivers in order until the queue is empty, the receiving end fails or wants to be left alone, or time is up.
    fn deliver_all(&mut self, deadline: Instant) -> Result<(), FlushError> {
        while !self.queue.is_empty() {
            let stop = self.encoder.counters.deadline.get();
            let deadline = stop.map_or(deadline, |stop| deadline.min(stop));
            if self.pause.is_asked_for() || Instant::now() >= deadline {
                let reason =
                    self.failure.as_ref().map_or("there was no time for all".to_owned(), ToString::to_string);
                return Err(FlushError::Export(reason));
            }
            match self.deliver() {
                Err(error) if error.is_retryable() => return Err(FlushError::Export(error.to_string())),
                Ok(()) | Err(_) => {}
            }
        }
        match self.refused.take() {
            Some(error) => Err(FlushError::Export(error.to_string())),
            None => Ok(()),
        }
    }

    /// Delivers the oldest profile, if there is one.
    fn deliver(&mut self) -> Result<(), ExportError> {
        let Some(profile) = self.queue.front() else { return Ok(()) };
        let exporter = &mut self.exporter;
        let outcome = catch_unwind(AssertUnwindSafe(|| exporter.export(profile)))
            .unwrap_or_else(|_| Err(ExportError::permanent("the exporter panicked")));
        let counters = self.encoder.counters.clone();
        match &outcome {
            Ok(()) => {
                self.pause = Pause::default();
                self.failure = None;
                self.complaints.end();
                if let Some(profile) = self.pop() {
                    counters.profiles.add(1);
                    counters.profile_bytes.add(profile.pprof.len() as u64);
                }
            }
            Err(error) => {
                self.complaints.add(error, Instant::now());
                self.unknown = true;
                if error.is_retryable() {
                    self.failure = Some(error.clone());
                    counters.retries.add(1);
                    self.pause.lengthen(error.after.map(|pause| pause.min(LONGEST_ASKED_PAUSE)));
                } else if let Some(profile) = self.pop() {
                    counters.rejected.add(profile.samples);
                    self.refused = Some(error.clone());
                }
            }
        }
        outcome
    }

    /// Delivers what is left, again after a pause if there is time for that. The rest is lost.
    fn last_delivery(&mut self, deadline: Instant) -> Result<(), FlushError> {
        let result = loop {
            let result = self.deliver_all(deadline);
            let pause = self.pause.left();
            if self.queue.is_empty() || Instant::now() + pause >= deadline {
                break result;
            }
            thread::sleep(pause);
        };
        while let Some(profile) = self.pop() {
            self.encoder.counters.shutdown.add(profile.samples);
        }
        result
    }
}

/// What was logged last of either kind of error, and when: an outage is told of once, and a refusal; neither, however
/// its wording changes, more often than every minute.
#[derive(Default)]
struct Complaints {
    outage: Option<(ExportError, Instant)>,
    refusal: Option<(ExportError, Instant)>,
    /// Whether there is an outage that was told of and has not ended.
    is_out: bool,
}

impl Complaints {
    fn add(&mut self, error: &ExportError, now: Instant) {
        let is_outage = error.is_retryable();
        let (last, is_known) =
            if is_outage { (&mut self.outage, self.is_out) } else { (&mut self.refusal, true) };
        if last.as_ref().is_some_and(|(told, at)| now - *at < TELL_EVERY || is_known && told == error) {
            return;
        }
        *last = Some((error.clone(), now));
        self.is_out |= is_outage;
        tracing::warn!(%error, retry = is_outage, "profiles are not delivered; sampling goes on");
    }

    /// A profile was delivered.
    fn end(&mut self) {
        if std::mem::take(&mut self.is_out) {
            tracing::info!("profiles are delivered again");
        }
    }
}

/// What still waits here is lost with the thread: nothing, unless a panic ends it.
impl Drop for Worker {
    fn drop(&mut self) {
        while let Some(profile) = self.pop() {
            self.encoder.counters.failed.add(profile.samples);
        }
    }
}

/// A pause that grows with every failure, up to a limit, and is a random part of itself so that a fleet does not
/// come back all at once.
#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    /// Until when the receiving end wants to be left alone.
    asked: Option<Instant>,
    failures: u32,
}

impl Pause {
    /// Makes it longer, and at least as long as was asked for.
    fn lengthen(&mut self, asked: Option<Duration>) {
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(0.5 + 0.5 * random_fraction());
        let now = Instant::now();
        self.until = Some(now + pause.max(asked.unwrap_or_default()));
        self.asked = asked.map(|asked| now + asked);
    }

    fn is_asked_for(&self) -> bool {
        self.asked.is_some_and(|asked| Instant::now() < asked)
    }

    fn left(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}
