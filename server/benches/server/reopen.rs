//! T7: how long a server that was killed takes to serve again what only its log has.
//!
//! A log becomes long where segments cannot be written: a plain file in place of their directory sees to that. It is taken
//! away between the kill and the start, so that the start has to make segments of all that, too.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use spanflame_bench_rig::Measurement;

use crate::load::{Extent, Load};
use crate::rig::{Caller, Server, Setup, now_ms, runtime};
use crate::store::{MB, bytes_below, figure, grow, profile_of};

/// Room for all of the log in memory; nothing else differs from the defaults.
const SETTINGS: &[&str] = &["--max-head-bytes", "12884901888"];
const STEP_SAMPLES: u64 = 100_000;
/// Spans of the log that must all be found again.
const LOOKED_FOR: usize = 500;

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let wanted = setup.pick(1e8, 1e9);
    let runtime = runtime()?;
    let server = Server::start(false, SETTINGS)?;
    let (log, segments) =
        (server.data_dir.path().join("log"), server.data_dir.path().join("objects/segments"));
    refuse_below(&segments)?;
    let caller = Caller::new(&server.url);
    let extent =
        Extent { services: 20, samples_per_profile: 1000, start_ms: now_ms() - 3_600_000, step_ms: 100.0 };
    let mut load = Load::new(extent)?;
    let mut log_bytes = 0.0;
    while log_bytes < wanted {
        let samples = load.samples + STEP_SAMPLES;
        runtime.block_on(grow(&caller, &mut load, samples))?;
        log_bytes = bytes_below(&log)? as f64;
    }
    let head = runtime.block_on(caller.metric("spanflame_store_head_bytes"))?;
    let before = server.memory("VmHWM")?;
    ensure!(segments.is_file(), "no segment was written");

    let killed = Instant::now();
    let stopped = server.kill()?;
    fs::remove_file(stopped.data_dir().join("objects/segments"))?;
    let log_bytes_found = bytes_below(&stopped.data_dir().join("log"))? as f64;
    ensure!(log_bytes_found >= log_bytes, "the log has {log_bytes_found} bytes after the kill");
    let gone = killed.elapsed();
    let begun = Instant::now();
    let server = stopped.start()?;
    let listening = begun.elapsed();
    let mut spans = load.remembered.iter();
    let span = spans.next().context("a span")?;
    let caller = Caller::new(&server.url);
    let ask = |id| {
        let path = profile_of(id);
        let caller = &caller;
        async move { caller.call(Method::GET, &path, "application/json", Bytes::new()).await }
    };
    let (status, _) = runtime.block_on(ask(span.id))?;
    let answered = begun.elapsed();
    ensure!(status == 200, "the first query after the restart: {status}");
    let peak = server.memory("VmHWM")?;
    for span in spans.take(LOOKED_FOR) {
        let (status, _) = runtime.block_on(ask(span.id))?;
        ensure!(status == 200, "span {:016x} after the restart: {status}", span.id);
    }
    let note = format!(
        "from the start of the process to the first span's profile, {:.2} s until it listens; it was gone {:.2} s after kill -9; log of {:.0} MB, all of it read: {:.1e} samples in {} spans, {:.0} MB in the head; at most {:.0} MB resident until then, {:.0} MB before the kill",
        listening.as_secs_f64(),
        gone.as_secs_f64(),
        log_bytes_found / MB,
        load.samples as f64,
        load.spans,
        head / MB,
        peak as f64 / MB,
        before as f64 / MB,
    );
    Ok(vec![figure("T7", answered.as_secs_f64(), "s", note)])
}

/// Puts a plain file in the place of a directory.
fn refuse_below(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir(dir).context("segments are there already")?;
    }
    Ok(fs::write(dir, "")?)
}
