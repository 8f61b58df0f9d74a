//! The profiler and the `pyroscope` crate's own sampler (`backend-pprof-rs`) in one program. One test: a process has one
//! SIGPROF handler.

#[path = "../../shared.rs"]
mod shared;

use std::time::Duration;

use pyroscope::backend::{BackendConfig, PprofConfig, pprof_backend};

#[test]
fn they_link_and_take_turns() {
    shared::works();

    let ours = shared::start().expect("starts");
    let backend = pprof_backend(PprofConfig { sample_rate: 100 }, BackendConfig::default());
    let theirs = backend.initialize().expect("takes the signal over");
    shared::notices(&ours);
    ours.shutdown(Duration::from_secs(60)).expect("delivered");

    shared::is_refused();
    drop(theirs);
}
