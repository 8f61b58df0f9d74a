//! Delivery over real sockets: what a server receives, and what happens when it refuses, fails, hangs or is away.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SimpleSpanProcessor};
use parking_lot::Mutex;
use prost::Message as _;
use pyroscope::encode::r#gen::push::PushRequest;
use spanflame::{FlushError, Profiler, ProfilerBuilder, Scope, SpanProfileExt as _, StartError};

use crate::support::{BURNERS, Kept, Sample, alone, comments, decode, eventually};

pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// What to answer to a request: status line, with further header lines if need be, and body.
type Answer = Box<dyn Fn(&Request) -> (&'static str, String) + Send + Sync>;

/// A server on loopback, one thread per connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> (&'static str, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<AtomicBool>::default());
        let answer: Arc<Answer> = Arc::new(Box::new(answer));
        let (kept, stopped) = (requests.clone(), stop.clone());
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (kept, answer) = (kept.clone(), answer.clone());
                thread::spawn(move || serve(stream.expect("a connection"), &kept, &answer));
            }
        });
        Self { address, requests, stop, listener: Some(listener) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests to `path` so far.
    pub(crate) fn received<T>(&self, path: &str, read: impl Fn(&Request) -> T) -> Vec<T> {
        self.requests.lock().iter().filter(|request| request.path.ends_with(path)).map(read).collect()
    }

    pub(crate) fn pushes(&self) -> Vec<PushRequest> {
        self.received("/push.v1.PusherService/Push", |request| {
            let body = match request.headers.get("content-encoding").map(String::as_str) {
                Some("gzip") => {
                    let mut plain = Vec::new();
                    flate2::read::GzDecoder::new(&*request.body).read_to_end(&mut plain).expect("gzip");
                    plain
                }
                _ => request.body.clone(),
            };
            PushRequest::decode(&*body).expect("a push request")
        })
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let series = self.pushes().into_iter().flat_map(|push| push.series);
        series.flat_map(|series| series.samples).flat_map(|sample| decode(&sample.raw_profile)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the listener up.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let (status, body) = answer(&request);
        kept.lock().push(request);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if reader.get_mut().write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}

/// As a Spanflame server answers, or a Pyroscope one of some version.
fn build_info(application: &str, version: &str) -> String {
    format!(r#"{{"status":"success","data":{{"application":"{application}","version":"{version}"}}}}"#)
}

fn start(configure: impl FnOnce(ProfilerBuilder) -> ProfilerBuilder) -> Profiler {
    let builder = Profiler::builder().frequency(1000).service_name("checkout").enabled(true);
    configure(builder).start().expect("the profiler starts")
}

/// Burns in a root span and in a child of it. The ids of both.
fn burn(profiler: &Profiler) -> (String, String) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .build();
    let tracer = provider.tracer("test");
    tracer.in_span("root", |_| {
        BURNERS[0].1(Duration::from_millis(400));
        tracer.in_span("child", |_| BURNERS[1].1(Duration::from_millis(400)));
    });
    let spans = exporter.get_finished_spans().expect("spans");
    let id = |name| {
        let span = spans.iter().find(|span| span.name == name).expect("the span ended");
        span.span_context.span_id().to_string()
    };
    (id("root"), id("child"))
}

fn id_of(samples: &[Sample], burner: usize) -> Vec<&str> {
    let samples = samples.iter().filter(|sample| sample.has(BURNERS[burner].0));
    let mut ids: Vec<&str> = samples.map(|sample| sample.span_id.as_deref().unwrap_or("none")).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn a_push_is_what_pyroscope_servers_take() {
    let _turn = alone();
    let server = Server::start(|request| {
        let ok = "200 OK";
        if request.path.contains("buildinfo") {
            (ok, build_info("pyroscope", "1.18.0"))
        } else {
            (ok, String::new())
        }
    });
    let profiler = start(|builder| {
        builder
            .server_address(server.url() + "/base")
            .basic_auth("me", "secret")
            .tenant_id("team-a")
            .label("region", "eu")
    });
    eventually("the server is asked what it is", || !server.received("buildinfo", |_| ()).is_empty());
    let (root, _) = burn(&profiler);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");

    for path in ["/base/push.v1.PusherService/Push", "/base/api/v1/status/buildinfo"] {
        let headers = server.received(path, |request| request.headers.clone());
        assert!(!headers.is_empty(), "{path}");
        for headers in headers {
            assert_eq!(headers["authorization"], "Basic bWU6c2VjcmV0");
            assert_eq!(headers["x-scope-orgid"], "team-a");
            assert!(headers["user-agent"].starts_with("spanflame/"));
        }
    }
    let headers = server.received("/Push", |request| request.headers.clone());
    assert_eq!(headers[0]["content-type"], "application/proto");

    let pushes = server.pushes();
    let series = &pushes[0].series[0];
    assert!(series.samples[0].raw_profile.starts_with(&[0x1f, 0x8b]), "gzip");
    let labels: Vec<(&str, &str)> = series.labels.iter().map(|l| (&*l.name, &*l.value)).collect();
    assert!(labels.is_sorted());
    for label in [("__name__", "process_cpu"), ("service_name", "checkout"), ("region", "eu")] {
        assert!(labels.contains(&label), "{labels:?}");
    }
    // Not a Spanflame server: children count for their root, and a trace id would become a series.
    let samples = server.samples();
    assert_eq!(id_of(&samples, 0), [&*root]);
    assert_eq!(id_of(&samples, 1), [&*root]);
    assert!(samples.iter().all(|sample| sample.trace_id.is_none() && sample.local_root.is_none()));
    assert!(samples.iter().all(|sample| sample.local_root_name.is_none()));
    let stats = profiler.stats();
    // One, or more on a machine so busy that a window ended meanwhile.
    assert_eq!(stats.profiles, pushes.len() as u64, "{stats:?}");
    assert_eq!((stats.lost.samples(), stats.running), (0, false), "{stats:?}");
}

#[test]
fn a_spanflame_server_gets_every_span_its_own_samples() {
    let _turn = alone();
    let server = Server::start(|request| {
        let body =
            if request.path.contains("buildinfo") { build_info("spanflame", "0.1.0") } else { String::new() };
        ("200 OK", body)
    });
    let profiler = start(|builder| builder.server_address(server.url()));
    eventually("the scope is decided", || profiler.stats().scope == Scope::All);
    let (root, child) = burn(&profiler);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    let samples = server.samples();
    assert_eq!(id_of(&samples, 0), [&*root], "{:?}", profiler.stats());
    assert_eq!(id_of(&samples, 1), [&*child]);
    let root_number = u64::from_str_radix(&root, 16).expect("hexadecimal");
    for sample in samples.iter().filter(|sample| sample.has(BURNERS[1].0)) {
        assert_eq!((sample.parent, sample.local_root), (Some(root_number), Some(root_number)));
        assert!(sample.trace_id.is_some());
        assert_eq!(sample.local_root_name.as_deref(), Some("root"), "{sample:?}");
    }
    assert!(samples.iter().filter(|sample| sample.has(BURNERS[0].0)).all(|s| s.local_root_name.is_none()));
}

#[test]
fn a_busy_server_is_tried_again_and_a_refusal_is_not() {
    let _turn = alone();
    let busy = Arc::new(AtomicBool::new(true));
    let state = busy.clone();
    let server = Server::start(move |request| match () {
        () if request.path.contains("buildinfo") => ("404 Not Found", String::new()),
        () if state.load(Ordering::Acquire) => {
            ("429 Too Many Requests", r#"{"message":"slow down"}"#.to_owned())
        }
        () => ("200 OK", String::new()),
    });
    let profiler = start(|builder| builder.server_address(server.url()));
    burn(&profiler);
    let error = profiler.flush(Duration::from_secs(60)).expect_err("the server is busy");
    assert!(matches!(&error, FlushError::Export(message) if message.contains("slow down")), "{error}");
    assert!(profiler.stats().retries >= 1);
    busy.store(false, Ordering::Release);
    eventually("the profile is delivered after a pause", || profiler.stats().profiles >= 1);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    assert_eq!(profiler.stats().lost.samples(), 0);
    assert!(!id_of(&server.samples(), 0).is_empty());

    let refusing =
        Server::start(|_| ("400 Bad Request", r#"{"code":"invalid_argument","message":"no"}"#.to_owned()));
    let profiler = start(|builder| builder.server_address(refusing.url()));
    burn(&profiler);
    profiler.flush(Duration::from_secs(60)).expect_err("refused");
    // There may be a window after the flush, refused like the one before.
    let _ = profiler.shutdown(Duration::from_secs(60));
    let stats = profiler.stats();
    assert!(stats.lost.rejected > 0 && stats.retries == 0 && stats.profiles == 0, "{stats:?}");
    // Whatever was pushed was pushed once.
    let pushes = refusing.received("/Push", |request| request.body.clone());
    assert!(pushes.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_server_that_fails_once_at_the_shutdown_gets_the_last_profile_all_the_same() {
    let _turn = alone();
    let failed = AtomicBool::new(false);
    let server = Server::start(move |request| match () {
        () if request.path.contains("buildinfo") => ("404 Not Found", String::new()),
        () if failed.swap(true, Ordering::AcqRel) => ("200 OK", String::new()),
        () => ("503 Service Unavailable", "restarting".to_owned()),
    });
    // A short job: its only window ends with it.
    let profiler =
        start(|builder| builder.server_address(server.url()).upload_interval(Duration::from_secs(15)));
    let (root, _) = burn(&profiler);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    assert_eq!(id_of(&server.samples(), 0), [&*root]);
    let stats = profiler.stats();
    assert_eq!((stats.lost.samples(), stats.retries), (0, 1), "{stats:?}");
}

#[test]
fn flushes_wait_for_an_exporter_that_is_behind() {
    let _turn = alone();
    let (held, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (hold, ask) = (held.clone(), asked.clone());
    let server = Server::start(move |request| {
        while request.path.ends_with("/Push") && hold.load(Ordering::Acquire) {
            ask.store(true, Ordering::Release);
            thread::sleep(Duration::from_millis(5));
        }
        ("200 OK", String::new())
    });
    let profiler = start(|builder| builder.server_address(server.url()));
    // More flushes than windows may wait by themselves, none of which can be done yet.
    for _ in 0..4 {
        burn(&profiler);
        assert!(matches!(profiler.flush(Duration::ZERO), Err(FlushError::TimedOut(_))));
    }
    burn(&profiler);
    thread::scope(|scope| {
        let flushed = scope.spawn(|| profiler.flush(Duration::from_secs(60)));
        eventually("the exporter is at work", || asked.load(Ordering::Acquire));
        held.store(false, Ordering::Release);
        assert_eq!(flushed.join().expect("no panic"), Ok(()));
    });
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    let stats = profiler.stats();
    assert_eq!(stats.lost.samples(), 0, "{stats:?}");
    assert!(stats.profiles >= 5, "{stats:?}");
}

#[test]
fn flushes_that_nobody_waits_for_are_bounded() {
    let _turn = alone();
    let held = Arc::new(AtomicBool::new(true));
    let hold = held.clone();
    let server = Server::start(move |request| {
        while request.path.ends_with("/Push") && hold.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5));
        }
        ("200 OK", String::new())
    });
    let profiler = start(|builder| builder.server_address(server.url()));
    burn(&profiler);
    // Windows of next to no time: mostly empty ones.
    let deadline = Instant::now() + Duration::from_secs(60);
    let busy = FlushError::Export("the exporter is busy".to_owned());
    while profiler.flush(Duration::from_millis(20)) != Err(busy.clone()) {
        assert!(Instant::now() < deadline, "flushes pile up");
    }
    held.store(false, Ordering::Release);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
}

#[test]
fn a_profiler_starts_after_a_shutdown_that_nobody_waited_for() {
    let _turn = alone();
    let done = AtomicBool::new(false);
    let mut samples = 0;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    BURNERS[0].1(Duration::from_millis(1));
                }
            });
        }
        for _ in 0..10 {
            let (kept, mut started) = (Kept::default(), None);
            eventually("the last one has let go", || {
                let builder = Profiler::builder().exporter(kept.clone()).frequency(1000).enabled(true);
                match builder.start() {
                    Ok(profiler) => started = Some(profiler),
                    Err(error) => assert!(matches!(error, StartError::AlreadyRunning), "{error}"),
                }
                started.is_some()
            });
            let profiler = started.expect("started");
            eventually("samples", || profiler.stats().samples > 0);
            let _ = profiler.shutdown(Duration::ZERO);
            samples += profiler.stats().samples;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(samples >= 10);
    // The next test needs the place.
    eventually("the last one has let go", || {
        let started = Profiler::builder().exporter(Kept::default()).enabled(true).start();
        started.is_ok_and(|profiler| profiler.shutdown(Duration::from_secs(60)).is_ok())
    });
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("of this process");
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// Profiles under way to a server that `url` leads to, through at least `retries` failed pushes: sampling goes on, the
/// queue and the memory stay within bounds, and the shutdown ends in time though nothing can be delivered.
fn bears(url: String, retries: u64) {
    let profiler = start(|builder| builder.server_address(url).upload_interval(Duration::from_secs(1)));
    // Symbols have been read by then.
    burn(&profiler);
    let _ = profiler.flush(Duration::from_millis(1));
    burn(&profiler);
    let memory = resident();
    let deadline = Instant::now() + Duration::from_secs(240);
    let mut before = profiler.stats().samples;
    while profiler.stats().retries < retries {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
        burn(&profiler);
        let stats = profiler.stats();
        assert!(stats.samples > before, "sampling goes on: {stats:?}");
        assert!(stats.queued_bytes <= 8 << 20, "{stats:?}");
        assert_eq!(stats.lost.samples(), 0, "there is room for all of it: {stats:?}");
        before = stats.samples;
    }
    let grown = resident().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    let start = Instant::now();
    let error = profiler.shutdown(Duration::from_millis(500)).expect_err("nobody takes them");
    assert!(matches!(error, FlushError::TimedOut(_) | FlushError::Export(_)), "{error}");
    // A push may take ten, which nobody must wait for.
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    eventually("what was not delivered is counted", || profiler.stats().lost.shutdown > 0);
    assert_eq!(profiler.stats().profiles, 0);
}

#[test]
fn a_server_that_never_answers_costs_neither_sampling_nor_the_shutdown() {
    let _turn = alone();
    // Accepts, and keeps silent.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    bears(format!("http://{}", silent.local_addr().expect("an address")), 1);
}

#[test]
fn a_server_that_answers_a_byte_at_a_time_is_given_up_on() {
    let _turn = alone();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let serving = thread::spawn(move || {
        let mut connections = Vec::new();
        for stream in listener.incoming() {
            if stopped.load(Ordering::Acquire) {
                break;
            }
            let (mut stream, stopped) = (stream.expect("a connection"), stopped.clone());
            connections.push(thread::spawn(move || {
                // Never gets to the end of its headers.
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x')) {
                    if stopped.load(Ordering::Acquire) || stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_secs(1));
                }
            }));
        }
        for connection in connections {
            connection.join().expect("no panic");
        }
    });
    bears(format!("http://{address}"), 1);
    stop.store(true, Ordering::Release);
    let _ = TcpStream::connect(address);
    serving.join().expect("no panic");
}

#[test]
fn a_server_that_fails_and_recovers_gets_everything_in_the_end() {
    let _turn = alone();
    // Fails twice, then takes one, over and over.
    let turn = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let server = Server::start(move |request| match () {
        () if request.path.contains("buildinfo") => ("200 OK", build_info("pyroscope", "1.18.0")),
        () => match turn.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => ("503 Service Unavailable", "restarting".to_owned()),
            1 => ("500 Internal Server Error", String::new()),
            _ => ("200 OK", String::new()),
        },
    });
    let profiler =
        start(|builder| builder.server_address(server.url()).upload_interval(Duration::from_secs(1)));
    let deadline = Instant::now() + Duration::from_secs(240);
    while profiler.stats().profiles < 3 || profiler.stats().retries < 4 {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
        burn(&profiler);
    }
    while profiler.flush(Duration::from_secs(60)).is_err() {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
    }
    let _ = profiler.shutdown(Duration::from_secs(60));
    let stats = profiler.stats();
    assert_eq!(stats.lost.samples() - stats.lost.shutdown, 0, "{stats:?}");
    assert!(stats.queued_bytes == 0 && stats.profiles >= 3, "{stats:?}");
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let _turn = alone();
    let pushes = Arc::new(Mutex::new(Vec::new()));
    let times = pushes.clone();
    let server = Server::start(move |request| {
        if request.path.contains("buildinfo") {
            return ("404 Not Found", String::new());
        }
        let mut times = times.lock();
        times.push(Instant::now());
        if times.len() > 1 {
            return ("200 OK", String::new());
        }
        ("429 Too Many Requests\r\nRetry-After: 5", "slow down".to_owned())
    });
    let profiler =
        start(|builder| builder.server_address(server.url()).upload_interval(Duration::from_secs(1)));
    burn(&profiler);
    eventually("the second push", || pushes.lock().len() > 1);
    let times = pushes.lock().clone();
    let pause = times[1] - times[0];
    // Its own first pause would be half a second at most.
    assert!(pause >= Duration::from_secs(4), "{pause:?}");
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    assert_eq!(profiler.stats().lost.samples(), 0);
}

/// Does not come back from its first delivery until told to, and answers to no question either.
struct Stuck {
    entered: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
}

impl spanflame::ProfileExporter for Stuck {
    fn export(&mut self, _profile: &spanflame::Profile) -> Result<(), spanflame::ExportError> {
        self.entered.store(true, Ordering::Release);
        while self.held.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn receiver(&mut self) -> Option<spanflame::Receiver> {
        panic!("a bug in an exporter")
    }
}

#[test]
fn nothing_that_the_host_does_waits_for_the_exporter() {
    let _turn = alone();
    let (entered, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let exporter = Stuck { entered: entered.clone(), held: held.clone() };
    let profiler =
        start(|builder| builder.exporter(exporter).scope(Scope::All).upload_interval(Duration::from_secs(1)));
    burn(&profiler);
    let _ = profiler.flush(Duration::ZERO);
    eventually("the exporter is stuck", || entered.load(Ordering::Acquire));
    // Threads that begin, spans, contexts and CPU time: if any of it waited for the exporter, it would wait for ever.
    let provider = SdkTracerProvider::builder().with_span_processor(profiler.span_processor()).build();
    let tracer = provider.tracer("test");
    let before = profiler.stats().samples;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    tracer.in_span("outer", |_| tracer.in_span("inner", |_| ()));
                }
                tracer.in_span("work", |_| BURNERS[3].1(Duration::from_millis(300)));
            });
        }
    });
    eventually("their samples are collected meanwhile", || profiler.stats().samples > before);
    assert!(held.load(Ordering::Acquire) && profiler.stats().profiles == 0);
    assert!(matches!(profiler.flush(Duration::ZERO), Err(FlushError::TimedOut(_))));
    held.store(false, Ordering::Release);
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    // On a busy machine that took more windows than may wait: what became of the rest is known.
    let lost = profiler.stats().lost;
    assert_eq!(lost.samples(), lost.exporter_busy, "{lost:?}");
}

