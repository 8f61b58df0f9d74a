//! What span processors, the context observer and the collector share. One per process, as the signal, the
//! observer's slot and the threads' label slots are; made once and never freed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::config::SpanNames;
use crate::spans::{LabelKey, LabelSets, SpanTable};
use crate::stats::LabelSource;

/// Room for this many live spans at once, 64 bytes each. The table is in buckets, so it serves a third of that
/// without a span giving up its place.
const LIVE_SPANS: usize = 32 * 1024;

/// Forks in a row, each of which may profile anew: as many as the sampler starts in.
const MAX_FORKS: usize = 16;

/// OpenTelemetry's context observer: ours.
pub(crate) const OBSERVER: u8 = 1;
/// A guard, a wrapped future or closure, or a layer.
pub(crate) const WRAPPERS: u8 = 2;
/// The start of a span.
const START: u8 = 4;

/// What labels threads in this process. Not in [`Live`], as a layer may be made before any profiler.
static LABEL_SOURCES: AtomicU8 = AtomicU8::new(0);

/// Whether contexts are observed, so that attaching one is enough.
#[inline]
pub(crate) fn observed() -> bool {
    LABEL_SOURCES.load(Ordering::Relaxed) & OBSERVER != 0
}

/// Whether a span labels the thread that starts it.
#[inline]
pub(crate) fn labels_at_start() -> bool {
    LABEL_SOURCES.load(Ordering::Relaxed) & START != 0
}

/// What labels threads now.
pub(crate) fn label_source() -> LabelSource {
    let sources = LABEL_SOURCES.load(Ordering::Relaxed);
    let first =
        [(OBSERVER, LabelSource::Observer), (WRAPPERS, LabelSource::Wrappers), (START, LabelSource::Start)];
    first.into_iter().find(|(bit, _)| sources & bit != 0).map_or(LabelSource::None, |(_, source)| source)
}

/// Notes what labels threads, from now on and for good. Spans that were not tagged for the want of it are.
#[inline]
pub(crate) fn labelled_by(source: u8) {
    if LABEL_SOURCES.load(Ordering::Relaxed) & source == 0 {
        LABEL_SOURCES.fetch_or(source, Ordering::AcqRel);
        reconsider();
    }
}

/// Has spans label the threads that start them, or not. Where contexts are observed they never do.
pub(crate) fn set_label_at_start(on: bool) {
    if on && !observed() {
        LABEL_SOURCES.fetch_or(START, Ordering::AcqRel);
    } else {
        LABEL_SOURCES.fetch_and(!START, Ordering::AcqRel);
    }
    reconsider();
}

#[cold]
fn reconsider() {
    // After more forks than that nobody is ever in charge.
    if let Some(live) = Live::existing().filter(|live| live.forks.load(Ordering::Relaxed) < MAX_FORKS) {
        live.store_tagging(&live.locked().in_charge.lock());
    }
}

/// Which spans the processor tags right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tagging {
    /// No profiler runs, or nothing labels threads: a tagged span would have an empty profile.
    Off = 0,
    /// Local roots.
    Root = 1,
    /// Every sampled span.
    All = 2,
}

impl Tagging {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Root => "root",
            Self::All => "all",
        }
    }
}

static LIVE: OnceLock<Live> = OnceLock::new();

/// Who decides on tagging, and how.
struct InCharge {
    number: u64,
    tagging: Tagging,
    /// Whether samples cannot be taken for now: then nothing is tagged, whatever was decided.
    suspended: bool,
}

/// In the child of a fork: nobody samples there until it starts a profiler of its own. Takes no lock and allocates
/// nothing: a lock's holder may not have come along, and what it guards may be half-written. So all that is behind
/// locks is left behind.
pub(crate) extern "C" fn forked() {
    if let Some(live) = LIVE.get() {
        live.forks.fetch_add(1, Ordering::Relaxed);
        live.tagging.store(Tagging::Off as u8, Ordering::Relaxed);
    }
}

