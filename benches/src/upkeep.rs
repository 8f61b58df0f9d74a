//! B12 to B15: what a profiler costs beside its samples: memory and CPU at start, CPU per window, samples lost while a
//! report is built, and reading symbols.

use crate::process::Measured;
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{Cost, Measurement, Request, median};
use std::fmt::Write;
use std::path::Path;

const MB: f64 = 1e6;

/// Every figure from a fresh process, the median of several.
struct Fresh<'a> {
    binary: &'a Path,
    rounds: usize,
}

impl Fresh<'_> {
    fn ask(&self, what: &str, iterations: u64) -> Result<f64> {
        let mut found = Vec::new();
        for _ in 0..self.rounds {
            let mut process = Measured::spawn(self.binary, &[])?;
            let cost: Cost = process.ask(&Request::Cost { what: what.to_owned(), iterations })?;
            found.push(cost.ns);
        }
        Ok(median(&mut found))
    }
}

/// Operations of the subjects, named in `subject/upkeep.rs` and in the peer's source.
pub fn measure(setup: &Setup) -> Result<Report> {
    let rounds = setup.pick(1, 5);
    let subjects = Subjects::new(&setup.subject);
    let (ours, peer) = (subjects.binary(Profiler::Spanflame)?, subjects.binary(Profiler::Pyroscope)?);
    let (ours, peer) = (Fresh { binary: &ours, rounds }, Fresh { binary: &peer, rounds });
    let once = Fresh { binary: ours.binary, rounds: 1 };
    let peer_once = Fresh { binary: peer.binary, rounds: 1 };
    let mut table = String::from("|  | spanflame | peer |\n|---|---|---|\n");
    let mut row = |what: &str, ours: f64, peer: Option<f64>| -> Result<()> {
        let peer = peer.map(|figure| format!("{figure:.2}")).unwrap_or_default();
        writeln!(table, "| {what} | {ours:.2} | {peer} |")?;
        Ok(())
    };

    let memory = ours.ask("start-memory", 1)? / MB;
    let peer_memory = peer.ask("start-memory", 1)? / MB;
    let per_thread = ours.ask("thread-memory", 64)? / 1e3;
    let live_spans = ours.ask("span-memory", 10_000)? / MB;
    row("resident memory added at start, MB", memory, Some(peer_memory))?;
    row("resident memory added per busy thread, kB", per_thread, None)?;
    row("resident memory added with 10,000 live spans, MB", live_spans, None)?;

    let start = ours.ask("start-cpu", 1)? / 1e6;
    let peer_start = peer.ask("start-cpu", 1)? / 1e6;
    let windows = setup.pick(2, 5);
    let window = once.ask("window-cpu", windows)? / 1e6;
    let peer_window = peer_once.ask("window-cpu", windows)? / 1e6;
    row("CPU at start, ms", start, Some(peer_start))?;
    row("CPU per window of 220 known stacks, ms", window, Some(peer_window))?;

    let seconds = setup.pick(6, 30);
    let lost = once.ask("report-loss", seconds)?;
    row("samples lost at windows of 2 s", lost, None)?;

    const ADDRESSES: u64 = 10_000;
    let symbols = ours.ask("symbols-cpu", ADDRESSES)? / 1e6;
    let backtrace = ours.ask("backtrace-cpu", ADDRESSES)? / 1e6;
    let kept = ours.ask("symbols-memory", ADDRESSES)? / MB;
    let backtrace_kept = ours.ask("backtrace-memory", ADDRESSES)? / MB;
    let peak = ours.ask("symbols-peak", ADDRESSES)? / MB;
    let names = ours.ask("names-cpu", ADDRESSES)? / ADDRESSES as f64 / 1e3;
    row(
        "10,000 addresses cold with inlined frames, CPU ms (peer: the backtrace crate)",
        symbols,
        Some(backtrace),
    )?;
    row("resident memory kept after that, MB (peer: the backtrace crate)", kept, Some(backtrace_kept))?;
    row("resident memory while that goes on, at most, MB", peak, None)?;
    row("a name alone, CPU us", names, None)?;

    let measurement =
        |id: &str, ours: f64, peer: Option<f64>, unit: &str, peer_is: &str, note: String| Measurement {
            id: id.to_owned(),
            ours: Some(ours),
            peer,
            unit: unit.to_owned(),
            peer_is: peer_is.to_owned(),
            note,
        };
    let pyroscope = Profiler::Pyroscope.title();
    let size = std::fs::metadata(ours.binary)?.len() as f64 / MB;
    let measurements = vec![
        measurement(
            "B12",
            memory,
            Some(peer_memory),
            "MB",
            pyroscope,
            format!("{per_thread:.0} kB per busy thread; {live_spans:.1} MB with 10,000 live spans"),
        ),
        measurement(
            "B13",
            window,
            Some(peer_window),
            "ms",
            pyroscope,
            format!("per window of 220 known stacks; at start {start:.1} ms, {pyroscope} {peer_start:.1} ms"),
        ),
        measurement(
            "B14",
            lost,
            None,
            "fraction",
            "",
            format!("{seconds} s, windows of 2 s, 4 busy threads"),
        ),
        measurement(
            "B15",
            symbols,
            Some(backtrace),
            "ms",
            "backtrace crate",
            format!(
                "10,000 addresses of a {size:.0} MB executable; kept {kept:.1} MB against {backtrace_kept:.1}, at most \
                 {peak:.1} MB meanwhile; a name alone {names:.2} us"
            ),
        ),
    ];
    Ok(Report { measurements, table })
}
