//! B7: what a context switch costs more because the bridge is there.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Cost, Measurement, Request, median};

const HZ: u32 = 100;

/// The context observer is set once for a process's life, so with and without are two processes.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (rounds, iterations) = setup.pick((5, 100_000), (25, 400_000));
    let subjects = Subjects::new(&setup.subject);
    let ours = subjects.binary(Profiler::Spanflame)?;
    let mut without = Measured::spawn(&ours, &[])?;
    let mut with = Measured::start(&ours, HZ)?;
    let mut peer = Measured::start(&subjects.binary(Profiler::Pyroscope)?, HZ)?;

    let mut found: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        let plain = ask(&mut without, "attach", iterations)?;
        let observed = ask(&mut with, "attach", iterations)?;
        let costs = [
            plain,
            observed,
            observed - plain,
            ask(&mut with, "slot", iterations)?,
            ask(&mut peer, "tag-scope", iterations / 100)?,
            // Each of these may have to symbolize a profile.
            ask(&mut peer, "tag-scope-loaded", 1)?,
        ];
        for (all, cost) in found.iter_mut().zip(costs) {
            all.push(cost);
        }
    }
    let [plain, observed, added, slot, tag, loaded] = found.map(|mut costs| median(&mut costs));
    let table = format!(
        "context attach + detach, ns\n\n|  | ns |\n|---|---|\n\
         | without observer | {plain:.1} |\n| with the bridge | {observed:.1} |\n| added | {added:.1} |\n\
         | label slot alone, enter + exit | {slot:.1} |\n| pyroscope tag scope, idle | {tag:.0} |\n\
         | pyroscope tag scope, one busy thread | {loaded:.0} |\n"
    );
    let measurement = Measurement {
        id: "B7".to_owned(),
        ours: Some(added),
        peer: Some(tag),
        unit: "ns".to_owned(),
        peer_is: format!("{} tag scope, idle", Profiler::Pyroscope.title()),
        note: format!(
            "attach + detach {plain:.1} ns without, {observed:.1} with the bridge; slot alone {slot:.1} ns; \
             pyroscope's tag scope beside a busy thread {loaded:.0} ns"
        ),
    };
    Ok(Report { measurements: vec![measurement], table })
}

fn ask(process: &mut Measured, what: &str, iterations: u64) -> Result<f64> {
    let cost: Cost = process.ask(&Request::Cost { what: what.to_owned(), iterations })?;
    Ok(cost.ns)
}
