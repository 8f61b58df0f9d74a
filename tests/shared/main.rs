//! Servers that share a bucket of a real S3 server, which `cargo xtask test` installs: each reads what the others wrote, and
//! what any of them acknowledged is there once, whoever dies.

mod cluster;
mod killing;
mod proxy;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use spanflame_tests::process::Process;
use spanflame_tests::until;

use crate::cluster::{Client, House, Pushed, Server, inspect, verify};

/// Servers that share the bucket.
const SERVERS: usize = 3;

#[test]
fn each_server_reads_what_the_others_wrote() {
    let house = House::open();
    let servers: Vec<Server> = (0..SERVERS).map(|server| house.start(server, "local")).collect();
    let pushed = Pushed::default();
    for round in 0..4 {
        for server in &servers {
            assert!(pushed.push(&server.address), "round {round}");
        }
        let began = Instant::now();
        let spans = pushed.acknowledged();
        until("every span by its id through every server", || {
            servers.iter().all(|server| server.has_each_once(&spans)).then_some(())
        });
        eprintln!("all of round {round} is everywhere after {:?}", began.elapsed());
    }
    let all = pushed.acknowledged().len() as u64;
    assert!(servers.iter().all(|server| server.total() == all), "a flame graph holds all of it, once");

    // The bucket can be looked at from anywhere, also without a data directory.
    let nowhere = house.data(99);
    let found = inspect(&house, &nowhere);
    let tenants = found["tenants"].as_array().expect("a list");
    assert_eq!(tenants[0]["segmentProfiles"], all, "{found}");
    verify(&house, &nowhere);
    let out = house.data(98);
    let mut export = house.command(&["store", "export"], &nowhere);
    assert!(export.arg("--out").arg(&out).status().expect("the binary starts").success());
    let files: usize = std::fs::read_dir(&out)
        .expect("a directory")
        .map(|series| std::fs::read_dir(series.expect("readable").path()).expect("a directory").count())
        .sum();
    assert_eq!(files as u64, all);
    for server in servers {
        server.process.terminate();
    }
    assert!(!nowhere.exists(), "looking makes nothing");

    // What was exported comes back, into the same bucket.
    let mut import = house.command(&["store", "import"], &house.data(97));
    assert!(import.arg(&out).status().expect("the binary starts").success());
    let server = house.start(0, "local");
    assert_eq!(server.total(), 2 * all);
    server.process.terminate();
}

#[test]
fn segments_are_merged_once_by_whoever_comes_first() {
    let house = House::open();
    let servers: Vec<Server> = (0..SERVERS).map(|server| house.start(server, "object")).collect();
    let pushed = Arc::new(Pushed::default());
    let addresses = servers.iter().map(|server| Arc::new(parking_lot::Mutex::new(server.address.clone())));
    let clients: Vec<Client> = addresses.map(|address| Client::start(&pushed, &address)).collect();
    // They look for something to merge every ten seconds.
    let merged =
        || servers.iter().map(|server| server.metric("spanflame_store_compactions_total")).sum::<u64>();
    until("some merging", || (merged() >= 2).then_some(()));
    drop(clients);
    assert!(pushed.unknown().is_empty(), "nothing goes wrong for those who push");
    let spans = pushed.acknowledged();
    assert!(servers.iter().any(|server| server.has_each_once(&spans)));
    until("every span by its id through every server", || {
        servers.iter().all(|server| server.has_each_once(&spans)).then_some(())
    });
    assert!(servers.iter().all(|server| server.total() == spans.len() as u64));
    for server in servers {
        server.process.terminate();
    }
    verify(&house, &house.data(0));
    let found = inspect(&house, &house.data(0));
    let merged = found["segments"].as_array().expect("a list").iter();
    assert!(merged.filter(|segment| segment["level"] != 0).count() > 0, "{found}");
}

#[test]
fn a_bucket_that_is_away_refuses_or_delays_as_promised_and_is_used_again() {
    let house = House::open();
    let (local, object) = (house.start(0, "local"), house.start(1, "object"));
    let pushed = Pushed::default();
    assert!(pushed.push(&local.address) && pushed.push(&object.address));

    house.proxy.faults.away.store(true, Ordering::Relaxed);
    let local_only = Pushed::default();
    // Numbers that the others do not use.
    let span = |number: u64| 0xaa00 + number;
    for number in 0..3 {
        assert!(local.push(span(number)), "it is in the log, and that is what was promised");
    }
    assert!(local.has_each_once(&[span(0), span(1), span(2)]), "and is served at once");
    drop(local_only);
    // The first is told that it took too long, the next ones at once that nothing is taken.
    assert!(!pushed.push(&object.address));
    until("refusals", || {
        (object.metric("spanflame_store_refused_appends_total") > 0).then_some(()).or_else(|| {
            assert!(!pushed.push(&object.address), "nothing is acknowledged that is not in the bucket");
            None
        })
    });
    assert!(local.metric("spanflame_store_failed_flushes_total") > 0);
    until("that it is noticed", || {
        (local.metric("spanflame_store_failed_refreshes_total") > 0).then_some(())
    });

    house.proxy.faults.away.store(false, Ordering::Relaxed);
    until("that pushes are taken again", || pushed.push(&object.address).then_some(()));
    let mut spans = pushed.acknowledged();
    spans.extend((0..3).map(span));
    until("everything through both", || {
        (local.has_each_once(&spans) && object.has_each_once(&spans)).then_some(())
    });
    let twice =
        |server: &Server| server.samples(&pushed.unknown()).expect("an answer").into_iter().any(|n| n > 1);
    assert!(!twice(&local) && !twice(&object));
    local.process.terminate();
    object.process.terminate();
}

#[test]
fn answers_that_get_lost_lose_and_double_nothing() {
    let house = House::open();
    // Of three changes one is made, and said to have failed.
    house.proxy.faults.lost_answers.store(3, Ordering::Relaxed);
    let servers: Vec<Server> =
        ["local", "object", "object"].iter().enumerate().map(|(n, mode)| house.start(n, mode)).collect();
    let pushed = Pushed::default();
    for _ in 0..10 {
        for server in &servers {
            pushed.push(&server.address);
        }
    }
    let spans = pushed.acknowledged();
    assert!(spans.len() >= 20, "most of them get through: {}", spans.len());
    until("every span by its id through every server", || {
        servers.iter().all(|server| server.has_each_once(&spans)).then_some(())
    });
    for server in servers {
        server.process.terminate();
    }
}

#[test]
fn a_bucket_without_conditional_writes_is_refused() {
    let house = House::open();
    house.proxy.faults.unconditional.store(true, Ordering::Relaxed);
    let output = house.command(&["serve", "--listen", "127.0.0.1:0"], &house.data(0)).output();
    let output = output.expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("If-None-Match"), "{said}");
    assert!(said.contains("s3://profiles/test"), "{said}");
}

#[test]
fn what_was_acknowledged_locally_is_in_the_log_of_a_server_that_died() {
    let house = House::open();
    let (first, other) = (house.start(0, "local"), house.start(1, "local"));
    house.proxy.faults.away.store(true, Ordering::Relaxed);
    let pushed = Pushed::default();
    for _ in 0..3 {
        assert!(pushed.push(&first.address));
    }
    first.process.kill();
    house.proxy.faults.away.store(false, Ordering::Relaxed);
    let spans = pushed.acknowledged();
    assert_eq!(other.samples(&spans), Some(vec![0; 3]), "nobody else has them");
    let again: Process = house.start(0, "local").process;
    until("what its log had through the other", || other.has_each_once(&spans).then_some(()));
    again.terminate();
    other.process.terminate();
}
