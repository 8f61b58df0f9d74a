//! Which threads there are, which state each has, and whose clock ticks. Always behind a lock, never in the handler.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use super::clock::{Clock, Since};
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
struct Record<T> {
    tid: i32,
    tick: Option<T>,
    /// Whether a refusal of its clock was counted.
    refused: bool,
    /// Whether its stack was looked for.
    looked_up: bool,
}

pub(super) struct Threads<C: Clock> {
    clock: Option<C>,
    records: Vec<Option<Record<C::Tick>>>,
    by_tid: HashMap<i32, usize>,
    free: Vec<usize>,
    /// How many states there are.
    limit: usize,
    /// Threads that found none free when they were last looked at.
    waiting: HashSet<i32>,
    without_state: u64,
    clock_failures: u64,
}

impl<C: Clock> Threads<C> {
    pub(super) fn new() -> Self {
        Self {
            clock: None,
            records: Vec::new(),
            by_tid: HashMap::new(),
            free: Vec::new(),
            limit: MAX_THREADS,
            waiting: HashSet::new(),
            without_state: 0,
            clock_failures: 0,
        }
    }

    /// Starts to sample all of `tids`, the threads that there are. Fails when not one of them can be.
    pub(super) fn start(&mut self, clock: C, tids: &[i32]) -> io::Result<()> {
        self.clock = Some(clock);
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
        if let Some(clock) = self.clock.take() {
            for tick in self.records.iter_mut().flatten().filter_map(|record| record.tick.take()) {
                clock.stop(tick);
            }
        }
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
        }
        STATES[index].reset();
        self.records[index] = Some(Record { tid, tick: None, refused: false, looked_up: false });
        self.by_tid.insert(tid, index);
        self.waiting.remove(&tid);
        Some(index)
    }

    /// Does the same for the calling thread, which will keep the state to its end: it must not be taken for an ended
    /// thread that had the same number.
    pub(super) fn adopt(&mut self, tid: i32) -> Option<usize> {
        let index = self.acquire(tid)?;
        if let (Some(clock), Some(Some(record))) = (&self.clock, self.records.get_mut(index))
            && let Some(tick) = record.tick.take_if(|tick| !clock.runs(*tick))
        {
            clock.stop(tick);
            STATES[index].unlearn();
        }
        Some(index)
    }

    /// Makes the clock tick for the thread if it does not and sampling is on.
    pub(super) fn tick(&mut self, index: usize, since: Since) -> io::Result<()> {
        let (Some(clock), Some(Some(record))) = (&mut self.clock, self.records.get_mut(index)) else {
            return Ok(());
        };
        if record.tick.is_some() {
            return Ok(());
        }
        STATES[index].catching_up.store(since == Since::Birth, Ordering::Relaxed);
        match clock.start(record.tid, state::value(index), since) {
            Ok(tick) => {
                record.tick = Some(tick);
                Ok(())
            }
            Err(error) => {
                // The kernel knows no such clock once the thread is on its way out: nothing was refused then.
                let leaving = error.raw_os_error() == Some(libc::EINVAL);
                if !record.refused && !leaving {
                    record.refused = true;
                    self.clock_failures += 1;
                }
                Err(error)
            }
        }
    }

    /// Looks for threads that have ended. Exact even if a new thread has the number of one that ended: the clock is the
    /// old one's.
    pub(super) fn ended(&mut self) -> Vec<Thread> {
        let Some(clock) = &self.clock else { return Vec::new() };
        let ended: Vec<Thread> = self
            .occupied()
            .filter(|(_, record)| match record.tick {
                Some(tick) => !clock.runs(tick),
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
        if self.clock.is_none() {
            return;
        }
        // Those that ended are forgotten, so there are never more of them than threads.
        self.waiting = tids.iter().copied().filter(|tid| self.waiting.contains(tid)).collect();
        for tid in tids {
            if let Some(index) = self.acquire(*tid)
                && self.tick(index, Since::Birth).is_err()
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

    fn occupied(&self) -> impl Iterator<Item = (usize, &Record<C::Tick>)> {
        self.records.iter().enumerate().filter_map(|(index, record)| Some((index, record.as_ref()?)))
    }

    fn remove(&mut self, ended: Thread) {
        let record = self.records[ended.index].take();
        if let (Some(clock), Some(tick)) = (&self.clock, record.and_then(|record| record.tick)) {
            clock.stop(tick);
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
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::rc::Rc;

    use super::*;
    use crate::sampler::TURN;

    /// Ticks are numbers; those in the set run.
    #[derive(Clone, Default)]
    struct Script {
        running: Rc<RefCell<HashSet<usize>>>,
        started: Rc<RefCell<Vec<(i32, Since)>>>,
        refuses: Rc<RefCell<bool>>,
    }

    impl Clock for Script {
        type Tick = usize;

        fn start(&mut self, tid: i32, _value: usize, since: Since) -> io::Result<usize> {
            if *self.refuses.borrow() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut started = self.started.borrow_mut();
            started.push((tid, since));
            self.running.borrow_mut().insert(started.len());
            Ok(started.len())
        }

        fn runs(&self, tick: usize) -> bool {
            self.running.borrow().contains(&tick)
        }

        fn stop(&self, tick: usize) {
            self.running.borrow_mut().remove(&tick);
        }
    }

    /// No thread has these numbers.
    const A: i32 = i32::MAX - 1;
    const B: i32 = i32::MAX - 2;

    #[test]
    fn a_thread_is_found_charged_from_birth_and_its_state_used_again_after_its_end() {
        let _turn = TURN.lock();
        let script = Script::default();
        let mut threads = Threads::new();
        threads.start(script.clone(), &[A]).expect("one can be sampled");
        threads.discover(&[A, B]);
        assert_eq!(*script.started.borrow(), [(A, Since::Now), (B, Since::Birth)]);
        assert!(threads.ended().is_empty());
        assert_eq!(threads.ticking(), 2);

        script.running.borrow_mut().remove(&1);
        let ended = threads.ended();
        assert_eq!(ended.iter().map(|thread| thread.tid).collect::<Vec<_>>(), [A]);
        assert!(threads.ended().is_empty(), "told once");
        let fresh = threads.acquire(A).expect("room");
        assert_ne!(fresh, ended[0].index, "not before it was drained");
        threads.release(&ended);
        assert_eq!(threads.acquire(A - 10), Some(ended[0].index));
        assert_eq!(threads.states().len(), 3);
    }

    #[test]
    fn a_thread_that_registers_is_not_taken_for_an_ended_one_with_its_number() {
        let _turn = TURN.lock();
        let script = Script::default();
        let mut threads = Threads::new();
        threads.start(script.clone(), &[A]).expect("one can be sampled");
        // A has ended unnoticed, and a new thread got its number and publishes.
        script.running.borrow_mut().clear();
        let index = threads.adopt(A).expect("room");
        threads.tick(index, Since::Now).expect("ticks");
        assert!(threads.ended().is_empty(), "the new thread lives");
        assert_eq!(script.started.borrow().len(), 2);
        assert_eq!(threads.adopt(A), Some(index));
        assert_eq!(threads.ticking(), 1);
    }

    #[test]
    fn a_thread_without_a_state_is_counted_once_until_it_has_one() {
        let _turn = TURN.lock();
        let script = Script::default();
        let mut threads = Threads::new();
        threads.limit = 1;
        threads.start(script.clone(), &[A]).expect("one can be sampled");
        for _ in 0..3 {
            threads.discover(&[A, B]);
            assert!(threads.adopt(B).is_none());
        }
        assert_eq!((threads.without_state(), threads.waiting.len()), (1, 1));
        threads.discover(&[A, B - 1]);
        assert_eq!((threads.without_state(), threads.waiting.len()), (2, 1), "B has ended");
        script.running.borrow_mut().clear();
        let ended = threads.ended();
        threads.release(&ended);
        threads.discover(&[B - 1]);
        assert_eq!((threads.ticking(), threads.without_state(), threads.waiting.len()), (1, 2, 0));
    }

    #[test]
    fn a_stack_is_learnt_only_by_the_thread_that_it_was_looked_up_for() {
        let _turn = TURN.lock();
        let mut threads = Threads::new();
        threads.start(Script::default(), &[A]).expect("one can be sampled");
        let index = threads.acquire(A).expect("has one");
        assert!(threads.unknown_stacks().is_empty(), "no sample yet");
        let local = 0u64;
        let sp = (&raw const local) as u64;
        let seen = || {
            STATES[index].seen_control_block.store(thread::control_block(), Ordering::Relaxed);
            STATES[index].seen_sp.store(sp, Ordering::Release);
        };
        seen();
        let unknown = threads.unknown_stacks();
        let mappings = crate::sys::stack::mappings();
        // Another thread gets the state while the mappings are read.
        threads.remove(Thread { index, tid: A });
        threads.release(&[Thread { index, tid: A }]);
        assert_eq!(threads.acquire(B), Some(index));
        seen();
        threads.find_stacks(&unknown, &mappings);
        assert!(STATES[index].bounds.stack(sp).is_none());
        let unknown = threads.unknown_stacks();
        threads.find_stacks(&unknown, &mappings);
        assert!(STATES[index].bounds.stack(sp).is_some() && threads.unknown_stacks().is_empty());
        STATES[index].unlearn();
    }

    #[test]
    fn a_refused_clock_is_counted_once_per_thread_and_tried_again() {
        let _turn = TURN.lock();
        let script = Script::default();
        let mut threads = Threads::new();
        let own = thread::id();
        *script.refuses.borrow_mut() = true;
        assert!(threads.start(script.clone(), &[own]).is_err(), "nobody can be sampled");
        threads.discover(&[own]);
        threads.discover(&[own, A]);
        assert_eq!(threads.clock_failures(), 1, "the other one had ended");
        *script.refuses.borrow_mut() = false;
        threads.discover(&[own]);
        assert_eq!(threads.ticking(), 1);
        threads.stop();
        assert_eq!((threads.ticking(), script.running.borrow().len()), (0, 0));
    }
}
