//! A measured process: requests in, one JSON line out.

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use spanflame_bench_rig::Request;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What became of a process that was asked for something dangerous.
pub(crate) enum Fate<T> {
    /// It answered.
    Answered(T),
    /// It ended: with this status.
    Died(String),
}

/// A running subject. Killed and reaped when dropped.
pub(crate) struct Measured {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Measured {
    /// Starts the subject's binary, with some environment variables of its own.
    pub(crate) fn spawn(binary: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let mut child = Command::new(binary)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let input = child.stdin.take().context("the child's standard input")?;
        let output = BufReader::new(child.stdout.take().context("the child's standard output")?);
        Ok(Self { child, input, output })
    }

    /// Starts it with its profiler sampling at `hz`.
    pub(crate) fn start(binary: &Path, hz: u32) -> Result<Self> {
        Self::start_with(binary, hz, false)
    }

    /// Starts it with its profiler's sampler alone.
    pub(crate) fn start_bare(binary: &Path, hz: u32) -> Result<Self> {
        Self::start_with(binary, hz, true)
    }

    fn start_with(binary: &Path, hz: u32, bare: bool) -> Result<Self> {
        let mut measured = Self::spawn(binary, &[])?;
        measured.ask::<()>(&Request::Start { hz, bare })?;
        Ok(measured)
    }

    /// Sends a request that the process may not survive.
    pub(crate) fn ask_or_die<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Fate<T>> {
        match self.ask(request) {
            Ok(answer) => Ok(Fate::Answered(answer)),
            // A crash shows as the end of its answers, a moment before the process can be waited for.
            Err(error) => {
                for _ in 0..500 {
                    if let Some(status) = self.child.try_wait()? {
                        return Ok(Fate::Died(status.to_string()));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error)
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.input.write_all(&line).with_context(|| format!("{request:?}: the process has ended"))?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        let answer: Result<T, String> =
            serde_json::from_str(&answer).with_context(|| format!("{request:?} was answered {answer:?}"))?;
        answer.map_err(|error| anyhow!("{request:?}: {error}"))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
