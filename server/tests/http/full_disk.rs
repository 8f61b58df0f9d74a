//! A disk that is really full: a small file system of its own, in a mount namespace that goes with the test.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::pushes::{ARGS, by_series, is_there, push};
use crate::support::{Answer, Server};

/// Bytes of the file system.
const SIZE: usize = 6 << 20;
/// Bytes of a file that is in the way until it is removed.
const BALLAST: usize = 2 << 20;

/// A file system in memory; gone when this is dropped.
struct SmallDisk {
    /// Keeps the namespace while servers come and go.
    holder: Child,
    dir: tempfile::TempDir,
    /// How others come into the namespace.
    enter: Vec<String>,
}

impl SmallDisk {
    /// One as root or as somebody who may have a namespace of users.
    ///
    /// # Errors
    /// When this machine permits neither, with what it said.
    fn mount() -> Result<Self, String> {
        Self::mount_as(&[]).or_else(|_| Self::mount_as(&["--user"]))
    }

    fn mount_as(user: &[&str]) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let script =
            format!("mount -t tmpfs -o size={SIZE} tmpfs \"$0\" && echo mounted && exec sleep 100000");
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if !user.is_empty() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["sh", "-c", &script]).arg(dir.path());
        unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = unshare.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line);
        if said.is_err() || line.trim() != "mounted" {
            let _ = holder.kill();
            let output = holder.wait_with_output().expect("it ends");
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let mut enter = vec![format!("--target={}", holder.id()), "--mount".to_owned()];
        if !user.is_empty() {
            enter.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        Ok(Self { holder, dir, enter })
    }

    /// A path on it as others see it.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}/{name}", self.holder.id(), self.dir.path().display()))
    }

    fn server(&self, args: &[&str]) -> Server {
        let mut command = Command::new("nsenter");
        command.env_clear().args(&self.enter).arg(env!("CARGO_BIN_EXE_spanflame"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(self.dir.path().join("data"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Server::spawn(command)
    }

    /// Writes a file of so many bytes, or of as many as there is room for.
    fn fill(&self, name: &str, most: usize) {
        let mut file = File::create(self.path(name)).expect("a file more");
        let chunk = [7; 4096];
        for _ in 0..most / chunk.len() {
            if file.write_all(&chunk).is_err() {
                return;
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Pushes until the server refuses; gives what it said.
fn push_until_refused(server: &Server, acknowledged: &mut Vec<u64>) -> Answer {
    for span in acknowledged.last().map_or(1, |last| last + 1).. {
        let answer = push(server, span).expect("an answer");
        if answer.status != 200 {
            return answer;
        }
        acknowledged.push(span);
        assert!(acknowledged.len() < 50_000, "the disk does not fill up");
    }
    unreachable!("numbers do not run out")
}

#[track_caller]
fn serves(server: &Server, acknowledged: &[u64]) {
    assert_eq!(by_series(server), acknowledged.len() as u64, "each of them once");
    for span in acknowledged.iter().step_by(acknowledged.len() / 20 + 1) {
        assert!(is_there(server, *span), "span {span} was acknowledged and is gone");
    }
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_recovers_by_itself() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("SKIPPED: this machine lets nobody mount a file system here: {why}");
            return;
        }
    };
    let mut acknowledged = Vec::new();
    let server = disk.server(&ARGS);
    assert!(push(&server, 1).is_some_and(|answer| answer.status == 200));
    acknowledged.push(1);
    disk.fill("ballast", BALLAST);
    let refused = push_until_refused(&server, &mut acknowledged);
    let message = refused.refused(503, "unavailable");
    assert!(message.contains("no space left"), "{message}");
    serves(&server, &acknowledged);
    assert!(server.get("/metrics").text().contains("spanflame_store_accepts_writes 0"));

    // To the last byte, and across a kill.
    disk.fill("last bytes", SIZE);
    assert_eq!(push(&server, 1_000_000).expect("an answer").status, 503);
    serves(&server, &acknowledged);
    drop(server);
    let server = disk.server(&ARGS);
    serves(&server, &acknowledged);
    assert_eq!(push(&server, 1_000_001).expect("an answer").status, 503);

    // Room comes back, and nobody has to do anything else.
    std::fs::remove_file(disk.path("ballast")).expect("removed");
    server.until(|server| push(server, 1_000_002).expect("an answer"), |answer| answer.status == 200);
    acknowledged.push(1_000_002);
    serves(&server, &acknowledged);
    assert!(server.get("/metrics").text().contains("spanflame_store_accepts_writes 1"));
    drop(server);

    // Full again, to the last byte: retention still lets go of segments, and writing goes on by itself.
    let server = disk.server(&ARGS);
    push_until_refused(&server, &mut acknowledged);
    disk.fill("more last bytes", SIZE);
    drop(server);
    let before = acknowledged.len() as u64;
    let server = disk.server(&[&ARGS[..], &["--retention-total-bytes=100000"]].concat());
    server.until(|server| push(server, 2_000_000).expect("an answer"), |answer| answer.status == 200);
    assert!(is_there(&server, 2_000_000));
    assert!(by_series(&server) < before, "something went to make room");
}