pub(crate) struct Live {
    pub(crate) table: SpanTable,
    tagging: AtomicU8,
    /// What is said about spans in words, as [`Wording`] packs it.
    wording: AtomicU8,
    /// Spans that could not be tagged as they had no room for another attribute.
    pub(crate) attribute_refused: AtomicU64,
    /// At the index `forks`, this process's own; before it, those of the processes that it descends from.
    locked: [OnceLock<Locked>; MAX_FORKS],
    forks: AtomicUsize,
}

/// What is behind locks. Each process of a line of forks has one of its own.
struct Locked {
    /// The profiler that decides on tagging, zero for none. One that was stopped has no say any more, even if its
    /// threads take a while to hear of it.
    in_charge: Mutex<InCharge>,
    label_keys: RwLock<Vec<LabelKey>>,
    label_sets: LabelSets,
}

impl Live {
    pub(crate) fn get() -> &'static Self {
        LIVE.get_or_init(|| Self {
            table: SpanTable::new(LIVE_SPANS),
            tagging: AtomicU8::new(Tagging::Off as u8),
            wording: AtomicU8::new(SpanNames::Off as u8),
            attribute_refused: AtomicU64::new(0),
            locked: [const { OnceLock::new() }; MAX_FORKS],
            forks: AtomicUsize::new(0),
        })
    }

    fn locked(&self) -> &Locked {
        // No profiler starts after more forks than that, and without one nothing is asked for.
        let forks = self.forks.load(Ordering::Relaxed).min(MAX_FORKS - 1);
        self.locked[forks].get_or_init(|| Locked {
            in_charge: Mutex::new(InCharge { number: 0, tagging: Tagging::Off, suspended: false }),
            label_keys: RwLock::default(),
            // Records from before the fork refer to sets of the parent's, which must not be taken for others.
            label_sets: LabelSets::numbered(forks as u32, MAX_FORKS as u32),
        })
    }

    /// What spans' label set numbers stand for.
    pub(crate) fn label_sets(&self) -> &LabelSets {
        &self.locked().label_sets
    }

    /// As [`get`](Self::get), but makes none.
    pub(crate) fn existing() -> Option<&'static Self> {
        LIVE.get()
    }

    pub(crate) fn tagging(&self) -> Tagging {
        match self.tagging.load(Ordering::Relaxed) {
            1 => Tagging::Root,
            2 => Tagging::All,
            _ => Tagging::Off,
        }
    }

    /// Puts a newly started profiler in charge of tagging.
    pub(crate) fn take_charge(&'static self) -> Charge {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let charge = Charge { live: self, number: NEXT.fetch_add(1, Ordering::Relaxed) };
        *self.locked().in_charge.lock() =
            InCharge { number: charge.number, tagging: Tagging::Off, suspended: false };
        charge
    }

    fn store_tagging(&self, in_charge: &InCharge) {
        let off = in_charge.number == 0 || in_charge.suspended || label_source() == LabelSource::None;
        let tagging = if off { Tagging::Off } else { in_charge.tagging };
        self.tagging.store(tagging as u8, Ordering::Relaxed);
    }

    pub(crate) fn wording(&self) -> Wording {
        let packed = self.wording.load(Ordering::Relaxed);
        let names = match packed & NAMES {
            0 => SpanNames::Auto,
            1 => SpanNames::Root,
            2 => SpanNames::All,
            _ => SpanNames::Off,
        };
        Wording { names, labels: packed & LABELS != 0 }
    }

    pub(crate) fn label_keys(&self) -> RwLockReadGuard<'_, Vec<LabelKey>> {
        self.locked().label_keys.read()
    }

    /// Decides what is said about spans that start from now on.
    pub(crate) fn set_wording(&self, names: SpanNames, most_names: usize, keys: Vec<LabelKey>) {
        self.label_sets().make_room(most_names);
        let labels = if keys.is_empty() { 0 } else { LABELS };
        *self.locked().label_keys.write() = keys;
        self.wording.store(names as u8 | labels, Ordering::Relaxed);
    }
}

// The bits of `Live::wording`.
const NAMES: u8 = 3;
const LABELS: u8 = 4;

/// What is said about spans in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wording {
    pub(crate) names: SpanNames,
    /// Whether any attribute or baggage entry becomes a label.
    pub(crate) labels: bool,
}

/// The right to say which spans are tagged, until it is [ended](Self::end) or passes to another profiler.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    live: &'static Live,
    number: u64,
}

