//! T1 to T6 and T8: what the store takes to find a span, by how much it keeps, and what keeping costs.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use buffa::Message;
use bytes::Bytes;
use http::Method;
use spanflame_bench_rig::Measurement;
use spanflame_wire::querier::v1::SelectMergeSpanProfileRequest;
use tokio::sync::Semaphore;

use crate::corpus::Random;
use crate::load::{Extent, Load, Span};
use crate::rig::{CPU, Caller, Server, Setup, now_ms, quantile, runtime};

const SERVICES: usize = 20;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Pushes under way at a time while the corpus grows.
const SENDERS: usize = 8;
/// Ids of one `spans:exists`.
const EXISTS: usize = 1000;
/// What the server may take for what it has not written to segments yet.
const HEAD_BYTES: &str = "268435456";
/// How long the store may go on writing once nothing is sent any more, and how long it writes nothing when it is done.
const SETTLING: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(4);

/// Grows the corpus to so many samples.
pub(crate) async fn grow(caller: &Caller, load: &mut Load, samples: u64) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(SENDERS));
    while load.samples < samples {
        let body = load.next()?;
        let place = Arc::clone(&room).acquire_owned().await?;
        let caller = caller.clone();
        tokio::spawn(async move {
            let pushed = caller.push(body).await;
            // A place that is never given back ends the growing.
            match pushed {
                Ok(()) => drop(place),
                Err(error) => {
                    eprintln!("{error:#}");
                    place.semaphore().close();
                }
            }
        });
    }
    room.acquire_many(SENDERS as u32).await.context("a push failed").map(drop)
}

/// Times of requests one after another, sorted, and how many were answered with this status.
async fn ask(
    caller: &Caller,
    paths: impl Iterator<Item = String>,
    status: u16,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for path in paths {
        let begun = Instant::now();
        let (found, _) = caller.call(Method::GET, &path, "application/json", Bytes::new()).await?;
        times.push(begun.elapsed());
        ensure!(found == status, "{path}: {found}, not {status}");
    }
    times.sort_unstable();
    Ok(times)
}

/// Spans to ask for, none twice.
fn some(load: &Load, random: &mut Random, count: usize) -> Vec<Span> {
    let kept = &load.remembered;
    let mut places: HashSet<usize> = HashSet::new();
    while places.len() < count.min(kept.len()) {
        places.insert(random.below(kept.len() as u64) as usize);
    }
    places.into_iter().map(|at| kept[at]).collect()
}

pub(crate) fn profile_of(id: u64) -> String {
    format!("/api/v1/spans/{id:016x}/profile")
}

/// As Grafana asks for a span: of this service or any, in this time.
async fn as_grafana(
    caller: &Caller,
    load: &Load,
    spans: &[Span],
    service: bool,
    around_ms: i64,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(spans.len());
    for span in spans {
        let selector = match service {
            true => format!("{{service_name=\"{}\"}}", load.service(span)),
            false => "{}".to_owned(),
        };
        let request = SelectMergeSpanProfileRequest {
            profile_typeID: CPU.to_owned(),
            label_selector: selector,
            span_selector: vec![format!("{:016x}", span.id)],
            start: span.start_ms - around_ms,
            end: span.start_ms + around_ms,
            ..Default::default()
        };
        let body = Bytes::from(request.encode_to_vec());
        let begun = Instant::now();
        let answer = caller.query("SelectMergeSpanProfile", "application/proto", body).await?;
        times.push(begun.elapsed());
        ensure!(answer.len() > 100, "span {:016x} has no profile", span.id);
    }
    times.sort_unstable();
    Ok(times)
}

async fn exists(
    caller: &Caller,
    load: &Load,
    random: &mut Random,
    calls: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        // Half of them are known.
        let known = some(load, random, EXISTS / 2);
        let ids: Vec<String> = known
            .iter()
            .map(|span| span.id)
            .chain((known.len()..EXISTS).map(|_| random.next() | 1))
            .map(|id| format!("{id:016x}"))
            .collect();
        let body = serde_json::to_vec(&serde_json::json!({ "spanIds": ids }))?;
        let begun = Instant::now();
        let (status, answer) =
            caller.call(Method::POST, "/api/v1/spans:exists", "application/json", body.into()).await?;
        times.push(begun.elapsed());
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
    }
    times.sort_unstable();
    Ok(times)
}

