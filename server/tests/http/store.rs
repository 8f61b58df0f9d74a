//! `spanflame store …` on data directories that servers made, some of which are still at work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use buffa::Message;
use serde_json::Value;

use crate::support::{CPU, SPAN, Server, checkout, command, cpu_profile, gzip, service};

struct Done {
    good: bool,
    out: String,
    err: String,
}

fn store(args: &[&str]) -> Done {
    let Output { status, stdout, stderr } =
        command(&[&["store"], args].concat()).output().expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { good: status.success(), out: text(stdout), err: text(stderr) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn inspect(data: &Path) -> Value {
    let done = store(&["inspect", "--json", "--data-dir", text(data)]);
    assert!(done.good, "{}", done.err);
    serde_json::from_str(&done.out).expect("JSON")
}

#[track_caller]
fn verified(data: &Path) {
    let done = store(&["verify", "--data-dir", text(data)]);
    assert!(done.good && done.out.starts_with("0 damages in "), "{}{}", done.out, done.err);
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let to = to.join(path.strip_prefix(from).expect("below it"));
        fs::create_dir_all(to.parent().expect("it has one")).expect("made");
        fs::write(to, bytes).expect("written");
    }
}

/// The fixture of the first formats: two segments of two tenants, and five profiles in the log.
fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-1"), dir.path());
    dir
}

/// What a server answers about everything that tests push.
fn answers(server: &Server) -> Vec<Value> {
    let body = format!(
        r#"{{"profileTypeID":"{CPU}","labelSelector":"{{}}","start":"1767225600000","end":"1767225700000"}}"#
    );
    let flame = server.query("SelectMergeStacktraces", body).json();
    vec![flame, server.get(&format!("/api/v1/spans/{SPAN}")).json()]
}

#[test]
fn a_directory_is_looked_at_while_its_server_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::on(dir.path(), &["--flush-after-ms=1000"]);
    server.pushed(checkout());
    let found = inspect(dir.path());
    assert_eq!(found["tenants"][0]["tenant"], "anonymous");
    let profiles = |found: &Value| {
        let of = |name: &str| found["tenants"][0][name].as_u64().expect("a number");
        of("logProfiles") + of("segmentProfiles")
    };
    assert_eq!(profiles(&found), 2);
    verified(dir.path());
    // Until it is in a segment: at every moment it is seen once.
    let begun = std::time::Instant::now();
    loop {
        let found = inspect(dir.path());
        assert_eq!(profiles(&found), 2, "{found:#}");
        verified(dir.path());
        if found["segments"].as_array().is_some_and(|segments| segments.len() == 1) {
            assert!(found["tenants"][0]["bytesPerSample"].as_f64().is_some_and(|bytes| bytes > 1.0));
            break;
        }
        assert!(begun.elapsed() < crate::support::DEADLINE);
    }
    let done = store(&["inspect", "--data-dir", text(dir.path())]);
    assert!(
        done.good && done.out.contains("tenant anonymous") && done.out.contains("bytes per sample"),
        "{}",
        done.out
    );
    server.alive();
}

#[test]
fn damage_is_told_with_its_place_and_status_1() {
    let dir = fixture();
    verified(dir.path());
    let (segment, whole) = contents(&dir.path().join("objects/segments")).pop_first().expect("there are two");
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let done = store(&["verify", "--data-dir", text(dir.path())]);
    let name = segment.file_name().expect("it has one").to_str().expect("plain");
    assert!(
        !done.good && done.out.contains(name) && done.out.contains("checksum does not fit"),
        "{}",
        done.out
    );
    let done = store(&["verify", "--json", "--data-dir", text(dir.path())]);
    let found: Value = serde_json::from_str(&done.out).expect("JSON");
    assert!(!done.good && found["checked"]["damages"] == 1, "{found}");
    assert!(found["damages"][0]["offset"].as_u64().is_some_and(|offset| offset <= 100), "{found}");
    fs::write(&segment, whole).expect("written");
    let log = contents(&dir.path().join("log")).pop_first().expect("there is one").0;
    let mut bytes = fs::read(&log).expect("readable");
    bytes[60] ^= 1;
    fs::write(&log, bytes).expect("written");
    let done = store(&["verify", "--data-dir", text(dir.path())]);
    assert!(
        !done.good && done.out.contains(".log, byte 32: ") && done.out.contains("are lost"),
        "{}",
        done.out
    );
    let none = tempfile::tempdir().expect("a directory");
    for command in ["inspect", "verify"] {
        let done = store(&[command, "--data-dir", text(none.path())]);
        assert!(!done.good && done.err.contains("error: find a store"), "{}", done.err);
    }
}

