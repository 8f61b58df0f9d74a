//! Children: by `fork` alone, by `fork` and `exec`, by `posix_spawn`.
#![allow(unsafe_code)] // fork

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::{Round, Stage, in_span};
use crate::kinds::Kind;

/// Forks a child that goes on as if nothing had happened, spans included.
pub(super) fn forks(stage: &Arc<Stage>) -> Round {
    let stage = Arc::clone(stage);
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let kind = Kind::nth(round);
        in_span(&stage.tracer, kind, || kind.burn(Duration::from_millis(1)));
        // SAFETY: the child uses only what fork leaves usable with the allocators we run on, and leaves by `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                in_span(&stage.tracer, kind, || kind.burn(Duration::from_millis(2)));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(0) };
            }
            child if child > 0 => {
                let mut status = 0;
                // SAFETY: fills `status`.
                let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                ensure!((waited, status) == (child, 0), "a forked child ended with status {status:#x}");
                Ok(())
            }
            _ => bail!("cannot fork: {}", std::io::Error::last_os_error()),
        }
    })
}

/// The way of a program that does something between the two.
pub(super) fn fork_and_exec() -> Round {
    Box::new(|| {
        let mut command = shell();
        // SAFETY: does nothing at all in the child; being there makes std fork rather than spawn.
        unsafe { command.pre_exec(|| Ok(())) };
        end_well(&mut command)
    })
}

/// The way of a program that does not.
pub(super) fn spawn() -> Round {
    Box::new(|| end_well(&mut shell()))
}

/// A program that burns a little, so that a timer which it inherited would strike.
fn shell() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"]).stdin(Stdio::null());
    command.stdout(Stdio::null());
    command
}

fn end_well(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "a spawned program ended with {status}");
    Ok(())
}
