//! Work done with the profiler off, on and off again, in CPU time per unit.

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
    let total = rounds * SEGMENTS;
    let current = AtomicUsize::new(0);
    let mut signals = 0;
    let per_worker: Vec<Vec<Segment>> = std::thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| worker(&current, total))).collect();
        // Whatever happens, the workers are told to end.
        let outcome = (0..total).try_for_each(|index| {
            // The workers see `index + 1`.
            let is_on = index % SEGMENTS == 1;
            subject.set_clock(is_on, hz)?;
            let before = signal::handled();
            current.store(index + 1, SeqCst);
            sleep(segment);
            if is_on {
                signals += signal::handled() - before;
            }
            anyhow::Ok(())
        });
        current.store(total + 1, SeqCst);
        let segments = workers.into_iter().map(|w| w.join().expect("a worker does not panic")).collect();
        outcome.map(|()| segments)
    })?;
    let mut ratios = Vec::new();
    let mut on_cpu = Duration::ZERO;
    for segments in &per_worker {
        for round in segments.chunks_exact(SEGMENTS) {
            on_cpu += round[1].cpu;
            if round.iter().all(|s| s.units > 0) {
                let off = (round[0].cpu_per_unit() + round[2].cpu_per_unit()) / 2.0;
                ratios.push(round[1].cpu_per_unit() / off - 1.0);
            }
        }
    }
    let (slowdown, error) = trimmed_mean(&mut ratios);
    let timings = signal::take_timings(usize::try_from(signals)?);
    let mut bodies: Vec<f64> = timings.into_iter().map(|cycles| cycles as f64 * nanos_per_cycle()).collect();
    let handler_ns = median(&mut bodies);
    Ok(Overhead { slowdown, error, signals, cpu_seconds: on_cpu.as_secs_f64(), handler_ns })
}

/// Hashes a buffer again and again; a unit that began in one segment and ended in another counts for neither.
fn worker(current: &AtomicUsize, total: usize) -> Vec<Segment> {
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
            if ended != begun {
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
