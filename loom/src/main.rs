//! Runs the bridge's lock-free parts under every interleaving; see README.md.
//! What of the included sources no model calls is no reason for a warning.
#![expect(dead_code, reason = "sources are included whole")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod published_model;
#[path = "../../bridge/src/sampler/live/ring.rs"]
mod ring;
mod ring_model;
mod spans;
mod sync;
mod sys;
mod table_model;

/// Checks one model: unless the environment asks for more, with up to three preemptions of each thread.
fn check(name: &str, model: impl Fn() + Sync + Send + 'static) {
    let start = std::time::Instant::now();
    let runs = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{name}: holds in {runs} runs ({:.1?})", start.elapsed());
    assert!(runs > 1, "there was nothing to interleave");
}

fn main() {
    table_model::check_all();
    ring_model::check_all();
    published_model::check_all();
}
