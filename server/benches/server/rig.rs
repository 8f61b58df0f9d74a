//! What the server's benchmarks share: a server under test, a client, a corpus, and the reporting of figures.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use buffa::Message;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use spanflame_bench_rig::Measurement;
use spanflame_wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
use spanflame_wire::types::v1::LabelPair;

/// The type that every benchmark asks for.
pub(crate) const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// How to measure.
pub(crate) struct Setup {
    quick: bool,
    /// A Grafana Pyroscope server that runs already, on one core if the comparison is to be one of cores.
    pub(crate) pyroscope: Option<String>,
}

impl Setup {
    /// `quick` or `full`, by what was asked.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// The body of a benchmark's `main`: `--quick` shortens it, `--json` prints the measurements as one line,
/// `--pyroscope URL` names a peer.
pub(crate) fn run(measure: fn(&Setup) -> anyhow::Result<Vec<Measurement>>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo test --benches` runs benchmarks too, without `--bench`: nothing to test here.
    if !has("--bench") {
        return ExitCode::SUCCESS;
    }
    let pyroscope = arguments.iter().position(|argument| argument == "--pyroscope");
    let pyroscope =
        pyroscope.and_then(|at| arguments.get(at + 1)).map(|url| url.trim_end_matches('/').to_owned());
    let setup = Setup { quick: has("--quick"), pyroscope };
    match measure(&setup).and_then(|measurements| {
        if has("--json") {
            println!("{}", serde_json::to_string(&measurements)?);
        } else {
            measurements.iter().for_each(|measurement| println!("{measurement}"));
        }
        Ok(())
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A server of ours with a store of its own, ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    pub(crate) data_dir: tempfile::TempDir,
}

impl Server {
    /// Starts one; on its first core alone if asked, the client's being the others.
    pub(crate) fn start(one_core: bool) -> anyhow::Result<Self> {
        let data_dir = tempfile::tempdir()?;
        let mut command = Command::new(if one_core { "taskset" } else { env!("CARGO_BIN_EXE_spanflame") });
        if one_core {
            command.args(["--cpu-list", "0", env!("CARGO_BIN_EXE_spanflame")]);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(data_dir.path());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let _ = child.wait();
            bail!("the server says no address but {line:?}");
        };
        Ok(Self { url: url.to_owned(), child, data_dir })
    }

    /// CPU time that it has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        // In ticks of a hundredth of a second, as the kernel tells every program.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
        let ticks =
            |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("a stat line");
        Ok((ticks(11)? + ticks(12)?) as f64 / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of one server over HTTP/1.1, as agents and Grafana are.
#[derive(Clone)]
pub(crate) struct Caller {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Caller {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Posts what must be answered well.
    pub(crate) async fn post(&self, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.url))
            .header("content-type", content_type)
            .body(Full::new(body))?;
        let (parts, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        ensure!(parts.status.is_success(), "{path}: {} {}", parts.status, String::from_utf8_lossy(&body));
        Ok(body)
    }

    pub(crate) async fn push(&self, body: Bytes) -> anyhow::Result<()> {
        self.post("/push.v1.PusherService/Push", "application/proto", body).await.map(drop)
    }

    pub(crate) async fn query(&self, method: &str, content_type: &str, body: Bytes) -> anyhow::Result<Bytes> {
        self.post(&format!("/querier.v1.QuerierService/{method}"), content_type, body).await
    }
}

/// A push of one profile of this service and pod.
pub(crate) fn push(service: &str, pod: &str, gzipped: Vec<u8>) -> Bytes {
    let labels = [("__name__", "process_cpu"), ("service_name", service), ("pod", pod)]
        .map(|(name, value)| LabelPair { name: name.into(), value: value.into(), ..Default::default() });
    let series = RawProfileSeries {
        labels: labels.into(),
        samples: vec![RawSample { raw_profile: gzipped, ..Default::default() }],
        ..Default::default()
    };
    PushRequest { series: vec![series], ..Default::default() }.encode_to_vec().into()
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// The value below which this share of the sorted times lies, in milliseconds.
pub(crate) fn quantile(times: &[Duration], share: f64) -> f64 {
    let at = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1;
    times[at].as_secs_f64() * 1000.0
}

/// A runtime for the client.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
