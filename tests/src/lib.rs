//! What the whole-system tests need: processes, a span collector, a tap on pushes, and a client that asks as Grafana
//! does. It shares no code with the bridge or the server, so that a mistake cannot hide by being made twice.
//!
//! Everything here panics when something is not as it should be: that fails the test that called.

pub mod binaries;
pub mod collector;
pub mod flame;
pub mod grafana;
pub mod http;
pub mod process;
pub mod tap;

pub use spanflame_pprof_reader as pprof;

use std::time::{Duration, Instant};

/// How long anything that needs no more than a moment may take on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none after [`PATIENCE`].
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