#[test]
fn what_is_exported_beside_a_server_is_imported_and_answers_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::on(dir.path(), &[]);
    server.pushed(checkout());
    let files = dir.path().join("files");
    let export = |more: &[&str]| {
        store(&[&["export", "--data-dir", text(dir.path()), "--out", text(&files)], more].concat())
    };
    let done =
        export(&["--selector", "{service_name=\"checkout\"}", "--from", "20260101", "--until", "1767229200"]);
    assert!(done.good && done.out.starts_with("2 files of 1 series, "), "{}{}", done.out, done.err);
    let done = export(&[]);
    assert!(!done.good && done.err.contains("is not empty"), "{}", done.err);
    for (flag, value, what) in [
        ("--selector", "{a=}", "label selector, character"),
        ("--from", "nonsense", "--from: expected an instant"),
        ("--tenant", "a/b", "tenant id: expected"),
    ] {
        let done = export(&[flag, value]);
        assert!(!done.good && done.err.contains(what), "{}", done.err);
    }
    let import = |data: &Path, more: &[&str]| {
        store(&[&["import", "--data-dir", text(data), text(&files)], more].concat())
    };
    let done = import(dir.path(), &[]);
    assert!(!done.good && done.err.contains("in use by another process"), "{}", done.err);
    let other = tempfile::tempdir().expect("a directory");
    let done = import(other.path(), &[]);
    assert!(
        done.good && done.out == "2 profiles of 2 files; 0 files not taken\n",
        "{}{}",
        done.out,
        done.err
    );
    verified(other.path());
    let again = Server::on(other.path(), &[]);
    assert_eq!(answers(&server), answers(&again));
}

#[test]
fn files_of_profilers_are_taken_and_bad_ones_named() {
    let (dir, files) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let profile = cpu_profile(1_767_225_600_000, &[(&["main", "work"], 10_000_000, &[("span_id", SPAN)])]);
    let good = files.path().join("profile.pb");
    fs::write(&good, profile.encode_to_vec()).expect("written");
    fs::write(files.path().join("cut.pb.gz"), &gzip(&profile.encode_to_vec())[..40]).expect("written");
    fs::write(files.path().join("notes.txt"), "no profile").expect("written");
    let labels = ["--label", "service_name=batch", "--label=run=7"];
    let done =
        store(&[&["import", "--data-dir", text(dir.path()), text(files.path())], &labels[..]].concat());
    assert!(
        !done.good && done.out == "1 profiles of 1 files; 2 files not taken\n",
        "{}{}",
        done.out,
        done.err
    );
    assert!(done.err.contains("cut.pb.gz: ") && done.err.contains("notes.txt: "), "{}", done.err);
    let done = store(&["import", "--data-dir", text(dir.path()), "--max-samples=0", text(&good)]);
    assert!(!done.good, "{}", done.out);
    let server = Server::on(dir.path(), &[]);
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!(span["cpuNanos"], 10_000_000, "{span}");
    let names = server.query("LabelValues", r#"{"name":"run"}"#).json();
    assert_eq!(names["names"][0], "7", "{names}");
}

/// A frame of the manifest with its checksum set right.
fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    let length = frame.len() as u32 - 20;
    let sum = crc32fast::hash(&frame[20..]);
    frame[12..16].copy_from_slice(&length.to_le_bytes());
    frame[16..20].copy_from_slice(&sum.to_le_bytes());
    frame
}

#[test]
fn newer_formats_are_refused_and_left_as_they_are() {
    let log = |bytes: &mut Vec<u8>| {
        bytes[8] = 3;
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    };
    let manifest = |bytes: &mut Vec<u8>| bytes[8] = 2;
    let segment = |bytes: &mut Vec<u8>| {
        let json = String::from_utf8(bytes[20..].to_vec()).expect("text");
        assert!(json.contains("\"version\":1"));
        bytes.truncate(20);
        bytes.extend_from_slice(json.replace("\"version\":1", "\"version\":9").as_bytes());
        *bytes = sealed(std::mem::take(bytes));
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>), &'a str);
    let changes: [Change<'_>; 3] = [
        ("log/00000000000000000002.log", &log, "format version 3, this version reads up to 2"),
        ("objects/manifest/00000000000000000001", &manifest, "format version 2, this version reads up to 1"),
        ("objects/manifest/00000000000000000001", &segment, "format version 9, this version reads up to 2"),
    ];
    for (file, change, message) in changes {
        let dir = fixture();
        // What a start would otherwise remove or cut off stays too.
        fs::write(dir.path().join("objects/segments/stranger.segment"), "x").expect("written");
        fs::write(dir.path().join("lock"), "").expect("written");
        let older = dir.path().join("log/00000000000000000001.log");
        fs::write(&older, "not a log").expect("written");
        let file = dir.path().join(file);
        let mut bytes = fs::read(&file).expect("readable");
        change(&mut bytes);
        fs::write(&file, bytes).expect("written");
        let before = contents(dir.path());
        let data = text(dir.path());
        let out = tempfile::tempdir().expect("a directory");
        let (source, files, new) = (fixture(), out.path().join("files"), out.path().join("new"));
        assert!(store(&["export", "--out", text(&files), "--data-dir", text(source.path())]).good);
        let commands: [&[&str]; 4] =
            [&["inspect"], &["verify"], &["export", "--out", text(&new)], &["import", text(&files)]];
        for args in commands {
            let done = store(&[args, &["--data-dir", data]].concat());
            assert!(!done.good && done.err.contains(message), "{args:?} {}{}", done.out, done.err);
        }
        let Output { status, stderr, .. } = command(&["serve", "--listen=127.0.0.1:0", "--data-dir", data])
            .output()
            .expect("the binary starts");
        let error = String::from_utf8(stderr).expect("text");
        assert!(!status.success() && error.contains(message), "{error}");
        assert!(contents(dir.path()) == before, "something was changed: {message}");
    }
}

