//! The process that watches: a crash is an exit status, a deadlock is an actor that stands still for too long.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver as Inbox, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::receiver::{Received, Receiver};
use crate::report::Report;
use crate::storm;

/// On a machine like those that this is developed on, no actor's round takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process that has ended may hold back what it said before.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// CPU time that [`slowness`] takes on such a machine.
const NOMINAL: Duration = Duration::from_millis(100);
/// Copies of the plugin: modules of their own.
const COPIES: usize = 4;
/// More resident memory than this is a leak, in bytes.
const MEMORY_BOUND: u64 = 1 << 30;

/// How a storm ended.
#[derive(Debug, PartialEq)]
enum End {
    /// It came to its end.
    Done,
    /// The process ended before.
    Crashed(String),
    /// This actor stood still.
    Stalled(String),
}

/// Runs a storm of that many seconds and prints what became of it. Whether all is well.
pub(crate) fn run(allocator: &str, seconds: &OsStr, plugin: &Path) -> Result<bool> {
    let patience = PATIENCE.mul_f64(slowness());
    let receiver = Receiver::start()?;
    let folder = tempfile::tempdir()?;
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins)?;
    for copy in 0..COPIES {
        std::fs::copy(plugin, plugins.join(format!("plugin-{copy}.so")))
            .with_context(|| format!("cannot copy {}", plugin.display()))?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args([storm::ROLE.as_ref(), seconds, plugins.as_os_str(), receiver.url().as_ref()]);
    let start = Instant::now();
    let (end, last, memory) = watch(&mut command, patience)?;

    let received = receiver.received();
    let complaints = complain(&end, &last, &memory, received);
    let text = describe(allocator, start.elapsed(), &last, &memory, received);
    println!("{text}");
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    if complaints.is_empty() {
        println!("no crash, no deadlock, no foreign label");
    }
    Ok(complaints.is_empty())
}

/// How many times slower than usual this machine is just now, at least 1.
fn slowness() -> f64 {
    let start = Instant::now();
    let until = spanflame_bench_rig::thread_cpu() + NOMINAL;
    while spanflame_bench_rig::thread_cpu() < until {}
    (start.elapsed().as_secs_f64() / NOMINAL.as_secs_f64()).max(1.0)
}

/// Resident memory of the process in the storm, in bytes, in the order of time.
#[derive(Debug, Default)]
struct Memory(Vec<u64>);

impl Memory {
    fn note(&mut self, pid: u32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        self.0.extend(kibibytes.map(|size| size << 10));
    }

    fn peak(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// After that share of the time.
    fn at(&self, share: f64) -> u64 {
        let index = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or(0)
    }
}

/// Follows the reports of `command` until it ends or stands still for `patience`.
fn watch(command: &mut Command, patience: Duration) -> Result<(End, Report, Memory)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("standard output is piped")?;
    let (sender, reports) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(report) = serde_json::from_str::<Report>(&line) else {
                eprintln!("{line}");
                continue;
            };
            // The watch may have ended.
            let _ = sender.send(report);
        }
    });
    let mut last = Report::default();
    let mut memory = Memory::default();
    let end = follow(&mut child, &reports, patience, &mut last, &mut memory);
    // Ended already, or to be ended.
    let _ = child.kill();
    let _ = child.wait();
    Ok((end?, last, memory))
}

