//! Deterministic simulation: one seed drives the clock, the work, and all that goes wrong, against a model that knows what
//! was acknowledged.
//!
//! Everything happens on one thread, step by step, so that a seed that fails fails again. What the store does on threads of
//! its own is done here in steps as well; in the middle of them, between two operations on the disk, queries are asked.
//! Servers that share a bucket have a thread each, of which one runs at a time.
//! `SPANFLAME_SEEDS=10000` runs that many seeds, `SPANFLAME_SEED=7` that one.

mod chance;
mod model;
mod reach;
mod server;
mod servers;
mod sky;
mod task;
mod work;
mod world;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::chance::Chance;
use self::servers::Servers;
use self::world::World;

/// Seeds that every run of the tests tries, of one server and of several.
const SEEDS: u64 = 40;
const SHARED_SEEDS: u64 = 40;
/// Things that happen in one life, at most.
const STEPS: u64 = 220;
const SHARED_STEPS: u64 = 700;

/// What came of a seed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Life {
    digest: u64,
    profiles: u64,
    operations: u64,
    faults: u64,
    starts: u64,
    rots: u64,
}

fn live(seed: u64) -> Life {
    let mut chance = Chance::new(seed);
    let steps = chance.below(STEPS);
    let mut world = World::new(&mut chance);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..steps {
            world.step();
        }
        world.end()
    }));
    lived.unwrap_or_else(|panic| fail(&*panic, &world.told(), seed, "seeds"))
}

fn live_together(seed: u64) -> Life {
    let mut chance = Chance::new(seed);
    let steps = chance.below(SHARED_STEPS);
    let mut servers = Servers::new(&mut chance);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..steps {
            servers.step();
        }
        servers.end()
    }));
    lived.unwrap_or_else(|panic| fail(&*panic, &servers.told(), seed, "seeds_of_servers_that_share_a_bucket"))
}

/// Says why a life failed, and how to live it again.
fn fail(panic: &(dyn Any + Send), told: &[String], seed: u64, test: &str) -> ! {
    let why = panic.downcast_ref::<String>().map(String::as_str);
    let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason");
    panic!(
        "{why}\nthe last that happened:\n  {}\nagain: SPANFLAME_SEED={seed} cargo test -p spanflame-server --lib \
         store::simulation::{test} -- --exact",
        told.join("\n  ")
    )
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} = {text}: expected a number")))
}

/// Lives as many lives as are asked for, or `usual` ones; gives what came of all of them, and whether they were few.
fn live_all(usual: u64, live: fn(u64) -> Life) -> (Life, bool) {
    let seeds = match (number("SPANFLAME_SEED"), number("SPANFLAME_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(usual),
    };
    let count = seeds.end - seeds.start;
    let mut all = Life::default();
    for seed in seeds {
        let life = live(seed);
        all.profiles += life.profiles;
        all.operations += life.operations;
        all.faults += life.faults;
        all.starts += life.starts;
        all.rots += life.rots;
    }
    println!(
        "{count} seeds: {} profiles, {} operations, {} of them went wrong, {} starts, {} files rotten",
        all.profiles, all.operations, all.faults, all.starts, all.rots
    );
    (all, count < usual)
}

#[test]
fn seeds() {
    let (all, few) = live_all(SEEDS, live);
    assert!(few || (all.faults > 100 && all.starts > 100 && all.rots > 0), "nothing was tried: {all:?}");
}

#[test]
fn seeds_of_servers_that_share_a_bucket() {
    let (all, few) = live_all(SHARED_SEEDS, live_together);
    assert!(few || (all.faults > 100 && all.starts > 100), "nothing was tried: {all:?}");
}

#[test]
fn a_seed_is_lived_again_as_it_was() {
    for seed in 1000..1004 {
        assert_eq!(live(seed), live(seed));
        assert_eq!(live_together(seed), live_together(seed));
    }
}
