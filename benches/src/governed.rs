//! B10: what the high rate costs with the governor at work, and without.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Measurement, Overhead, Request};
use std::fmt::Write;

const HZ: u32 = 1000;

/// A way to sample, and its environment.
type Setting = (&'static str, &'static [(&'static str, &'static str)]);

/// The first is the one that the target names.
const SETTINGS: [Setting; 3] = [
    ("as it is set up", &[]),
    ("perf clock", &[("SPANFLAME_CLOCK", "perf")]),
    ("perf clock, no budget", &[("SPANFLAME_CLOCK", "perf"), ("SPANFLAME_CPU_BUDGET", "off")]),
];

/// Alternates the settings' processes; in each the profiler is stopped, and started anew, for every segment.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (batches, rounds, segment_millis, settle_millis) =
        setup.pick((1, 1, 1_000, 3_000), (2, 6, 2_000, 6_000));
    let ours = Subjects::new(&setup.subject).binary(Profiler::Spanflame)?;
    let mut found: Vec<Vec<Overhead>> = vec![Vec::new(); SETTINGS.len()];
    for _ in 0..batches {
        for ((_, environment), found) in SETTINGS.iter().zip(&mut found) {
            let mut process = Measured::spawn(&ours, environment)?;
            process.ask::<()>(&Request::Start { hz: HZ, bare: false })?;
            found.push(process.ask(&Request::OverheadOfRestarts {
                hz: HZ,
                rounds,
                segment_millis,
                settle_millis,
            })?);
        }
    }
    let rows: Vec<(&str, Overhead)> =
        SETTINGS.iter().zip(&found).map(|((title, _), found)| (*title, Overhead::pool(found))).collect();

    let mut table = format!(
        "2 threads, 30 frames deep, {HZ} Hz asked\n\n\
         |  | slow-down, % (standard error) | samples per CPU second |\n|---|---|---|\n"
    );
    let mut note = format!("slow-down at {HZ} Hz asked");
    for (title, overhead) in &rows {
        let (percent, error) = (overhead.slowdown * 100.0, overhead.error * 100.0);
        let rate = overhead.signals as f64 / overhead.cpu_seconds.max(f64::MIN_POSITIVE);
        writeln!(table, "| {title} | {percent:+.3} ({error:.3}) | {rate:.0} |")?;
        write!(note, "; {title} {percent:+.3} % (±{error:.3}), {rate:.0} samples per CPU second")?;
    }
    let measurement = Measurement {
        id: "B10".to_owned(),
        ours: rows.first().map(|(_, overhead)| overhead.slowdown),
        peer: None,
        unit: "fraction".to_owned(),
        peer_is: String::new(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}
