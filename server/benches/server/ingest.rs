//! S1 and S2: how much pprof one core takes in with every acknowledgement durable, and how long one waits for it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use spanflame_bench_rig::Measurement;

use crate::corpus::{Random, profile};
use crate::rig::{Caller, Server, Setup, now_ms, push, quantile, runtime};

/// Pushes under way at a time.
const SENDERS: usize = 16;
/// Different pushes, sent in turn.
const PUSHES: usize = 128;

struct Load {
    pushes: Vec<(Bytes, usize)>,
    /// Bytes of pprof before compression, on the average.
    mean_bytes: f64,
}

impl Load {
    /// Profiles of 500 to 5,000 samples from ten pods.
    fn new() -> Self {
        let mut random = Random::new(1);
        let now = now_ms();
        let pushes: Vec<(Bytes, usize)> = (0..PUSHES)
            .map(|at| {
                let samples = 500 + random.below(4501);
                // Times differ: a server may take two profiles of one series and time for one.
                let encoded = profile(&mut random, now - 60_000 - at as i64 * 37, samples);
                (push("checkout", &format!("pod-{}", at % 10), encoded.gzipped), encoded.bytes)
            })
            .collect();
        let mean_bytes = pushes.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / PUSHES as f64;
        Self { pushes, mean_bytes }
    }
}

struct Throughput {
    bytes: f64,
    seconds: f64,
    pushes: usize,
}

/// Sends as fast as acknowledgements come.
async fn saturate(caller: &Caller, load: &Arc<Load>, length: Duration) -> anyhow::Result<Throughput> {
    let (next, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (caller, load, next) = (caller.clone(), Arc::clone(load), Arc::clone(&next));
            tokio::spawn(async move {
                let (mut bytes, mut pushes) = (0, 0);
                while begun.elapsed() < length {
                    let (body, size) = &load.pushes[next.fetch_add(1, Ordering::Relaxed) % PUSHES];
                    caller.push(body.clone()).await?;
                    bytes += size;
                    pushes += 1;
                }
                anyhow::Ok((bytes, pushes))
            })
        })
        .collect();
    let (mut bytes, mut pushes) = (0, 0);
    for sender in senders {
        let sent = sender.await??;
        bytes += sent.0;
        pushes += sent.1;
    }
    Ok(Throughput { bytes: bytes as f64, seconds: begun.elapsed().as_secs_f64(), pushes })
}

/// Sends at a steady pace, whether acknowledgements come or not; each wait counts from when its push was due.
async fn paced(
    caller: &Caller,
    load: &Arc<Load>,
    per_second: f64,
    length: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let begun = Instant::now();
    let count = (per_second * length.as_secs_f64()) as usize;
    let mut waits = Vec::with_capacity(count);
    for at in 0..count {
        let due = begun + Duration::from_secs_f64(at as f64 / per_second);
        tokio::time::sleep_until(due.into()).await;
        let (caller, body) = (caller.clone(), load.pushes[at % PUSHES].0.clone());
        waits.push(tokio::spawn(async move {
            caller.push(body).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut times = Vec::with_capacity(count);
    for wait in waits {
        times.push(wait.await??);
    }
    times.sort_unstable();
    Ok(times)
}

/// What the disk itself takes to make one push durable.
fn sync_times(dir: &Path, bytes: usize, count: usize) -> anyhow::Result<Vec<Duration>> {
    let mut file = File::create(dir.join("sync"))?;
    let block = vec![7; bytes];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

const MB: f64 = 1e6;

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let runtime = runtime()?;
    let load = Arc::new(Load::new());
    let length = Duration::from_secs(setup.pick(3, 20));

    let server = Server::start(true, &[])?;
    let caller = Caller::new(&server.url);
    runtime.block_on(saturate(&caller, &load, length / 4))?;
    let before = server.cpu_seconds()?;
    let ours = runtime.block_on(saturate(&caller, &load, length))?;
    let cpu = server.cpu_seconds()? - before;
    let peer = setup.pyroscope.as_deref().map(|url| {
        let caller = Caller::new(url);
        runtime.block_on(saturate(&caller, &load, length / 4))?;
        runtime.block_on(saturate(&caller, &load, length))
    });
    let peer = peer.transpose()?;
    let rate = |found: &Throughput| found.bytes / found.seconds / MB;
    let s1 = Measurement {
        id: "S1".to_owned(),
        ours: Some(rate(&ours)),
        peer: peer.as_ref().map(rate),
        unit: "MB/s".to_owned(),
        peer_is: peer.as_ref().map_or_else(String::new, |_| "Grafana Pyroscope".to_owned()),
        note: format!(
            "uncompressed pprof on one core, {SENDERS} senders, more is better; {:.1} MB for each second of CPU time, \
             {:.0} profiles/s of {:.0} kB on the average, 500 to 5000 samples with spans",
            ours.bytes / cpu.max(0.01) / MB,
            ours.pushes as f64 / ours.seconds,
            load.mean_bytes / 1000.0
        ),
    };

    let per_second = ours.pushes as f64 / ours.seconds / 2.0;
    let times = runtime.block_on(paced(&caller, &load, per_second, length))?;
    let compressed = load.pushes.iter().map(|(body, _)| body.len()).sum::<usize>() / PUSHES;
    let syncs = sync_times(server.data_dir.path(), compressed, setup.pick(50, 500))?;
    let s2 = Measurement {
        id: "S2".to_owned(),
        ours: Some(quantile(&times, 0.99)),
        unit: "ms".to_owned(),
        note: format!(
            "p99 of {} pushes at {per_second:.0}/s; p50 {:.1}; writing and syncing as many bytes alone p50 {:.1}, p99 {:.1}",
            times.len(),
            quantile(&times, 0.5),
            quantile(&syncs, 0.5),
            quantile(&syncs, 0.99)
        ),
        ..Default::default()
    };
    Ok(vec![s1, s2])
}
