//! The example on the `pyroscope` agent: the agent pushes, by its own encoder, what the bridge samples and labels.

use spanflame_tests::flame::Tree;
use spanflame_tests::grafana::{Call, Grafana, Query, selector};
use spanflame_tests::http::get;
use spanflame_tests::process::Process;

use crate::house::{House, own};

const REQUESTS: usize = 6;

#[test]
fn spans_of_a_service_on_the_pyroscope_agent_have_profiles() {
    let house = House::open();
    let mut command = house.example("example-pyroscope-agent");
    let service = Process::start(command.args(["--listen", "127.0.0.1:0", "--upload-interval", "1"]));
    let address = service.address();
    for _ in 0..REQUESTS {
        let answer = get(&format!("{address}/thumbnail?cpu_ms=200"));
        assert_eq!((answer.status, answer.body.len()), (200, 16), "{}", answer.text());
    }
    service.terminate();

    let spans = house.spans();
    let samples = house.samples();
    assert_eq!(spans.len(), REQUESTS);
    for profile in house.tap.profiles() {
        assert!(profile.acknowledged, "the server refused what the agent pushed");
        assert_eq!(profile.labels.get("service_name").map(String::as_str), Some("thumbnails"));
    }

    let grafana = Grafana::new(&house.address);
    for span in spans.values() {
        assert_eq!(span.profile_id(), Some(span.span_id.as_str()), "{span:?}");
        assert_eq!(selector(span), r#"{service_name="thumbnails", service_namespace="shop"}"#);
        let graph = grafana.flame_graph(Call::Span, Query::embedded(span)).expect("an answer");
        let same = grafana.flame_graph(Call::Stacktraces, Query::embedded(span)).expect("an answer");
        assert_eq!(same.bytes, graph.bytes);
        assert_eq!(graph.tree, Tree::of_samples(own(&samples, &span.span_id)), "{span:?}");
        assert!(graph.tree.within("shrink_image") > 0, "200 ms of CPU time left no sample: {span:?}");
    }
    for sample in samples.iter().filter(|sample| sample.runs("shrink_image")) {
        assert!(
            sample.span_id().is_some_and(|id| spans.contains_key(id)),
            "work outside of a span: {sample:?}"
        );
    }
}
