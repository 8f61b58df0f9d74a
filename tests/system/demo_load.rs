//! The axum example's load on itself, which the demo runs: it stops by itself and names spans that have profiles.

use spanflame_tests::http::get;
use spanflame_tests::process::Process;

use crate::house::House;

#[test]
fn the_demo_load_names_spans_that_the_server_knows() {
    let house = House::open();
    let mut command = house.example("example-axum-tracing");
    let lines = Process::start(command.args(["--listen", "127.0.0.1:0", "--demo-load", "2"])).wait();

    let spans = house.spans();
    let named: Vec<serde_json::Value> =
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(!named.is_empty(), "no line of JSON in {lines:#?}");
    let mut cpu = 0;
    for line in named {
        let span = &spans[line["spanId"].as_str().expect("a line names a span")];
        assert_eq!(
            (line["traceId"].as_str(), line["name"].as_str()),
            (Some(&*span.trace_id), Some(&*span.name))
        );
        assert_eq!(span.parent, None, "a request, not a part of one");
        // A single request may be too short for a sample; all of them are not.
        let summary = get(&format!("{}/api/v1/spans/{}", house.address, span.span_id)).json();
        cpu += summary["cpuNanos"].as_u64().unwrap_or_default();
    }
    assert!(cpu > 0, "the server knows none of the spans that were named");
}
