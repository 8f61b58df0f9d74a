//! What the server's benchmarks share: a server under test, a client, a corpus, and the reporting of figures.

use std::io::{BufRead, BufReader};
use std::path::Path;
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
#[derive(clap::Parser)]
pub(crate) struct Setup {
    /// Targets to measure, such as `S1`; all when none is named
    only: Vec<String>,
    /// Short runs: the shape of a figure, not the figure
    #[arg(long)]
    quick: bool,
    /// Print the measurements as one line of JSON
    #[arg(long)]
    json: bool,
    /// A Grafana Pyroscope server that runs already, on one core if the comparison is to be one of cores
    #[arg(long, value_name = "URL")]
    pub(crate) pyroscope: Option<String>,
    /// Samples of the largest corpus
    #[arg(long)]
    corpus: Option<u64>,
    /// What `cargo bench` says and `cargo test --benches` does not, where there is nothing to test
    #[arg(long)]
    bench: bool,
}

impl Setup {
    /// `quick` or `full`, by what was asked.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Whether any of these targets is asked for.
    pub(crate) fn wants(&self, ids: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|id| ids.contains(&id.as_str()))
    }

    /// Sizes of the corpus in samples, each ten times the one before.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        let last = self.corpus.unwrap_or(self.pick(1_000_000, 10_000_000));
        let first = self.pick(100_000, 1_000_000).min(last);
        let mut sizes: Vec<u64> = std::iter::successors(Some(first), |size| size.checked_mul(10))
            .take_while(|&size| size < last)
            .collect();
        sizes.push(last);
        sizes
    }
}

/// The body of the benchmark's `main`.
pub(crate) fn run(measure: fn(&Setup) -> anyhow::Result<Vec<Measurement>>) -> ExitCode {
    // The test runner's own flags are none of ours.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let setup = <Setup as clap::Parser>::parse();
    let printed = measure(&setup).and_then(|measurements| {
        if setup.json {
            println!("{}", serde_json::to_string(&measurements)?);
        } else {
            measurements.iter().for_each(|measurement| println!("{measurement}"));
        }
        Ok(())
    });
    match printed {
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
    one_core: bool,
    arguments: Vec<String>,
    pub(crate) url: String,
    pub(crate) data_dir: tempfile::TempDir,
}

impl Server {
    /// Starts one with an empty store; on its first core alone if asked, the client's being the others.
    pub(crate) fn start(one_core: bool, arguments: &[&str]) -> anyhow::Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::on(tempfile::tempdir()?, one_core, arguments)
    }

    /// Kills it and starts it again on what it kept.
    pub(crate) fn restart(self) -> anyhow::Result<Self> {
        self.kill()?.start()
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(mut self) -> anyhow::Result<Killed> {
        self.child.kill()?;
        self.child.wait()?;
        let data_dir = std::mem::replace(&mut self.data_dir, tempfile::tempdir()?);
        Ok(Killed { data_dir, one_core: self.one_core, arguments: std::mem::take(&mut self.arguments) })
    }

    fn on(data_dir: tempfile::TempDir, one_core: bool, arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut command = Command::new(if one_core { "taskset" } else { env!("CARGO_BIN_EXE_spanflame") });
        if one_core {
            command.args(["--cpu-list", "0", env!("CARGO_BIN_EXE_spanflame")]);
        }
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(data_dir.path())
            .args(&arguments)
            // The S3 server of the benchmarks lets everyone in.
            .envs([("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let _ = child.wait();
            bail!("the server says no address but {line:?}");
        };
        Ok(Self { url: url.to_owned(), child, one_core, arguments, data_dir })
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

    /// Memory in bytes: `VmRSS` what it has, `VmHWM` the most it had.
    pub(crate) fn memory(&self, field: &str) -> anyhow::Result<u64> {
        Ok(self.told("status", field)? * 1024)
    }

    /// Bytes that it gave to the disk.
    pub(crate) fn written_bytes(&self) -> anyhow::Result<u64> {
        self.told("io", "write_bytes")
    }

    /// A field of what the kernel tells of the process.
    fn told(&self, file: &str, field: &str) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).context("a field of a process")?;
        Ok(number.parse()?)
    }
}

/// What a server that was killed has left.
pub(crate) struct Killed {
    data_dir: tempfile::TempDir,
    one_core: bool,
    arguments: Vec<String>,
}

impl Killed {
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Starts it again.
    pub(crate) fn start(self) -> anyhow::Result<Server> {
        Server::on(self.data_dir, self.one_core, self.arguments)
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

    /// A request, and the status and body of its answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> anyhow::Result<(u16, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", content_type)
            .body(Full::new(body))?;
        let (parts, body) = self.client.request(request).await?.into_parts();
        Ok((parts.status.as_u16(), body.collect().await?.to_bytes()))
    }

    /// What the server counts under this name, without labels.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (_, text) = self.call(Method::GET, "/metrics", "text/plain", Bytes::new()).await?;
        let text = String::from_utf8(text.to_vec())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// Posts what must be answered well.
    async fn post(&self, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (status, answer) = self.call(Method::POST, path, content_type, body).await?;
        ensure!(status == 200, "{path}: {status} {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }

    pub(crate) async fn push(&self, body: Bytes) -> anyhow::Result<()> {
        self.post("/push.v1.PusherService/Push", "application/proto", body).await.map(drop)
    }

    pub(crate) async fn query(&self, method: &str, content_type: &str, body: Bytes) -> anyhow::Result<Bytes> {
        self.post(&format!("/querier.v1.QuerierService/{method}"), content_type, body).await
    }
}

/// A push of one pprof profile of this service and pod.
pub(crate) fn push(service: &str, pod: &str, raw_profile: Vec<u8>) -> Bytes {
    let labels = [("__name__", "process_cpu"), ("service_name", service), ("pod", pod)]
        .map(|(name, value)| LabelPair { name: name.into(), value: value.into(), ..Default::default() });
    let series = RawProfileSeries {
        labels: labels.into(),
        samples: vec![RawSample { raw_profile, ..Default::default() }],
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
