//! What is bad for a profiler: panics caught in a loop, libraries that come and go, an allocator under load.
#![allow(unsafe_code)] // dlopen, and an alarm that ends a process which hangs

use crate::protocol::Storm;
use anyhow::{Context, Result, bail};
use std::ffi::{CStr, CString, c_void};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Past the end of a storm, a thread that is still in its last round hangs: no round takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Throws a panic through `frames` frames and catches it.
pub fn panic_through(frames: u32) {
    let caught = catch_unwind(|| descend(frames));
    black_box(caught.is_err());
}

#[inline(never)]
fn descend(frames: u32) -> u32 {
    if frames == 0 {
        // Without the hook: the storm is in the unwinder, not on standard error.
        resume_unwind(Box::new(frames));
    }
    black_box(descend(black_box(frames - 1))) + 1
}

/// A library to load, run and unload: `spanflame-soak-plugin` or a copy of it.
pub struct Library {
    path: CString,
}

impl Library {
    /// The library at that path.
    ///
    /// # Errors
    /// When the path has a zero byte in it.
    pub fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())? })
    }

    /// Loads it, lets it work for `steps` steps, and unloads it.
    ///
    /// # Errors
    /// When one of these fails.
    pub fn visit(&self, steps: u32) -> Result<u64> {
        // SAFETY: the library has no constructor but what libc links into every one.
        let library = unsafe { libc::dlopen(self.path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            bail!("cannot load {}: {}", self.path.to_string_lossy(), last_error());
        }
        let worked = work(library, steps);
        // SAFETY: from `dlopen`, closed once; nothing of it is used any more.
        if unsafe { libc::dlclose(library) } != 0 {
            bail!("cannot unload {}: {}", self.path.to_string_lossy(), last_error());
        }
        worked
    }
}

fn work(library: *mut c_void, steps: u32) -> Result<u64> {
    // SAFETY: `library` is open, and the name ends in a zero byte.
    let function = unsafe { libc::dlsym(library, c"spanflame_soak_plugin_work".as_ptr()) };
    if function.is_null() {
        bail!("the library is not the plugin: {}", last_error());
    }
    // SAFETY: the plugin defines the function with this signature.
    let function = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u32) -> u64>(function) };
    Ok(function(steps))
}

fn last_error() -> String {
    // SAFETY: takes no arguments; the answer is of this thread.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "no reason given".to_owned();
    }
    // SAFETY: not null, so a string that stays until the next call on this thread.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

/// Allocations of all sizes, some of them kept for a while.
#[derive(Default)]
pub struct Heap {
    kept: Vec<Vec<u8>>,
    state: usize,
}

impl Heap {
    const KEPT: usize = 256;

    /// A thousand allocations, and as many frees.
    pub fn churn(&mut self) {
        for _ in 0..1_000 {
            self.state = self.state.wrapping_mul(75).wrapping_add(74) % 65_537;
            // Mostly small ones, as programs have.
            let size = if self.state.is_multiple_of(16) { self.state } else { self.state % 512 };
            let mut block = Vec::with_capacity(size);
            block.resize(size.min(64), 1_u8);
            self.kept.push(black_box(block));
            if self.kept.len() > Self::KEPT {
                self.kept.swap_remove(self.state % Self::KEPT);
            }
        }
    }
}

/// All of it for so long, on a thread each. Does not come back from a crash; ended by an alarm if it hangs.
pub(crate) fn run(seconds: u64, library: &Path) -> Result<Storm> {
    let library = Library::new(library)?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let bound = u32::try_from(seconds + PATIENCE.as_secs()).context("so long a storm")?;
    let counts = [const { AtomicU64::new(0) }; 3];
    let repeat = |count: &AtomicU64, round: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        while Instant::now() < until {
            round()?;
            count.fetch_add(1, Relaxed);
        }
        Ok(())
    };
    // SAFETY: only sets a timer whose signal ends the process.
    unsafe { libc::alarm(bound) };
    std::thread::scope(|scope| {
        let [panics, loads, allocations] = &counts;
        let (library, repeat) = (&library, &repeat);
        let threads = [
            scope.spawn(move || {
                repeat(panics, &mut || {
                    panic_through(20);
                    Ok(())
                })
            }),
            scope.spawn(move || repeat(loads, &mut || library.visit(20_000).map(drop))),
            scope.spawn(move || {
                let mut heap = Heap::default();
                repeat(allocations, &mut || {
                    heap.churn();
                    Ok(())
                })
            }),
        ];
        threads.into_iter().try_for_each(|thread| thread.join().expect("a storm's thread does not panic"))
    })?;
    // SAFETY: takes the timer back.
    unsafe { libc::alarm(0) };
    let [panics, loads, allocations] = counts.map(AtomicU64::into_inner);
    Ok(Storm { panics, loads, allocations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_a_heap_keeps_a_bounded_number_of_blocks() {
        panic_through(30);
        let mut heap = Heap::default();
        (0..10).for_each(|_| heap.churn());
        assert_eq!(heap.kept.len(), Heap::KEPT);
        assert!(heap.kept.iter().any(|block| block.capacity() > 1_000));
    }

    #[test]
    fn a_library_that_is_not_there_is_told_by_its_path() {
        let missing = Library::new(Path::new("/nowhere/plugin.so")).expect("a path");
        let error = missing.visit(1).expect_err("nothing to load").to_string();
        assert!(error.contains("/nowhere/plugin.so"), "{error}");
        // libc's own is no plugin.
        let other = Library::new(Path::new("libc.so.6")).expect("a path");
        assert!(other.visit(1).is_err());
    }
}