impl Charge {
    pub(crate) fn live(self) -> &'static Live {
        self.live
    }

    pub(crate) fn set_tagging(self, tagging: Tagging) {
        self.decide(|in_charge| in_charge.tagging = tagging);
    }

    /// Has no span tagged while samples cannot be taken: its profile would be empty.
    pub(crate) fn suspend(self, suspended: bool) {
        self.decide(|in_charge| in_charge.suspended = suspended);
    }

    fn decide(self, change: impl FnOnce(&mut InCharge)) {
        let mut in_charge = self.live.locked().in_charge.lock();
        if in_charge.number == self.number {
            change(&mut in_charge);
            self.live.store_tagging(&in_charge);
        }
    }

    /// No span is tagged from now on.
    pub(crate) fn end(self) {
        let mut in_charge = self.live.locked().in_charge.lock();
        if in_charge.number == self.number {
            in_charge.number = 0;
            self.live.store_tagging(&in_charge);
        }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("tagging", &self.tagging()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wording_is_what_was_set() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        let key = LabelKey { source: crate::spans::Source::Baggage, key: "a".to_owned(), label: "a".into() };
        for names in [SpanNames::Auto, SpanNames::Root, SpanNames::All, SpanNames::Off] {
            for keys in [vec![key.clone()], Vec::new()] {
                live.set_wording(names, 10, keys.clone());
                assert_eq!(live.wording(), Wording { names, labels: !keys.is_empty() });
                assert_eq!(*live.label_keys(), keys);
            }
        }
    }

    #[test]
    fn a_suspension_outlasts_decisions_and_not_its_profiler() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        crate::context::install(live);
        let charge = live.take_charge();
        charge.set_tagging(Tagging::Root);
        charge.suspend(true);
        assert_eq!(live.tagging(), Tagging::Off);
        charge.set_tagging(Tagging::All);
        assert_eq!(live.tagging(), Tagging::Off, "the server's answer changes nothing about it");
        charge.suspend(false);
        assert_eq!(live.tagging(), Tagging::All);
        charge.suspend(true);

        let next = live.take_charge();
        charge.suspend(true);
        next.set_tagging(Tagging::Root);
        assert_eq!(live.tagging(), Tagging::Root);
        forked();
        assert_eq!(live.tagging(), Tagging::Off);
        reconsider();
        assert_eq!(live.tagging(), Tagging::Off, "what labels threads is no profiler");
        next.end();
    }

    #[test]
    fn a_forked_child_waits_for_no_lock_that_its_parent_held() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        crate::context::install(live);
        let charge = live.take_charge();
        charge.set_tagging(Tagging::All);
        let theirs = live.label_sets().intern("of the parent", &[]);

        // As other threads of the parent may at the moment of the fork: for ever, as the child sees it.
        let locked = live.locked();
        let _in_charge = locked.in_charge.lock();
        let _label_keys = locked.label_keys.write();
        let child = move || {
            forked();
            assert_eq!(live.tagging(), Tagging::Off);
            reconsider();
            charge.set_tagging(Tagging::All);
            assert_eq!(live.tagging(), Tagging::Off, "the parent's profiler has no say");
            assert_eq!(live.label_sets().get(theirs), None, "what its words were is not known");

            let own = live.take_charge();
            live.set_wording(SpanNames::All, 10, Vec::new());
            own.set_tagging(Tagging::Root);
            assert_eq!((live.tagging(), live.label_keys().len()), (Tagging::Root, 0));
            let ours = live.label_sets().intern("of the child", &[]);
            assert_ne!(ours, theirs);
            let set = live.label_sets().get(ours);
            assert_eq!(set.as_ref().map(|set| &*set.name), Some("of the child"));
            live.label_sets().tidy(Vec::new);
            own.end();
        };
        locked.label_sets.while_locked(|| {
            let (done, outcome) = std::sync::mpsc::channel();
            let child = std::thread::spawn(move || {
                child();
                done.send(()).expect("waited for");
            });
            let outcome = outcome.recv_timeout(std::time::Duration::from_secs(60));
            assert_ne!(outcome, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "it waits for a lock");
            child.join().expect("no panic");
        });
    }
}
