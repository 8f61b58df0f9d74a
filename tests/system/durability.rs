//! What the server has acknowledged it still serves after a SIGKILL, whenever that comes.

use std::collections::BTreeSet;
use std::sync::mpsc::{TryRecvError, channel};

use spanflame_tests::binaries::serve;
use spanflame_tests::flame::Tree;
use spanflame_tests::grafana::{Call, Grafana, Query};
use spanflame_tests::http::get;
use spanflame_tests::process::Process;
use spanflame_tests::until;

use crate::house::{House, acknowledged, own};

/// Spans with acknowledged samples before the kill.
const ENOUGH: usize = 8;

#[test]
fn acknowledged_spans_outlive_a_sigkill() {
    let house = House::open();
    let mut command = house.example("example-axum-tracing");
    let service = Process::start(command.args(["--listen", "127.0.0.1:0"]));
    let address = service.address();

    // Requests go on all the time, so that the kill comes in the middle of the work.
    let (stop, stopped) = channel::<()>();
    let client = std::thread::spawn(move || {
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let answer = get(&format!("{address}/checkout"));
            assert_eq!(answer.status, 200, "the service does not need the server");
        }
    });
    until("spans that the server has acknowledged", || {
        let samples = acknowledged(&house.tap.profiles());
        let spans: BTreeSet<_> = samples.iter().filter_map(|sample| sample.span_id()).collect();
        (spans.len() >= ENOUGH).then_some(())
    });
    // What was acknowledged before this line is what must be there; what is acknowledged meanwhile is welcome.
    let before = acknowledged(&house.tap.profiles());
    house.server.kill();
    drop(stop);
    client.join().expect("the client was answered to the end");
    service.terminate();

    let restarted = serve(house.data.path());
    let grafana = Grafana::new(&restarted.address());
    let exported = house.collector.spans();
    let sent: Vec<_> = house.tap.profiles().into_iter().flat_map(|profile| profile.samples).collect();
    let ids: BTreeSet<_> = before.iter().filter_map(|sample| sample.span_id()).collect();
    let mut compared = 0;
    for span in exported.iter().filter(|span| span.parent.is_some() && ids.contains(span.span_id.as_str())) {
        let graph = grafana.flame_graph(Call::Span, Query::embedded(span)).expect("an answer");
        let acknowledged = Tree::of_samples(own(&before, &span.span_id));
        assert!(graph.tree.holds(&acknowledged), "less than was acknowledged for {span:?}");
        assert!(
            Tree::of_samples(own(&sent, &span.span_id)).holds(&graph.tree),
            "more than was sent for {span:?}"
        );
        compared += 1;
    }
    assert!(compared > 0, "none of the acknowledged spans was exported");
    restarted.terminate();
}
