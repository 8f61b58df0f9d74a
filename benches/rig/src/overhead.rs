//! Work done with the profiler off, on and off again, in CPU time per unit.
//!
//! Off is either the profiler's signal held back, or no profiler at all.

use crate::busy::hash;
use crate::chain::at_depth;
use crate::clock::{nanos_per_cycle, thread_cpu};
use crate::protocol::{Overhead, Subject};
use crate::signal;
use crate::stats::{median, trimmed_mean};
use anyhow::Result;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

const WORKERS: usize = 2;
const FRAMES: usize = 30;
/// 256 KiB for each worker.
const WORDS: usize = 32 << 10;
/// Segments of one round: off, on, off.
const SEGMENTS: usize = 3;

#[derive(Clone, Copy, Default)]
struct Segment {
    cpu: Duration,
    units: u64,
}

impl Segment {
    fn cpu_per_unit(self) -> f64 {
        self.cpu.as_nanos() as f64 / self.units.max(1) as f64
    }
}

/// Runs the rounds. `subject` must be started and its handler wrapped.
pub(crate) fn run<S: Subject>(
    subject: &mut S,
    hz: u32,
    rounds: usize,
    segment: Duration,
) -> Result<Overhead> {
    let mut signals = 0;
    let worked = work(rounds, true, &mut |begin, is_on| {
        subject.set_clock(is_on, hz)?;
        let before = signal::handled();
        begin();
        sleep(segment);
        if is_on {
            signals += signal::handled() - before;
        }
        Ok(())
    })?;
    let Compared { mut ratios, on_cpu } = compare(&worked);
    let (slowdown, error) = trimmed_mean(&mut ratios);
    let timings = signal::take_timings(usize::try_from(signals)?);
    let mut bodies: Vec<f64> = timings.into_iter().map(|cycles| cycles as f64 * nanos_per_cycle()).collect();
    let handler_ns = median(&mut bodies);
    Ok(Overhead { slowdown, error, signals, cpu_seconds: on_cpu.as_secs_f64(), handler_ns })
}

/// The same with profilers that are stopped and started: nothing of one that is off is left to disturb. Each has
/// `settle` to find its rate. The handler is not wrapped, as a profiler may refuse to start over a wrapper.
pub(crate) fn run_restarting<S: Subject>(
    subject: &mut S,
    hz: u32,
    rounds: usize,
    segment: Duration,
    settle: Duration,
) -> Result<Overhead> {
    subject.restart(false, hz)?;
    let mut rates = Vec::new();
    let worked = work(rounds, false, &mut |begin, is_on| {
        if is_on {
            subject.restart(true, hz)?;
            sleep(settle);
        }
        begin();
        sleep(segment);
        if is_on {
            rates.push(subject.restart(false, hz)?);
        }
        Ok(())
    })?;
    let Compared { mut ratios, on_cpu } = compare(&worked);
    let (slowdown, error) = trimmed_mean(&mut ratios);
    let cpu_seconds = on_cpu.as_secs_f64();
    let signals = (median(&mut rates) * cpu_seconds) as u64;
    Ok(Overhead { slowdown, error, signals, cpu_seconds, handler_ns: 0.0 })
}

/// Runs each segment: makes it off or on, says when it has begun, and waits for its end.
type RunSegment<'a> = &'a mut dyn FnMut(&mut dyn FnMut(), bool) -> Result<()>;

/// What each worker did in each segment.
fn work(rounds: usize, block: bool, run: RunSegment<'_>) -> Result<Vec<Vec<Segment>>> {
    let total = rounds * SEGMENTS;
    let current = AtomicUsize::new(0);
    std::thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| worker(&current, total, block))).collect();
        // Whatever happens, the workers are told to end.
        let outcome = (0..total).try_for_each(|index| {
            // Between segments, work counts for none.
            current.store(0, SeqCst);
            // The workers see `index + 1`.
            run(&mut || current.store(index + 1, SeqCst), index % SEGMENTS == 1)
        });
        current.store(total + 1, SeqCst);
        let segments = workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect();
        outcome.map(|()| segments)
    })
}

struct Compared {
    /// On ÷ off − 1, of each worker in each round.
    ratios: Vec<f64>,
    /// CPU time of the segments that were on.
    on_cpu: Duration,
}

fn compare(worked: &[Vec<Segment>]) -> Compared {
    let mut ratios = Vec::new();
    let mut on_cpu = Duration::ZERO;
    for segments in worked {
        for round in segments.chunks_exact(SEGMENTS) {
            on_cpu += round[1].cpu;
            if round.iter().all(|s| s.units > 0) {
                let off = (round[0].cpu_per_unit() + round[2].cpu_per_unit()) / 2.0;
                ratios.push(round[1].cpu_per_unit() / off - 1.0);
            }
        }
    }
    Compared { ratios, on_cpu }
}

/// Hashes a buffer again and again; a unit that began in one segment and ended in another counts for neither.
fn worker(current: &AtomicUsize, total: usize, block: bool) -> Vec<Segment> {
    let mut segments = vec![Segment::default(); total];
    let mut buffer = vec![1_u64; WORDS];
    at_depth(FRAMES, &mut || {
        loop {
            let begun = current.load(SeqCst);
            let before = thread_cpu();
            for word in &mut buffer {
                *word = word.wrapping_add(hash(*word | 1, 1));
            }
            black_box(&buffer);
            let cpu = thread_cpu() - before;
            let ended = current.load(SeqCst);
            if ended > total {
                signal::set_blocked(false);
                return;
            }
            if block && ended != begun {
                // A profiler whose timers cannot be stopped one by one is kept off by its signal.
                signal::set_blocked(ended % SEGMENTS != 2);
            }
            if begun == ended
                && let Some(segment) = begun.checked_sub(1).and_then(|index| segments.get_mut(index))
            {
                segment.cpu += cpu;
                segment.units += 1;
            }
        }
    });
    segments
}
