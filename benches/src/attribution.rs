//! B6: samples that carry a span which was not active.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Attribution, Measurement, Request};
use std::time::Instant;

/// Until so many samples were compared with what really ran.
pub fn measure(setup: &Setup) -> Result<Report> {
    let wanted = setup.pick(20_000, 1_000_000);
    let ours = Subjects::new(&setup.subject).binary(Profiler::Spanflame)?;
    let start = Instant::now();
    let found: Attribution = Measured::spawn(&ours, &[])?.ask(&Request::Attribute { samples: wanted })?;
    let seconds = start.elapsed().as_secs();
    let Attribution { samples, wrong, unlabelled, lost, spans } = found;
    let table = format!(
        "interleaved async spans, 8 worker threads, signals at random instants, {seconds} s\n\n\
         | spans | samples in a span's own function | wrong span | no span | lost |\n|---|---|---|---|---|\n\
         | {spans} | {samples} | {wrong} | {unlabelled} | {lost} |\n"
    );
    let measurement = Measurement {
        id: "B6".to_owned(),
        ours: Some(wrong as f64),
        peer: None,
        unit: "samples".to_owned(),
        peer_is: String::new(),
        note: format!(
            "of {samples} samples in {seconds} s, {spans} spans, 1200 at a time; {unlabelled} without a span, {lost} lost"
        ),
    };
    Ok(Report { measurements: vec![measurement], table })
}
