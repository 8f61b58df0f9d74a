use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::*;
use crate::sampler::TURN;

/// Ticks are numbers; those in the set run.
#[derive(Clone, Default)]
struct Script {
    running: Arc<Mutex<HashSet<i32>>>,
    started: Arc<Mutex<Vec<(i32, Since)>>>,
    refuses: Arc<AtomicBool>,
    charges_strangers: bool,
}

impl Script {
    fn clocks(&self) -> Vec<Box<dyn Clock>> {
        vec![Box::new(self.clone())]
    }
}

impl Clock for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn start(&mut self, tid: i32, index: usize, since: Since) -> io::Result<Tick> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut started = self.started.lock();
        started.push((tid, since));
        let id = started.len() as i32;
        self.running.lock().insert(id);
        Ok(Tick { tid, index, id })
    }

    fn runs(&self, tick: Tick) -> bool {
        self.running.lock().contains(&tick.id)
    }

    fn adjust(&mut self, _tick: Tick) {}

    fn stop(&mut self, tick: Tick) {
        self.running.lock().remove(&tick.id);
    }

    fn set_divider(&mut self, _divider: u32) {}

    fn charges_strangers(&self) -> bool {
        self.charges_strangers
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
    threads.start(script.clocks(), &[A]).expect("one can be sampled");
    threads.discover(&[A, B]);
    assert_eq!(*script.started.lock(), [(A, Since::Now), (B, Since::Birth)]);
    assert!(threads.ended().is_empty());
    assert_eq!(threads.ticking(), 2);

    script.running.lock().remove(&1);
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
    threads.start(script.clocks(), &[A]).expect("one can be sampled");
    // A has ended unnoticed, and a new thread got its number and publishes.
    script.running.lock().clear();
    let index = threads.adopt(A).expect("room");
    threads.tick(index, Since::Now).expect("ticks");
    assert!(threads.ended().is_empty(), "the new thread lives");
    assert_eq!(script.started.lock().len(), 2);
    assert_eq!(threads.adopt(A), Some(index));
    assert_eq!(threads.ticking(), 1);
}

#[test]
fn a_thread_without_a_state_is_counted_once_until_it_has_one() {
    let _turn = TURN.lock();
    let script = Script::default();
    let mut threads = Threads::new();
    threads.limit = 1;
    threads.start(script.clocks(), &[A]).expect("one can be sampled");
    for _ in 0..3 {
        threads.discover(&[A, B]);
        assert!(threads.adopt(B).is_none());
    }
    assert_eq!((threads.without_state(), threads.waiting.len()), (1, 1));
    threads.discover(&[A, B - 1]);
    assert_eq!((threads.without_state(), threads.waiting.len()), (2, 1), "B has ended");
    script.running.lock().clear();
    let ended = threads.ended();
    threads.release(&ended);
    threads.discover(&[B - 1]);
    assert_eq!((threads.ticking(), threads.without_state(), threads.waiting.len()), (1, 2, 0));
    assert_eq!(script.started.lock().last(), Some(&(B - 1, Since::Now)), "what it used before is nobody's");
}

#[test]
fn a_stack_is_learnt_only_by_the_thread_that_it_was_looked_up_for() {
    let _turn = TURN.lock();
    let mut threads = Threads::new();
    threads.start(Script::default().clocks(), &[A]).expect("one can be sampled");
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
    script.refuses.store(true, Ordering::Relaxed);
    assert!(threads.start(script.clocks(), &[own]).is_err(), "nobody can be sampled");
    threads.discover(&[own]);
    threads.discover(&[own, A]);
    assert_eq!(threads.clock_failures(), 1, "the other one had ended");
    script.refuses.store(false, Ordering::Relaxed);
    threads.discover(&[own]);
    assert_eq!(threads.ticking(), 1);
    assert_eq!(*script.started.lock(), [(own, Since::Now)], "what it used before is nobody's");
    threads.stop();
    assert_eq!((threads.ticking(), script.running.lock().len()), (0, 0));
}

#[test]
fn a_thread_that_one_clock_refuses_falls_back_and_returns_once_it_may() {
    let _turn = TURN.lock();
    let (first, second) = (Script::default(), Script { charges_strangers: true, ..Script::default() });
    first.refuses.store(true, Ordering::Relaxed);
    let mut threads = Threads::new();
    let clocks: Vec<Box<dyn Clock>> = vec![Box::new(first.clone()), Box::new(second.clone())];
    threads.start(clocks, &[A]).expect("the second takes it");
    assert_eq!((threads.ticking(), threads.clock_failures()), (1, 1));
    threads.retry();
    assert_eq!((threads.ticking(), second.running.lock().len()), (1, 1));
    // What the thread used until it was found was charged by the second clock.
    first.refuses.store(false, Ordering::Relaxed);
    threads.discover(&[B]);
    assert_eq!(*first.started.lock(), [(B, Since::Now)]);
    threads.retry();
    assert_eq!((first.running.lock().len(), second.running.lock().len()), (2, 0));
    threads.stop();
    assert_eq!((first.running.lock().len(), threads.clock_failures()), (0, 1));
}

#[test]
fn each_thread_knows_what_its_own_clock_s_signals_stand_for() {
    let _turn = TURN.lock();
    let mut threads = Threads::new();
    let divider = |threads: &Threads, tid| STATES[threads.by_tid[&tid]].divider.load(Ordering::Relaxed);
    threads.start(Script::default().clocks(), &[A]).expect("one can be sampled");
    assert_eq!(divider(&threads, A), 1);
    threads.set_divider(3);
    threads.discover(&[A, B]);
    assert_eq!((divider(&threads, A), divider(&threads, B)), (3, 3));
    threads.stop();
    threads.start(Script::default().clocks(), &[A]).expect("one can be sampled");
    assert_eq!(divider(&threads, A), 3, "until told otherwise");
    threads.set_divider(1);
    assert_eq!(divider(&threads, A), 1);
}
