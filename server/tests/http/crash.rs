//! What was acknowledged survives `kill -9` at any instant, also while profiles become segments and segments are merged.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Signal, kill_process};

use crate::pushes::{ARGS, by_series, is_there, push};
use crate::support::{DEADLINE, Server};

/// Kills in every run of the tests; `SPANFLAME_KILLS=300` makes it that many.
const KILLS: u64 = 24;
/// Senders at a time, so that one sync of the log carries several requests.
const SENDERS: usize = 4;
/// How often segments were added to the manifest and how often they were merged.
fn flushes_and_merges(data: &Path) -> (usize, usize) {
    let entries = std::fs::read_dir(data.join("objects/manifest")).into_iter().flatten();
    let entries = entries.map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"));
    let has = |entry: &Vec<u8>, text: &str| String::from_utf8_lossy(entry).contains(text);
    let (merges, flushes): (Vec<_>, Vec<_>) = entries.partition(|entry| has(entry, r#""level":1"#));
    (flushes.len(), merges.len())
}

#[test]
fn acknowledged_profiles_survive_a_kill_at_any_instant() {
    let kills = std::env::var("SPANFLAME_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let acknowledged: Mutex<Vec<u64>> = Mutex::default();
    let cut_off: Mutex<BTreeSet<u64>> = Mutex::default();
    let next = AtomicU64::new(1);
    let (mut checked, mut flushes, mut merges) = (0, 0, 0);
    for round in 0..=kills {
        let mut server = Server::on(dir.path(), &ARGS);
        // A push that was not answered may have been stored, but then whole. What a start finds stays.
        let found: Vec<u64> = std::mem::take(&mut *cut_off.lock())
            .into_iter()
            .filter(|span| is_there(&server, *span))
            .collect();
        acknowledged.lock().extend(found);
        // The spans of the last round after each round, those of all rounds after the last.
        let skip = if round == kills { 0 } else { checked };
        for span in &acknowledged.lock()[skip..] {
            assert!(is_there(&server, *span), "span {span} was acknowledged and is gone");
        }
        checked = acknowledged.lock().len();
        assert_eq!(by_series(&server), checked as u64, "each push is there once");
        if round == kills {
            break;
        }
        // A different instant in every round: after some pushes, and a moment.
        let enough = checked + 4 + (round * 7 % 36) as usize;
        let moment = Duration::from_micros(round * 7_919 % 20_000);
        let process = server.pid();
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    loop {
                        let span = next.fetch_add(1, Ordering::Relaxed);
                        let Some(answer) = push(&server, span) else {
                            cut_off.lock().insert(span);
                            break;
                        };
                        assert_eq!(answer.status, 200, "{:?}", answer.body);
                        acknowledged.lock().push(span);
                    }
                });
            }
            scope.spawn(|| {
                let begun = Instant::now();
                while acknowledged.lock().len() < enough && begun.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(moment);
                kill_process(process, Signal::KILL).expect("the process is ours and not waited for yet");
            });
        });
        server.kill();
        let (flushed, merged) = flushes_and_merges(dir.path());
        (flushes, merges) = (flushed.max(flushes), merged.max(merges));
    }
    let kept = acknowledged.lock().len() as u64;
    println!(
        "{kills} kills: {kept} pushes are there once each, after {flushes} flushes and {merges} merges at least"
    );
    assert!(kept > kills, "only {kept} pushes were acknowledged in {kills} rounds");
    // On a machine that is busy enough no server lives for as long as a merge takes.
    assert!(flushes > 1, "nothing became a segment at the kills");
}
