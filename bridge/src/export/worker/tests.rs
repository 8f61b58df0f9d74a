use std::sync::mpsc::{Sender, channel};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::*;
use crate::aggregate::collector::Handed;
use crate::aggregate::{Aggregator, Editor, Limits};
use crate::config::{Scope, TraceIdLabel};
use crate::export::Receiver;
use crate::export::encoder::Policy;
use crate::labels::Identity;
use crate::live::{Live, Tagging};
use crate::stats::Counters;

/// What an exporter does next; the last one is repeated.
#[derive(Clone, Copy)]
enum Does {
    Take,
    Fail,
    /// Fails, and wants to be left alone for longer than any test lasts.
    Hold,
    Refuse,
    Panic,
}

#[derive(Clone, Default)]
struct Script {
    does: Arc<Mutex<Vec<Does>>>,
    is: Arc<Mutex<Option<Receiver>>>,
    asked: Arc<Mutex<u32>>,
    taken: Arc<Mutex<Vec<Profile>>>,
}

impl Script {
    fn next(&self, does: Does) {
        self.then(&[does]);
    }

    fn then(&self, does: &[Does]) {
        *self.does.lock() = does.to_vec();
    }
}

impl ProfileExporter for Script {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        let mut script = self.does.lock();
        let does = if script.len() > 1 { script.remove(0) } else { *script.first().expect("a script") };
        drop(script);
        match does {
            Does::Take => {
                self.taken.lock().push(profile.clone());
                Ok(())
            }
            Does::Fail => Err(ExportError::retryable("away")),
            Does::Hold => Err(ExportError::retryable("busy").after(LONGEST_ASKED_PAUSE)),
            Does::Refuse => Err(ExportError::permanent("no")),
            Does::Panic => panic!("a bug in an exporter"),
        }
    }

    fn receiver(&mut self) -> Option<Receiver> {
        *self.asked.lock() += 1;
        self.is.lock().clone()
    }
}

/// The tests share the process's tagging decision.
fn alone() -> parking_lot::MutexGuard<'static, ()> {
    crate::sampler::TURN.lock()
}

fn worker(scope: Scope, script: &Script) -> (Worker, Arc<Counters>) {
    let live = Live::get();
    crate::context::install(live);
    let charge = live.take_charge();
    let policy = Policy { charge, scope, trace_ids: TraceIdLabel::Auto, receiver: Receiver::default() };
    policy.apply();
    let counters = Arc::<Counters>::default();
    let encoder = Encoder::new(policy, counters.clone());
    let labels = Arc::new(ProfileLabels::new(Identity::default(), None));
    (Worker::new(encoder, Box::new(script.clone()), labels, Box::new(|_| ())), counters)
}

/// A window with `samples` samples of one stack.
fn window(samples: u32) -> Window {
    let mut rows = Aggregator::new(Limits::default(), Editor::new(Live::get().label_sets(), 10, None));
    for _ in 0..samples {
        rows.add(&[0x1000], None, 1);
    }
    Window {
        start: SystemTime::UNIX_EPOCH,
        duration: Duration::from_secs(1),
        period: Duration::from_millis(10),
        modules: Arc::from([]),
        rows: rows.take(),
        notes: Vec::new(),
    }
}

/// A deadline that no test reaches.
fn far() -> Instant {
    after(LONGEST_ASKED_PAUSE / 2)
}

fn samples(script: &Script) -> Vec<u64> {
    script.taken.lock().iter().map(|profile| profile.samples).collect()
}

#[test]
fn the_oldest_profiles_go_when_the_budget_is_spent() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    worker.take(&window(1));
    worker.budget = worker.queued_bytes * 5 / 2;
    for samples in 2..=5 {
        worker.take(&window(samples));
        assert!(worker.queued_bytes <= worker.budget);
    }
    assert_eq!(counters.queue_full.get(), 1 + 2 + 3);
    assert_eq!(counters.queued_bytes.get(), worker.queued_bytes as u64);
    script.next(Does::Take);
    assert_eq!(worker.deliver_all(far()), Ok(()));
    assert_eq!(samples(&script), [4, 5]);
    assert_eq!((worker.queued_bytes, counters.queued_bytes.get(), counters.profiles.get()), (0, 0, 2));
}

