//! The profiler and the `pprof` crate in one program. One test: a process has one SIGPROF handler.

#[path = "../../shared.rs"]
mod shared;

use std::time::Duration;

#[test]
fn they_link_and_take_turns() {
    shared::works();

    let theirs = pprof::ProfilerGuard::new(100).expect("starts after ours has stopped");
    shared::burn(Duration::from_millis(300));
    shared::is_refused();
    drop(theirs);

    // It leaves the signal ignored.
    let ours = shared::start().expect("starts again");
    let theirs = pprof::ProfilerGuard::new(100).expect("takes the signal over");
    shared::notices(&ours);
    drop(theirs);
    ours.shutdown(Duration::from_secs(60)).expect("delivered");
}
