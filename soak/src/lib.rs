//! A chaos soak: the whole bridge at 1 kHz in a process that does, all at once, everything that is bad for a profiler.
//!
//! `cargo xtask soak` builds and runs it. The program starts itself a second time: one process plays the
//! storm (`storm`), the other watches (`watch`) it from outside, as only that can tell a deadlock, and takes its
//! profiles (`receiver`) over HTTP, slowly or not at all at times.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod actors;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kinds;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod receiver;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod report;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod storm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod watch;

use std::process::ExitCode;

/// The whole program: `<seconds> <plugin>`, and what the watching process hands to the other. `allocator` is only a
/// name, for the report.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn main(allocator: &str) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [role, seconds, plugin, server] if role == storm::ROLE => {
            storm::run(seconds, plugin.as_ref(), server).map(|()| true)
        }
        [seconds, plugin] => watch::run(allocator, seconds, plugin.as_ref()),
        _ => Err(anyhow::anyhow!("usage: spanflame-soak <seconds> <plugin library>")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole program.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn main(_allocator: &str) -> ExitCode {
    eprintln!("soak: the bridge samples on Linux x86-64 only");
    ExitCode::FAILURE
}
