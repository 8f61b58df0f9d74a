//! The profiler inside a library that is loaded at run time.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unsafe_code)] // dlopen

#[cfg(all(not(debug_assertions), target_arch = "x86_64"))]
#[path = "../../../bridge/tests/handler_reach/machine_code.rs"]
mod machine_code;

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where cargo puts it, next to this very program.
fn library() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    exe.with_file_name("libspanflame_cdylib_tests.so")
}

#[derive(Clone, Copy)]
struct Plugin(*mut c_void);

// SAFETY: the loader is thread-safe, and so is the library.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    fn open(path: &Path, flags: c_int) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: a library without constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LOCAL | flags) };
        (!handle.is_null()).then_some(Self(handle))
    }

    fn address(self, name: &CStr) -> *mut c_void {
        // SAFETY: a handle from `dlopen` and a string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?}");
        address
    }

    fn call(self, name: &CStr) -> u64 {
        // SAFETY: the functions that are called so have this type.
        let function =
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> u64>(self.address(name)) };
        function()
    }

    fn burn(self, millis: u64) {
        let address = self.address(c"spanflame_plugin_burn");
        // SAFETY: the function of that name has this type.
        let burn = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(u64) -> u64>(address) };
        assert_eq!(burn(millis), 1);
    }

    fn close(self) {
        // SAFETY: from `dlopen`, closed once.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

#[test]
fn a_plugin_profiles_its_host_s_threads_and_may_be_closed() {
    const THREADS: u64 = 100;
    const MILLIS: u64 = 20;
    /// Milliseconds that samples of threads in spans have to stand for.
    const CHARGED: u64 = 1000;
    for _ in 0..2 {
        let plugin = Plugin::open(&library(), libc::RTLD_NOW).expect("loads");
        assert_eq!(plugin.call(c"spanflame_plugin_start"), 1);
        // One after the other and all at once: each thread's first label finds the library's values untouched. How much of
        // a short thread's time is met by ticks depends on what else the machine does, so there are as many as it takes.
        let deadline = Instant::now() + Duration::from_secs(60);
        let charged = || plugin.call(c"spanflame_plugin_charged");
        while charged() < CHARGED {
            assert!(Instant::now() < deadline, "{} ms of {CHARGED}", charged());
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(move || plugin.burn(MILLIS));
                }
            });
            // Samples are counted a while after they were taken.
            std::thread::sleep(Duration::from_millis(100));
        }
        let (charged, sampled) = (charged(), plugin.call(c"spanflame_plugin_sampled"));
        println!("{charged} ms in spans of {sampled} sampled");
        assert!(charged * 4 >= sampled * 3, "{charged} ms in spans of {sampled} sampled");
        assert_eq!(plugin.call(c"spanflame_plugin_stop"), 1);
        plugin.close();
        // The handler is still installed, so it must still be there.
        // SAFETY: the signal has a handler.
        assert_eq!(unsafe { libc::raise(libc::SIGPROF) }, 0);
        let still = Plugin::open(&library(), libc::RTLD_NOW | libc::RTLD_NOLOAD).expect("stays in memory");
        still.close();
    }
}

/// Only an optimized build says anything: `cargo test --release -p spanflame-cdylib-tests`.
#[cfg(all(not(debug_assertions), target_arch = "x86_64"))]
#[test]
fn the_handler_of_a_plugin_reaches_no_allocator_lock_panic_or_thread_local_lookup() {
    let code = machine_code::MachineCode::of(&library());
    let handler = code.find(|name| name.starts_with("spanflame::sys::signal::handler"));
    println!("the handler reaches {:?}", code.reached_by_handler(handler));
}
