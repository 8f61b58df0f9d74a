//! B16: stack that a sample takes, and the smallest stack that survives one.

use crate::process::{Fate, Measured};
use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::Result;
use spanflame_bench_rig::{HandlerStack, Measurement, Request};
use std::fmt::Write;
use std::path::Path;

const FRAMES: usize = 32;
const SIGNALS: usize = 20;
/// From large to small; the last is the least that libc makes.
const STACKS: [usize; 6] = [64 << 10, 48 << 10, 32 << 10, 24 << 10, 20 << 10, 16 << 10];

/// The deepest of a profiler's signals, its first included; then a fresh process for each size of stack.
pub fn measure(setup: &Setup) -> Result<Report> {
    let mut rows = Vec::new();
    for (profiler, binary) in Subjects::new(&setup.subject).binaries(&Profiler::ALL)? {
        let mut process = Measured::start_bare(&binary, 1)?;
        let used: HandlerStack = process.ask(&Request::Stack { frames: FRAMES, signals: SIGNALS })?;
        drop(process);
        rows.push((profiler, used, smallest_survived(&binary)?));
    }
    let mut table = format!(
        "stack of a sample of {FRAMES} frames, bytes\n\n\
         |  | below the interrupted frame | of which the handler's own | smallest stack survived |\n|---|---|---|---|\n"
    );
    let mut note = format!("at {FRAMES} frames, beyond the kernel's frame");
    for (profiler, used, smallest) in &rows {
        let own = used.bytes.saturating_sub(used.empty_bytes);
        let smallest = smallest.map_or("none".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
        writeln!(table, "| {} | {} | {own} | {smallest} |", profiler.title(), used.bytes)?;
        write!(note, "; {} {own} B, smallest stack {smallest}", profiler.title())?;
    }
    let own = |wanted: Profiler| {
        let row = rows.iter().find(|(profiler, ..)| *profiler == wanted);
        row.map(|(_, used, _)| used.bytes.saturating_sub(used.empty_bytes) as f64)
    };
    let measurement = Measurement {
        id: "B16".to_owned(),
        ours: own(Profiler::Spanflame),
        peer: own(Profiler::Pyroscope),
        unit: "bytes".to_owned(),
        peer_is: Profiler::Pyroscope.title().to_owned(),
        note,
    };
    Ok(Report { measurements: vec![measurement], table })
}

fn smallest_survived(binary: &Path) -> Result<Option<usize>> {
    let mut smallest = None;
    for bytes in STACKS {
        let mut process = Measured::start_bare(binary, 1)?;
        match process.ask_or_die::<()>(&Request::SmallStack { bytes })? {
            Fate::Answered(()) => smallest = Some(bytes),
            Fate::Died(_) => break,
        }
    }
    Ok(smallest)
}
