//! Whom CPU time is charged to, and in which span: never to one that did not use it.

use std::io::Read;

use super::*;
use crate::config::Clock;
use crate::sampler::ClockInUse;

/// A table with the spans 1 and 2, and their keys.
fn two_spans() -> (&'static SpanTable, [SpanKey; 2]) {
    let table = spans();
    let insert = |id| {
        let record = SpanRecord { span_id: SpanId(id), tagged: true, ..SpanRecord::default() };
        table.insert(&record).expect("room")
    };
    (table, [insert(1), insert(2)])
}

/// Drains until `done`, adding up by span.
fn by_span(sampler: &mut Sampler, done: impl Fn() -> bool) -> HashMap<Option<u64>, u64> {
    let mut weights: HashMap<Option<u64>, u64> = HashMap::new();
    loop {
        let last = done();
        sampler.drain(&mut |sample| {
            *weights.entry(sample.span.map(|span| span.span_id.0)).or_default() += u64::from(sample.weight);
        });
        if last {
            return weights;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Blocks SIGPROF for the calling thread.
#[allow(unsafe_code)] // a signal mask
fn block_the_signal() {
    // SAFETY: zero is a valid set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a valid set and signal.
    unsafe { libc::sigaddset(&mut set, signal::SIGNAL) };
    // SAFETY: a valid set; the old one is not asked for.
    assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) }, 0);
}

#[test]
fn what_a_thread_burns_that_blocks_the_signal_is_in_no_span_of_another() {
    const HERTZ: u32 = 100;
    let _turn = TURN.lock();
    let (table, [key, _]) = two_spans();
    let mut sampler = Sampler::start(Options::new(HERTZ, table)).expect("starts");
    let done = AtomicBool::new(false);
    let (blocked, in_span, weights) = std::thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            block_the_signal();
            let least = Duration::from_secs(2);
            while cpu_time() < least || !done.load(Ordering::Relaxed) {
                burn(Duration::from_millis(5));
            }
            cpu_time()
        });
        let spans = scope.spawn(|| {
            let mut used = Duration::ZERO;
            // Each ends with all that it used in the span, as threads of a pool do.
            for _ in 0..60 {
                let one = std::thread::spawn(move || {
                    publish(key);
                    burn(Duration::from_millis(20));
                    cpu_time()
                });
                used += one.join().expect("burns");
            }
            done.store(true, Ordering::Relaxed);
            used
        });
        let weights = by_span(&mut sampler, || blocked.is_finished() && spans.is_finished());
        (blocked.join().expect("burns"), spans.join().expect("burns"), weights)
    });
    sampler.stop();
    sampler.drain(&mut |_| {});
    let charged = weights.get(&Some(1)).copied().unwrap_or_default() as f64 / f64::from(HERTZ);
    assert!(
        charged <= in_span.as_secs_f64() * 1.35 + 0.05,
        "{charged} s in the span that used {in_span:?}, while {blocked:?} went by unseen"
    );
    let stats = sampler.stats();
    assert!(stats.uncharged >= blocked / 2, "it is told: {blocked:?}, {stats:?}");
}

#[test]
fn time_in_the_kernel_is_not_charged_to_the_span_that_comes_after_it() {
    const HERTZ: u32 = 1000;
    let _turn = TURN.lock();
    let (table, [reading, working]) = two_spans();
    let options = Options { clock: Clock::Perf, cpu_budget: None, ..Options::new(HERTZ, table) };
    let mut sampler = Sampler::start(options).expect("starts");
    let ClockInUse { name, why, .. } = sampler.clock();
    if name != clock::PerfEvents::NAME {
        assert!(why.contains("perf_event_open was refused"), "{why}");
        return;
    }
    let (in_kernel, worked, weights) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut zeros = std::fs::File::open("/dev/zero").expect("there");
            let mut buffer = vec![0; 256 << 20];
            // Its pages are touched before anything counts.
            zeros.read_exact(&mut buffer).expect("endless");
            let (mut in_kernel, mut worked) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..5 {
                publish(reading);
                let before = cpu_time();
                zeros.read_exact(&mut buffer).expect("endless");
                let after = cpu_time();
                publish(working);
                burn(Duration::from_millis(10));
                worked += cpu_time() - after;
                in_kernel += after - before;
                publish(SpanKey::NONE);
            }
            (in_kernel, worked)
        });
        let weights = by_span(&mut sampler, || thread.is_finished());
        let (in_kernel, worked) = thread.join().expect("works");
        (in_kernel, worked, weights)
    });
    sampler.stop();
    let charged = weights.get(&Some(2)).copied().unwrap_or_default() as f64 / f64::from(HERTZ);
    assert!(
        charged <= worked.as_secs_f64() * 1.2 + 0.01,
        "{charged} s in the span that used {worked:?}, after {in_kernel:?} in the kernel: {weights:?}"
    );
}

#[test]
fn what_is_lost_of_threads_that_nobody_knows_is_counted() {
    let _turn = TURN.lock();
    let sampler = Sampler::start(Options::new(100, spans())).expect("starts");
    let state = &STATES[STATES.len() - 1];
    let before = sampler.stats();
    for counter in [&state.lost, &state.lost_weight, &state.excess_weight, &state.nested] {
        counter.fetch_add(3, Ordering::Relaxed);
    }
    let stats = sampler.stats();
    assert!(stats.lost_ring_full >= before.lost_ring_full + 3 && stats.nested >= before.nested + 3);
    assert!(stats.lost_ring_full_weight >= before.lost_ring_full_weight + 3);
    assert!(stats.excess_weight >= before.excess_weight + 3);
}

#[test]
fn a_forked_child_knows_of_no_timer_and_of_no_thread() {
    let _turn = TURN.lock();
    let options = Options { clock: Clock::ProcessTimer, ..Options::new(100, spans()) };
    let sampler = Sampler::start(options).expect("starts");
    let here = state::of(thread::id()).expect("known");
    assert!(PROCESS_PERIODS.load(Ordering::Relaxed) > 0 && state::USED.load(Ordering::Relaxed) > here);
    let status = forked(|| {
        let unknown = STATES
            .iter()
            .all(|state| state.tid.load(Ordering::Relaxed) == 0 && state.event.load(Ordering::Relaxed) == 0);
        let no_timer = PROCESS_PERIODS.load(Ordering::Relaxed) == 0 && !clock::process_timer_is_ours();
        unknown && no_timer
    });
    assert_eq!(status, 0);
    drop(sampler);
}
