//! Memory that comes and goes: the allocator's, and whole libraries.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use spanflame_bench_rig::storm::{Heap, Library};

use super::{Round, Stage};

/// Loads, runs and unloads libraries; at times one whose file is gone right after.
pub(super) fn libraries(stage: &Arc<Stage>) -> Result<Round> {
    let plugins: Vec<Library> = stage.plugins.iter().map(|path| Library::new(path)).collect::<Result<_>>()?;
    let original = stage.plugins.first().context("there are no plugins")?.clone();
    let mut round = 0_usize;
    Ok(Box::new(move || {
        round += 1;
        plugins[round % plugins.len()].visit(10_000 + round as u32 % 40_000)?;
        if round.is_multiple_of(100) {
            let copy = original.with_file_name(format!("passing-{round}.so"));
            std::fs::copy(&original, &copy)?;
            let visited = Library::new(&copy)?.visit(200_000);
            std::fs::remove_file(&copy)?;
            visited?;
        }
        Ok(())
    }))
}

/// Allocates and frees.
pub(super) fn allocations() -> Round {
    let mut heap = Heap::default();
    Box::new(move || {
        heap.churn();
        Ok(())
    })
}

/// Has another thread free what this one allocates.
pub(super) fn frees_elsewhere() -> Round {
    Box::new(move || {
        let (sender, receiver) = sync_channel::<Vec<Vec<u8>>>(4);
        let other = thread::spawn(move || receiver.into_iter().map(|batch| batch.len()).sum::<usize>());
        for size in 1..=200_usize {
            sender.send((0..32).map(|n| vec![1_u8; size * (n + 1)]).collect())?;
        }
        drop(sender);
        let freed = other.join().ok().context("a freeing thread panicked")?;
        ensure!(freed == 200 * 32, "{freed} blocks were freed elsewhere");
        Ok(())
    })
}
