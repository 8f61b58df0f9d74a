//! Threads that burn CPU, each in a function of its own name, so that a profile tells whose time it saw.

use crate::clock::{process_cpu, thread_cpu};
use crate::protocol::{Delivery, Profile};
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

macro_rules! burn_functions {
    ($($name:ident = $index:literal),* $(,)?) => {
        $(
            #[inline(never)]
            fn $name(until: Instant) -> u64 {
                black_box(burn($index, until)) ^ $index
            }
        )*
        static BURN: &[(&str, fn(Instant) -> u64)] = &[$((stringify!($name), $name)),*];
    };
}

burn_functions! {
    burn_thread_00 = 0, burn_thread_01 = 1, burn_thread_02 = 2, burn_thread_03 = 3,
    burn_thread_04 = 4, burn_thread_05 = 5, burn_thread_06 = 6, burn_thread_07 = 7,
    burn_thread_08 = 8, burn_thread_09 = 9, burn_thread_10 = 10, burn_thread_11 = 11,
    burn_thread_12 = 12, burn_thread_13 = 13, burn_thread_14 = 14, burn_thread_15 = 15,
    burn_thread_16 = 16, burn_thread_17 = 17, burn_thread_18 = 18, burn_thread_19 = 19,
    burn_thread_20 = 20, burn_thread_21 = 21, burn_thread_22 = 22, burn_thread_23 = 23,
    burn_thread_24 = 24, burn_thread_25 = 25, burn_thread_26 = 26, burn_thread_27 = 27,
    burn_thread_28 = 28, burn_thread_29 = 29, burn_thread_30 = 30, burn_thread_31 = 31,
}

#[inline(always)]
fn burn(seed: u64, until: Instant) -> u64 {
    let mut state = seed | 1;
    while Instant::now() < until {
        state = spin(state);
    }
    state
}

/// The leaf, so that an unwinder which loses leaves still sees whose burn function it is.
#[inline(never)]
fn spin(state: u64) -> u64 {
    hash(state, 20_000)
}

/// `steps` rounds of xorshift: work that no compiler takes away.
#[inline(always)]
pub(crate) fn hash(mut state: u64, steps: u32) -> u64 {
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state = black_box(state);
    }
    state
}

/// CPU time as the kernel accounts it.
pub(crate) struct Used {
    process: Duration,
    threads: Vec<Duration>,
}

/// Runs `threads` busy threads for `millis` milliseconds.
pub(crate) fn run(threads: usize, millis: u64) -> Result<Used> {
    let Some(functions) = BURN.get(..threads) else { bail!("at most {} busy threads", BURN.len()) };
    let barrier = Barrier::new(threads);
    let before = process_cpu();
    let used = std::thread::scope(|scope| {
        let workers: Vec<_> = functions
            .iter()
            .map(|(_, burn)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    black_box(burn(Instant::now() + Duration::from_millis(millis)));
                    thread_cpu()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a busy thread does not panic")).collect()
    });
    Ok(Used { process: process_cpu() - before, threads: used })
}

/// Compares a profile with what the kernel accounted.
pub(crate) fn compare(used: &Used, profile: &Profile) -> Delivery {
    let mut by_function: HashMap<&str, u64> = HashMap::new();
    let mut reported = 0;
    for stack in &profile.stacks {
        reported += stack.nanos;
        let owner = BURN.iter().find(|(name, _)| stack.functions.iter().any(|f| f.contains(name)));
        if let Some((name, _)) = owner {
            *by_function.entry(name).or_default() += stack.nanos;
        }
    }
    let seen: Vec<f64> = BURN[..used.threads.len()]
        .iter()
        .map(|(name, _)| by_function.get(name).copied().unwrap_or(0) as f64)
        .collect();
    let truth: Vec<f64> = used.threads.iter().map(|cpu| cpu.as_nanos() as f64).collect();
    let cpu = used.process.as_secs_f64();
    Delivery {
        accounted: reported as f64 / 1e9 / cpu,
        misallocated: distance(&shares(&seen), &shares(&truth)),
        signals_per_cpu_second: profile.signals as f64 / cpu,
    }
}

fn shares(values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.iter().map(|v| if sum > 0.0 { v / sum } else { 0.0 }).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WeightedStack;

    #[test]
    fn finds_half_of_the_time_on_the_wrong_thread() {
        let used = Used {
            process: Duration::from_secs(2),
            threads: vec![Duration::from_secs(1), Duration::from_secs(1)],
        };
        let functions = vec!["rig::busy::burn_thread_00".to_owned()];
        let stacks = vec![WeightedStack { functions, nanos: 1_900_000_000 }];
        let delivery = compare(&used, &Profile { stacks, signals: 190 });
        assert_eq!(delivery.accounted, 0.95);
        assert_eq!(delivery.misallocated, 0.5);
        assert_eq!(delivery.signals_per_cpu_second, 95.0);
    }

    #[test]
    fn refuses_more_threads_than_it_has_functions() {
        assert!(run(33, 1).is_err());
    }
}
