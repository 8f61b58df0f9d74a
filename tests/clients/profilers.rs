//! Grafana's profilers for other languages. (That for Rust is in the system tests, with the bridge as its backend.)

use serde_json::{Value, json};
use spanflame_tests::http::send;
use spanflame_tests::process::Process;

use crate::{House, node, python, source};

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

fn query(house: &House, method: &str, request: &Value) -> Value {
    let url = format!("{}/querier.v1.QuerierService/{method}", house.address);
    let answer =
        send("POST", &url, &[("content-type", "application/json")], request.to_string().into_bytes())
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Nanoseconds of all samples whose stacks a function whose name contains this text begins, ends or is within; and all.
fn nanos_of(graph: &Value, function: &str) -> (i64, i64) {
    let graph = &graph["flamegraph"];
    let number = |value: &Value| -> i64 { value.as_str().expect("an int64").parse().expect("a number") };
    let names = graph["names"].as_array().expect("names");
    let wanted = |index: i64| names[index as usize].as_str().expect("a name").contains(function);
    let within = graph["levels"].as_array().expect("levels").iter().map(|level| {
        let values: Vec<i64> = level["values"].as_array().expect("values").iter().map(number).collect();
        values.chunks(4).filter(|bar| wanted(bar[3])).map(|bar| bar[1]).sum::<i64>()
    });
    // The function does not call itself, but is at several depths: the level with most of it is enough.
    (within.max().unwrap_or(0), number(&graph["total"]))
}

#[test]
fn the_python_profiler_s_spans_have_profiles() {
    let house = House::open();
    let mut command = python();
    command.arg(source("python/agent.py")).args([&house.address, "2"]);
    let printed = Process::start(&mut command).wait().join("\n");
    let span: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(span["attribute"], span["span"]);

    let of_service =
        json!({"profileTypeID": CPU, "labelSelector": r#"{service_name="python.shop", region="north"}"#});
    let mut of_span = of_service.clone();
    of_span["spanSelector"] = json!([span["span"]]);
    let (in_service, all) = nanos_of(&query(&house, "SelectMergeStacktraces", &of_service), "price_basket");
    let (in_span, span_total) = nanos_of(&query(&house, "SelectMergeSpanProfile", &of_span), "price_basket");
    assert!(in_service > 0 && in_service <= all, "{in_service} of {all}");
    assert!(in_span > 0 && in_span <= span_total && span_total <= all, "{in_span} of {span_total} of {all}");

    let mut of_trace = of_service;
    of_trace["traceIdSelector"] = json!([span["trace"]]);
    assert_eq!(nanos_of(&query(&house, "SelectMergeStacktraces", &of_trace), "price_basket").0, in_span);
    let mut named = of_span;
    named["labelSelector"] = json!(r#"{span_name="GET /basket"}"#);
    assert_eq!(nanos_of(&query(&house, "SelectMergeSpanProfile", &named), "price_basket").0, in_span);
    house.close();
}

#[test]
fn the_node_profiler_is_found_by_service_and_label() {
    let house = House::open();
    let mut command = node("agent.mjs");
    command.args([&house.address, "3"]);
    Process::start(&mut command).wait();

    let types = query(&house, "ProfileTypes", &json!({}));
    let types: Vec<&str> = types["profileTypes"]
        .as_array()
        .expect("types")
        .iter()
        .map(|t| t["ID"].as_str().expect("an id"))
        .collect();
    let wall = types
        .iter()
        .find(|id| id.starts_with("wall:wall:nanoseconds"))
        .unwrap_or_else(|| panic!("{types:?}"));
    assert!(types.iter().any(|id| id.starts_with("memory:")), "{types:?}");
    let select = |selector: &str| {
        let request = json!({"profileTypeID": wall, "labelSelector": selector});
        nanos_of(&query(&house, "SelectMergeStacktraces", &request), "resizePicture")
    };
    let (within, all) = select(r#"{service_name="node.pictures", region="south"}"#);
    assert!(within > 0 && within <= all, "{within} of {all}");
    let (labelled, _) = select(r#"{service_name="node.pictures", endpoint="/resize"}"#);
    assert!(labelled > 0 && labelled <= within, "{labelled} of {within}");
    house.close();
}
