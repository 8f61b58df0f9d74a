//! B9: CPU that profiling adds to a working program.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Measurement, Overhead, Request};
use std::fmt::Write;

/// The rate that the slow-down target names, and one that gives a signal at every tick.
const RATES: [u32; 2] = [100, 1000];
/// Many periods of the slower rate: the process's timer starts anew with each segment.
const SEGMENT_MILLIS: u64 = 100;

/// Alternates the profilers' processes; each alternates its own segments with the profiler off, on, off.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (batches, rounds) = setup.pick((1, 10), (4, 30));
    let profilers = [Profiler::Spanflame, Profiler::Pyroscope, Profiler::PprofDefault];
    let binaries = Subjects::new(&setup.subject).binaries(&profilers[..setup.pick(2, 3)])?;
    let mut rows = Vec::new();
    for hz in RATES {
        let mut found: Vec<Vec<Overhead>> = vec![Vec::new(); binaries.len()];
        for _ in 0..batches {
            for (slot, (_, binary)) in found.iter_mut().zip(&binaries) {
                let mut process = Measured::start(binary, hz)?;
                slot.push(process.ask(&Request::Overhead { hz, rounds, segment_millis: SEGMENT_MILLIS })?);
            }
        }
        for ((profiler, _), batches) in binaries.iter().zip(&found) {
            rows.push((*profiler, hz, Overhead::pool(batches)));
        }
    }

    let mut table = String::from(
        "2 threads, 30 frames deep, 256 KiB each; slow-down of a unit of work, % (standard error); added CPU per sample, µs\n\n\
         |  | asked | slow-down | per sample | in the handler | samples |\n|---|---|---|---|---|---|\n",
    );
    for (profiler, hz, overhead) in &rows {
        let (micros, error) = overhead.micros_per_signal();
        writeln!(
            table,
            "| {} | {hz} Hz | {:+.3} ({:.3}) | {micros:.1} ({error:.1}) | {:.1} | {} |",
            profiler.title(),
            overhead.slowdown * 100.0,
            overhead.error * 100.0,
            overhead.handler_ns / 1e3,
            overhead.signals
        )?;
    }

    let at = |profiler: Profiler, hz: u32| {
        rows.iter().find(|(p, rate, _)| *p == profiler && *rate == hz).map(|(_, _, overhead)| *overhead)
    };
    let mut note = "added CPU per delivered sample at 1000 Hz asked".to_owned();
    for (profiler, hz, overhead) in &rows {
        let (micros, error) = overhead.micros_per_signal();
        write!(
            note,
            "; {} at {hz} Hz slow-down {:+.3} % (±{:.3}), {micros:.1} µs (±{error:.1}) a sample, of which {:.1} in the handler",
            profiler.title(),
            overhead.slowdown * 100.0,
            overhead.error * 100.0,
            overhead.handler_ns / 1e3
        )?;
    }
    let measurement = Measurement {
        id: "B9".to_owned(),
        ours: at(Profiler::Spanflame, 1000).map(|overhead| overhead.micros_per_signal().0),
        peer: at(Profiler::Pyroscope, 1000).map(|overhead| overhead.micros_per_signal().0),
        unit: "us".to_owned(),
        peer_is: Profiler::Pyroscope.title().to_owned(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}
