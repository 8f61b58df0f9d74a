//! A Connect client generated from the interface, in another language than the server's, calls every RPC over every protocol and codec.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Map, Value, json};
use spanflame_tests::http::send;

use crate::{House, node};

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
const SPAN: &str = "00f067aa0ba902b7";
const START: i64 = 1_767_225_600_000;
const END: i64 = START + 60_000;

/// Pushes, as JSON, one profile with one span of one service: no message of ours is needed for that.
fn fill(house: &House) {
    let folded = format!(
        "{}/ingest?name=checkout&format=folded&from={}&until={}",
        house.address,
        START / 1000,
        END / 1000
    );
    let answer = send("POST", &folded, &[], b"main;pay 7\nmain;pay;hash 20\n".to_vec()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A good request for each RPC that has an answer. Push and the like are elsewhere driven by real senders.
fn requests() -> Map<String, Value> {
    let range = json!({"start": START, "end": END});
    let with = |more: Value| {
        let mut request = range.clone();
        let fields = more.as_object().expect("fields").clone();
        request.as_object_mut().expect("fields").extend(fields);
        request
    };
    let selected = |more: Value| {
        let mut request =
            with(json!({"profileTypeID": CPU, "labelSelector": r#"{service_name="checkout"}"#}));
        request.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        request
    };
    let side = selected(json!({}));
    let querier = [
        ("ProfileTypes", with(json!({}))),
        ("LabelNames", with(json!({"matchers": ["{}"]}))),
        ("LabelValues", with(json!({"name": "service_name"}))),
        ("Series", with(json!({"labelNames": ["service_name"]}))),
        ("SelectMergeStacktraces", selected(json!({"maxNodes": 100}))),
        ("SelectMergeSpanProfile", selected(json!({"spanSelector": [SPAN]}))),
        ("SelectMergeProfile", selected(json!({}))),
        ("SelectSeries", selected(json!({"step": 15.0, "groupBy": ["service_name"]}))),
        ("SelectHeatmap", selected(json!({"step": 15.0, "queryType": "HEATMAP_QUERY_TYPE_INDIVIDUAL"}))),
        ("Diff", json!({"left": side, "right": side})),
        ("GetProfileStats", json!({})),
        ("AnalyzeQuery", with(json!({"query": format!(r#"{CPU}{{service_name="checkout"}}"#)}))),
    ];
    querier
        .into_iter()
        .map(|(method, request)| (format!("querier.v1.QuerierService/{method}"), request))
        .chain([("version.v1.Version/Version".to_owned(), json!({}))])
        .chain([("capabilities.v1.FeatureFlagsService/GetFeatureFlags".to_owned(), json!({}))])
        .chain([("settings.v1.SettingsService/Get".to_owned(), json!({}))])
        .collect()
}

/// RPCs that change something or take profiles in; everything else must be asked here.
const ELSEWHERE: [&str; 3] =
    ["push.v1.", "opentelemetry.proto.collector.", "settings.v1.SettingsService/Set"];

#[test]
fn every_rpc_answers_alike_over_every_protocol_and_codec() {
    let house = House::open();
    fill(&house);
    let descriptors = tempfile::NamedTempFile::new().expect("there is room for temporary files");
    std::fs::write(descriptors.path(), spanflame_wire::DESCRIPTORS).expect("it can be written");

    let requests = requests();
    let mut client = node("rpc.mjs")
        .arg(&house.address)
        .arg(descriptors.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut stdin = client.stdin.take().expect("it is piped");
    stdin.write_all(Value::from(requests.clone()).to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = client.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    let answers: Map<String, Value> = serde_json::from_slice(&output.stdout).expect("JSON");

    for (method, by_protocol) in &answers {
        let by_protocol = by_protocol.as_object().expect("answers");
        if !requests.contains_key(method) {
            assert!(ELSEWHERE.iter().any(|known| method.starts_with(known)), "no request for {method}");
            continue;
        }
        assert_eq!(by_protocol.len(), 6, "{method}");
        let first = &by_protocol["connect+proto"]["ok"];
        assert!(first.is_object(), "{method}: {by_protocol:?}");
        for (protocol, answer) in by_protocol {
            assert_eq!(&answer["ok"], first, "{method} over {protocol}");
        }
    }
    for method in requests.keys() {
        assert!(answers.contains_key(method), "the interface has no {method}");
    }
    // The answers are not only alike but right.
    let graph =
        &answers["querier.v1.QuerierService/SelectMergeStacktraces"]["grpc+proto"]["ok"]["flamegraph"];
    assert_eq!(graph["names"], json!(["total", "main", "pay", "hash"]));
    assert_eq!(graph["total"], json!("270000000"), "27 samples at 100 Hz");
    house.close();
}
