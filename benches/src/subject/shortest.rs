//! B11: CPU-bound spans of one length, one after another, and how many samples each gets.

use crate::cost::NoExport;
use crate::ours::start_profiler;
use anyhow::Result;
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use spanflame_bench_rig::thread_cpu;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

const FLUSH: Duration = Duration::from_secs(60);

/// Samples in each of `trials` spans of `length` of CPU time.
pub(crate) fn run(hz: u32, length: Duration, trials: usize) -> Result<Vec<u64>> {
    let (profiler, captured) = start_profiler(hz, Duration::from_secs(1))?;
    let provider = SdkTracerProvider::builder().with_span_processor(profiler.wrap(NoExport)).build();
    let tracer = provider.tracer("benchmark");
    // The thread is found and its clock started by its first span.
    let mut found: HashMap<String, u64> = HashMap::new();
    let mut ids = Vec::new();
    for trial in 0..=trials {
        let context = Context::new().with_span(tracer.start("work"));
        let guard = context.clone().attach();
        burn(length);
        drop(guard);
        context.span().end();
        if trial > 0 {
            ids.push(context.span().span_context().span_id().to_string());
        }
        // Between spans, an odd while: no span begins where the clock's period does.
        burn(Duration::from_micros(1_000 + (trial as u64 * 6_180_339) % 10_000));
    }
    profiler.shutdown(FLUSH)?;
    for sample in captured.profiles()?.iter().flat_map(|profile| &profile.samples) {
        if let Some(id) = sample.labels.get("span_id") {
            *found.entry(id.clone()).or_default() += sample.count;
        }
    }
    Ok(ids.iter().map(|id| found.get(id).copied().unwrap_or(0)).collect())
}

fn burn(time: Duration) {
    let until = thread_cpu() + time;
    let mut state = 1_u64;
    // Asked seldom: a span that asks for the time most of its time is one of system calls, which `perf` does not interrupt.
    while thread_cpu() < until {
        for _ in 0..10_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state = black_box(state);
        }
    }
}
