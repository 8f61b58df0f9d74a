//! What the tests of the whole bridge share: an exporter that keeps what it is given, profiles as plain data, and
//! work that shows up in them.

use std::hint::black_box;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use opentelemetry::Context;
use opentelemetry::context::{ContextObserver, GlobalContextObserver};
use parking_lot::{Mutex, MutexGuard};
use prost::Message as _;
use pyroscope::encode::r#gen::google;
use spanflame::{ExportError, Profile, ProfileExporter, Profiler, ProfilerBuilder, Receiver};

/// Set in a process where another component has OpenTelemetry's context observer slot.
pub(crate) const FOREIGN_OBSERVER: &str = "SPANFLAME_TEST_FOREIGN_OBSERVER";

/// Whether contexts are observed by the profiler in this process.
pub(crate) fn observed() -> bool {
    std::env::var_os(FOREIGN_OBSERVER).is_none()
}

struct Foreign;

impl ContextObserver for Foreign {
    fn on_context_enter(&self, _from: &Context, _to: &Context) {}

    fn on_context_exit(&self, _from: &Context, _to: &Context) {}
}

/// A process has one profiler: tests of one program take turns.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    if !observed() {
        // The first call counts.
        GlobalContextObserver::set(Arc::new(Foreign));
    }
    TURN.lock()
}

/// Keeps every profile.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<Profile>>>);

impl Kept {
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.0.lock().iter().flat_map(|profile| decode(&profile.pprof)).collect()
    }

    pub(crate) fn profiles(&self) -> Vec<Profile> {
        self.0.lock().clone()
    }
}

impl ProfileExporter for Kept {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        self.0.lock().push(profile.clone());
        Ok(())
    }

    fn receiver(&mut self) -> Option<Receiver> {
        Some(Receiver::full("test"))
    }
}

/// A profiler at 1000 Hz that ignores the environment, and what it exports.
pub(crate) fn profiler(configure: impl FnOnce(ProfilerBuilder) -> ProfilerBuilder) -> (Profiler, Kept) {
    let kept = Kept::default();
    let builder = Profiler::builder().exporter(kept.clone()).frequency(1000).enabled(true);
    (configure(builder).start().expect("the profiler starts"), kept)
}

/// Stops and delivers.
pub(crate) fn finish(profiler: &Profiler) {
    profiler.shutdown(Duration::from_secs(60)).expect("everything is delivered");
}

/// A sample with every reference followed.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Function names, innermost first.
    pub(crate) frames: Vec<String>,
    /// File and line of each.
    pub(crate) places: Vec<(String, i64)>,
    pub(crate) span_id: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) span_name: Option<String>,
    /// Other texts, in the order in which they stand there.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) parent: Option<u64>,
    pub(crate) local_root: Option<u64>,
    pub(crate) local_root_name: Option<String>,
    pub(crate) count: i64,
    pub(crate) nanos: i64,
}

impl Sample {
    pub(crate) fn has(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.contains(function))
    }
}

const OURS: [&str; 4] = ["span_id", "trace_id", "span_name", "local_root_span_name"];

/// Reads a compressed profile through a definition of the format that is not the bridge's.
pub(crate) fn decode(pprof: &[u8]) -> Vec<Sample> {
    let mut bytes = Vec::new();
    GzDecoder::new(pprof).read_to_end(&mut bytes).expect("gzip");
    let profile = google::Profile::decode(&*bytes).expect("pprof");
    let string = |index: i64| profile.string_table[index as usize].clone();
    let kinds: Vec<_> = profile.sample_type.iter().map(|t| (string(t.r#type), string(t.unit))).collect();
    let kind = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(kinds, [kind("samples", "count"), kind("cpu", "nanoseconds")]);
    let function = |id: u64| profile.function.iter().find(|f| f.id == id).expect("known function");
    profile
        .sample
        .iter()
        .map(|sample| {
            let text = |key: &str| {
                let label = sample.label.iter().find(|label| string(label.key) == key)?;
                Some(string(label.str))
            };
            let number = |key: &str| {
                let label = sample.label.iter().find(|label| string(label.key) == key)?;
                Some(label.num as u64)
            };
            let lines: Vec<_> = sample
                .location_id
                .iter()
                .flat_map(|id| {
                    let location = profile.location.iter().find(|l| l.id == *id);
                    location.expect("known location").line.iter()
                })
                .collect();
            Sample {
                frames: lines.iter().map(|line| string(function(line.function_id).name)).collect(),
                places: lines
                    .iter()
                    .map(|line| (string(function(line.function_id).filename), line.line))
                    .collect(),
                span_id: text("span_id"),
                trace_id: text("trace_id"),
                span_name: text("span_name"),
                labels: sample
                    .label
                    .iter()
                    .filter(|label| label.str != 0)
                    .map(|label| (string(label.key), string(label.str)))
                    .filter(|(key, _)| !OURS.contains(&&**key))
                    .collect(),
                parent: number("parent_span_id"),
                local_root: number("local_root_span_id"),
                local_root_name: text("local_root_span_name"),
                count: sample.value[0],
                nanos: sample.value[1],
            }
        })
        .collect()
}

/// What a compressed profile says about itself.
pub(crate) fn comments(pprof: &[u8]) -> Vec<String> {
    let mut bytes = Vec::new();
    GzDecoder::new(pprof).read_to_end(&mut bytes).expect("gzip");
    let profile = google::Profile::decode(&*bytes).expect("pprof");
    profile.comment.iter().map(|index| profile.string_table[*index as usize].clone()).collect()
}

/// CPU time that the calling thread has used.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Uses as much CPU time as told, however busy the machine is, in this function's caller.
#[inline(always)]
fn spin(time: Duration, salt: u64) {
    let start = cpu_time();
    let mut x = salt;
    while cpu_time() - start < time {
        for i in 0..2_000u64 {
            x = black_box(x.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(7) ^ i ^ salt);
        }
    }
    black_box(x);
}

macro_rules! burners {
    ($($name:ident = $salt:literal),* $(,)?) => {
        $(
            #[inline(never)]
            pub(crate) fn $name(time: Duration) {
                spin(time, $salt);
            }
        )*
        /// Functions that burn CPU, each under a name of its own.
        pub(crate) const BURNERS: &[(&str, fn(Duration))] = &[$((stringify!($name), $name)),*];
    };
}

burners! {
    burn_amber = 1, burn_birch = 2, burn_coral = 3, burn_denim = 4, burn_ebony = 5, burn_frost = 6,
    burn_grape = 7, burn_hazel = 8, burn_ivory = 9, burn_jade = 10, burn_khaki = 11, burn_lilac = 12,
}

/// Waits for `condition`, but not for ever.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
