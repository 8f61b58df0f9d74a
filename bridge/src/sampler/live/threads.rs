//! Which threads there are, which state each has, and whose clock ticks. Always behind a lock, never in the handler.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use super::clock::{Clock, Since, Tick};
use super::state::{self, MAX_THREADS, STATES, ThreadState};
use crate::sys::stack::Mapping;
use crate::sys::thread;

/// A thread and the index of its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread {
    pub(super) index: usize,
    pub(super) tid: i32,
}

/// The state with the same index belongs to this thread.
struct Record {
    tid: i32,
    /// Its clock, by its place among the clocks, and what ticks.
    tick: Option<(usize, Tick)>,
    /// Whether a refusal of the first clock was counted.
    refused: bool,
    /// Whether its stack was looked for.
    looked_up: bool,
}

pub(super) struct Threads {
    /// The clock in use, then what a thread falls back to that it refuses. None while sampling is off.
    clocks: Vec<Box<dyn Clock>>,
    records: Vec<Option<Record>>,
    by_tid: HashMap<i32, usize>,
    free: Vec<usize>,
    /// Periods from one signal to the next.
    divider: u32,
    /// How many states there are.
    limit: usize,
    /// Threads that found none free when they were last looked at.
    waiting: HashSet<i32>,
    without_state: u64,
    clock_failures: u64,
}

impl Threads {
    pub(super) fn new() -> Self {
        Self {
            clocks: Vec::new(),
            records: Vec::new(),
            by_tid: HashMap::new(),
            free: Vec::new(),
            divider: 1,
            limit: MAX_THREADS,
            waiting: HashSet::new(),
            without_state: 0,
            clock_failures: 0,
        }
    }

    /// Starts to sample all of `tids`, the threads that there are. Fails when not one of them can be.
    pub(super) fn start(&mut self, clocks: Vec<Box<dyn Clock>>, tids: &[i32]) -> io::Result<()> {
        self.clocks = clocks;
        self.clocks.iter_mut().for_each(|clock| clock.set_divider(self.divider));
        // Nobody watched since the last stop: a thread's successor may even have its number.
        let gone: Vec<Thread> = self.all().filter(|ended| !thread::exists(ended.tid)).collect();
        for ended in &gone {
            self.remove(*ended);
        }
        self.release(&gone);
        for ended in self.all() {
            let state = &STATES[ended.index];
            state.ring.clear();
            if !state.bound.load(Ordering::Acquire) {
                state.unlearn();
            }
        }
        for record in self.records.iter_mut().flatten() {
            (record.refused, record.looked_up) = (false, false);
        }
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for tid in tids {
            match self.acquire(*tid).map(|index| self.tick(index, Since::Now)) {
                Some(Ok(())) => outcome = Ok(()),
                Some(Err(error)) if outcome.is_err() => outcome = Err(error),
                _ => {}
            }
        }
        outcome
    }

    /// Stops every clock. The threads keep their states: signals may be under way, and bound threads write to theirs.
    pub(super) fn stop(&mut self) {
        for (clock, tick) in self.records.iter_mut().flatten().filter_map(|record| record.tick.take()) {
            self.clocks[clock].stop(tick);
        }
        self.clocks.clear();
    }

    /// Has every clock tick only after this many periods each, one thread after the other. A signal that was under way
    /// then stands for what the new ones do.
    pub(super) fn set_divider(&mut self, divider: u32) {
        self.divider = divider;
        self.clocks.iter_mut().for_each(|clock| clock.set_divider(divider));
        for (clock, tick) in self.records.iter().flatten().filter_map(|record| record.tick) {
            STATES[tick.index].divider.store(divider, Ordering::Relaxed);
            self.clocks[clock].adjust(tick);
        }
    }

    /// Has threads charged that end before they are found, or no longer.
    pub(super) fn follow_strangers(&mut self, on: bool) {
        self.clocks.iter_mut().for_each(|clock| clock.follow_strangers(on));
    }

    /// Whether threads are charged before they are found.
    pub(super) fn charges_strangers(&self) -> bool {
        self.clocks.iter().any(|clock| clock.charges_strangers())
    }

