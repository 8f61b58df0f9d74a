//! Servers killed at random while they are written to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use spanflame_tests::until;

use crate::SERVERS;
use crate::cluster::{Client, House, Pushed, Server, verify};

/// Rounds if `SPANFLAME_KILL_ROUNDS` does not say how many.
const ROUNDS: usize = 4;

/// Numbers as if by chance, the same ones in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[test]
fn what_the_log_acknowledged_is_there_once_after_kills() {
    kill_again_and_again("local", false);
}

#[test]
fn what_the_bucket_acknowledged_is_there_once_after_kills_and_lost_disks() {
    kill_again_and_again("object", true);
}

/// Kills one server or more in each round, in the middle of its work; with `lose_disks` they begin again with nothing.
fn kill_again_and_again(mode: &str, lose_disks: bool) {
    let rounds = std::env::var("SPANFLAME_KILL_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("SPANFLAME_KILL_ROUNDS: a number"));
    let house = House::open();
    let pushed = Arc::new(Pushed::default());
    let mut servers: Vec<Option<Server>> = (0..SERVERS).map(|n| Some(house.start(n, mode))).collect();
    let addresses: Vec<_> = servers
        .iter()
        .map(|server| Arc::new(Mutex::new(server.as_ref().expect("it runs").address.clone())))
        .collect();
    let clients: Vec<Client> = addresses.iter().map(|address| Client::start(&pushed, address)).collect();
    let mut chance = Chance(rounds as u64);
    let mut kills = 0;
    for round in 0..rounds {
        let before = pushed.acknowledged().len();
        until("pushes", || (pushed.acknowledged().len() > before + 5).then_some(()));
        std::thread::sleep(Duration::from_millis(chance.below(700)));
        let dying = 1 + chance.below((1 << SERVERS) - 1);
        for number in (0..SERVERS).filter(|number| dying & (1 << number) != 0) {
            servers[number].take().expect("it runs").process.kill();
            kills += 1;
        }
        for number in (0..SERVERS).filter(|number| dying & (1 << number) != 0) {
            if lose_disks {
                std::fs::remove_dir_all(house.data(number)).expect("it is there");
            }
            let server = house.start(number, mode);
            *addresses[number].lock() = server.address.clone();
            servers[number] = Some(server);
        }
        if round % 10 == 9 {
            let spans = pushed.acknowledged();
            check(&servers, &pushed, &spans, round);
        }
    }
    drop(clients);
    let spans = pushed.acknowledged();
    check(&servers, &pushed, &spans, rounds);
    let live: Vec<&Server> = servers.iter().flatten().collect();
    let unknown = pushed.unknown();
    let kept = until("an answer", || live[0].samples(&unknown)).into_iter().sum::<u64>();
    // Totals tell what no id was asked for.
    let began = Instant::now();
    for server in live {
        assert_eq!(server.total(), spans.len() as u64 + kept, "nothing else is there");
    }
    eprintln!(
        "{mode}: {rounds} rounds, {kills} kills, {} acknowledged, {} not, of which {kept} were kept; totals in {:?}",
        spans.len(),
        unknown.len(),
        began.elapsed()
    );
    for server in servers.into_iter().flatten() {
        server.process.terminate();
    }
    verify(&house, &house.data(0));
}

fn check(servers: &[Option<Server>], pushed: &Pushed, spans: &[u64], round: usize) {
    for (number, server) in servers.iter().enumerate() {
        let server = server.as_ref().expect("it runs");
        let mut wrong: Vec<_> = spans.iter().map(|span| (span, 0)).collect();
        let began = Instant::now();
        // What hundreds of segments hold that were never read is asked of a slow bucket one after another.
        while began.elapsed() < 3 * spanflame_tests::PATIENCE {
            let Some(samples) = server.samples(spans) else { continue };
            wrong = spans.iter().zip(samples).filter(|(_, samples)| *samples != 1).collect();
            if wrong.is_empty() {
                break;
            }
            assert!(wrong.iter().all(|(_, samples)| *samples == 0), "twice, through {number}: {wrong:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(wrong.is_empty(), "round {round}: lost, through {number}: {wrong:?}");
        let unknown = until("an answer", || server.samples(&pushed.unknown()));
        assert!(unknown.iter().all(|samples| *samples <= 1), "round {round}: twice, through {number}");
    }
}
