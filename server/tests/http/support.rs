//! A server process for each test, a client for it, and profiles to send.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buffa::Message;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use spanflame_wire::google::v1 as pprof;
use spanflame_wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
use spanflame_wire::types::v1::LabelPair;
use tempfile::TempDir;

pub(crate) const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
pub(crate) const SPAN: &str = "00f067aa0ba902b7";
pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const PUSH: &str = "/push.v1.PusherService/Push";

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// A running server process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    url: String,
    log: Arc<parking_lot::Mutex<String>>,
    runtime: tokio::runtime::Runtime,
    http1: Client<HttpConnector, Full<Bytes>>,
    http2: Client<HttpConnector, Full<Bytes>>,
    data_dir: Option<TempDir>,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the answer is text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    /// A trailer, or the header of this name in an answer that is nothing but trailers.
    pub(crate) fn trailer(&self, name: &str) -> &str {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name));
        value.map_or("", |value| value.to_str().expect("trailers are text"))
    }

    /// Asserts a Connect error and gives its message.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/json");
        let error = self.json();
        assert_eq!(error["code"], code, "{error}");
        error["message"].as_str().expect("a message").to_owned()
    }
}

/// The binary with arguments, deaf to the environment of whoever runs the tests.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanflame"));
    command.env_clear().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Server {
    /// A server with an empty store of its own.
    pub(crate) fn start() -> Self {
        Self::with_args(&[])
    }

    pub(crate) fn with_args(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self::on(dir.path(), args);
        server.data_dir = Some(dir);
        server
    }

    /// A server with an empty store of its own and a file with these settings.
    pub(crate) fn with_file(settings: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("spanflame.toml");
        std::fs::write(&file, settings).expect("written");
        let args = [&["--config", file.to_str().expect("a plain path")], args].concat();
        let mut server = Self::on(dir.path(), &args);
        server.data_dir = Some(dir);
        server
    }

    /// A server on this data directory.
    pub(crate) fn on(data_dir: &Path, args: &[&str]) -> Self {
        Self::with_env(data_dir, args, &[])
    }

    /// The same with environment variables.
    pub(crate) fn with_env(data_dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let data_dir = data_dir.to_str().expect("a plain path");
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir];
        let mut command = command(&[&fixed, args].concat());
        command.envs(env.iter().copied());
        Self::spawn(command)
    }

    /// A server that this command starts, which has its output piped.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(parking_lot::Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = copy.lock();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        let Some(url) = line.trim().strip_prefix("listening on ") else {
            let _ = child.wait();
            panic!("no address in {line:?}; log: {}", log.lock());
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut builder = Client::builder(TokioExecutor::new());
        let http1 = builder.build_http();
        let http2 = builder.http2_only(true).build_http();
        Self { child, url: url.to_owned(), log, runtime, http1, http2, data_dir: None }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new())
    }

    pub(crate) fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(&self.http1, method, path, headers, body.into()).expect("an answer")
    }

    pub(crate) fn try_post(&self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Option<Answer> {
        self.try_send(&self.http1, Method::POST, path, headers, body)
    }

    /// The same over HTTP/2 in clear text.
    pub(crate) fn send_h2c(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.try_send(&self.http2, Method::POST, path, headers, body.into()).expect("an answer")
    }

    fn try_send(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).expect("a good request");
        self.runtime.block_on(async {
            let exchange = async {
                let (parts, body) = client.request(request).await.ok()?.into_parts();
                let body = body.collect().await.ok()?;
                let trailers = body.trailers().cloned().unwrap_or_default();
                let (status, headers) = (parts.status.as_u16(), parts.headers);
                Some(Answer { status, headers, body: body.to_bytes(), trailers })
            };
            tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time")
        })
    }

    pub(crate) fn json(&self, path: &str, body: impl AsRef<str>) -> Answer {
        let body = Bytes::copy_from_slice(body.as_ref().as_bytes());
        self.send(Method::POST, path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn query(&self, method: &str, body: impl AsRef<str>) -> Answer {
        self.json(&format!("/querier.v1.QuerierService/{method}"), body)
    }

    pub(crate) fn proto(&self, method: &str, body: impl Into<Bytes>) -> Answer {
        let headers = [("content-type", "application/proto"), ("connect-protocol-version", "1")];
        self.send(Method::POST, &format!("/querier.v1.QuerierService/{method}"), &headers, body)
    }

    pub(crate) fn push(&self, series: Vec<RawProfileSeries>) -> Answer {
        self.push_with(&[], series)
    }

    /// Pushes with more headers.
    pub(crate) fn push_with(&self, headers: &[(&str, &str)], series: Vec<RawProfileSeries>) -> Answer {
        let headers = [&[("content-type", "application/proto")], headers].concat();
        self.send(Method::POST, PUSH, &headers, push_body(series))
    }

    /// Pushes what must be good.
    #[track_caller]
    pub(crate) fn pushed(&self, series: Vec<RawProfileSeries>) {
        let answer = self.push(series);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{:?}", answer.body);
        assert_eq!(answer.header("content-type"), "application/proto");
    }

    /// Waits for a log line with this text.
    pub(crate) fn logged(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.log.lock().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < DEADLINE, "no {text:?} in the log:\n{}", self.log.lock());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process, for signals.
    #[cfg(unix)]
    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process ends");
    }

    /// Waits for the process to end by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks again until the answer is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, ask: impl Fn(&Self) -> Answer, good: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = ask(self);
            if good(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < DEADLINE, "{} {:?}\n{}", answer.status, answer.body, self.log.lock());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asserts that the process lives and serves.
    #[track_caller]
    pub(crate) fn alive(&self) {
        assert_eq!(self.get("/ready").status, 200);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a file anew in one step, so that nobody reads half of it.
pub(crate) fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("replaced");
}

/// A Push in protobuf.
pub(crate) fn push_body(series: Vec<RawProfileSeries>) -> Vec<u8> {
    PushRequest { series, ..Default::default() }.encode_to_vec()
}

/// A message as gRPC frames it.
pub(crate) fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A stack with its time in nanoseconds and its labels.
pub(crate) type Sample<'a> = (&'a [&'a str], i64, &'a [(&'a str, &'a str)]);

/// A CPU profile of ten seconds, 10 ms a sample; stacks from the root.
pub(crate) fn cpu_profile(start_ms: i64, samples: &[Sample<'_>]) -> pprof::Profile {
    let mut strings = vec![String::new()];
    let mut intern = |text: &str| -> i64 {
        let at = strings.iter().position(|known| known == text).unwrap_or_else(|| {
            strings.push(text.to_owned());
            strings.len() - 1
        });
        at as i64
    };
    let mut value_type = |r#type: &str, unit: &str| pprof::ValueType {
        r#type: intern(r#type),
        unit: intern(unit),
        ..Default::default()
    };
    let sample_type = vec![value_type("samples", "count"), value_type("cpu", "nanoseconds")];
    let period_type = value_type("cpu", "nanoseconds");
    let mut functions: Vec<i64> = Vec::new();
    let mut profile = pprof::Profile {
        sample_type,
        period_type: period_type.into(),
        period: 10_000_000,
        time_nanos: start_ms * 1_000_000,
        duration_nanos: 10_000_000_000,
        ..Default::default()
    };
    for (stack, nanos, labels) in samples {
        let mut location_id = Vec::new();
        for frame in stack.iter().rev() {
            let name = intern(frame);
            let at = functions.iter().position(|known| *known == name).unwrap_or_else(|| {
                functions.push(name);
                functions.len() - 1
            });
            location_id.push(at as u64 + 1);
        }
        let label = labels
            .iter()
            .map(|(key, text)| pprof::Label { key: intern(key), str: intern(text), ..Default::default() })
            .collect();
        let value = vec![nanos / 10_000_000, *nanos];
        profile.sample.push(pprof::Sample { location_id, value, label, ..Default::default() });
    }
    for (at, name) in functions.iter().enumerate() {
        let id = at as u64 + 1;
        profile.function.push(pprof::Function { id, name: *name, ..Default::default() });
        let line = vec![pprof::Line { function_id: id, line: 1, ..Default::default() }];
        profile.location.push(pprof::Location { id, line, ..Default::default() });
    }
    profile.string_table = strings;
    profile
}

/// A series with one encoded profile.
pub(crate) fn series(labels: &[(&str, &str)], raw_profile: Vec<u8>) -> RawProfileSeries {
    RawProfileSeries {
        labels: labels
            .iter()
            .map(|(name, value)| LabelPair {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
                ..Default::default()
            })
            .collect(),
        samples: vec![RawSample { raw_profile, ..Default::default() }],
        ..Default::default()
    }
}

/// A series of the service with this name, with one CPU profile.
pub(crate) fn service(name: &str, profile: &pprof::Profile) -> RawProfileSeries {
    series(&[("__name__", "process_cpu"), ("service_name", name)], gzip(&profile.encode_to_vec()))
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// The service `checkout`: a span with `handler` (10 ms) and `handler` → `hash` (20 ms), later 10 ms without a span.
pub(crate) fn checkout() -> Vec<RawProfileSeries> {
    let labels = [("__name__", "process_cpu"), ("service_name", "checkout"), ("endpoint", "/pay")];
    let ids = [("span_id", SPAN), ("trace_id", TRACE)];
    let span = cpu_profile(
        1_767_225_605_000,
        &[(&["handler"], 10_000_000, &ids), (&["handler", "hash"], 20_000_000, &ids)],
    );
    let idle = cpu_profile(1_767_225_640_000, &[(&["idle"], 10_000_000, &[])]);
    [span, idle].iter().map(|profile| series(&labels, gzip(&profile.encode_to_vec()))).collect()
}
