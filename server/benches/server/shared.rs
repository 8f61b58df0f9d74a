//! T10: how soon what one of three servers on one bucket has taken is seen through the others, and how much more three take.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use buffa::Message;
use bytes::Bytes;
use http::Method;
use spanflame_bench_rig::Measurement;
use spanflame_wire::google::v1::{Function, Label, Line, Location, Profile, Sample, ValueType};

use crate::load::{Extent, Load};
use crate::rig::{Caller, Server, Setup, now_ms, push, quantile, runtime};

const SERVERS: usize = 3;
const BUCKET: &str = "profiles";
/// Time between two writes that are followed, and between two looks for one.
const PACE: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(20);
/// A write that is not seen by then is lost.
const LOST: Duration = Duration::from_secs(60);
/// Pushes under way at a time to each server while they take what they can, and their samples.
const SENDERS: usize = 4;
const SAMPLES: u64 = 500;

/// An S3 server in memory, ended when dropped.
struct S3 {
    child: Child,
    url: String,
}

impl S3 {
    fn start(python: &std::ffi::OsStr) -> anyhow::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/shared/s3.py");
        let mut command = Command::new(python);
        command.args([script, BUCKET]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the S3 server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        match line.trim().strip_prefix("listening on ") {
            Some(url) => Ok(Self { url: url.to_owned(), child }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the S3 server says no address but {line:?}")
            }
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let Some(python) = std::env::var_os("SPANFLAME_PYTHON") else {
        eprintln!("T10 is measured by `cargo xtask targets T10`, which installs an S3 server");
        return Ok(Vec::new());
    };
    runtime()?.block_on(async {
        let mut found = Vec::new();
        for (mode, prefix) in [("local", "a"), ("object", "b")] {
            let s3 = S3::start(&python)?;
            let cluster = cluster(&s3, mode, prefix, SERVERS)?;
            found.push(visibility(setup, mode, &cluster).await?);
        }
        found.push(growth(setup, &python).await?);
        Ok(found)
    })
}

fn cluster(s3: &S3, mode: &str, prefix: &str, servers: usize) -> anyhow::Result<Vec<Server>> {
    let bucket = format!("s3://{BUCKET}/{prefix}");
    let arguments = [
        ["--object-store", &bucket],
        ["--object-endpoint", &s3.url],
        ["--object-region", "us-east-1"],
        ["--object-allow-http", "true"],
        ["--acknowledge", mode],
    ];
    (0..servers).map(|_| Server::start(false, arguments.as_flattened())).collect()
}

/// How long writes take from being sent to being seen through both other servers.
async fn visibility(setup: &Setup, mode: &str, cluster: &[Server]) -> anyhow::Result<Measurement> {
    let writes = setup.pick(30, 240);
    let callers: Vec<Caller> = cluster.iter().map(|server| Caller::new(&server.url)).collect();
    let mut under_way = Vec::new();
    for number in 0..writes {
        let mut callers = callers.clone();
        callers.rotate_left(number % SERVERS);
        under_way.push(tokio::spawn(follow(callers, number as u64 + 1)));
        // Not in step with anybody's own pace.
        tokio::time::sleep(PACE + Duration::from_millis((number * 37 % 61) as u64)).await;
    }
    let (mut taken, mut seen) = (Vec::new(), Vec::new());
    for write in under_way {
        let (acknowledged, everywhere) = write.await??;
        taken.push(acknowledged);
        seen.push(everywhere);
    }
    taken.sort_unstable();
    seen.sort_unstable();
    let of = |times: &[Duration], share| quantile(times, share);
    Ok(Measurement {
        id: "T10".into(),
        ours: Some(of(&seen, 0.99)),
        unit: "ms".into(),
        note: format!(
            "p99 from sending a write to one server until the two others have it, acknowledge = {mode}, {writes} writes; \
             p50 {:.0} ms, longest {:.0} ms; acknowledged after {:.0} ms p50, {:.0} ms p99",
            of(&seen, 0.5),
            of(&seen, 1.0),
            of(&taken, 0.5),
            of(&taken, 0.99)
        ),
        ..Measurement::default()
    })
}

/// Pushes a span to the first, and looks for it through the others. How long until it is acknowledged, and until it is
/// everywhere.
async fn follow(callers: Vec<Caller>, span: u64) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    callers[0].push(push("shop", "one", profile(span))).await?;
    let acknowledged = began.elapsed();
    let question = Bytes::from(format!(r#"{{"spanIds":["{span:016x}"]}}"#));
    for caller in &callers[1..] {
        loop {
            let asked =
                caller.call(Method::POST, "/api/v1/spans:exists", "application/json", question.clone());
            let (status, answer) = asked.await?;
            ensure!(status == 200, "{status} {}", String::from_utf8_lossy(&answer));
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            if answer["spans"][0]["exists"] == true {
                break;
            }
            ensure!(began.elapsed() < LOST, "span {span} is not seen");
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok((acknowledged, began.elapsed()))
}

/// How much more three servers take than one, all clients and the S3 server on the same machine.
async fn growth(setup: &Setup, python: &std::ffi::OsStr) -> anyhow::Result<Measurement> {
    let mut rates = Vec::new();
    for servers in [1, SERVERS] {
        let s3 = S3::start(python)?;
        let cluster = cluster(&s3, "local", "c", servers)?;
        let extent = Extent { services: 20, samples_per_profile: SAMPLES, start_ms: now_ms(), step_ms: 1.0 };
        let mut load = Load::new(extent)?;
        let bodies = (0..64).map(|_| load.next()).collect::<anyhow::Result<Vec<Bytes>>>()?;
        let bytes = bodies.iter().map(Bytes::len).sum::<usize>() as f64 / bodies.len() as f64;
        let until = Instant::now() + setup.pick(Duration::from_secs(2), Duration::from_secs(15));
        let mut sending = Vec::new();
        for (at, server) in cluster.iter().enumerate() {
            for sender in 0..SENDERS {
                let (caller, bodies) = (Caller::new(&server.url), bodies.clone());
                sending.push(tokio::spawn(async move {
                    let mut pushed = 0_u64;
                    for body in bodies.iter().cycle().skip(at * 7 + sender * 13) {
                        if Instant::now() >= until {
                            break;
                        }
                        caller.push(body.clone()).await?;
                        pushed += 1;
                    }
                    Ok::<_, anyhow::Error>(pushed)
                }));
            }
        }
        let began = Instant::now();
        let mut pushed = 0;
        for sent in sending {
            pushed += sent.await??;
        }
        rates.push(pushed as f64 * bytes / began.elapsed().as_secs_f64() / 1e6);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Measurement {
        id: "T10".into(),
        ours: Some(rates[1] / rates[0]),
        unit: "times".into(),
        note: format!(
            "what three servers take of what one takes, acknowledge = local, {SENDERS} senders each: {:.0} of {:.0} MB/s of \
             pprof; servers, senders and the S3 server share {cores} cores",
            rates[1], rates[0]
        ),
        ..Measurement::default()
    })
}

/// pprof with one sample of this span, that began now.
fn profile(span: u64) -> Vec<u8> {
    let strings = ["", "samples", "count", "cpu", "nanoseconds", "main", "span_id", &format!("{span:016x}")];
    let value_type = |r#type, unit| ValueType { r#type, unit, ..Default::default() };
    let label = Label { key: 6, str: 7, ..Default::default() };
    let line = Line { function_id: 1, ..Default::default() };
    Profile {
        sample_type: vec![value_type(1, 2), value_type(3, 4)],
        sample: vec![Sample {
            location_id: vec![1],
            value: vec![1, 10_000_000],
            label: vec![label],
            ..Default::default()
        }],
        location: vec![Location { id: 1, line: vec![line], ..Default::default() }],
        function: vec![Function { id: 1, name: 5, ..Default::default() }],
        string_table: strings.map(Into::into).into(),
        time_nanos: now_ms() * 1_000_000,
        duration_nanos: 1_000_000_000,
        period_type: value_type(3, 4).into(),
        period: 10_000_000,
        ..Default::default()
    }
    .encode_to_vec()
}
