//! Walks of own stacks at the start: whether stacks can be followed to their thread's entry at all is known before the
//! first sample, on the calling thread and on one made for it.

use std::sync::atomic::AtomicU64;
use std::thread::Builder;

use super::modules::Modules;
use crate::config::Unwinder;
use crate::sampler::{MAX_DEPTH, SelfTest};
use crate::sys::arch;
use crate::sys::stack::Bounds;
use crate::unwind::{CodeMap, End, Native, follow, until_entry, walk};

/// Return addresses into the code that starts threads. Walks along frame pointers end there: libc mostly has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots([u64; 2]);

impl Roots {
    /// Whether a walk that ended at `frames` has reached the thread's entry all the same.
    pub(super) fn ends(&self, frames: &[u64]) -> bool {
        frames.len() > 1 && frames.last().is_some_and(|last| self.0.contains(last))
    }
}

/// Walks the calling thread's stack and a new thread's.
pub(super) fn run(modules: &Modules, unwinder: Unwinder) -> (SelfTest, Roots) {
    let code = modules.code_map();
    let own = walk_own(&code, unwinder);
    // A thread that cannot be made says nothing about stacks.
    let other = std::thread::scope(|scope| {
        let walk = || walk_own(&code, unwinder);
        let thread = Builder::new().name("spanflame-self-test".to_owned()).spawn_scoped(scope, walk);
        thread.ok().and_then(|thread| thread.join().ok())
    });
    let mut roots = Roots::default();
    let mut test = SelfTest::default();
    for (root, (frames, end)) in roots.0.iter_mut().zip([Some(own), other].into_iter().flatten()) {
        let mut complete = end == End::Entry;
        if unwinder == Unwinder::FramePointers && !complete {
            let last = modules.leading_code(&frames).last();
            // What calls a thread's first function is libc's, so not of the module that this is in.
            if let Some(last) = last.filter(|last| !modules.same(**last, run as *const () as u64)) {
                *root = *last;
                complete = true;
            }
        }
        test.stacks += 1;
        test.complete += u32::from(complete);
    }
    (test, roots)
}

#[inline(never)]
fn walk_own(code: &CodeMap, unwinder: Unwinder) -> (Vec<u64>, End) {
    let bounds = Bounds::new();
    bounds.learn_own();
    let registers = arch::here();
    let Some(mut stack) = bounds.stack(registers.sp) else { return (Vec::new(), End::BadRead) };
    // However deep the service starts it: only a walk that goes in circles takes that many.
    let most = 64 * MAX_DEPTH;
    match unwinder {
        Unwinder::Tables => {
            let mut frames = Vec::with_capacity(MAX_DEPTH);
            let end = walk::<Native>(code, registers, &mut stack, |frame| {
                frames.push(frame);
                frames.len() < most
            });
            (frames, end)
        }
        Unwinder::FramePointers => {
            let mut frames = Vec::new();
            frames.resize_with(most, AtomicU64::default);
            let (len, end) = follow::<Native>(registers, stack, &frames);
            frames.truncate(len);
            let frames: Vec<u64> = frames.into_iter().map(AtomicU64::into_inner).collect();
            let (frames, end) = until_entry(&frames, end);
            (frames.to_vec(), end)
        }
    }
}
