//! A bucket, servers that share it, and clients that know what each of them acknowledged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Value, json};
use spanflame_tests::binaries::binary;
use spanflame_tests::http::{Answer, send};
use spanflame_tests::pprof::message::{Function, Label, Line, Location, Profile, Sample, ValueType};
use spanflame_tests::pprof::{LabelPair, PushRequest, RawProfileSeries, RawSample};
use spanflame_tests::process::Process;
use tempfile::TempDir;

use crate::proxy::Proxy;

/// The bucket's name.
const BUCKET: &str = "profiles";
/// Spans that one question may name.
const QUESTION: usize = 5000;

/// An object store, and the data directories of servers.
pub(crate) struct House {
    // Fields drop in this order.
    pub(crate) proxy: Proxy,
    _s3: Process,
    data: TempDir,
}

impl House {
    pub(crate) fn open() -> Self {
        let python = std::env::var_os("SPANFLAME_PYTHON");
        let mut command = Command::new(python.expect("SPANFLAME_PYTHON: run this by `cargo xtask test`"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("shared/s3.py")).arg(BUCKET);
        let s3 = Process::start(&mut command);
        let proxy = Proxy::before(&s3.address());
        let data = tempfile::tempdir().expect("there is room for temporary files");
        Self { proxy, _s3: s3, data }
    }

    /// The data directory of this server.
    pub(crate) fn data(&self, server: usize) -> PathBuf {
        self.data.path().join(server.to_string())
    }

    /// `spanflame` with what leads to the bucket.
    pub(crate) fn command(&self, subcommand: &[&str], data: &Path) -> Command {
        let mut command = Command::new(binary("spanflame"));
        command
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .args(subcommand)
            .arg("--data-dir")
            .arg(data)
            .args(["--object-store", &format!("s3://{BUCKET}/test"), "--object-endpoint"])
            .arg(self.proxy.address())
            .args(["--object-region", "us-east-1", "--object-allow-http=true"]);
        command
    }

    pub(crate) fn start(&self, server: usize, mode: &str) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"], &self.data(server));
        let process = Process::start(command.args(["--acknowledge", mode, "--ingest-timeout-ms", "5000"]));
        let address = process.address();
        Server { process, address }
    }
}

/// A server that shares the bucket.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Server {
    /// Pushes one profile with one sample of this span.
    pub(crate) fn push(&self, span: u64) -> bool {
        push(&self.address, span).is_ok_and(|answer| answer.status == 200)
    }

    /// How many samples there are of each of these spans.
    pub(crate) fn samples(&self, spans: &[u64]) -> Option<Vec<u64>> {
        let mut counts = Vec::new();
        for spans in spans.chunks(QUESTION) {
            let ids: Vec<String> = spans.iter().map(|span| format!("{span:016x}")).collect();
            let question = json!({ "spanIds": ids }).to_string().into_bytes();
            let url = format!("{}/api/v1/spans:exists", self.address);
            let answer = send("POST", &url, &[("content-type", "application/json")], question).ok()?;
            if answer.status != 200 {
                return None;
            }
            let answer = answer.json();
            let found = answer["spans"].as_array().expect("an entry for each");
            counts.extend(found.iter().map(|span| span["samples"].as_u64().expect("a number")));
        }
        Some(counts)
    }

    /// Whether every one of these spans has one sample.
    pub(crate) fn has_each_once(&self, spans: &[u64]) -> bool {
        self.samples(spans).is_some_and(|samples| samples.iter().all(|count| *count == 1))
    }

    /// The sum of all samples in the flame graph of everything.
    pub(crate) fn total(&self) -> u64 {
        let question = json!({
            "profileTypeID": "process_cpu:samples:count:cpu:nanoseconds", "labelSelector": "{}",
            "start": 0, "end": 4_102_444_800_000_i64,
        });
        let url = format!("{}/querier.v1.QuerierService/SelectMergeStacktraces", self.address);
        let headers = [("content-type", "application/json")];
        let answer = send("POST", &url, &headers, question.to_string().into_bytes()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let total = &answer.json()["flamegraph"]["total"];
        total.as_str().map_or(0, |total| total.parse().expect("a number"))
    }

    /// One of its metrics.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let answer = spanflame_tests::http::get(&format!("{}/metrics", self.address)).text();
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<f64>().expect("a number") as u64
    }
}

/// Spans that clients pushed, each in one push.
#[derive(Default)]
pub(crate) struct Pushed {
    next: AtomicU64,
    acknowledged: Mutex<Vec<u64>>,
    unknown: Mutex<Vec<u64>>,
}

impl Pushed {
    /// Pushes the next span; tells whether it was acknowledged.
    pub(crate) fn push(&self, address: &str) -> bool {
        let span = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let acknowledged = push(address, span).is_ok_and(|answer| answer.status == 200);
        if acknowledged { &self.acknowledged } else { &self.unknown }.lock().push(span);
        acknowledged
    }

    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.lock().clone()
    }

    /// Those whose push was refused, or not answered.
    pub(crate) fn unknown(&self) -> Vec<u64> {
        self.unknown.lock().clone()
    }
}

/// Pushes to a server that may be another after a while, until dropped.
pub(crate) struct Client {
    stop: Arc<Mutex<bool>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Client {
    pub(crate) fn start(pushed: &Arc<Pushed>, address: &Arc<Mutex<String>>) -> Self {
        let stop = Arc::new(Mutex::new(false));
        let (pushed, address, stopped) = (Arc::clone(pushed), Arc::clone(address), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !*stopped.lock() {
                let address = address.lock().clone();
                if !pushed.push(&address) {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        *self.stop.lock() = true;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("pushing does not panic");
        }
    }
}

/// What `spanflame store … --json` says.
pub(crate) fn inspect(house: &House, data: &Path) -> Value {
    let output = house.command(&["store", "inspect", "--json"], data).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Fails unless `spanflame store verify` finds nothing wrong.
pub(crate) fn verify(house: &House, data: &Path) {
    let output = house.command(&["store", "verify"], data).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.starts_with("0 damages in "), "{said}");
}

fn push(address: &str, span: u64) -> Result<Answer, ureq::Error> {
    let labels = [("__name__", "process_cpu"), ("service_name", "shop")];
    let labels = labels.map(|(name, value)| LabelPair { name: name.to_owned(), value: value.to_owned() });
    let samples = vec![RawSample { raw_profile: profile(span) }];
    let request = PushRequest { series: vec![RawProfileSeries { labels: labels.to_vec(), samples }] };
    let url = format!("{address}/push.v1.PusherService/Push");
    send("POST", &url, &[("content-type", "application/proto")], request.encode_to_vec())
}

/// pprof with one sample of this span, that began now.
fn profile(span: u64) -> Vec<u8> {
    let strings = ["", "samples", "count", "cpu", "nanoseconds", "main", "span_id", &format!("{span:016x}")];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_nanos() as i64;
    let value_type = |kind, unit| ValueType { kind, unit };
    Profile {
        sample_type: vec![value_type(1, 2), value_type(3, 4)],
        sample: vec![Sample {
            location_id: vec![1],
            value: vec![1, 10_000_000],
            label: vec![Label { key: 6, str: 7, num: 0 }],
        }],
        location: vec![Location { id: 1, line: vec![Line { function_id: 1, ..Line::default() }] }],
        function: vec![Function { id: 1, name: 5 }],
        string_table: strings.map(str::to_owned).to_vec(),
        time_nanos: now,
        duration_nanos: 1_000_000_000,
        period_type: Some(value_type(3, 4)),
        period: 10_000_000,
    }
    .encode_to_vec()
}
