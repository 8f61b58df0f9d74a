//! Work and readings for what a profiler costs beside its samples.

use crate::busy::hash;
use crate::clock::{process_cpu, thread_cpu};
use anyhow::{Context, Result};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Distinct stacks of a steady program.
const STACKS: usize = 220;
/// CPU time in each, so that 100 samples per second meet all of them.
const IN_EACH: Duration = Duration::from_millis(15);

/// Resident memory of this process, in bytes.
pub fn resident_memory() -> Result<u64> {
    status("VmRSS:")
}

/// The most it ever was.
pub fn peak_resident_memory() -> Result<u64> {
    status("VmHWM:")
}

fn status(field: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("the kernel tells it")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// CPU time that other threads than the working one use for a window: `end_window` is called after the same work each
/// time, and waited for; the first windows bring addresses that are new and do not count.
pub fn cpu_per_window(windows: u64, mut end_window: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut first = (Duration::ZERO, Duration::ZERO);
    const WARM_UP: u64 = 3;
    for window in 0..WARM_UP + windows {
        if window == WARM_UP {
            first = (process_cpu(), worked());
        }
        std::thread::scope(|scope| scope.spawn(walk_all_stacks).join())
            .ok()
            .context("the work does not panic")?;
        end_window()?;
    }
    let (all, work) = (process_cpu() - first.0, worked() - first.1);
    Ok(all.saturating_sub(work) / u32::try_from(windows)?)
}

static WORKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// CPU time of the working threads so far.
fn worked() -> Duration {
    Duration::from_nanos(WORKED.load(std::sync::atomic::Ordering::Relaxed))
}

fn walk_all_stacks() {
    for depth in 0..STACKS / 2 {
        for leaf in [even as fn() -> u64, odd] {
            black_box(descend(depth, leaf));
        }
    }
    let used = thread_cpu().as_nanos() as u64;
    WORKED.fetch_add(used, std::sync::atomic::Ordering::Relaxed);
}

#[inline(never)]
fn descend(depth: usize, leaf: fn() -> u64) -> u64 {
    let found = if depth == 0 { leaf() } else { descend(depth - 1, leaf) };
    black_box(found) + 1
}

#[inline(never)]
fn even() -> u64 {
    burn(2)
}

#[inline(never)]
fn odd() -> u64 {
    burn(3)
}

#[inline(always)]
fn burn(seed: u64) -> u64 {
    let until = thread_cpu() + IN_EACH;
    let mut state = seed;
    while thread_cpu() < until {
        state = hash(state, 20_000);
    }
    state
}

/// CPU time that the process uses from `start` on until it is idle again, with what `start` gives back kept alive.
pub fn cpu_to_start<T>(start: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let before = process_cpu();
    let kept = start()?;
    let settled = Instant::now() + Duration::from_millis(500);
    while Instant::now() < settled {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((process_cpu() - before, kept))
}