/// Bytes of all files below a directory.
pub(crate) fn bytes_below(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A file may go meanwhile.
        let Ok(kind) = entry.metadata() else { continue };
        bytes += if kind.is_dir() { bytes_below(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}

/// Figures at one size of the corpus.
struct Stage {
    samples: u64,
    present: Vec<Duration>,
    absent: Vec<Duration>,
    exists: Vec<Duration>,
    near: Vec<Duration>,
    day: Vec<Duration>,
}

impl Stage {
    async fn measure(setup: &Setup, caller: &Caller, load: &Load) -> anyhow::Result<Self> {
        let mut random = Random::new(load.samples);
        let rounds = setup.pick(200, 2000);
        // Files are in memory and caches filled as far as they go, as on a server that was asked before.
        let warm = some(load, &mut random, rounds);
        ask(caller, warm.iter().map(|span| profile_of(span.id)), 200).await?;
        let spans = some(load, &mut random, rounds);
        let present = ask(caller, spans.iter().map(|span| profile_of(span.id)), 200).await?;
        let absent: Vec<u64> = (0..rounds).map(|_| random.next() | 1).collect();
        let absent = ask(caller, absent.into_iter().map(profile_of), 404).await?;
        let exists = exists(caller, load, &mut random, rounds / 10).await?;
        let near = as_grafana(caller, load, &spans[..spans.len() / 4], true, 30_000).await?;
        let day = as_grafana(caller, load, &spans[..spans.len() / 4], false, DAY_MS).await?;
        Ok(Self { samples: load.samples, present, absent, exists, near, day })
    }
}

/// One line for what was measured at each size: the last size's figure, and all of them in the note.
fn over_sizes(
    id: &str,
    stages: &[Stage],
    share: f64,
    times: impl Fn(&Stage) -> &[Duration],
    what: &str,
) -> Measurement {
    let mut note = format!("p{:.0} of {what};", share * 100.0);
    for stage in stages {
        let of = times(stage);
        let at = |share| quantile(of, share);
        let _ =
            write!(note, " {:.0e} samples: p50 {:.2}, p99 {:.2};", stage.samples as f64, at(0.5), at(0.99));
    }
    Measurement {
        id: id.to_owned(),
        ours: stages.last().map(|stage| quantile(times(stage), share)),
        unit: "ms".to_owned(),
        note,
        ..Default::default()
    }
}

pub(crate) fn figure(id: &str, ours: f64, unit: &str, note: String) -> Measurement {
    Measurement { id: id.to_owned(), ours: Some(ours), unit: unit.to_owned(), note, ..Default::default() }
}

pub(crate) const MB: f64 = 1e6;

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let runtime = runtime()?;
    let server = Server::start(false, &["--max-head-bytes", HEAD_BYTES, "--flush-after-ms", "1000"])?;
    let caller = Caller::new(&server.url);
    let sizes = setup.sizes();
    let last = sizes.last().copied().context("a size")?;
    let samples_per_profile = 1000;
    let extent = Extent {
        services: SERVICES,
        samples_per_profile,
        start_ms: now_ms() - DAY_MS - 60_000,
        // The whole corpus lies within a day, whatever its size.
        step_ms: DAY_MS as f64 / (last as f64 * 1.05 / samples_per_profile as f64),
    };
    let mut load = Load::new(extent)?;
    let mut stages = Vec::new();
    let begun = Instant::now();
    let mut growing = Duration::ZERO;
    for size in sizes {
        let since = Instant::now();
        runtime.block_on(grow(&caller, &mut load, size))?;
        growing += since.elapsed();
        runtime.block_on(settle(&caller))?;
        stages.push(runtime.block_on(Stage::measure(setup, &caller, &load))?);
        eprintln!("{} samples, {} spans, {:.0} s", load.samples, load.spans, begun.elapsed().as_secs_f64());
    }
    let kept = bytes_below(server.data_dir.path())?;
    let log_bytes = runtime.block_on(caller.metric("spanflame_store_log_written_bytes_total"))?;
    let written = server.written_bytes()?;
    let peak = server.memory("VmHWM")?;
    let (samples, spans) = (load.samples as f64, load.spans);
    let server = server.restart()?;
    std::thread::sleep(Duration::from_secs(2));
    let idle = server.memory("VmRSS")?;
    Ok(vec![
        over_sizes(
            "T1",
            &stages,
            0.99,
            |stage| &stage.present,
            "a span's profile by its id alone, over HTTP",
        ),
        over_sizes("T2", &stages, 0.99, |stage| &stage.absent, "the same for ids that are not kept"),
        over_sizes(
            "T3",
            &stages,
            0.99,
            |stage| &stage.exists,
            "1,000 ids in one spans:exists, half of them kept",
        ),
        over_sizes("T4", &stages, 0.99, |stage| &stage.near, "SelectMergeSpanProfile with service and ±30 s"),
        over_sizes(
            "T4",
            &stages,
            0.99,
            |stage| &stage.day,
            "SelectMergeSpanProfile over two days without service",
        ),
        figure(
            "T5",
            kept as f64 / samples,
            "B/sample",
            format!("{:.0} MB for {samples:.0e} samples in {spans} spans, all files", kept as f64 / MB),
        ),
        figure(
            "T6",
            written as f64 / log_bytes,
            "×",
            format!(
                "bytes given to the disk over bytes of the log; {:.1} MB/s of log while growing",
                log_bytes / growing.as_secs_f64() / MB
            ),
        ),
        figure(
            "T8",
            idle as f64 / MB,
            "MB",
            format!(
                "resident, idle, just started; at most {:.0} MB while growing and asked, of which the head may take {:.0}",
                peak as f64 / MB,
                HEAD_BYTES.parse::<f64>()? / MB
            ),
        ),
    ])
}

/// Waits until everything is in segments and nobody merges them any more.
async fn settle(caller: &Caller) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut written, mut since) = (0.0, Instant::now());
    while begun.elapsed() < SETTLING {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = caller.metric("spanflame_store_segment_written_bytes_total").await?;
        let head = caller.metric("spanflame_store_head_bytes").await?;
        if now != written || head > 0.0 {
            (written, since) = (now, Instant::now());
        }
        if since.elapsed() > QUIET {
            return Ok(());
        }
    }
    bail!("the store is still writing after {} s", SETTLING.as_secs())
}
