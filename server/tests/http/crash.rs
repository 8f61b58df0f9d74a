//! What was acknowledged survives `kill -9` at any instant.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use buffa::Message;
use parking_lot::Mutex;
use rustix::process::{Signal, kill_process};
use spanflame_wire::push::v1::PushRequest;

use crate::support::{PUSH, Server, cpu_profile, service};

const ROUNDS: u64 = 32;
/// Senders at a time, so that one sync of the log carries several requests.
const SENDERS: usize = 4;

/// Pushes a span of its own; none if the server went away before it answered.
fn push(server: &Server, span: u64) -> Option<()> {
    let id = format!("{span:016x}");
    let begun = 1_767_225_600_000 + span as i64;
    let profile = cpu_profile(begun, &[(&["main", "work"], 10_000_000, &[("span_id", &id)])]);
    let request = PushRequest { series: vec![service("crash", &profile)], ..Default::default() };
    let headers = [("content-type", "application/proto")];
    let answer = server.try_post(PUSH, &headers, request.encode_to_vec().into())?;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    Some(())
}

fn is_whole(server: &Server, span: u64, must_exist: bool) {
    let answer = server.get(&format!("/api/v1/spans/{span:016x}"));
    if must_exist || answer.status != 404 {
        assert_eq!(answer.status, 200, "span {span} was acknowledged and is gone");
        assert_eq!(answer.json()["cpuNanos"], 10_000_000, "span {span}");
    }
}

#[test]
fn acknowledged_profiles_survive_a_kill_at_any_instant() {
    let dir = tempfile::tempdir().expect("a directory");
    let acknowledged: Mutex<Vec<u64>> = Mutex::default();
    let cut_off: Mutex<Vec<u64>> = Mutex::default();
    let next = AtomicU64::new(1);
    let mut checked = 0;
    for round in 0..=ROUNDS {
        let mut server = Server::on(dir.path(), &["--log=error"]);
        // The spans of the last round after each round, those of all rounds after the last.
        let skip = if round == ROUNDS { 0 } else { checked };
        for span in &acknowledged.lock()[skip..] {
            is_whole(&server, *span, true);
        }
        // A push that was not answered may have been stored, but then whole.
        for span in &*cut_off.lock() {
            is_whole(&server, *span, false);
        }
        checked = acknowledged.lock().len();
        if round == ROUNDS {
            break;
        }
        // A different instant in every round, spread over the time of some dozen pushes.
        let delay = Duration::from_micros(5_000 + round * 7_919 % 120_000);
        let process = server.pid();
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    loop {
                        let span = next.fetch_add(1, Ordering::Relaxed);
                        if push(&server, span).is_none() {
                            cut_off.lock().push(span);
                            break;
                        }
                        acknowledged.lock().push(span);
                    }
                });
            }
            scope.spawn(move || {
                std::thread::sleep(delay);
                kill_process(process, Signal::KILL).expect("the process is ours and not waited for yet");
            });
        });
        server.kill();
    }
    let kept = acknowledged.lock().len() as u64;
    assert!(kept > ROUNDS, "only {kept} pushes were acknowledged in {ROUNDS} rounds");
}