#[test]
fn cpu_time_in_no_span_is_told_with_its_call_sites() {
    let _turn = alone();
    let (profiler, kept) = crate::support::profiler(|builder| builder);
    burn(&profiler);
    let lost_context =
        thread::Builder::new().spawn(|| BURNERS[2].1(Duration::from_millis(800))).expect("a thread");
    lost_context.join().expect("no panic");
    // The profiler's own means of taking a context along are not the profiler's own work, whatever they take along.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let task = async { BURNERS[4].1(Duration::from_millis(400)) }.with_span_profile(Context::new());
    runtime.block_on(runtime.spawn(task)).expect("no panic");
    let work = spanflame::in_current_context(|| BURNERS[5].1(Duration::from_millis(400)));
    thread::spawn(work).join().expect("no panic");
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
    let unlabelled = profiler.unlabelled();
    let named = |site: &&spanflame::CallSite| site.function.contains("cpu_time_in_no_span_is_told");
    let site = unlabelled.call_sites.iter().find(named);
    let site =
        site.unwrap_or_else(|| panic!("the closure that the thread runs is a call site: {unlabelled:?}"));
    assert!(site.share > 0.2 && site.share <= unlabelled.share && unlabelled.share < 0.9, "{unlabelled:?}");
    assert!(site.cpu_time >= Duration::from_millis(400), "{unlabelled:?}");
    assert!(unlabelled.cpu_time >= Duration::from_millis(1200), "{unlabelled:?}");
    let own = |site: &spanflame::CallSite| site.function.contains("spanflame::");
    assert!(!unlabelled.call_sites.iter().any(own), "{unlabelled:?}");
    assert!(unlabelled.call_sites.iter().all(|site| !site.function.contains("std::")), "{unlabelled:?}");
    let comments: Vec<String> = kept.profiles().iter().flat_map(|profile| comments(&profile.pprof)).collect();
    assert!(comments.iter().any(|note| note.starts_with("unlabelled=0.")), "{comments:?}");
    for fact in [
        "spanflame/",
        "frequency=1000",
        "effective_frequency=",
        "complete_stacks=",
        "clock=thread CPU timers",
        "unwinder=",
        "scope=all",
        "label_source=observer",
        "server=test",
    ] {
        assert!(comments.iter().any(|note| note.starts_with(fact)), "{fact} is not among {comments:?}");
    }
    let told = |note: &String| note.starts_with("unlabelled.at=0.") && note.ends_with(&site.function);
    assert!(comments.iter().any(told), "{comments:?}");
}

