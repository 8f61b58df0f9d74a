//! A segment whose bytes are not those that were written: told, set aside, and no harm to the rest.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::pushes::{ARGS, all, by_series, is_there, push};
use crate::support::{DEADLINE, Server};

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data.join("objects/segments")).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
    paths.sort();
    paths
}

/// A directory with three segments of one push each, and the segment and the number of the second.
fn three_segments(data: &Path) -> (PathBuf, u64) {
    let mut middle = None;
    for span in 1..=3 {
        let server = Server::on(data, &ARGS);
        let before = segments(data);
        assert_eq!(push(&server, span).expect("an answer").status, 200);
        let begun = Instant::now();
        let new = loop {
            if let Some(new) = segments(data).into_iter().find(|path| !before.contains(path)) {
                break new;
            }
            assert!(begun.elapsed() < DEADLINE, "no segment is made");
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        // Until the log file is gone the segment may be one that the manifest does not know.
        let metrics = server.until(
            |server| server.get("/metrics"),
            |answer| answer.text().contains("spanflame_store_log_files 0"),
        );
        drop(metrics);
        if span == 2 {
            middle = Some((new, span));
        }
    }
    middle.expect("the second of three")
}

#[test]
fn a_damaged_segment_is_told_and_set_aside_and_the_rest_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let (segment, lost) = three_segments(dir.path());
    let name = segment.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
    let whole = std::fs::read(&segment).expect("readable");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    // In its footer, in the first of its pieces, and half of it gone.
    for damaged in [flipped(whole.len() - 40), flipped(16), whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&segment, &damaged).expect("written");
        let server = Server::on(dir.path(), &["--log=error"]);
        let others: Vec<u64> = (1..=3).filter(|span| *span != lost).collect();
        let message = server.query("SelectMergeStacktraces", all()).refused(503, "unavailable");
        assert!(message.contains(&name), "{message}");
        assert!(server.logged("segment is damaged").contains(&name));
        assert_eq!(by_series(&server), 2, "the rest is served");
        assert!(others.iter().all(|span| is_there(&server, *span)) && !is_there(&server, lost));
        assert!(server.get("/metrics").text().contains("spanflame_store_damaged_segments 1"));
        assert_eq!(
            push(&server, 3 + damaged.len() as u64).expect("an answer").status,
            200,
            "writing goes on"
        );
        assert_eq!(by_series(&server), 3);
        drop(server);
        // Put back from a backup it is served again; what was pushed meanwhile is not part of this.
        std::fs::write(&segment, &whole).expect("written");
        let server = Server::on(dir.path(), &["--log=error"]);
        assert_eq!(by_series(&server), 4);
        assert!(is_there(&server, lost));
        drop(server);
        std::fs::remove_dir_all(dir.path().join("log")).expect("removed");
    }
}