#[test]
fn a_failure_keeps_the_profile_and_pauses_a_refusal_or_a_panic_drops_it() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    for samples in [1, 2, 4] {
        worker.take(&window(samples));
    }
    script.next(Does::Fail);
    assert_eq!(worker.deliver_all(far()), Err(FlushError::Export("away".to_owned())));
    assert_eq!((worker.queue.len(), counters.retries.get()), (3, 1));
    assert!(!worker.pause.is_over());
    script.next(Does::Refuse);
    assert_eq!(worker.deliver().map_err(|error| error.is_retryable()), Err(false));
    script.next(Does::Panic);
    assert_eq!(worker.deliver().map_err(|error| error.is_retryable()), Err(false));
    assert_eq!(counters.rejected.get(), 1 + 2);
    script.next(Does::Take);
    // All that is left is delivered, but what was refused is not kept secret.
    assert_eq!(worker.deliver_all(far()), Err(FlushError::Export("the exporter panicked".to_owned())));
    assert_eq!(worker.deliver_all(far()), Ok(()));
    assert_eq!(samples(&script), [4]);
    assert!(worker.pause.is_over());
}

#[test]
fn at_the_end_what_is_left_is_counted() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    worker.take(&window(3));
    worker.take(&window(4));
    script.next(Does::Take);
    assert!(matches!(worker.last_delivery(Instant::now()), Err(FlushError::Export(_))));
    assert_eq!((counters.shutdown.get(), worker.queued_bytes), (7, 0));
    assert!(samples(&script).is_empty());
}

#[test]
fn at_the_end_a_failure_is_not_the_last_word_while_there_is_time() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    worker.take(&window(3));
    worker.take(&window(4));
    script.then(&[Does::Fail, Does::Take, Does::Fail, Does::Take]);
    assert_eq!(worker.last_delivery(far()), Ok(()));
    assert_eq!((samples(&script), counters.retries.get(), counters.shutdown.get()), (vec![3, 4], 2, 0));
}

#[test]
fn who_wants_to_be_left_alone_is_by_flushes_and_at_the_end() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    worker.take(&window(3));
    script.then(&[Does::Hold, Does::Take]);
    let busy = Err(FlushError::Export("busy".to_owned()));
    assert_eq!(worker.deliver_all(far()), busy);
    assert_eq!(worker.deliver_all(far()), busy);
    // The pause is longer than there is time.
    assert_eq!(worker.last_delivery(far()), busy);
    assert_eq!((counters.retries.get(), counters.shutdown.get()), (1, 3));
    assert!(samples(&script).is_empty());
}

#[test]
fn a_flush_that_nobody_waits_for_delivers_nothing_and_a_stop_ends_every_flush() {
    let _turn = alone();
    let script = Script::default();
    script.next(Does::Take);
    let (mut worker, counters) = worker(Scope::Root, &script);
    worker.take(&window(3));
    assert!(worker.deliver_all(Instant::now()).is_err());
    counters.deadline.set(Instant::now());
    assert!(worker.deliver_all(far()).is_err());
    assert!(samples(&script).is_empty());
}

#[test]
fn once_a_stop_is_known_windows_are_taken_in_and_delivered_together_within_the_time() {
    let _turn = alone();
    let place = |jobs: &Sender<Job>, samples| {
        let job = Job::Window(Handed::for_test(window(samples)));
        jobs.send(job).expect("it is there");
    };
    for (deadline, delivered) in [(Instant::now(), vec![]), (far(), vec![1, 2])] {
        let script = Script::default();
        script.next(Does::Take);
        let (worker, counters) = worker(Scope::Root, &script);
        counters.deadline.set(deadline);
        let (jobs, queue) = channel();
        let (reply, outcome) = channel();
        place(&jobs, 1);
        place(&jobs, 2);
        jobs.send(Job::Stop(reply)).expect("it is there");
        worker.run(&queue);
        assert_eq!(outcome.recv().expect("an answer").is_ok(), !delivered.is_empty());
        assert_eq!(counters.shutdown.get(), 3 - delivered.iter().sum::<u64>());
        assert_eq!(samples(&script), delivered);
        assert_eq!(*script.asked.lock(), 1, "only at the start");
    }
}

#[test]
fn what_was_lost_is_told_by_the_next_profile_that_is_made_and_by_no_other() {
    use std::io::Read as _;

    let _turn = alone();
    let script = Script::default();
    let (mut worker, counters) = worker(Scope::Root, &script);
    counters.failed.add(3);
    worker.take(&window(0));
    assert!(worker.queue.is_empty());
    worker.take(&window(1));
    worker.take(&window(1));
    let tells = worker.queue.iter().map(|profile| {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&*profile.pprof).read_to_end(&mut bytes).expect("gzip");
        String::from_utf8_lossy(&bytes).contains("lost.failed=3")
    });
    assert_eq!(tells.collect::<Vec<_>>(), [true, false]);
}

