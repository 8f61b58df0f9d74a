//! B6: interleaved async spans on a multi-threaded runtime, each burning in the function of its kind.

use crate::cost::NoExport;
use crate::ours::start_profiler;
use anyhow::{Context as _, Result};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;
use spanflame_bench_rig::Attribution;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Spans alive at any time.
const TASKS: usize = 1_200;
const WORKERS: usize = 4;
/// Bursts of one span; between them other tasks run on the thread.
const BURSTS: u32 = 40;
const FLUSH: Duration = Duration::from_secs(60);

macro_rules! burn_functions {
    ($($name:ident = $index:literal),* $(,)?) => {
        $(
            #[inline(never)]
            fn $name() -> u64 {
                black_box(burn($index)) ^ $index
            }
        )*
        static BURN: &[(&str, fn() -> u64)] = &[$((stringify!($name), $name)),*];
    };
}

burn_functions! {
    burn_kind_00 = 0, burn_kind_01 = 1, burn_kind_02 = 2, burn_kind_03 = 3,
    burn_kind_04 = 4, burn_kind_05 = 5, burn_kind_06 = 6, burn_kind_07 = 7,
    burn_kind_08 = 8, burn_kind_09 = 9, burn_kind_10 = 10, burn_kind_11 = 11,
    burn_kind_12 = 12, burn_kind_13 = 13, burn_kind_14 = 14, burn_kind_15 = 15,
}

/// About 50 µs for the first kind and 125 µs for the last.
#[inline(always)]
fn burn(kind: u64) -> u64 {
    let mut state = kind + 1;
    for _ in 0..20_000 + kind * 2_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state = black_box(state);
    }
    state
}

/// Kind of every span that was ever active, by its id in hex.
type Kinds = Arc<Mutex<HashMap<String, usize>>>;

/// Runs for `length` and compares the exported samples with what the spans did.
pub(crate) fn run(hz: u32, length: Duration) -> Result<Attribution> {
    let (profiler, captured) = start_profiler(hz, Duration::from_secs(1))?;
    let provider = SdkTracerProvider::builder().with_span_processor(profiler.wrap(NoExport)).build();
    let kinds = Kinds::default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_time().build()?;
    let until = Instant::now() + length;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                tokio::spawn(spans(provider.tracer("benchmark"), task % BURN.len(), kinds.clone(), until))
            })
            .collect();
        for task in tasks {
            task.await.context("a task ended early")?;
        }
        anyhow::Ok(())
    })?;
    drop(runtime);
    profiler.shutdown(FLUSH)?;

    let kinds = kinds.lock();
    let mut found = Attribution {
        spans: kinds.len() as u64,
        lost: profiler.stats().lost.samples(),
        ..Attribution::default()
    };
    for sample in captured.profiles()?.iter().flat_map(|profile| &profile.samples) {
        let burning = BURN.iter().position(|(name, _)| sample.functions.iter().any(|f| f.contains(name)));
        let Some(kind) = burning else { continue };
        found.samples += sample.count;
        let span = sample.labels.get("span_id");
        let name = sample.labels.get("span_name");
        match span.map(|id| kinds.get(id)) {
            None => found.unlabelled += sample.count,
            Some(owner) if owner != Some(&kind) || name.is_none_or(|name| name != BURN[kind].0) => {
                found.wrong += sample.count;
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

/// One span after another, each interleaved with those of all other tasks.
async fn spans(tracer: opentelemetry_sdk::trace::SdkTracer, kind: usize, kinds: Kinds, until: Instant) {
    let (name, burn) = BURN[kind];
    while Instant::now() < until {
        let mut span = tracer.start(name);
        span.set_attribute(opentelemetry::KeyValue::new("kind", kind as i64));
        kinds.lock().insert(span.span_context().span_id().to_string(), kind);
        let context = Context::new().with_span(span);
        async {
            for burst in 0..BURSTS {
                black_box(burn());
                if burst % 8 == 7 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    tokio::task::yield_now().await;
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        .with_context(context.clone())
        .await;
        context.span().end();
    }
}
