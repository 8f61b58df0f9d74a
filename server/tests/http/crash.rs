//! What was acknowledged survives `kill -9` at any instant.

use std::time::Duration;

use buffa::Message;
use spanflame_wire::push::v1::PushRequest;

use crate::support::{PUSH, Server, cpu_profile, service};

const ROUNDS: u64 = 30;

#[test]
fn acknowledged_profiles_survive_a_kill_at_any_instant() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged: Vec<u64> = Vec::new();
    let mut next = 1;
    for round in 0..ROUNDS {
        let mut server = Server::on(dir.path(), &["--log=error"]);
        for span in &acknowledged {
            let answer = server.get(&format!("/api/v1/spans/{span:016x}"));
            assert_eq!(answer.status, 200, "round {round}: span {span} was acknowledged and is gone");
            assert_eq!(answer.json()["cpuNanos"], 10_000_000, "round {round}: span {span}");
        }
        // Delays spread over the time that some dozen pushes take, different in every round.
        let delay = Duration::from_micros(round * 7919 % 60_000);
        let process = server.process_id().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            std::process::Command::new("kill").args(["-KILL", &process]).status().expect("kill exists")
        });
        loop {
            let span = format!("{next:016x}");
            let profile = cpu_profile(
                1_767_225_600_000 + next as i64,
                &[(&["main", "work"], 10_000_000, &[("span_id", &span)])],
            );
            let request = PushRequest { series: vec![service("crash", &profile)], ..Default::default() };
            let body = request.encode_to_vec().into();
            match server.try_post(PUSH, &[("content-type", "application/proto")], body) {
                Some(answer) => assert_eq!(answer.status, 200, "{:?}", answer.body),
                None => break,
            }
            acknowledged.push(next);
            next += 1;
        }
        // The push in flight may or may not have been stored; its id is not used again.
        next += 1;
        killer.join().expect("the killer ends");
        server.kill();
    }
    assert!(acknowledged.len() as u64 > ROUNDS, "only {} pushes were acknowledged", acknowledged.len());
}
