//! The plain OpenTelemetry example: synchronous spans, and asynchronous ones that travel with their futures.

use spanflame_tests::flame::Tree;
use spanflame_tests::grafana::{Call, Grafana, Query};
use spanflame_tests::process::Process;

use crate::house::{Burn, House, assert_samples_are_in_their_spans, assert_shares, family};

const BURNS: [Burn; 4] = [
    Burn { span: "import records", function: "parse_records", milliseconds: 80 },
    Burn { span: "index records", function: "index_records", milliseconds: 40 },
    Burn { span: "convert image", function: "decode_image", milliseconds: 80 },
    Burn { span: "scale image", function: "scale_image", milliseconds: 40 },
];
const JOBS: u32 = 8;

#[test]
fn spans_without_tracing_have_profiles_in_sync_and_async_code() {
    let house = House::open();
    let mut command = house.example("example-plain-otel");
    Process::start(
        command.args(["--jobs", &JOBS.to_string(), "--cpu-ms", "120"]).env("SPANFLAME_SCOPE", "all"),
    )
    .wait();

    let spans = house.spans();
    let samples = house.samples();
    assert_eq!(spans.len(), BURNS.len() * JOBS as usize);
    assert_samples_are_in_their_spans(&spans, &BURNS, &samples);
    assert_shares(&BURNS.map(|burn| (burn, JOBS)), &spans, &samples);

    let grafana = Grafana::new(&house.address);
    for span in spans.values() {
        assert_eq!(span.profile_id(), Some(span.span_id.as_str()), "{span:?}");
        let graph = grafana.flame_graph(Call::Span, Query::embedded(span)).expect("an answer");
        assert_eq!(graph.tree, Tree::of_samples(family(&samples, &spans, span)), "{span:?}");
    }
    for burn in &BURNS {
        let named = spans.values().filter(|span| span.name == burn.span);
        let graphs =
            named.map(|span| grafana.flame_graph(Call::Span, Query::embedded(span)).expect("an answer"));
        let burned: i64 = graphs.map(|graph| graph.tree.within(burn.function)).sum();
        assert!(burned > 0, "no flame graph of a span {:?} holds {}", burn.span, burn.function);
    }
}
