//! B17: who survives panics, libraries that come and go, and an allocator under load.

use crate::process::{Fate, Measured};
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Measurement, Request, Storm};
use std::fmt::Write;

/// Every thread of the storm is hit at each of the kernel's ticks.
const HZ: u32 = 1000;

/// What became of one profiler's runs.
#[derive(Default)]
struct Outcome {
    fates: Vec<String>,
    crashes: usize,
    survived: Storm,
}

/// Each run is a fresh process. A crash ends its run, so whoever crashes is through sooner.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (runs, seconds) = setup.pick((1, 3), (5, 60));
    let profilers = [Profiler::Spanflame, Profiler::PprofDefault, Profiler::Pyroscope];
    let subjects = Subjects::new(&setup.subject);
    let library = subjects.plugin()?;
    let mut rows = Vec::new();
    for (profiler, binary) in subjects.binaries(&profilers)? {
        let mut outcome = Outcome::default();
        for _ in 0..runs {
            let mut process = Measured::start(&binary, HZ)?;
            match process.ask_or_die::<Storm>(&Request::Storm { seconds, library: library.clone() })? {
                Fate::Answered(storm) => {
                    outcome.survived.panics += storm.panics;
                    outcome.survived.loads += storm.loads;
                    outcome.survived.allocations += storm.allocations;
                }
                Fate::Died(how) => {
                    outcome.crashes += 1;
                    outcome.fates.push(how);
                }
            }
        }
        rows.push((profiler, outcome));
    }

    let mut table = format!(
        "storm of {seconds} s at {HZ} Hz asked, {runs} runs each\n\n\
         |  | crashes | how | panics caught | libraries loaded | thousand allocations |\n|---|---|---|---|---|---|\n"
    );
    let mut note = format!("crashes in {runs} runs of {seconds} s");
    for (profiler, outcome) in &rows {
        let Outcome { fates, crashes, survived } = outcome;
        let how = fates.join(", ");
        writeln!(
            table,
            "| {} | {crashes} of {runs} | {how} | {} | {} | {} |",
            profiler.title(),
            survived.panics,
            survived.loads,
            survived.allocations
        )?;
        write!(note, "; {} {crashes} of {runs}", profiler.title())?;
        if !how.is_empty() {
            write!(note, " ({how})")?;
        }
    }
    let crashes = |wanted: Profiler| {
        rows.iter().find(|(profiler, _)| *profiler == wanted).map(|(_, outcome)| outcome.crashes as f64)
    };
    let measurement = Measurement {
        id: "B17".to_owned(),
        ours: crashes(Profiler::Spanflame),
        peer: crashes(Profiler::PprofDefault),
        unit: "crashes".to_owned(),
        peer_is: Profiler::PprofDefault.title().to_owned(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}