fn follow(
    child: &mut Child,
    reports: &Inbox<Report>,
    patience: Duration,
    last: &mut Report,
    memory: &mut Memory,
) -> Result<End> {
    // When each actor was last seen to move, in the order of the reports.
    let mut moved: Vec<Instant> = Vec::new();
    let mut heard = Instant::now();
    let mut gone = None;
    loop {
        match reports.recv_timeout(Duration::from_millis(200)) {
            Ok(report) => {
                heard = Instant::now();
                moved.resize(report.rounds.len(), heard);
                for (n, rounds) in report.rounds.iter().enumerate() {
                    if last.rounds.get(n) != Some(rounds) {
                        moved[n] = heard;
                    }
                }
                *last = report;
                memory.note(child.id());
            }
            Err(RecvTimeoutError::Timeout) => {
                // Its last words may be on their way, and a child of its own may hold the pipe for ever.
                if let Some(status) = child.try_wait()? {
                    let (status, since) = *gone.get_or_insert((status, Instant::now()));
                    if since.elapsed() > LAST_WORDS {
                        return Ok(ended(status, last.done));
                    }
                }
            }
            // Nobody holds the pipe any more.
            Err(RecvTimeoutError::Disconnected) => {
                let deadline = Instant::now() + patience;
                while Instant::now() < deadline {
                    if let Some(status) = child.try_wait()? {
                        return Ok(ended(status, last.done));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                return Ok(stalled(child, "the process's end"));
            }
        }
        if heard.elapsed() > patience {
            return Ok(stalled(child, "the report"));
        }
        // At the end, one actor after another stands still.
        let stopping = last.done || !last.failures.is_empty();
        if let Some(n) = moved.iter().position(|moved| moved.elapsed() > patience).filter(|_| !stopping) {
            return Ok(stalled(child, &last.rounds[n].0));
        }
    }
}

fn ended(status: ExitStatus, done: bool) -> End {
    match status.signal() {
        Some(signal) => End::Crashed(format!("killed by signal {signal}")),
        None if status.success() && done => End::Done,
        None => End::Crashed(format!("ended by itself with {status}")),
    }
}

/// Shows where every thread is, before all of that is gone.
fn stalled(child: &Child, who: &str) -> End {
    let pid = child.id().to_string();
    let stacks = Command::new("gdb")
        .args(["--batch", "-p", &pid, "-ex", "thread apply all backtrace 40"])
        .stdin(Stdio::null())
        .output();
    match stacks {
        Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => eprintln!("{}", waits(&pid)),
    }
    End::Stalled(who.to_owned())
}

/// What the kernel tells of each thread, where there is no debugger: its name, its state and what it waits for.
fn waits(pid: &str) -> String {
    let mut text = "no gdb; threads, what each is in the kernel, its system call:\n".to_owned();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let of_thread = ["comm", "wchan", "syscall"].map(|name| read(name).trim().to_owned());
        // To a string, which cannot fail.
        let _ = writeln!(text, "{:?} {}", task.file_name(), of_thread.join(" "));
    }
    text
}

fn complain(end: &End, last: &Report, memory: &Memory, received: &Received) -> Vec<String> {
    let mut complaints = last.failures.clone();
    match end {
        End::Done => {}
        End::Crashed(how) => complaints.push(format!("crash: {how}")),
        End::Stalled(who) => complaints.push(format!("deadlock: {who} stood still")),
    }
    let foreign = received.foreign.load(Relaxed);
    if foreign > 0 {
        complaints.push(format!("{foreign} samples carry a span of another kind"));
    }
    let malformed = received.malformed.load(Relaxed);
    if malformed > 0 {
        complaints.push(format!("{malformed} profiles cannot be read"));
    }
    if memory.peak() > MEMORY_BOUND {
        complaints.push(format!("{} MiB resident, {} allowed", memory.peak() >> 20, MEMORY_BOUND >> 20));
    }
    if *end == End::Done && (last.labelled == 0 || received.labelled.load(Relaxed) == 0) {
        complaints.push("no sample with a span arrived, so nothing was shown".to_owned());
    }
    complaints
}

fn describe(allocator: &str, took: Duration, last: &Report, memory: &Memory, received: &Received) -> String {
    let mut text = format!("soak: {allocator} allocator, {} s\nrounds:", took.as_secs());
    let mut add = |part: std::fmt::Arguments<'_>| _ = text.write_fmt(part);
    for (name, rounds) in &last.rounds {
        add(format_args!(" {name} {rounds},"));
    }
    let get = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    add(format_args!("\nsamples: {} taken, {} with a span, {} lost", last.samples, last.labelled, last.lost));
    add(format_args!(
        "\nreceived: {} profiles, {} samples; {} in work of a known kind, {} of these with a span, {} with a foreign one",
        get(&received.profiles),
        get(&received.samples),
        get(&received.checked),
        get(&received.labelled),
        get(&received.foreign)
    ));
    let mebibytes = |bytes: u64| bytes >> 20;
    add(format_args!(
        "\nresident memory: {} MiB at most; {} after a quarter of the time, {} after half, {} at the end",
        mebibytes(memory.peak()),
        mebibytes(memory.at(0.25)),
        mebibytes(memory.at(0.5)),
        mebibytes(memory.at(1.0))
    ));
    add(format_args!("\nlatest profiler: {}", last.stats));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn line(rounds: u64, done: bool) -> String {
        let report = Report { rounds: vec![("panics".to_owned(), rounds)], done, ..Report::default() };
        serde_json::to_string(&report).expect("plain data")
    }

    #[test]
    fn a_crash_is_told_from_an_end() {
        let script = format!("echo '{}'; kill -SEGV $$", line(1, false));
        let (end, last, _) = watch(&mut shell(&script), Duration::from_secs(60)).expect("watched");
        assert_eq!(end, End::Crashed("killed by signal 11".to_owned()));
        assert_eq!(last.rounds[0].1, 1);

        let script = format!("echo '{}'; echo noise; echo '{}'", line(1, false), line(2, true));
        let (end, last, _) = watch(&mut shell(&script), Duration::from_secs(60)).expect("watched");
        assert_eq!((end, last.rounds[0].1), (End::Done, 2));

        let (end, ..) = watch(&mut shell("exit 0"), Duration::from_secs(60)).expect("watched");
        assert!(matches!(end, End::Crashed(_)), "it did not say that it is done");
    }

    #[test]
    fn an_actor_that_stands_still_is_a_deadlock_and_so_is_silence() {
        let patience = Duration::from_millis(1_500);
        let script = format!("while true; do echo '{}'; sleep 0.1; done", line(7, false));
        let (end, ..) = watch(&mut shell(&script), patience).expect("watched");
        assert_eq!(end, End::Stalled("panics".to_owned()));
        let (end, ..) = watch(&mut shell("exec sleep 1000"), patience).expect("watched");
        assert_eq!(end, End::Stalled("the report".to_owned()));
    }

    #[test]
    fn every_way_to_fail_is_told() {
        let received = Received::default();
        received.foreign.store(3, Relaxed);
        received.malformed.store(1, Relaxed);
        let last = Report { failures: vec!["forks: no".to_owned()], ..Report::default() };
        let memory = Memory(vec![2 << 30]);
        let complaints = complain(&End::Stalled("tasks".to_owned()), &last, &memory, &received);
        assert_eq!(complaints.len(), 5, "{complaints:?}");
        assert_eq!(
            complain(&End::Done, &Report::default(), &Memory::default(), &Received::default()).len(),
            1
        );
    }
}
