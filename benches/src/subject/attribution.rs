//! B6: interleaved async spans on a multi-threaded runtime, each burning in the function of its kind.
//!
//! The kernel's tick would take more than an hour for a million samples, and takes them at its own instants. So another
//! thread sends the workers signals like those of their timers, at random instants, and the timers run beside it.

use crate::cost::NoExport;
use crate::pprof;
use anyhow::{Context as _, Result, bail};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;
use spanflame::{ExportError, Profile, ProfileExporter, Profiler, Receiver, Scope, bench_support};
use spanflame_bench_rig::{Attribution, Forged};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Spans alive at any time.
const TASKS: usize = 1_200;
const WORKERS: usize = 8;
/// Bursts of one span; between them other tasks run on the thread.
const BURSTS: u32 = 12;
const FLUSH: Duration = Duration::from_secs(60);
/// Reaching it is an error.
const LONGEST: Duration = Duration::from_secs(1800);
/// Most microseconds between two signals: about 5,000 a second over all workers, which no ring overflows at.
const PAUSE: u64 = 250;

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

/// Compares samples with what the spans did as they are exported, and keeps none.
#[derive(Clone, Default)]
struct Check {
    kinds: Kinds,
    found: Arc<Mutex<Attribution>>,
}

impl ProfileExporter for Check {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        let decoded =
            pprof::decode(&profile.pprof).map_err(|error| ExportError::permanent(format!("{error:#}")))?;
        let kinds = self.kinds.lock();
        let mut found = self.found.lock();
        for sample in &decoded.samples {
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
        found.spans = kinds.len() as u64;
        Ok(())
    }

    fn receiver(&mut self) -> Option<Receiver> {
        Some(Receiver::full("benchmark"))
    }
}

/// Runs until `samples` samples were compared.
pub(crate) fn run(samples: u64) -> Result<Attribution> {
    let check = Check::default();
    let profiler = Profiler::builder()
        .frequency(250)
        .upload_interval(Duration::from_secs(1))
        .scope(Scope::All)
        .exporter(check.clone())
        .start()?;
    let provider = SdkTracerProvider::builder().with_span_processor(profiler.wrap(NoExport)).build();
    let signals = Arc::<Mutex<Vec<Forged>>>::default();
    let runtime = {
        let signals = signals.clone();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_time()
            .on_thread_start(move || signals.lock().extend(bench_support::signal_value().map(Forged::new)))
            .build()?
    };
    let done = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let tracer = provider.tracer("benchmark");
            runtime.spawn(spans(tracer, task % BURN.len(), check.kinds.clone(), done.clone()))
        })
        .collect();

    let start = Instant::now();
    let mut random = 1_u64;
    while check.found.lock().samples < samples {
        if start.elapsed() > LONGEST {
            bail!("{:?} after {LONGEST:?}", check.found.lock());
        }
        for _ in 0..1_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            sleep(Duration::from_micros(random % PAUSE));
            let signals = signals.lock();
            if let Some(signal) = signals.get((random >> 32) as usize % signals.len().max(1)) {
                signal.send();
            }
        }
    }
    done.store(true, Relaxed);
    runtime.block_on(async {
        for task in tasks {
            task.await.context("a task ended early")?;
        }
        anyhow::Ok(())
    })?;
    drop(runtime);
    profiler.shutdown(FLUSH)?;
    let found = *check.found.lock();
    Ok(Attribution { lost: profiler.stats().lost.samples(), ..found })
}

/// One span after another, each interleaved with those of all other tasks.
async fn spans(
    tracer: opentelemetry_sdk::trace::SdkTracer,
    kind: usize,
    kinds: Kinds,
    done: Arc<AtomicBool>,
) {
    let (name, burn) = BURN[kind];
    while !done.load(Relaxed) {
        let mut span = tracer.start(name);
        span.set_attribute(opentelemetry::KeyValue::new("kind", kind as i64));
        kinds.lock().insert(span.span_context().span_id().to_string(), kind);
        let context = Context::new().with_span(span);
        async {
            for burst in 0..BURSTS {
                black_box(burn());
                if burst % 4 == 3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                } else {
                    tokio::task::yield_now().await;
                }
                if done.load(Relaxed) {
                    break;
                }
            }
        }
        .with_context(context.clone())
        .await;
        context.span().end();
    }
}
