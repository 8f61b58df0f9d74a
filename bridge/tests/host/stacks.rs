//! Small stacks, and stacks that end.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use spanflame::Clock;

use crate::support::{builder, burn, child, finish, in_child, is_child};

#[test]
fn threads_with_small_stacks_survive_at_any_depth() {
    /// Frames of about 200 bytes, down to where little is left.
    #[inline(never)]
    fn descend(low: u64, reserve: u64) -> u64 {
        let frame = [1u8; 128];
        let here = black_box(&frame).as_ptr() as u64;
        if here - low < reserve {
            burn(Duration::from_millis(30));
            return 1;
        }
        descend(low, reserve) + u64::from(black_box(frame[0]))
    }

    fn low() -> u64 {
        // SAFETY: zero is a valid value, to be filled.
        let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
        // SAFETY: takes no arguments.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: asks about the calling thread.
        assert_eq!(unsafe { libc::pthread_getattr_np(this, &mut attributes) }, 0);
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: filled above.
        unsafe { libc::pthread_attr_getstack(&attributes, &mut low, &mut size) };
        // SAFETY: as above, not used after this.
        unsafe { libc::pthread_attr_destroy(&mut attributes) };
        low as u64
    }

    in_child("stacks::threads_with_small_stacks_survive_at_any_depth", || {
        for clock in [Clock::ThreadTimers, Clock::Perf, Clock::ProcessTimer] {
            let profiler = builder(1000, clock).start().expect("starts");
            for kib in [16, 32] {
                for registers in [true, false] {
                    // What is left must hold what the kernel saves on a signal, which nobody can do anything about:
                    // up to 11 KiB with the largest register sets.
                    for reserve in [11 * 1024, 12 * 1024, 14 * 1024] {
                        let thread = thread::Builder::new().stack_size(kib * 1024).spawn(move || {
                            if registers {
                                spanflame::register_thread();
                            }
                            descend(low(), reserve)
                        });
                        thread.expect("spawned").join().expect("survives");
                    }
                }
            }
            assert!(finish(&profiler).samples > 0);
        }
    });
}

#[test]
fn a_stack_that_overflows_is_still_reported_by_the_standard_library() {
    #[inline(never)]
    fn endless(depth: u64) -> u64 {
        let frame = [depth; 32];
        if black_box(depth) == u64::MAX { 0 } else { endless(black_box(depth + 1)) + black_box(&frame)[7] }
    }

    const NAME: &str = "stacks::a_stack_that_overflows_is_still_reported_by_the_standard_library";
    if is_child(NAME) {
        let _profiler = builder(1000, Clock::Auto).start().expect("starts");
        let thread = thread::Builder::new().stack_size(512 << 20).spawn(|| {
            spanflame::register_thread();
            endless(0)
        });
        drop(thread.expect("spawned").join());
        unreachable!("the process has ended");
    }
    let output = child(NAME);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("has overflowed its stack"), "{}: {said}", output.status);
}
