//! Stacks of code whose shape is known to the byte: leaves, linkage stubs, the kernel's own code, frames that a signal
//! interrupted, and libraries that come late. One sampler runs per process, so these tests take turns.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code)] // assembly, signal handlers, dlopen

mod code;
mod late_library;

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use spanflame::bench_support::{self, Sampler, Unwinder};

static TURN: Mutex<()> = Mutex::new(());

/// Long enough for the busiest machine.
const DEADLINE: Duration = Duration::from_secs(120);

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A sampled stack.
struct Stack {
    frames: Vec<u64>,
    truncated: bool,
}

/// Stacks of a thread that does nothing but `work`, until there are `enough` of them.
fn stacks_of(unwinder: Unwinder, enough: usize, work: impl Fn() + Sync) -> Vec<Stack> {
    let mut sampler = Sampler::start_with(1000, 128, unwinder).expect("starts");
    let (done, tid) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut stacks = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            bench_support::publish(0);
            // SAFETY: takes no arguments.
            tid.store(unsafe { libc::syscall(libc::SYS_gettid) } as u64, Ordering::Release);
            while !done.load(Ordering::Relaxed) {
                work();
            }
        });
        let deadline = Instant::now() + DEADLINE;
        while stacks.len() < enough {
            assert!(Instant::now() < deadline, "{} of {enough} samples: {}", stacks.len(), sampler.stats());
            std::thread::sleep(Duration::from_millis(20));
            sampler.drain_into(&mut |sample| {
                if sample.tid as u64 == tid.load(Ordering::Acquire) {
                    stacks.push(Stack { frames: sample.frames.to_vec(), truncated: sample.truncated });
                }
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    sampler.stop();
    stacks
}

fn share(stacks: &[Stack], right: impl Fn(&Stack) -> bool) -> f64 {
    stacks.iter().filter(|stack| right(stack)).count() as f64 / stacks.len() as f64
}

/// Addresses of the module whose path ends like that, as the sampler knows them.
fn module(ends: &str) -> Range<u64> {
    let mut sampler = Sampler::start(1, 1).expect("starts");
    let modules = sampler.modules();
    sampler.stop();
    let found = modules.iter().find(|(path, ..)| path.to_string_lossy().contains(ends));
    found.map(|(_, start, end, _)| *start..*end).expect("it is loaded")
}

#[test]
fn a_leaf_is_the_first_frame_and_its_caller_the_second() {
    let _turn = TURN.lock();
    let leaf = code::leaf();
    let stacks = stacks_of(Unwinder::Tables, 60, || code::run_leaf(200_000));
    let right = share(&stacks, |stack| {
        // Its only caller is in this program, outside it.
        leaf.contains(&stack.frames[0]) && stack.frames.get(1).is_some_and(|caller| !leaf.contains(caller))
    });
    assert!(right >= 0.95, "{right}");
    let whole = share(&stacks, |stack| !stack.truncated);
    assert!(whole >= 0.95, "{whole}");
    assert!(share(&stacks, |stack| stack.frames.windows(2).all(|pair| pair[0] != pair[1])) == 1.0);
}

#[test]
fn the_kernels_own_code_is_named_and_so_is_its_caller() {
    let _turn = TURN.lock();
    let (vdso, program) = (module("[vdso]"), module("stacks"));
    let stacks = stacks_of(Unwinder::Tables, 100, || {
        for _ in 0..10_000 {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: fills `time`.
            unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        }
    });
    let whole = share(&stacks, |stack| !stack.truncated);
    assert!(whole >= 0.95, "{whole} of {} reach the entry", stacks.len());
    let inside = |stack: &Stack| vdso.contains(&stack.frames[0]);
    // Where reading the clock is a system call there is nothing of it to see.
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_default();
    if !["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"].contains(&source.trim()) {
        println!("skipped: clock source {:?} is not read in the vdso", source.trim());
        return;
    }
    let share_inside = share(&stacks, inside);
    assert!(share_inside >= 0.05, "{share_inside} of {} are in the vdso", stacks.len());
    for stack in stacks.iter().filter(|stack| inside(stack)) {
        // libc's wrapper, or none where the loader resolved the call directly; then this program.
        let callers = &stack.frames[1..3.min(stack.frames.len())];
        assert!(callers.iter().any(|caller| program.contains(caller)), "{:x?}", stack.frames);
    }
}

#[test]
fn linkage_stubs_are_frames_of_their_own() {
    let _turn = TURN.lock();
    let (calls, libc, program) = (code::calls_through_a_stub(), module("libc.so"), module("stacks"));
    let mut stubs = 0;
    let deadline = Instant::now() + DEADLINE;
    while stubs < 3 {
        assert!(Instant::now() < deadline, "no sample in the stub");
        let stacks = stacks_of(Unwinder::Tables, 60, || code::run_calls_through_a_stub(100_000));
        for stack in &stacks {
            let [first, second] = [stack.frames[0], stack.frames.get(1).copied().unwrap_or_default()];
            if libc.contains(&first) {
                // The callee itself, or the loader's first look for it.
                continue;
            }
            if program.contains(&first) && !calls.contains(&first) && calls.contains(&second.wrapping_sub(1))
            {
                stubs += 1;
            }
        }
        let whole = share(&stacks, |stack| !stack.truncated);
        assert!(whole >= code::WHOLE_STACKS_WITH_STUBS, "{whole}");
    }
}

extern "C" fn burn_then_step_over(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    let until = cpu_time() + Duration::from_millis(20);
    while cpu_time() < until {
        code::run_leaf(10_000);
    }
    // SAFETY: the kernel passes a valid ucontext_t as third argument.
    code::step_over_the_trap(unsafe { &mut *context.cast::<libc::ucontext_t>() });
}

#[test]
fn a_frame_that_a_signal_interrupted_is_at_its_own_instruction() {
    let _turn = TURN.lock();
    // SAFETY: zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = burn_then_step_over as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a valid action.
    assert_eq!(unsafe { libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()) }, 0);
    // Its first instruction traps: one byte back is another function, whose stack looks different.
    let trap = code::trap();
    let stacks = stacks_of(Unwinder::Tables, 100, code::run_trap);
    let interrupted = |stack: &Stack| stack.frames.contains(&(trap + 1));
    let (seen, whole) = (share(&stacks, interrupted), share(&stacks, |stack| !stack.truncated));
    if !code::signal_frames_are_described() {
        println!("the kernel does not describe its signal frames here: {seen} of stacks go through one");
        return;
    }
    assert!(seen >= 0.9 && whole >= 0.9, "{seen} of stacks go through the trap, {whole} are whole");
    for stack in stacks {
        let back = stack.frames.iter().position(|frame| *frame == trap + 1);
        assert!(!stack.frames.contains(&trap), "{:x?}", stack.frames);
        if let Some(back) = back {
            assert!(code::trap_caller().contains(&(stack.frames[back + 1] - 1)), "{:x?}", stack.frames);
        }
    }
}

#[test]
fn frame_pointers_are_followed_through_code_that_has_them_and_no_further() {
    let _turn = TURN.lock();
    let chain = code::chain();
    let stacks = stacks_of(Unwinder::FramePointers, 60, || code::run_chain(200_000));
    let right = share(&stacks, |stack| {
        stack.frames.len() > chain.len()
            && chain.iter().zip(&stack.frames).all(|(function, frame)| function.contains(frame))
    });
    assert!(right >= 0.95, "{right} of stacks hold the whole chain");
    // Past the chain are frames of a build that may have no frame pointers: but never anything that is not code.
    let code: Vec<Range<u64>> = {
        let mut sampler = Sampler::start(1, 1).expect("starts");
        let modules = sampler.modules();
        sampler.stop();
        modules.into_iter().map(|(_, start, end, _)| start..end).collect()
    };
    for stack in &stacks {
        let last = stack.frames.last().expect("a frame");
        assert!(code.iter().any(|module| module.contains(last)), "{:x?}", stack.frames);
    }
}

#[test]
fn code_without_frame_pointers_harms_nobody_and_is_told() {
    let _turn = TURN.lock();
    let mut sampler = Sampler::start_with(1000, 128, Unwinder::FramePointers).expect("starts");
    let stats = sampler.stats();
    assert!(stats.contains("FramePointers"), "{stats}");
    std::thread::scope(|scope| {
        for seed in 0..2u64 {
            scope.spawn(move || {
                bench_support::publish(0);
                let until = cpu_time() + Duration::from_millis(500);
                let mut state = seed;
                while cpu_time() < until {
                    // The register that would be the frame pointer holds anything.
                    state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
                    code::run_with_frame_pointer(state, 10_000);
                    code::run_with_frame_pointer((&raw const state) as u64 & !7, 10_000);
                }
            });
        }
    });
    let mut samples = 0;
    sampler.drain_into(&mut |sample| {
        assert!(!sample.frames.is_empty());
        samples += 1;
    });
    sampler.stop();
    assert!(samples > 0, "{}", sampler.stats());
}