    /// The name of the clock that most threads have.
    pub(super) fn clock_name(&self) -> Option<&'static str> {
        let ticks = |clock: usize| {
            self.occupied().filter(|(_, record)| record.tick.is_some_and(|tick| tick.0 == clock)).count()
        };
        let most = (0..self.clocks.len()).rev().max_by_key(|clock| ticks(*clock))?;
        Some(self.clocks[most].name())
    }

    /// The index of the thread's state, or `None` when there are more threads than states.
    pub(super) fn acquire(&mut self, tid: i32) -> Option<usize> {
        if let Some(index) = self.by_tid.get(&tid) {
            return Some(*index);
        }
        let index =
            self.free.pop().or_else(|| (self.records.len() < self.limit).then_some(self.records.len()));
        let Some(index) = index.filter(|index| STATES[*index].ring.allocate()) else {
            self.without_state += u64::from(self.waiting.insert(tid));
            return None;
        };
        if index == self.records.len() {
            self.records.push(None);
            state::USED.fetch_max(self.records.len(), Ordering::Relaxed);
        }
        STATES[index].reset(tid);
        state::enlist(index);
        self.records[index] = Some(Record { tid, tick: None, refused: false, looked_up: false });
        self.by_tid.insert(tid, index);
        self.waiting.remove(&tid);
        Some(index)
    }

    /// Does the same for the calling thread, which will keep the state to its end: it must not be taken for an ended
    /// thread that had the same number.
    pub(super) fn adopt(&mut self, tid: i32) -> Option<usize> {
        let index = self.acquire(tid)?;
        if let Some(Some(record)) = self.records.get_mut(index)
            && let Some((clock, tick)) = record.tick.take_if(|(clock, tick)| !self.clocks[*clock].runs(*tick))
        {
            self.clocks[clock].stop(tick);
            STATES[index].unlearn();
        }
        Some(index)
    }

    /// Makes a clock tick for the thread if none does and sampling is on: the first that is not refused. Fails when all
    /// are.
    pub(super) fn tick(&mut self, index: usize, since: Since) -> io::Result<()> {
        let Some(Some(record)) = self.records.get_mut(index) else { return Ok(()) };
        if record.tick.is_some() {
            return Ok(());
        }
        STATES[index].divider.store(self.divider, Ordering::Relaxed);
        let mut refusal = Ok(());
        for (place, clock) in self.clocks.iter_mut().enumerate() {
            match clock.start(record.tid, index, since) {
                Ok(tick) => {
                    record.tick = Some((place, tick));
                    return Ok(());
                }
                Err(error) => {
                    // The kernel knows no such clock once the thread is on its way out: nothing was refused then.
                    let leaving = matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ESRCH));
                    if !record.refused && !leaving {
                        record.refused = true;
                        self.clock_failures += 1;
                    }
                    refusal = refusal.and(Err(error));
                }
            }
        }
        refusal
    }

    /// Tries to give threads that had to fall back the first clock again, until it refuses one.
    pub(super) fn retry(&mut self) {
        let fallen_back: Vec<usize> = self
            .occupied()
            .filter(|(_, record)| record.tick.is_some_and(|(clock, _)| clock > 0))
            .map(|(index, _)| index)
            .collect();
        for index in fallen_back {
            let Some(Some(record)) = self.records.get_mut(index) else { continue };
            let Some((clock, tick)) = record.tick else { continue };
            match self.clocks[0].start(record.tid, index, Since::Now) {
                Ok(new) => {
                    record.tick = Some((0, new));
                    self.clocks[clock].stop(tick);
                }
                Err(_) => return,
            }
        }
    }

    /// Looks for threads that have ended. Where each has a timer, exact even if a new thread has the number of one that
    /// ended: the timer is the old one's. With other clocks the new one is taken for the old one: a perf event is none of
    /// its, so it goes unsampled, and is among what nobody is charged with.
    pub(super) fn ended(&mut self) -> Vec<Thread> {
        if self.clocks.is_empty() {
            return Vec::new();
        }
        let ended: Vec<Thread> = self
            .occupied()
            .filter(|(_, record)| match record.tick {
                Some((clock, tick)) => !self.clocks[clock].runs(tick),
                None => !thread::exists(record.tid),
            })
            .map(|(index, record)| Thread { index, tid: record.tid })
            .collect();
        for ended in &ended {
            self.remove(*ended);
        }
        ended
    }

    /// Starts to sample those of `tids` that are new.
    pub(super) fn discover(&mut self, tids: &[i32]) {
        if self.clocks.is_empty() {
            return;
        }
        let new = if self.charges_strangers() { Since::Now } else { Since::Birth };
        let waited = std::mem::take(&mut self.waiting);
        // Those that ended are forgotten, so there are never more of them than threads.
        self.waiting = tids.iter().copied().filter(|tid| waited.contains(tid)).collect();
        for tid in tids {
            // What a thread used while it was refused is on nobody: it is too much for one sample.
            let refused = waited.contains(tid) || self.by_tid.contains_key(tid);
            let since = if refused { Since::Now } else { new };
            if let Some(index) = self.acquire(*tid)
                && self.tick(index, since).is_err()
                && !thread::exists(*tid)
            {
                // It ended since it was listed: nothing was refused.
                let counted = self.records[index].as_ref().is_some_and(|record| record.refused);
                self.clock_failures -= u64::from(counted);
                let ended = Thread { index, tid: *tid };
                self.remove(ended);
                self.release(&[ended]);
            }
        }
    }

    /// Threads that were sampled without their stack being known, each with a stack pointer of theirs.
    pub(super) fn unknown_stacks(&self) -> Vec<(Thread, u64)> {
        self.occupied()
            .filter(|(_, record)| !record.looked_up)
            .map(|(index, record)| {
                (Thread { index, tid: record.tid }, STATES[index].seen_sp.load(Ordering::Acquire))
            })
            .filter(|(_, sp)| *sp != 0)
            .collect()
    }

    /// Finds those stacks among mappings that were read since, except of threads that have gone since.
    pub(super) fn find_stacks(&mut self, unknown: &[(Thread, u64)], mappings: &[Mapping]) {
        for (thread, sp) in unknown {
            let Some(Some(record)) = self.records.get_mut(thread.index) else { continue };
            let state = &STATES[thread.index];
            if record.tid == thread.tid && state.seen_sp.load(Ordering::Acquire) == *sp {
                record.looked_up = true;
                state.bounds.learn(*sp, state.seen_control_block.load(Ordering::Relaxed), mappings);
            }
        }
    }

    /// Gives drained states of ended threads to whoever comes next.
    pub(super) fn release(&mut self, ended: &[Thread]) {
        for ended in ended {
            STATES[ended.index].ring.retire();
            self.free.push(ended.index);
        }
    }

    /// Every thread that has a state.
    pub(super) fn all(&self) -> impl Iterator<Item = Thread> {
        self.occupied().map(|(index, record)| Thread { index, tid: record.tid })
    }

    /// Every state that was ever in use.
    pub(super) fn states(&self) -> &'static [ThreadState] {
        &STATES[..self.records.len()]
    }

    /// Threads whose clock ticks.
    pub(super) fn ticking(&self) -> usize {
        self.occupied().filter(|(_, record)| record.tick.is_some()).count()
    }

    /// Threads that found no state free.
    pub(super) fn without_state(&self) -> u64 {
        self.without_state
    }

    /// Threads whose clock was refused.
    pub(super) fn clock_failures(&self) -> u64 {
        self.clock_failures
    }

    fn occupied(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.records.iter().enumerate().filter_map(|(index, record)| Some((index, record.as_ref()?)))
    }

    fn remove(&mut self, ended: Thread) {
        let record = self.records[ended.index].take();
        if let Some((clock, tick)) = record.and_then(|record| record.tick) {
            self.clocks[clock].stop(tick);
        }
        self.by_tid.remove(&ended.tid);
    }
}

/// How many threads this process has, much cheaper than their ids: a directory has a link from each subdirectory, one
/// from its parent and one from itself.
pub(super) fn count() -> Option<usize> {
    let links = std::fs::metadata("/proc/self/task").ok()?.nlink();
    usize::try_from(links).ok()?.checked_sub(2)
}

/// The ids of this process's threads.
pub(super) fn list() -> io::Result<Vec<i32>> {
    let mut tids = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        tids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(tids)
}

#[cfg(test)]
mod tests;
