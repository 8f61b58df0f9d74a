//! When there is no profiling, the service and its spans are as they would be without it.

use std::net::TcpListener;

use spanflame_tests::http::get;
use spanflame_tests::process::Process;

use crate::house::House;

const REQUESTS: usize = 4;

/// Runs the axum example with an additional setting; returns what it wrote.
fn run(house: &House, name: &str, value: &str) -> String {
    let mut command = house.example("example-axum-tracing");
    let service = Process::start(command.args(["--listen", "127.0.0.1:0"]).env(name, value));
    let address = service.address();
    for _ in 0..REQUESTS {
        let answer = get(&format!("{address}/checkout"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    service.terminate()
}

#[test]
fn a_setting_that_cannot_be_used_is_named_and_harms_no_span() {
    let house = House::open();
    let log = run(&house, "SPANFLAME_FREQUENCY", "100000");
    assert!(log.contains("SPANFLAME_FREQUENCY") && log.contains("1000"), "variable and range: {log}");

    let spans = house.spans();
    assert_eq!(spans.values().filter(|span| span.parent.is_none()).count(), REQUESTS);
    for span in spans.values() {
        assert_eq!(span.profile_id(), None, "no profile, no attribute: {span:?}");
    }
    assert!(house.tap.profiles().is_empty(), "no profiler, no profiles");
}

#[test]
fn a_server_that_is_away_is_no_concern_of_the_service() {
    let house = House::open();
    // The port was free a moment ago: connections to it are refused at once.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = format!("http://{}", nobody.local_addr().expect("it is bound"));
    drop(nobody);
    let log = run(&house, "PYROSCOPE_SERVER_ADDRESS", &address);
    assert!(log.contains(&address), "the log says where profiles cannot be delivered: {log}");
    assert_eq!(house.spans().values().filter(|span| span.parent.is_none()).count(), REQUESTS);
}
