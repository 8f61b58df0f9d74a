//! What both tests need: a profiler that keeps its profiles to itself, and CPU to sample.

use std::hint::black_box;
use std::time::{Duration, Instant};

use spanflame::{ExportError, Profile, ProfileExporter, Profiler, StartError};

struct Nowhere;

impl ProfileExporter for Nowhere {
    fn export(&mut self, _profile: &Profile) -> Result<(), ExportError> {
        Ok(())
    }
}

pub fn start() -> Result<Profiler, StartError> {
    Profiler::builder().exporter(Nowhere).enabled(true).start()
}

pub fn burn(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        (0..100_000u64).for_each(|i| {
            black_box(i);
        });
    }
}

/// Ours works while the other one is linked and idle, or has stopped.
pub fn works() {
    let profiler = start().expect("starts beside an idle profiler");
    let deadline = Instant::now() + Duration::from_secs(60);
    while profiler.stats().samples == 0 {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
        burn(Duration::from_millis(100));
    }
    assert!(!profiler.stats().other_profiler, "{:?}", profiler.stats());
    profiler.shutdown(Duration::from_secs(60)).expect("delivered");
}

/// Ours refuses to start while the other one runs, and says why.
pub fn is_refused() {
    let error = start().expect_err("two profilers").to_string();
    assert!(error.contains("another CPU profiler is running") || error.contains("run one CPU profiler"), "{error}");
}

/// Ours runs already when the other one starts: it says so.
pub fn notices(profiler: &Profiler) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !profiler.stats().other_profiler && !profiler.stats().handler_replaced {
        assert!(Instant::now() < deadline, "{:?}", profiler.stats());
        burn(Duration::from_millis(50));
    }
}
