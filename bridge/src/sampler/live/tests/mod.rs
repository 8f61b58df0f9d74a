//! Against real signals and real threads. One sampler runs per process, so these tests take turns.

mod oracle;

use std::hint::black_box;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::spans::{SpanId, SpanRecord, SpanTable};

/// Held by every test that starts a sampler.
static TURN: Mutex<()> = Mutex::new(());

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

/// Samples, by thread.
#[derive(Default)]
struct Collected {
    weight: u64,
    samples: u64,
    truncated: u64,
    labelled: u64,
}

#[test]
fn every_thread_is_charged_for_the_cpu_time_it_uses() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start(Options::new(100, spans())).expect("starts");
    let mut by_thread: std::collections::HashMap<i32, Collected> = Default::default();
    let done = AtomicU32::new(0);
    let used = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=3)
            .map(|i| {
                let done = &done;
                scope.spawn(move || {
                    publish(SpanKey::NONE);
                    burn(Duration::from_millis(500 * i));
                    let used = (thread::id(), cpu_time());
                    done.fetch_add(1, Ordering::Relaxed);
                    used
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < 3 {
            std::thread::sleep(Duration::from_millis(20));
            sampler.drain(&mut |sample| {
                let thread = by_thread.entry(sample.tid).or_default();
                thread.weight += u64::from(sample.weight);
                thread.samples += 1;
                thread.truncated += u64::from(sample.truncated);
            });
        }
        threads.into_iter().map(|thread| thread.join().expect("burns")).collect::<Vec<_>>()
    });
    sampler.stop();
    eprintln!("{:#?}", sampler.stats());
    for (tid, used) in used {
        let expected = used.as_secs_f64() * 100.0;
        let got = by_thread[&tid].weight as f64;
        eprintln!("{tid} {used:?} {expected} {got} {}", by_thread[&tid].truncated);
        assert!((got - expected).abs() <= 3.0 + 0.1 * expected, "{got} periods for {expected}");
    }
}
