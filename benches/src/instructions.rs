//! B1 and B3: user instructions per sample, counted by callgrind: no clock, no noise.

use crate::subjects::{Profiler, Subjects};
use crate::{Report, Setup};
use anyhow::{Context, Result, bail};
use spanflame_bench_rig::{Measurement, Request};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const FRAMES: [usize; 3] = [13, 32, 62];
/// Signals of a run; few enough that no profiler's buffer has to be emptied in between.
const SIGNALS: usize = 48;

/// Runs every profiler with `SIGNALS` and twice as many signals; the difference leaves out start and end.
pub fn measure(setup: &Setup) -> Result<Report> {
    let subjects = Subjects::new(&setup.subject);
    let mut rows = Vec::new();
    for profiler in Profiler::ALL.into_iter().chain([Profiler::SpanflameFramePointers]) {
        let binary = subjects.binary(profiler)?;
        rows.push((profiler, per_sample(&binary, profiler.environment())?));
    }
    let of = |profiler: Profiler| rows.iter().find(|(p, _)| *p == profiler).map(|(_, counts)| counts);
    let points = |counts: &[f64]| {
        FRAMES.iter().zip(counts).map(|(f, c)| format!("{f} frames {c:.0}")).collect::<Vec<_>>().join(", ")
    };

    let mut table = String::from("user instructions per sample (callgrind), empty handler taken off\n\n|  |");
    for frames in FRAMES {
        write!(table, " {frames} frames |")?;
    }
    writeln!(table, "\n|---|{}", "---|".repeat(FRAMES.len()))?;
    for (profiler, counts) in &rows {
        write!(table, "| {} |", profiler.title())?;
        for count in counts {
            write!(table, " {count:.0} |")?;
        }
        writeln!(table)?;
    }

    let ours = of(Profiler::Spanflame).context("ours was not measured")?;
    let peer = of(Profiler::Pyroscope).context("pyroscope was not measured")?;
    let mut note = format!("ours {}; pyroscope {}", points(ours), points(peer));
    for profiler in [Profiler::PprofDefault, Profiler::PprofFramehop] {
        let counts = of(profiler).context("a peer was not measured")?;
        write!(note, "; {} {}", profiler.title(), points(counts))?;
    }
    let unwinding = Measurement {
        id: "B1".to_owned(),
        ours: ours.last().copied(),
        peer: peer.last().copied(),
        unit: "instructions".to_owned(),
        peer_is: Profiler::Pyroscope.title().to_owned(),
        note,
    };
    let own = of(Profiler::SpanflameFramePointers).context("ours with frame pointers was not measured")?;
    let frame_pointer = of(Profiler::PprofFramePointer).context("a peer was not measured")?;
    let frame_pointers = Measurement {
        id: "B3".to_owned(),
        ours: own.get(1).copied(),
        peer: frame_pointer.get(1).copied(),
        unit: "instructions".to_owned(),
        peer_is: Profiler::PprofFramePointer.title().to_owned(),
        note: format!("ours {}; peer {}", points(own), points(frame_pointer)),
    };
    Ok(Report { measurements: vec![unwinding, frame_pointers], table })
}

/// Instructions per sample at each depth.
fn per_sample(binary: &Path, environment: &[(&str, &str)]) -> Result<Vec<f64>> {
    let script = |longer: Option<usize>, empty: usize| {
        let raises = FRAMES.iter().map(move |&frames| {
            let signals = if longer == Some(frames) { 2 * SIGNALS } else { SIGNALS };
            Request::Raise { frames, signals, empty: false }
        });
        let nothing = Request::Raise { frames: FRAMES[0], signals: empty, empty: true };
        std::iter::once(Request::Start { hz: 1, bare: true })
            .chain(raises)
            .chain([nothing])
            .collect::<Vec<_>>()
    };
    let base = count(binary, environment, &script(None, SIGNALS))?;
    let each = |more: u64| (more as f64 - base as f64) / SIGNALS as f64;
    let empty = each(count(binary, environment, &script(None, 2 * SIGNALS))?);
    FRAMES
        .iter()
        .map(|&frames| Ok(each(count(binary, environment, &script(Some(frames), SIGNALS))?) - empty))
        .collect()
}

/// User instructions of one run of the subject that answers these requests.
fn count(binary: &Path, environment: &[(&str, &str)], requests: &[Request]) -> Result<u64> {
    let mut child = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run valgrind; install Debian's package `valgrind`")?;
    let mut input = child.stdin.take().context("the child's standard input")?;
    for request in requests {
        serde_json::to_writer(&mut input, request)?;
        input.write_all(b"\n")?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    let answers = String::from_utf8_lossy(&output.stdout);
    if !output.status.success()
        || answers.lines().filter(|line| line.starts_with("{\"Ok\"")).count() != requests.len()
    {
        bail!("{} under callgrind answered {answers}", binary.display());
    }
    let log = String::from_utf8_lossy(&output.stderr);
    let collected =
        log.lines().find_map(|line| line.split_once("Collected :")).context("callgrind's count")?;
    collected.1.trim().parse().with_context(|| format!("callgrind's count {:?}", collected.1))
}