/// Counts events by their level.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<tracing::Level>>>);

impl tracing_subscriber::Layer<tracing_subscriber::Registry> for Told {
    fn on_event(
        &self,
        event: &tracing::Event<'_>,
        _: tracing_subscriber::layer::Context<'_, tracing_subscriber::Registry>,
    ) {
        self.0.lock().push(*event.metadata().level());
    }
}

#[test]
fn an_outage_and_a_refusal_are_each_told_of_once_however_they_alternate() {
    use tracing::Level;
    use tracing_subscriber::layer::SubscriberExt as _;

    let told = Told::default();
    let subscriber = tracing_subscriber::registry().with(told.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let heard = || std::mem::take(&mut *told.0.lock());
    let mut complaints = Complaints::default();
    let (now, later) = (Instant::now(), Instant::now() + 2 * TELL_EVERY);
    let refusal = |n: u32| ExportError::permanent(format!("no {n}"));
    let outage = |n: u32| ExportError::retryable(format!("away {n}"));
    for n in 0..5 {
        complaints.add(&refusal(0), now);
        complaints.add(&refusal(n), now);
        complaints.add(&outage(n), now);
    }
    assert_eq!(heard(), [Level::WARN, Level::WARN]);
    for _ in 0..5 {
        complaints.end();
        complaints.add(&outage(0), now);
        complaints.add(&refusal(0), now);
    }
    assert_eq!(heard(), [Level::INFO], "it flaps");
    complaints.add(&refusal(0), later);
    assert!(heard().is_empty(), "it is known");
    complaints.add(&refusal(1), later);
    assert_eq!(heard(), [Level::WARN]);
    complaints.add(&outage(0), later);
    complaints.add(&outage(0), later + 2 * TELL_EVERY);
    complaints.end();
    assert_eq!(heard(), [Level::WARN, Level::INFO], "another outage of the same kind");
}

#[test]
fn scope_auto_follows_what_the_receiving_end_says_and_asks_again_after_failures() {
    let _turn = alone();
    let script = Script::default();
    let (mut worker, _) = worker(Scope::Auto, &script);
    let tagging = || Live::get().tagging();
    worker.identify();
    assert_eq!((tagging(), worker.unknown), (Tagging::Root, true), "no answer yet");
    *script.is.lock() = Some(Receiver::full("spanflame"));
    worker.identify();
    assert_eq!((tagging(), worker.unknown), (Tagging::All, false));
    worker.identify();
    assert_eq!(*script.asked.lock(), 2, "it has answered");

    worker.take(&window(1));
    script.next(Does::Fail);
    worker.deliver().expect_err("away");
    *script.is.lock() = None;
    worker.identify();
    assert_eq!((tagging(), worker.unknown), (Tagging::All, true), "its last word counts while it is away");
    *script.is.lock() = Some(Receiver::plain("pyroscope"));
    worker.identify();
    assert_eq!(tagging(), Tagging::Root);
}

#[test]
fn an_explicit_scope_stands_and_a_stopped_profiler_has_no_say() {
    let _turn = alone();
    let script = Script::default();
    *script.is.lock() = Some(Receiver::full("spanflame"));
    let (mut root, _) = worker(Scope::Root, &script);
    root.identify();
    assert_eq!(Live::get().tagging(), Tagging::Root);

    let (mut old, _) = worker(Scope::Auto, &script);
    let (_new, _) = worker(Scope::Root, &script);
    old.identify();
    assert_eq!(Live::get().tagging(), Tagging::Root, "the older one was told, but is not in charge");
}

#[test]
fn pauses_grow_at_random_and_end() {
    let mut pause = Pause::default();
    assert!(pause.is_over());
    for failures in 0..40u32 {
        pause.lengthen(None);
        let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        assert!(pause.left() <= longest, "{:?} after {failures} failures", pause.left());
    }
    assert!(pause.left() > LONGEST_PAUSE / 4);
    pause.lengthen(Some(2 * LONGEST_PAUSE));
    assert!(pause.left() > LONGEST_PAUSE, "as long as was asked for");
}
