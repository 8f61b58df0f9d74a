//! B8: what a span's start and end cost more because of the bridge's processor.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Cost, Measurement, Request, median};

/// Pairs each form of the processor with a provider that has none, in the same process and round.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (rounds, iterations) = setup.pick((5, 50_000), (25, 200_000));
    let ours = Subjects::new(&setup.subject).binary(Profiler::Spanflame)?;
    let mut process = Measured::start(&ours, 100)?;
    let mut nameless = Measured::spawn(&ours, &[("SPANFLAME_SPAN_NAMES", "off")])?;
    nameless.ask::<()>(&Request::Start { hz: 100, bare: false })?;

    let mut found: [Vec<f64>; 4] = Default::default();
    for _ in 0..rounds {
        let bare = ask(&mut process, "span", iterations)?;
        let wrapped = ask(&mut process, "span-wrapped", iterations)?;
        let plain = ask(&mut process, "span-plain", iterations)?;
        let bare_again = ask(&mut nameless, "span", iterations)?;
        let unnamed = ask(&mut nameless, "span-wrapped", iterations)?;
        let costs = [bare, wrapped - bare, plain - bare, unnamed - bare_again];
        for (all, cost) in found.iter_mut().zip(costs) {
            all.push(cost);
        }
    }
    let [bare, wrapped, plain, unnamed] = found.map(|mut costs| median(&mut costs));
    let table = format!(
        "span start + end with a no-op processor {bare:.0} ns; added by the bridge, ns\n\n|  | ns |\n|---|---|\n\
         | wrapping processor | {wrapped:.1} |\n| wrapping processor, span names off | {unnamed:.1} |\n\
         | plain second processor | {plain:.1} |\n"
    );
    let measurement = Measurement {
        id: "B8".to_owned(),
        ours: Some(wrapped),
        peer: None,
        unit: "ns".to_owned(),
        peer_is: String::new(),
        note: format!(
            "added to {bare:.0} ns by the wrapping processor; with span names off {unnamed:.1}; \
             as a plain second processor {plain:.1} (the SDK then clones the span)"
        ),
    };
    Ok(Report { measurements: vec![measurement], table })
}

fn ask(process: &mut Measured, what: &str, iterations: u64) -> Result<f64> {
    let cost: Cost = process.ask(&Request::Cost { what: what.to_owned(), iterations })?;
    Ok(cost.ns)
}