/// Copies files that are there by now, one after another in order of their names; those that go meanwhile are passed over.
fn walk(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(from).expect("readable").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    for path in paths {
        let to = to.join(path.file_name().expect("it has one"));
        if path.is_dir() {
            walk(&path, &to);
        } else {
            match fs::copy(&path, &to) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", path.display()),
            }
        }
    }
}

#[test]
fn copies_of_a_directory_at_work_hold_what_was_acknowledged_before() {
    const COPIES: usize = 5;
    let dir = tempfile::tempdir().expect("a directory");
    let frequent = ["--flush-after-ms=1000", "--max-head-bytes=1048576", "--log=error"];
    let server = Server::on(dir.path(), &frequent);
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let filler: Vec<String> =
        (0..150).map(|number| format!("a_function_with_quite_a_long_name_{number}")).collect();
    let mut copies = Vec::new();
    /// Ends the pushing also when a check fails, so that the failure is told.
    struct Stop<'a>(&'a std::sync::atomic::AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            for number in 1.. {
                if stop.load(relaxed) {
                    break;
                }
                let id = format!("{number:016x}");
                let own = format!("function_{number}");
                let mut stack: Vec<&str> = filler.iter().map(String::as_str).collect();
                stack.push(&own);
                let profile = cpu_profile(
                    1_767_225_600_000 + number as i64,
                    &[(&stack, 10_000_000, &[("span_id", &id)])],
                );
                server.pushed(vec![service("backup", &profile)]);
                acknowledged.store(number, relaxed);
            }
        });
        let until = |enough: u64| {
            let begun = std::time::Instant::now();
            while acknowledged.load(relaxed) < enough {
                assert!(begun.elapsed() < crate::support::DEADLINE, "nothing is acknowledged");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        let begun = std::time::Instant::now();
        // Copies with segments are what this is about, and those begin to be when a second has gone by.
        let mut with_segments = 0;
        while with_segments < COPIES {
            assert!(begun.elapsed() < crate::support::DEADLINE, "nothing becomes a segment");
            until(acknowledged.load(relaxed) + 100);
            let to = tempfile::tempdir().expect("a directory");
            let before = acknowledged.load(relaxed);
            fs::create_dir(to.path().join("objects")).expect("made");
            // As docs/operations.md says: in this order, and again if a segment went in between.
            for attempt in 0.. {
                for part in
                    ["server-id", "log", "objects/checkpoints", "objects/manifest", "objects/segments"]
                {
                    let (from, to) = (dir.path().join(part), to.path().join(part));
                    if from.is_dir() {
                        walk(&from, &to);
                    } else if from.exists() {
                        fs::copy(from, to).expect("copied");
                    }
                }
                let done = store(&["verify", "--data-dir", text(to.path())]);
                if done.good {
                    break;
                }
                assert!(done.out.contains("the object is gone") && attempt < 50, "{}{}", done.out, done.err);
            }
            let found = inspect(to.path());
            with_segments += usize::from(found["segments"].as_array().is_some_and(|found| !found.is_empty()));
            copies.push((to, before));
        }
    });
    // All of what the last and largest hold, and of the others what was acknowledged last.
    let last = copies.len() - 1;
    for (at, (copy, before)) in copies.into_iter().enumerate() {
        let server = Server::on(copy.path(), &["--log=error"]);
        let first = if at == last { 1 } else { before.saturating_sub(300) + 1 };
        for number in first..=before {
            let answer = server.get(&format!("/api/v1/spans/{number:016x}"));
            assert_eq!(answer.status, 200, "span {number} of {before} is gone");
            assert_eq!(answer.json()["cpuNanos"], 10_000_000, "span {number}");
        }
    }
}
