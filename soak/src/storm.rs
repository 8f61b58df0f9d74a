//! The process in the storm: the bridge, started and stopped again and again, among all the actors.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use parking_lot::Mutex;
use spanflame::{Clock, Profiler, Scope, StartError, Stats, Unwinder};

use crate::actors::{self, Stage};
use crate::kinds::KindIds;
use crate::report::Report;

/// The first argument of this process.
pub(crate) const ROLE: &str = "--in-the-storm";

/// How long each of a row of profilers runs, what its clock is, and how it walks stacks. Only perf events come at 1 kHz
/// whatever the kernel's tick is. Nothing here has frame pointers, so the one that follows them follows whatever is in
/// their place.
const PROFILERS: [(Duration, Clock, Unwinder); 4] = [
    (Duration::from_secs(8), Clock::Perf, Unwinder::Tables),
    (Duration::from_secs(1), Clock::ProcessTimer, Unwinder::Tables),
    (Duration::from_secs(4), Clock::Perf, Unwinder::FramePointers),
    (Duration::from_secs(3), Clock::ThreadTimers, Unwinder::Tables),
];
/// What a shutdown may take, by its own account.
const SHUTDOWN: Duration = Duration::from_secs(2);
/// One that was stopped in a hurry may take a while to be gone.
const GONE: Duration = Duration::from_secs(30);

/// Runs the storm for `seconds`, a report a second on standard output. The plugins are the files in `plugins`.
pub(crate) fn run(seconds: &OsStr, plugins: &Path, server: &OsStr) -> Result<()> {
    let seconds: u64 = seconds.to_str().and_then(|text| text.parse().ok()).context("seconds")?;
    let server = server.to_str().context("the server's address")?.to_owned();
    let plugins: Vec<PathBuf> =
        std::fs::read_dir(plugins)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    // Panics are what it is about; their messages are not.
    std::panic::set_hook(Box::new(|_| {}));
    end_with_the_watch();

    let accounts = Arc::new(Accounts::default());
    // The first profiler gives the provider its processor, which serves all that follow.
    let (_, clock, unwinder) = PROFILERS[0];
    let profiler = start(&server, clock, unwinder)?;
    let provider = SdkTracerProvider::builder()
        .with_id_generator(KindIds::default())
        .with_span_processor(profiler.wrap(NoExport))
        .build();
    let stage = Arc::new(Stage { tracer: provider.tracer("soak"), plugins });

    let stop = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(Mutex::new(Vec::new()));
    let mut rounds = Vec::new();
    let mut threads = Vec::new();
    let mut act = |name: &'static str, mut round: actors::Round| -> Result<()> {
        let count = Arc::new(AtomicU64::new(0));
        rounds.push((name, Arc::clone(&count)));
        let (stop, failures) = (Arc::clone(&stop), Arc::clone(&failures));
        threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || {
            while !stop.load(Relaxed) {
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut round)) {
                    Ok(Ok(())) => _ = count.fetch_add(1, Relaxed),
                    Ok(Err(error)) => return failures.lock().push(format!("{name}: {error:#}")),
                    Err(_) => return failures.lock().push(format!("{name}: it panicked")),
                }
            }
        })?);
        Ok(())
    };
    for (name, round) in actors::all(&stage)? {
        act(name, round)?;
    }
    act("profilers", profilers(profiler, server, Arc::clone(&accounts)))?;

    let report = |done: bool| Report {
        rounds: rounds.iter().map(|(name, count)| ((*name).to_owned(), count.load(Relaxed))).collect(),
        failures: failures.lock().clone(),
        done,
        ..accounts.report()
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && failures.lock().is_empty() {
        say(&report(false))?;
        thread::sleep(Duration::from_secs(1));
    }
    stop.store(true, Relaxed);
    for thread in threads {
        // Its panics are failures already.
        let _ = thread.join();
        say(&report(false))?;
    }
    say(&report(true))
}

fn say(report: &Report) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    std::io::stdout().write_all(&line).context("nobody listens")
}

/// The other end of standard input is the watching process; nobody wants a storm that it left behind.
fn end_with_the_watch() {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn start(server: &str, clock: Clock, unwinder: Unwinder) -> Result<Profiler, StartError> {
    Profiler::builder()
        .clock(clock)
        .cpu_budget(None)
        .unwinder(unwinder)
        .server_address(server)
        .service_name("soak")
        .frequency(1000)
        .upload_interval(Duration::from_secs(1))
        .scope(Scope::All)
        .enabled(true)
        .start()
}

/// Profilers one after another; a round is one life.
fn profilers(first: Profiler, server: String, accounts: Arc<Accounts>) -> actors::Round {
    let mut next = Some(first);
    let mut round = 0;
    Box::new(move || {
        let (life, clock, unwinder) = PROFILERS[round % PROFILERS.len()];
        round += 1;
        let profiler = match next.take() {
            Some(profiler) => profiler,
            None => {
                let deadline = Instant::now() + GONE;
                loop {
                    match start(&server, clock, unwinder) {
                        Err(StartError::AlreadyRunning) if Instant::now() < deadline => {
                            thread::sleep(Duration::from_millis(10));
                        }
                        started => break started.context("a profiler did not start")?,
                    }
                }
            }
        };
        let until = Instant::now() + life;
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(200));
            accounts.note(&profiler.stats());
        }
        // The server is away at times, so neither has to succeed; both have to end.
        let _ = profiler.flush(Duration::from_millis(500));
        let _ = profiler.shutdown(SHUTDOWN);
        accounts.close(&profiler.stats());
        Ok(())
    })
}

/// What became of the samples of all profilers.
#[derive(Default)]
struct Accounts {
    /// Of those that have ended.
    ended: Mutex<[u64; 3]>,
    running: Mutex<([u64; 3], String)>,
}

impl Accounts {
    fn note(&self, stats: &Stats) {
        let counts = [stats.samples, stats.labelled, stats.lost.samples()];
        *self.running.lock() = (counts, format!("{stats:?}"));
    }

    fn close(&self, stats: &Stats) {
        self.note(stats);
        let counts = std::mem::take(&mut self.running.lock().0);
        for (sum, count) in self.ended.lock().iter_mut().zip(counts) {
            *sum += count;
        }
    }

    fn report(&self) -> Report {
        let (running, stats) = self.running.lock().clone();
        let ended = *self.ended.lock();
        let [samples, labelled, lost] = std::array::from_fn(|n| ended[n] + running[n]);
        Report { samples, labelled, lost, stats, ..Report::default() }
    }
}

/// Stands for a processor that exports.
#[derive(Debug)]
struct NoExport;

impl SpanProcessor for NoExport {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        drop(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
