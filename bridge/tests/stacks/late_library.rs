//! Libraries that are loaded, and unloaded, while their process is sampled.

use std::ffi::{CString, c_void};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use parking_lot::Mutex;
use spanflame::bench_support::{self, Sampler};
use spanflame::{ExportError, Profile, ProfileExporter, Profiler};

use crate::{DEADLINE, TURN, cpu_time};

/// A library of its own, with a function that burns in a frame of its own.
const SOURCE: &str = r#"
#![no_std]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }

#[inline(never)]
fn spanflame_late_inner(turns: u64) -> u64 {
    let mut state = turns;
    for turn in 0..turns {
        state = core::hint::black_box(state.rotate_left(7) ^ turn);
    }
    state
}

#[unsafe(no_mangle)]
pub extern "C" fn spanflame_late_burn(turns: u64) -> u64 {
    core::hint::black_box(spanflame_late_inner(core::hint::black_box(turns))) + 1
}
"#;

fn compile(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("late.rs"), directory.join("liblate.so"));
    std::fs::write(&source, SOURCE).expect("written");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=2", "-Cpanic=abort", "-g"]);
    command.args(["-Clink-arg=-nostdlib", "-o"]).arg(&library).arg(&source);
    let output = command.output().expect("rustc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A loaded library.
struct Library(*mut c_void);

// SAFETY: the loader is thread-safe, and so is the library.
unsafe impl Sync for Library {}

impl Library {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no zero byte");
        // SAFETY: a library without constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null());
        Self(handle)
    }

    fn address(&self) -> u64 {
        // SAFETY: a handle from `dlopen` and a string.
        let address = unsafe { libc::dlsym(self.0, c"spanflame_late_burn".as_ptr()) };
        assert!(!address.is_null());
        address as u64
    }

    fn burn(&self, time: Duration) {
        // SAFETY: the function of that name has this type.
        let burn = unsafe { std::mem::transmute::<u64, extern "C" fn(u64) -> u64>(self.address()) };
        let until = cpu_time() + time;
        while cpu_time() < until {
            std::hint::black_box(burn(20_000));
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: from `dlopen`, closed once.
        unsafe { libc::dlclose(self.0) };
    }
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

impl ProfileExporter for Kept {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        let mut bytes = Vec::new();
        GzDecoder::new(&profile.pprof[..]).read_to_end(&mut bytes).expect("gzip");
        self.0.lock().push(bytes);
        Ok(())
    }
}

#[test]
fn functions_of_a_library_that_is_loaded_late_are_there_by_name_within_two_windows() {
    let _turn = TURN.lock();
    let directory = tempfile::tempdir().expect("a directory");
    let path = compile(directory.path());
    let kept = Kept::default();
    let profiler = Profiler::builder()
        .service_name("late")
        .upload_interval(Duration::from_secs(1))
        .exporter(kept.clone())
        .start()
        .expect("starts");
    let windows = || kept.0.lock().len();
    let wait_for = |count: usize| {
        let deadline = Instant::now() + DEADLINE;
        while windows() < count {
            assert!(Instant::now() < deadline, "{:?}", profiler.stats());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // A window without samples is not exported.
    let before = std::thread::spawn(|| {
        let until = cpu_time() + Duration::from_millis(400);
        while cpu_time() < until {
            crate::code::run_leaf(20_000);
        }
    });
    before.join().expect("burns");
    profiler.flush(DEADLINE).expect("delivered");
    wait_for(1);
    let (before, library) = (windows(), Library::open(&path));
    std::thread::scope(|scope| {
        let burning = scope.spawn(|| library.burn(Duration::from_secs(3)));
        wait_for(before + 2);
        burning.join().expect("burns");
    });
    profiler.shutdown(DEADLINE).expect("delivered");
    let contains =
        |profile: &[u8], name: &str| profile.windows(name.len()).any(|part| part == name.as_bytes());
    let profiles = kept.0.lock();
    for profile in &profiles[..before] {
        assert!(!contains(profile, "spanflame_late_burn"), "it was not there yet");
    }
    let soon = &profiles[before..before + 2];
    for name in ["spanflame_late_burn", "spanflame_late_inner", "liblate.so"] {
        assert!(soon.iter().any(|profile| contains(profile, name)), "{name} is not in the next two windows");
    }
}

const CHILD: &str = "SPANFLAME_TEST_LATE_LIBRARY";

/// In a process of its own: what it could do to one is to crash it.
#[test]
fn a_library_may_come_and_go_a_hundred_times_under_sampling() {
    let Some(path) = std::env::var_os(CHILD) else {
        let directory = tempfile::tempdir().expect("a directory");
        let path = compile(directory.path());
        let this = "late_library::a_library_may_come_and_go_a_hundred_times_under_sampling";
        let child = std::env::current_exe().expect("a path");
        let output = Command::new(child)
            .args(["--exact", this, "--nocapture"])
            .env(CHILD, path)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("came and went"), "{said}{output:?}");
        return;
    };
    let mut sampler = Sampler::start(1000, 128).expect("starts");
    let path = PathBuf::from(path);
    let (mut inside, mut whole) = (0, 0);
    for _ in 0..100 {
        let library = Library::open(&path);
        // Looked at every 100 ms; until then its frames end a walk.
        let since = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                bench_support::publish(0);
                library.burn(Duration::from_millis(120));
            });
            scope.spawn(|| {
                bench_support::publish(0);
                library.burn(Duration::from_millis(20));
            });
            while since.elapsed() < Duration::from_millis(110) {
                sampler.drain();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let address = library.address();
        sampler.drain_into(&mut |sample| {
            // The inner function is right beside it.
            if sample.frames.first().is_some_and(|frame| frame.abs_diff(address) < 4096) {
                inside += 1;
                whole += u32::from(!sample.truncated);
            }
        });
    }
    sampler.stop();
    println!("came and went; {whole} of {inside} late samples in it reach the entry");
    assert!(inside > 0 && whole > 0, "{}", sampler.stats());
}