#[test]
fn a_server_that_is_away_is_no_reason_not_to_start_or_not_to_stop() {
    let _turn = alone();
    // A port that nobody listens on any more.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
    let profiler = start(|builder| builder.server_address(format!("http://{address}")));
    assert!(matches!(Profiler::builder().enabled(true).start(), Err(StartError::AlreadyRunning)));
    burn(&profiler);
    let error = profiler.shutdown(Duration::from_secs(60)).expect_err("nobody is there");
    assert!(matches!(error, FlushError::Export(_)), "{error}");
    let stats = profiler.stats();
    assert!(stats.lost.shutdown > 0, "{stats:?}");
    assert_eq!(profiler.flush(Duration::from_secs(1)), Err(FlushError::Stopped));
    assert_eq!(profiler.shutdown(Duration::from_secs(1)), Ok(()));
}

#[test]
fn a_disabled_profiler_leaves_spans_alone() {
    let _turn = alone();
    let profiler = Profiler::builder().enabled(false).start().expect("nothing to go wrong");
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(profiler.wrap(SimpleSpanProcessor::new(exporter.clone())))
        .with_span_processor(profiler.span_processor())
        .build();
    provider.tracer("test").in_span("plain", |_| ());
    assert!(exporter.get_finished_spans().expect("spans")[0].attributes.is_empty());
    assert!(!profiler.stats().running);
    profiler.flush(Duration::from_secs(1)).expect("nothing to do");
}
