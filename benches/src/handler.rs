//! B2: time in the signal handler's body, warm and cold.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{HandlerTime, Measurement, Request, median};
use std::fmt::Write;

const FRAMES: [usize; 4] = [10, 30, 32, 60];
/// The depth that the target names.
const NAMED: usize = 32;

/// Interleaves rounds over all profilers' processes; a cell is the median of its rounds.
pub fn measure(setup: &Setup) -> Result<Report> {
    let (rounds, warm, cold) = setup.pick((3, 200, 12), (9, 400, 40));
    let mut subjects = Vec::new();
    for (profiler, binary) in Subjects::new(&setup.subject).binaries(&Profiler::ALL)? {
        subjects.push((profiler, Measured::start_bare(&binary, 1)?));
    }
    let points: Vec<(usize, bool)> =
        FRAMES.iter().flat_map(|&frames| [(frames, false), (frames, true)]).collect();
    let mut timings = vec![vec![Vec::new(); points.len()]; subjects.len()];
    for _ in 0..rounds {
        for (point, &(frames, is_cold)) in points.iter().enumerate() {
            let request =
                Request::Handler { frames, cold: is_cold, signals: if is_cold { cold } else { warm } };
            for (subject, (_, process)) in subjects.iter_mut().enumerate() {
                timings[subject][point].push(process.ask::<HandlerTime>(&request)?.body_ns);
            }
        }
    }
    let medians: Vec<Vec<f64>> =
        timings.into_iter().map(|row| row.into_iter().map(|mut cell| median(&mut cell)).collect()).collect();
    let at = |profiler: Profiler, frames: usize, is_cold: bool| -> f64 {
        let row = Profiler::ALL.iter().position(|&p| p == profiler).unwrap_or(0);
        let column = points.iter().position(|&point| point == (frames, is_cold)).unwrap_or(0);
        medians[row][column]
    };

    let mut table = String::from("handler body, ns (warm / cold), empty handler taken off\n\n|  |");
    for frames in FRAMES {
        write!(table, " {frames} frames |")?;
    }
    writeln!(table, "\n|---|{}", "---|".repeat(FRAMES.len()))?;
    for profiler in Profiler::ALL {
        write!(table, "| {} |", profiler.title())?;
        for frames in FRAMES {
            write!(table, " {:.0} / {:.0} |", at(profiler, frames, false), at(profiler, frames, true))?;
        }
        writeln!(table)?;
    }

    let ratio = |peer: Profiler, frames: usize, is_cold: bool| {
        at(peer, frames, is_cold) / at(Profiler::Spanflame, frames, is_cold)
    };
    let mut note = format!(
        "32 frames warm; cold {:.0} against {:.0} ns, {:.1} times",
        at(Profiler::Spanflame, NAMED, true),
        at(Profiler::Pyroscope, NAMED, true),
        ratio(Profiler::Pyroscope, NAMED, true)
    );
    for peer in [Profiler::PprofDefault, Profiler::PprofFramePointer, Profiler::PprofFramehop] {
        let (warm, cold) = (ratio(peer, NAMED, false), ratio(peer, NAMED, true));
        write!(note, "; {} {warm:.1} warm, {cold:.1} cold", peer.title())?;
    }
    for frames in [10, 30, 60] {
        let (warm, cold) =
            (ratio(Profiler::Pyroscope, frames, false), ratio(Profiler::Pyroscope, frames, true));
        write!(note, "; pyroscope at {frames} frames {warm:.1} warm, {cold:.1} cold")?;
    }
    let measurement = Measurement {
        id: "B2".to_owned(),
        ours: Some(at(Profiler::Spanflame, NAMED, false)),
        peer: Some(at(Profiler::Pyroscope, NAMED, false)),
        unit: "ns".to_owned(),
        peer_is: Profiler::Pyroscope.title().to_owned(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}
