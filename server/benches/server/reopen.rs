//! T7: how long a server that was killed takes to serve again what only its log has.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Method;
use spanflame_bench_rig::Measurement;

use crate::load::{Extent, Load};
use crate::rig::{Caller, Server, Setup, now_ms, runtime};
use crate::store::{MB, bytes_below, figure, grow, profile_of};

/// Little is moved from the log into segments meanwhile.
const SETTINGS: &[&str] =
    &["--max-head-bytes", "34359738368", "--flush-bytes", "4294967296", "--flush-after-ms", "3600000"];
const STEP_SAMPLES: u64 = 100_000;

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    // Bytes written; of those there are as many at the kill as are not in segments yet.
    let wanted = setup.pick(1e8, 9e8);
    let runtime = runtime()?;
    let server = Server::start(false, SETTINGS)?;
    let caller = Caller::new(&server.url);
    let extent =
        Extent { services: 20, samples_per_profile: 1000, start_ms: now_ms() - 3_600_000, step_ms: 100.0 };
    let mut load = Load::new(extent)?;
    let mut log = 0.0;
    while log < wanted {
        let samples = load.samples + STEP_SAMPLES;
        runtime.block_on(grow(&caller, &mut load, samples))?;
        log = runtime.block_on(caller.metric("spanflame_store_log_written_bytes_total"))?;
    }
    let head = runtime.block_on(caller.metric("spanflame_store_head_bytes"))?;
    let log = bytes_below(&server.data_dir.path().join("log"))? as f64;

    let begun = Instant::now();
    let server = server.restart()?;
    let opened = begun.elapsed();
    let span = load.remembered.first().context("a span")?;
    let caller = Caller::new(&server.url);
    let path = profile_of(span.id);
    let asked = caller.call(Method::GET, &path, "application/json", Bytes::new());
    let (status, _) = runtime.block_on(asked)?;
    let answered = begun.elapsed();
    ensure!(status == 200, "the first query after the restart: {status}");
    let note = format!(
        "from the kill to the first span's profile, {:.2} s until it listens; log of {:.0} MB, {:.1e} samples in {} spans, {:.0} MB of memory",
        opened.as_secs_f64(),
        log / MB,
        load.samples as f64,
        load.spans,
        head / MB
    );
    Ok(vec![figure("T7", answered.as_secs_f64(), "s", note)])
}
