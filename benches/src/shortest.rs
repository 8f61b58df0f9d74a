//! B11: the shortest CPU-bound span that gets its samples.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Measurement, Request};
use std::fmt::Write;

/// Fewer make no picture.
const SAMPLES: u64 = 3;
/// Share of trials that must have them.
const SHARE: f64 = 0.95;

/// A way to sample: what it is called, its environment, its rate, and lengths to try in microseconds.
type Setting = (&'static str, &'static [(&'static str, &'static str)], u32, &'static [u64]);

const SETTINGS: [Setting; 3] = [
    ("100 Hz", &[], 100, &[20_000, 25_000, 30_000, 32_000, 35_000, 40_000, 50_000]),
    (
        "1000 Hz, thread timers",
        &[("SPANFLAME_CLOCK", "thread-timers"), ("SPANFLAME_CPU_BUDGET", "off")],
        1000,
        &[6_000, 8_000, 10_000, 12_000, 14_000, 16_000, 20_000, 25_000],
    ),
    (
        "1000 Hz, perf",
        &[("SPANFLAME_CLOCK", "perf"), ("SPANFLAME_CPU_BUDGET", "off")],
        1000,
        &[2_000, 3_000, 3_500, 4_000, 5_000, 6_000, 8_000, 12_000, 16_000, 25_000],
    ),
];

/// Each length in a fresh process; the shortest from which on all keep to the share.
pub fn measure(setup: &Setup) -> Result<Report> {
    let trials = setup.pick(20, 200);
    let ours = Subjects::new(&setup.subject).binary(Profiler::Spanflame)?;
    let mut table = format!(
        "share of {trials} CPU-bound spans with at least {SAMPLES} samples\n\n\
         | setting | ms of CPU: share | shortest |\n|---|---|---|\n"
    );
    let mut shortest = Vec::new();
    for (title, environment, hz, lengths) in SETTINGS {
        write!(table, "| {title} |")?;
        let mut found = None;
        for &micros in lengths {
            let mut process = Measured::spawn(&ours, environment)?;
            let counts: Vec<u64> = process.ask(&Request::Spans { hz, micros, trials })?;
            let enough = counts.iter().filter(|count| **count >= SAMPLES).count();
            let share = enough as f64 / counts.len().max(1) as f64;
            write!(table, " {}: {share:.2}", micros as f64 / 1e3)?;
            match (share >= SHARE, found) {
                (true, None) => found = Some(micros as f64 / 1e3),
                (false, _) => found = None,
                _ => {}
            }
        }
        writeln!(table, " | {} |", found.map_or("longer".to_owned(), |ms| format!("{ms} ms")))?;
        shortest.push((title, found));
    }
    let mut note = format!("{SAMPLES} samples in {:.0} % of {trials} trials", SHARE * 100.0);
    for (title, found) in &shortest {
        let text = found.map_or("longer than tried".to_owned(), |ms| format!("{ms} ms"));
        write!(note, "; {title}: {text}")?;
    }
    let measurement = Measurement {
        id: "B11".to_owned(),
        ours: shortest.last().and_then(|(_, found)| *found),
        peer: None,
        unit: "ms".to_owned(),
        peer_is: String::new(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}
