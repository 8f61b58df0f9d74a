//! Against real signals and real threads. One sampler runs per process, so these tests take turns. What needs a
//! process of its own is in the crate's `tests/`.

mod charging;
#[path = "../../../../tests/common/forked.rs"]
mod forked;
mod oracle;
mod starting;

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::sync::atomic::AtomicU32;

use self::forked::forked;
use super::*;
use crate::sampler::TURN;
use crate::spans::{SpanId, SpanRecord, SpanTable};

fn spans() -> &'static SpanTable {
    Box::leak(Box::new(SpanTable::new(1024)))
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    thread::cpu_time()
}

/// Burns that much CPU time of the calling thread.
#[inline(never)]
fn burn(time: Duration) {
    let until = cpu_time() + time;
    let mut x = 1u64;
    while cpu_time() < until {
        for _ in 0..20_000 {
            x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// Drains until `done`, adding weights up by thread.
fn weights(sampler: &mut Sampler, done: impl Fn() -> bool) -> HashMap<i32, u64> {
    let mut weights: HashMap<i32, u64> = HashMap::new();
    loop {
        let last = done();
        sampler.drain(&mut |sample| *weights.entry(sample.tid).or_default() += u64::from(sample.weight));
        if last {
            return weights;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A ratio of CPU times, with room for the last timer tick of a thread's life: on a crowded machine that may be long before
/// its end, which is then told as `uncharged`.
fn assert_charged(periods: u64, used: Duration, frequency: u32, uncharged: Duration) {
    let expected = used.as_secs_f64() * f64::from(frequency);
    let told = uncharged.as_secs_f64() * f64::from(frequency);
    let room = 4.0 + 0.15 * expected;
    let missing = expected - periods as f64;
    assert!(
        (-room..=room + told.min(expected / 2.0)).contains(&missing),
        "{periods} periods for {used:?} at {frequency} Hz, {uncharged:?} uncharged"
    );
}

fn every_thread_is_charged(frequency: u32, publishes: bool) {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(Options::new(frequency, spans())).expect("starts");
    let done = AtomicU32::new(0);
    let (used, weights) = std::thread::scope(|scope| {
        let threads: Vec<_> = [400, 800, 1200]
            .map(|time| {
                let done = &done;
                scope.spawn(move || {
                    if publishes {
                        publish(SpanKey::NONE);
                    }
                    burn(Duration::from_millis(time));
                    let used = (thread::id(), cpu_time());
                    done.fetch_add(1, Ordering::Relaxed);
                    used
                })
            })
            .into();
        let weights = weights(&mut sampler, || done.load(Ordering::Relaxed) == 3);
        let used: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("burns")).collect();
        (used, weights)
    });
    sampler.stop();
    for (tid, used) in used {
        let periods = weights.get(&tid).copied().unwrap_or_default();
        assert_charged(periods, used, frequency, sampler.stats().uncharged);
    }
    let stats = sampler.stats();
    assert_eq!(
        (stats.lost_ring_full, stats.nested, stats.threads_refused, stats.timer_failures),
        (0, 0, 0, 0)
    );
    assert!(stats.reached_entry * 100 >= stats.samples * 97, "{stats:?}");
}

#[test]
fn threads_that_publish_are_charged_for_the_cpu_time_they_use() {
    every_thread_is_charged(100, true);
}

#[test]
fn threads_that_never_publish_are_found_and_charged_from_their_birth() {
    every_thread_is_charged(100, false);
}

#[test]
fn a_rate_above_the_kernels_tick_is_made_up_for_by_weight() {
    every_thread_is_charged(1000, true);
}

#[test]
fn samples_carry_the_label_of_their_thread_and_of_no_other() {
    let _turn = TURN.lock();
    let table = spans();
    let record = |id| SpanRecord {
        span_id: SpanId(id),
        parent: SpanId(id + 1),
        local_root: SpanId(id + 2),
        tagged: id % 2 == 1,
        ..SpanRecord::default()
    };
    let mut sampler = Sampler::start(Options::new(1000, table)).expect("starts");
    let owners: Mutex<HashMap<i32, HashSet<u64>>> = Mutex::default();
    let running = AtomicU32::new(2);
    let mut seen: HashMap<(i32, Option<SpanRecord>), u64> = HashMap::new();
    std::thread::scope(|scope| {
        for first in [1000u64, 2000] {
            let (owners, running) = (&owners, &running);
            scope.spawn(move || {
                owners.lock().insert(thread::id(), (first..first + 100).collect());
                for i in 0..100u64 {
                    let key = table.insert(&record(first + i)).expect("room");
                    publish(key);
                    burn(Duration::from_millis(4));
                    if i % 2 == 0 {
                        publish(SpanKey::NONE);
                    }
                    // Without that, the ended span's key stays published and must not resolve.
                    table.remove(SpanId(first + i));
                    burn(Duration::from_millis(1));
                }
                publish(SpanKey::NONE);
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        loop {
            let last = running.load(Ordering::Relaxed) == 0;
            sampler.drain(&mut |sample| {
                *seen.entry((sample.tid, sample.span)).or_default() += u64::from(sample.weight)
            });
            if last {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    sampler.stop();
    let owners = owners.into_inner();
    let (mut labelled, mut unlabelled) = (0, 0);
    for ((tid, span), weight) in seen {
        match (owners.get(&tid), span) {
            (Some(own), Some(span)) => {
                assert!(own.contains(&span.span_id.0), "{span:?} on a thread that never had it");
                assert_eq!(span, record(span.span_id.0));
                labelled += weight;
            }
            (None, Some(span)) => panic!("{span:?} on a thread without spans"),
            (Some(_), None) => unlabelled += weight,
            (None, None) => {}
        }
    }
    // Four fifths of the time is spent in spans.
    assert!(labelled > unlabelled, "{labelled} periods in spans, {unlabelled} in none");
}

#[test]
fn a_label_published_while_sampling_is_off_harms_nobody() {
    let _turn = TURN.lock();
    std::thread::spawn(|| {
        publish(SpanKey(77));
        assert!(SLOT.with(Cell::get).is_none(), "nobody to tell");
        let mut sampler = Sampler::start(Options::new(100, spans())).expect("starts");
        publish(SpanKey(78));
        let state = SLOT.with(Cell::get).expect("registered");
        assert_eq!(state.label.load(Ordering::Relaxed), 78);
        sampler.stop();
        publish(SpanKey(79));
        assert_eq!(state.label.load(Ordering::Relaxed), 79, "kept right for the next start");
    })
    .join()
    .expect("publishes");
}

#[test]
fn it_starts_and_stops_again_and_again_under_load() {
    let _turn = TURN.lock();
    let table = spans();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    publish(SpanKey(1));
                    burn(Duration::from_millis(1));
                }
            });
        }
        let mut samples = 0;
        for _ in 0..1000 {
            let mut sampler = Sampler::start(Options::new(1000, table)).expect("starts again");
            assert!(matches!(Sampler::start(Options::new(1, table)), Err(SamplerError::AlreadyRunning)));
            std::thread::sleep(Duration::from_millis(2));
            sampler.drain(&mut |_| samples += 1);
            sampler.stop();
            sampler.stop();
            // Its last samples are still in the rings.
            assert!(matches!(Sampler::start(Options::new(1, table)), Err(SamplerError::AlreadyRunning)));
            sampler.drain(&mut |_| samples += 1);
            assert_eq!(sampler.stats().threads, 0);
        }
        done.store(true, Ordering::Relaxed);
        assert!(samples > 0);
    });
}

#[test]
fn frequencies_out_of_range_are_refused() {
    for frequency in [0, 1001, u32::MAX] {
        let error = Sampler::start(Options::new(frequency, spans())).err().expect("refused");
        assert!(error.to_string().contains("1 to 1000"), "{error}");
    }
}

#[test]
fn a_thousand_short_threads_come_and_go_and_their_states_are_used_again() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(Options::new(1000, spans())).expect("starts");
    let mut samples = 0;
    for round in 0..50 {
        std::thread::scope(|scope| {
            for i in 0..20 {
                scope.spawn(move || {
                    // Half of them only the scan can find.
                    if (round + i) % 2 == 0 {
                        publish(SpanKey(1));
                    }
                    burn(Duration::from_millis(1));
                });
            }
        });
        sampler.looked = Instant::now().checked_sub(SLOW_LOOK).expect("the machine is up longer");
        sampler.drain(&mut |_| samples += 1);
    }
    let states = threads().and_then(|threads| threads.lock().as_ref().map(|threads| threads.states().len()));
    assert!(states.expect("sampling") < 400, "{states:?} states for 1000 threads, few of them at once");
    let stats = sampler.stats();
    assert_eq!((stats.threads_refused, stats.timer_failures), (0, 0), "{stats:?}");
    assert!(stats.threads < 200, "{stats:?}");
    assert!(samples > 0);
    sampler.stop();
}

#[test]
fn a_deep_stack_is_cut_at_the_limit_and_says_so() {
    #[inline(never)]
    fn deep(depth: u32) -> u32 {
        if depth == 0 {
            burn(Duration::from_millis(200));
            return 0;
        }
        black_box(deep(black_box(depth - 1))) + 1
    }

    let _turn = TURN.lock();
    let options = Options { max_depth: 50, ..Options::new(100, spans()) };
    let mut sampler = Sampler::start(options).expect("starts");
    let tid = std::thread::spawn(|| {
        publish(SpanKey::NONE);
        deep(500);
        thread::id()
    })
    .join()
    .expect("burns");
    let mut cut = 0;
    sampler.drain(&mut |sample| {
        if sample.tid == tid && sample.frames.len() == 50 {
            assert!(sample.truncated);
            cut += 1;
        }
        assert!(sample.frames.len() <= 50);
    });
    assert!(cut > 0);
    assert!(sampler.stats().too_deep >= cut);
}

#[test]
#[allow(unsafe_code)] // alarm
fn a_child_that_is_born_while_modules_are_looked_at_can_look_at_them() {
    let _turn = TURN.lock();
    // What is done at forks is set up by the first sampler.
    drop(Sampler::start(Options::new(100, spans())).expect("starts"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sys::modules::generation();
            }
        });
        for _ in 0..300 {
            let status = forked(|| {
                // SAFETY: takes no pointers.
                unsafe { libc::alarm(60) };
                sys::modules::generation();
                true
            });
            assert_eq!(status, 0);
        }
        done.store(true, Ordering::Relaxed);
    });
}
