//! Child processes that listen on a port of the system's choice and end with the test.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, until};

/// A running program. Dropping it kills it, by its process id; a failing test shows what it wrote.
pub struct Process {
    child: Child,
    name: String,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the program.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("it is piped");
        let stderr = child.stderr.take().expect("it is piped");
        let readers = vec![
            read(stdout, &log, move |line| {
                // Nobody may be listening any more; the log has the line.
                let _ = sender.send(line.to_owned());
            }),
            read(stderr, &log, |_| {}),
        ];
        Self { child, name, lines, log, readers }
    }

    /// The address in its `listening on` line.
    ///
    /// # Panics
    /// When it ends or stays silent instead.
    pub fn address(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening on ") {
                        return address.trim().to_owned();
                    }
                }
                Err(error) => {
                    panic!("{} did not say where it listens: {error}\n{}", self.name, self.log.lock())
                }
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has; returns all that it wrote.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn terminate(mut self) -> String {
        kill_process(self.pid(), Signal::TERM).expect("the process is ours and runs");
        self.expect_success();
        self.join_readers();
        std::mem::take(&mut self.log.lock())
    }

    /// Ends it at this instant (SIGKILL).
    pub fn kill(self) {}

    /// Waits until it ends by itself; returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub fn wait(mut self) -> Vec<String> {
        self.expect_success();
        self.join_readers();
        self.lines.try_iter().collect()
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("reading does not panic");
        }
    }

    fn expect_success(&mut self) {
        let status = self.ended();
        assert!(status.success(), "{} ended with {status}\n{}", self.name, self.log.lock());
    }

    fn ended(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until(&what, || self.child.try_wait().expect("a child can be waited for"))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.name, self.log.lock());
        }
    }
}

fn read(
    from: impl Read + Send + 'static,
    log: &Arc<Mutex<String>>,
    line: impl Fn(&str) + Send + 'static,
) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for text in BufReader::new(from).lines().map_while(Result::ok) {
            log.lock().push_str(&format!("{text}\n"));
            line(&text);
        }
    })
}
