//! What must be heard once: told when somebody listens, since a service starts its profiler before its `tracing`
//! subscriber if the subscriber's layer needs the tracer provider.

use std::thread;
use std::time::{Duration, Instant};

/// How long a subscriber may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Calls `tell` now if there is a subscriber, else as soon as there is one, from a thread that ends with that. Tells it
/// anyway in the end: `tracing` may pass events on to the `log` crate.
pub(crate) fn when_heard(tell: impl FnOnce() + Send + 'static) {
    if tracing::dispatcher::has_been_set() {
        return tell();
    }
    let wait = move || {
        let until = Instant::now() + PATIENCE;
        while !tracing::dispatcher::has_been_set() && Instant::now() < until {
            thread::sleep(LOOK_EVERY);
        }
        tell();
    };
    // Without a thread nobody is told: there is no other way to say so either.
    let _ = thread::Builder::new().name("spanflame-log".to_owned()).spawn(wait);
}
