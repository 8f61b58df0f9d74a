//! What the bridge costs beside its samples: memory, start, windows, symbols.

use crate::cost::NoExport;
use crate::ours::start_profiler;
use anyhow::{Context as _, Result, anyhow, bail};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use spanflame::bench_support::{Sampler, Symbols};
use spanflame_bench_rig::{
    cpu_per_window, cpu_to_start, peak_resident_memory, process_cpu, resident_memory, thread_cpu,
};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

const HZ: u32 = 100;
const FLUSH: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(15);

/// Runs the named operation in a process in which nothing has run yet; nanoseconds, bytes or a fraction.
pub(crate) fn measure(what: &str, amount: u64) -> Result<f64> {
    match what {
        "start-cpu" => Ok(cpu_to_start(|| start_profiler(HZ, LONG))?.0.as_nanos() as f64),
        "start-memory" => added_memory(|| Ok(cpu_to_start(|| start_profiler(HZ, LONG))?.1)),
        "thread-memory" => thread_memory(amount as usize),
        "span-memory" => added_memory(|| live_spans(amount)),
        "window-cpu" => {
            let (profiler, _) = start_profiler(HZ, LONG)?;
            let cpu = cpu_per_window(amount, || Ok(profiler.flush(FLUSH)?))?;
            Ok(cpu.as_nanos() as f64)
        }
        "report-loss" => report_loss(Duration::from_secs(amount)),
        _ => symbols(what, amount as usize),
    }
}

fn added_memory<T>(work: impl FnOnce() -> Result<T>) -> Result<f64> {
    let before = resident_memory()?;
    let kept = work()?;
    let added = resident_memory()?.saturating_sub(before) as f64;
    drop(kept);
    Ok(added)
}

fn live_spans(count: u64) -> Result<impl Sized> {
    let (profiler, captured) = start_profiler(HZ, LONG)?;
    let provider = SdkTracerProvider::builder().with_span_processor(profiler.wrap(NoExport)).build();
    let tracer = provider.tracer("benchmark");
    let contexts: Vec<Context> = (0..count)
        .map(|i| Context::new().with_span(tracer.start(format!("GET /items/{}", i % 100))))
        .collect();
    for context in &contexts {
        drop(black_box(context.clone().attach()));
    }
    Ok((profiler, captured, provider, contexts))
}

/// What a thread adds, profiled, to what it takes by itself.
fn thread_memory(threads: usize) -> Result<f64> {
    // The first threads leave stacks behind that later ones find in memory.
    with_threads(threads)?;
    let plain = with_threads(threads)?;
    let (profiler, _) = start_profiler(HZ, LONG)?;
    let profiled = with_threads(threads)?;
    drop(profiler);
    Ok((profiled - plain).max(0.0) / threads as f64)
}

/// Memory that so many threads take which all have used CPU and met a context.
fn with_threads(threads: usize) -> Result<f64> {
    let barrier = Barrier::new(threads + 1);
    let before = resident_memory()?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                drop(black_box(Context::new().attach()));
                burn_for(Duration::from_millis(30));
                barrier.wait();
                barrier.wait();
            });
        }
        barrier.wait();
        let with = resident_memory();
        barrier.wait();
        Ok(with? as f64 - before as f64)
    })
}

fn burn_for(time: Duration) {
    let until = thread_cpu() + time;
    while thread_cpu() < until {
        black_box((0..1000u64).fold(0, |sum, i| black_box(sum ^ i)));
    }
}

/// Share of samples lost while busy threads are reported on every two seconds.
fn report_loss(time: Duration) -> Result<f64> {
    let (profiler, _) = start_profiler(HZ, Duration::from_secs(2))?;
    let until = Instant::now() + time;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while Instant::now() < until {
                    burn_for(Duration::from_millis(10));
                }
            });
        }
    });
    profiler.shutdown(FLUSH)?;
    let stats = profiler.stats();
    if stats.profiles < time.as_secs() / 4 {
        bail!("too few windows: {stats}");
    }
    let lost = stats.lost.samples() as f64;
    Ok(lost / (stats.samples as f64 + lost))
}

/// Reading symbols of this very program: as many addresses as asked for, spread evenly over its code.
fn symbols(what: &str, count: usize) -> Result<f64> {
    let mut sampler = Sampler::start(1, 128).map_err(|error| anyhow!(error))?;
    sampler.stop();
    let program = std::env::current_exe()?;
    let (_, start, end, _) =
        sampler.modules().into_iter().find(|(path, ..)| *path == program).context("this program's module")?;
    let step = (end - start) / count as u64;
    let addresses: Vec<u64> = (0..count as u64).map(|i| start + i * step + 1).collect();
    let (before, memory) = (process_cpu(), resident_memory()?);
    let cpu = || (process_cpu() - before).as_nanos() as f64;
    match what {
        "symbols-cpu" => {
            black_box(Symbols::new().look_up(&sampler, &addresses));
            Ok(cpu())
        }
        "symbols-memory" | "symbols-peak" => {
            let mut symbols = Symbols::new();
            black_box(symbols.look_up(&sampler, &addresses));
            // The thread that has read them ends by itself.
            std::thread::sleep(Duration::from_millis(500));
            let kept = if what == "symbols-peak" { peak_resident_memory()? } else { resident_memory()? };
            Ok(kept.saturating_sub(memory) as f64)
        }
        "names-cpu" => {
            black_box(Symbols::names_alone(&sampler, &addresses));
            Ok(cpu())
        }
        "backtrace-cpu" | "backtrace-memory" => {
            let mut frames = 0;
            for address in &addresses {
                backtrace::resolve(*address as *mut _, |symbol| {
                    frames += usize::from(symbol.name().map(|name| name.to_string()).is_some());
                });
            }
            black_box(frames);
            if what == "backtrace-cpu" {
                Ok(cpu())
            } else {
                Ok(resident_memory()?.saturating_sub(memory) as f64)
            }
        }
        _ => bail!("this subject has no operation {what}"),
    }
}
