//! What Grafana's data source and Profiles Drilldown send, and the bytes that they must get.

use buffa::Message;
use http::Method;
use spanflame_wire::querier::v1::SelectSeriesResponse;
use spanflame_wire::types::v1::{LabelPair, Point, Series};

use crate::support::{Answer, CPU, SPAN, Server, TRACE, checkout};

const SPAN_GRAPH: &str = concat!(
    r#"{"flamegraph":{"names":["total","handler","hash"],"levels":[{"values":["0","30000000","0","0"]},"#,
    r#"{"values":["0","30000000","10000000","1"]},{"values":["10000000","20000000","20000000","2"]}],"#,
    r#""total":"30000000","maxSelf":"20000000"}}"#
);
const SPAN_GRAPH_PROTO: &str = "0a4a0a05746f74616c0a0768616e646c65720a046861736812090a07008087a70e0000120c0a0a008087a70e80\
                                ade20401120f0a0d80ade20480dac40980dac40902188087a70e2080dac409";
const EMPTY_GRAPH: &str = r#"{"flamegraph":{"names":["total"],"levels":[{"values":["0","0","0","0"]}]}}"#;
const EMPTY_GRAPH_PROTO: &str = "0a0f0a05746f74616c12060a0400000000";
/// `SelectMergeSpanProfile` of the span, as released versions send it.
const SPAN_REQUEST_PROTO: &str = "0a2b70726f636573735f6370753a6370753a6e616e6f7365636f6e64733a6370753a6e616e6f7365636f6e6473\
                                  12197b736572766963655f6e616d653d22636865636b6f7574227d1a1030306630363761613062613930326237\
                                  20d0e5e8b6b7332898c2ecb6b733";
/// `SelectMergeStacktraces` of the span, as the newest plugin sends it.
const STACKS_REQUEST_PROTO: &str = "0a2b70726f636573735f6370753a6370753a6e616e6f7365636f6e64733a6370753a6e616e6f7365636f6e6473\
                                    12197b736572766963655f6e616d653d22636865636b6f7574227d18d0e5e8b6b7332098c2ecb6b7335a103030\
                                    66303637616130626139303262 37";
const SERIES_REQUEST_PROTO: &str = "0a2b70726f636573735f6370753a6370753a6e616e6f7365636f6e64733a6370753a6e616e6f7365636f6e6473\
                                    12197b736572766963655f6e616d653d22636865636b6f7574227d1880d0eab6b73320e0a4eeb6b7332a08656e\
                                    64706f696e74310000000000002e40480a5001";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn filled() -> Server {
    let server = Server::start();
    server.pushed(checkout());
    server
}

/// The body of a span query with more fields at its end.
fn span_query(more: &str) -> String {
    format!(
        r#"{{"profile_typeID":"{CPU}","label_selector":"{{service_name=\"checkout\"}}","start":"1767225570000","end":"1767225631000"{more}}}"#
    )
}

fn of_span() -> String {
    span_query(&format!(r#","span_selector":["{SPAN}"]"#))
}

#[track_caller]
fn is_json(answer: &Answer, expected: &str) {
    assert_eq!((answer.status, answer.text()), (200, expected));
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("content-length"), expected.len().to_string());
    assert!(answer.header("server").starts_with("spanflame/"));
}

#[track_caller]
fn is_proto(answer: &Answer, expected: &str) {
    assert_eq!((answer.status, &answer.body[..]), (200, &bytes(expected)[..]));
    assert_eq!(answer.header("content-type"), "application/proto");
}

#[test]
fn save_and_test_passes_on_an_empty_server() {
    let server = Server::start();
    for body in [r#"{"start":"1000","end":"4000"}"#, "{}", r#"{"start":"0","end":"0"}"#, r#"{"start":0}"#] {
        is_json(&server.query("ProfileTypes", body), "{}");
    }
    is_proto(&server.proto("ProfileTypes", bytes("08e80710a01f")), "");
    is_proto(&server.proto("ProfileTypes", ""), "");
}

#[test]
fn profile_types_are_listed_with_their_parts() {
    let server = filled();
    let answer = server.query("ProfileTypes", r#"{"start":"1767225600000","end":"1767225660000"}"#);
    is_json(
        &answer,
        concat!(
            r#"{"profileTypes":[{"ID":"process_cpu:cpu:nanoseconds:cpu:nanoseconds","name":"process_cpu","#,
            r#""sampleType":"cpu","sampleUnit":"nanoseconds","periodType":"cpu","periodUnit":"nanoseconds"},"#,
            r#"{"ID":"process_cpu:samples:count:cpu:nanoseconds","name":"process_cpu","sampleType":"samples","#,
            r#""sampleUnit":"count","periodType":"cpu","periodUnit":"nanoseconds"}]}"#
        ),
    );
    assert_eq!(server.query("ProfileTypes", "{}").body, answer.body, "no range means all there is");
    is_json(&server.query("ProfileTypes", r#"{"start":"1000","end":"4000"}"#), "{}");
}

#[test]
fn both_span_calls_answer_the_same_graph() {
    let server = filled();
    for method in ["SelectMergeSpanProfile", "SelectMergeStacktraces"] {
        is_json(&server.query(method, of_span()), SPAN_GRAPH);
    }
    is_proto(&server.proto("SelectMergeSpanProfile", bytes(SPAN_REQUEST_PROTO)), SPAN_GRAPH_PROTO);
    is_proto(&server.proto("SelectMergeStacktraces", bytes(STACKS_REQUEST_PROTO)), SPAN_GRAPH_PROTO);
}

#[test]
fn requests_vary_in_spelling_and_answers_do_not() {
    let server = filled();
    let camel = format!(
        r#"{{"profileTypeID":"{CPU}","labelSelector":"{{service_name=\"checkout\"}}","spanSelector":["{SPAN}"],"start":1767225570000,"end":1767225631000,"maxNodes":16384}}"#
    );
    let upper = span_query(&format!(r#","span_selector":["{}"]"#, SPAN.to_uppercase()));
    let mixed = span_query(&format!(
        r#","spanSelector":["{SPAN}"],"max_nodes":"16384","format":"PROFILE_FORMAT_FLAMEGRAPH","unknownField":{{}}"#
    ));
    let numbered = span_query(&format!(r#","spanSelector":["{SPAN}"],"format":1"#));
    let delta = of_span().replace("cpu:nanoseconds\"", "cpu:nanoseconds:delta\"");
    let lenient = [r#""{}""#, r#""""#, r#""{ service_name = \"checkout\", service_name=\"checkout\" }""#]
        .map(|selector| of_span().replace(r#""{service_name=\"checkout\"}""#, selector));
    let all_time = of_span().replace("1767225570000", "0").replace("1767225631000", "0");
    for body in [camel, upper, mixed, numbered, delta, all_time].iter().chain(&lenient) {
        is_json(&server.query("SelectMergeStacktraces", body), SPAN_GRAPH);
    }
}

#[test]
fn headers_vary_and_answers_do_not() {
    let server = filled();
    let path = "/querier.v1.QuerierService/SelectMergeSpanProfile";
    let json = ("content-type", "application/json");
    let variants: [&[(&str, &str)]; 6] = [
        &[json, ("connect-protocol-version", "1")],
        &[("content-type", "application/json; charset=utf-8")],
        &[json, ("x-scope-orgid", "tenant-a"), ("accept", "*/*; allow-utf8-labelnames=true")],
        &[json, ("authorization", "Basic dTpw"), ("x-grafana-org-id", "1"), ("cookie", "a=b")],
        &[json, ("connect-timeout-ms", "20000")],
        &[json, ("accept-encoding", "br, zstd, identity")],
    ];
    for headers in variants {
        let answer = server.send(Method::POST, path, headers, of_span());
        is_json(&answer, SPAN_GRAPH);
        assert_eq!(answer.header("content-encoding"), "");
        is_json(&server.send_h2c(path, headers, of_span()), SPAN_GRAPH);
    }
    let proto = [("content-type", "application/proto"), ("connect-protocol-version", "1")];
    is_proto(&server.send_h2c(path, &proto, bytes(SPAN_REQUEST_PROTO)), SPAN_GRAPH_PROTO);
}

#[test]
fn gzip_goes_both_ways_and_only_when_asked_for() {
    use std::io::Read;
    let server = Server::start();
    let stack: Vec<String> = (0..200).map(|depth| format!("frame_{depth}")).collect();
    let frames: Vec<&str> = stack.iter().map(String::as_str).collect();
    let profile =
        crate::support::cpu_profile(1_767_225_605_000, &[(&frames, 10_000_000, &[("span_id", SPAN)])]);
    server.pushed(vec![crate::support::service("checkout", &profile)]);

    let path = "/querier.v1.QuerierService/SelectMergeSpanProfile";
    let plain = server.query("SelectMergeSpanProfile", of_span());
    assert_eq!(plain.header("content-encoding"), "");
    let headers =
        [("content-type", "application/json"), ("content-encoding", "gzip"), ("accept-encoding", "gzip")];
    let packed = server.send(Method::POST, path, &headers, crate::support::gzip(of_span().as_bytes()));
    assert_eq!((packed.status, packed.header("content-encoding")), (200, "gzip"));
    assert_eq!(packed.header("content-type"), "application/json");
    assert!(packed.body.len() < plain.body.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.body);
}

#[test]
fn an_unknown_span_is_an_empty_graph() {
    let server = filled();
    let unknown = of_span().replace(SPAN, "ffffffffffffffff");
    is_json(&server.query("SelectMergeSpanProfile", &unknown), EMPTY_GRAPH);
    is_json(&server.query("SelectMergeStacktraces", &unknown), EMPTY_GRAPH);
    let proto = bytes(SPAN_REQUEST_PROTO);
    let at = proto.windows(16).position(|id| id == SPAN.as_bytes()).expect("the id is in it");
    let other = [&proto[..at], b"ffffffffffffffff", &proto[at + 16..]].concat();
    is_proto(&server.proto("SelectMergeSpanProfile", other), EMPTY_GRAPH_PROTO);
    is_proto(&Server::start().proto("SelectMergeSpanProfile", bytes(SPAN_REQUEST_PROTO)), EMPTY_GRAPH_PROTO);
}

#[test]
fn traces_and_call_sites_select() {
    let server = filled();
    let trace = span_query(&format!(r#","trace_id_selector":["{TRACE}"]"#));
    is_json(&server.query("SelectMergeStacktraces", trace), SPAN_GRAPH);
    let below = span_query(&format!(
        r#","span_selector":["{SPAN}"],"stack_trace_selector":{{"call_site":[{{"name":"handler"}},{{"name":"hash"}}]}}"#
    ));
    let below = server.query("SelectMergeStacktraces", below);
    let graph = below.json();
    assert_eq!(graph["flamegraph"]["total"], "20000000", "{graph}");
    assert_eq!(graph["flamegraph"]["names"], serde_json::json!(["total", "handler", "hash"]));
    // Field 3 inside StackTraceSelector, as the newest plugin sends its frame filter: no frame without a name.
    let mut proto = bytes(STACKS_REQUEST_PROTO);
    proto.extend([0x3a, 0x04, 0x1a, 0x02, 0x12, 0x00]);
    is_proto(&server.proto("SelectMergeStacktraces", proto), SPAN_GRAPH_PROTO);
}

#[test]
fn without_a_span_all_samples_are_merged() {
    let server = filled();
    let all = span_query("").replace("1767225631000", "1767225660000");
    let graph = server.query("SelectMergeStacktraces", all).json();
    assert_eq!(graph["flamegraph"]["total"], "40000000");
    assert_eq!(graph["flamegraph"]["names"], serde_json::json!(["total", "handler", "hash", "idle"]));
    let folded = server.query("SelectMergeStacktraces", span_query(r#","max_nodes":"1""#)).json();
    assert_eq!(folded["flamegraph"]["total"], "30000000", "{folded}");
}

#[test]
fn series_are_sums_of_steps() {
    let server = filled();
    let expected = concat!(
        r#"{"series":[{"labels":[{"name":"endpoint","value":"/pay"}],"points":[{"value":30000000.0,"#,
        r#""timestamp":"1767225615000"},{"value":10000000.0,"timestamp":"1767225645000"}]}]}"#
    );
    let body = format!(
        r#"{{"profile_typeID":"{CPU}","label_selector":"{{service_name=\"checkout\"}}","start":"1767225600000","end":"1767225660000","step":15,"group_by":["endpoint"],"limit":"10","exemplar_type":"EXEMPLAR_TYPE_NONE"}}"#
    );
    // Doubles are written with a decimal point. To a reader of JSON they are the same numbers without it.
    is_json(&server.query("SelectSeries", &body), expected);
    let proto = server.proto("SelectSeries", bytes(SERIES_REQUEST_PROTO));
    assert_eq!((proto.status, proto.header("content-type")), (200, "application/proto"));
    let decoded = SelectSeriesResponse::decode_from_slice(&proto.body).expect("the message");
    let points = [(30_000_000.0, 1_767_225_615_000), (10_000_000.0, 1_767_225_645_000)];
    let point = |(value, timestamp)| Point { value, timestamp, ..Default::default() };
    let label = LabelPair { name: "endpoint".to_owned(), value: "/pay".to_owned(), ..Default::default() };
    let series = Series { labels: vec![label], points: points.map(point).to_vec(), ..Default::default() };
    assert_eq!(decoded, SelectSeriesResponse { series: vec![series], ..Default::default() });

    let ungrouped = server.query("SelectSeries", body.replace(r#""group_by":["endpoint"],"#, "")).json();
    assert_eq!(ungrouped["series"][0]["points"][0]["value"].as_f64(), Some(30_000_000.0));
    assert_eq!(ungrouped["series"][0].get("labels"), None);
    for (bad, field) in
        [(body.replace(r#""step":15"#, r#""step":0"#), "step"), (body.replace("1767225600000", "0"), "start")]
    {
        let message = server.query("SelectSeries", bad).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{message}");
    }
}

#[test]
fn labels_are_listed() {
    let server = filled();
    let range = r#""start":"1767222000000","end":"1767225660000""#;
    let names = server.query(
        "LabelNames",
        format!(r#"{{"matchers":["{{__profile_type__=\"{CPU}\", service_name=\"checkout\"}}"],{range}}}"#),
    );
    is_json(
        &names,
        concat!(
            r#"{"names":["__name__","__period_type__","__period_unit__","__profile_type__","__service_name__","#,
            r#""__type__","__unit__","endpoint","service_name"]}"#
        ),
    );
    for matchers in ["[]", r#"[""]"#, r#"["{}"]"#, r#"["{}",""]"#] {
        let values = format!(r#"{{"name":"service_name","matchers":{matchers},{range}}}"#);
        is_json(&server.query("LabelValues", values), r#"{"names":["checkout"]}"#);
    }
    is_json(&server.query("LabelValues", r#"{"name":"service_name"}"#), r#"{"names":["checkout"]}"#);
    let message = server.query("LabelValues", r#"{"name":""}"#).refused(400, "invalid_argument");
    assert!(message.starts_with("name: "), "{message}");
}

#[test]
fn drilldown_starts() {
    let empty = Server::start();
    is_json(&empty.query("GetProfileStats", "{}"), "{}");
    let server = filled();
    is_json(
        &server.query("GetProfileStats", "{}"),
        r#"{"dataIngested":true,"oldestProfileTime":"1767225605000","newestProfileTime":"1767225650000"}"#,
    );
    let series = server.query(
        "Series",
        r#"{"start":1767222000000,"end":1767225660000,"labelNames":["service_name","__profile_type__"],"matchers":[]}"#,
    );
    let row = |id: &str| {
        format!(
            r#"{{"labels":[{{"name":"__profile_type__","value":"{id}"}},{{"name":"service_name","value":"checkout"}}]}}"#
        )
    };
    let samples = "process_cpu:samples:count:cpu:nanoseconds";
    is_json(&series, &format!(r#"{{"labelsSet":[{},{}]}}"#, row(CPU), row(samples)));
}

#[test]
fn span_queries_that_end_empty_say_why_in_the_log_and_the_metrics() {
    let server = filled();
    let ask = |body: String| is_json(&server.query("SelectMergeSpanProfile", body), EMPTY_GRAPH);
    ask(of_span().replace(SPAN, "ffffffffffffffff"));
    ask(of_span().replace(CPU, "process_cpu:wall:nanoseconds:wall:nanoseconds"));
    ask(of_span().replace("checkout", "payments"));
    ask(of_span().replace("1767225570000", "1000").replace("1767225631000", "4000"));
    is_json(&server.query("SelectMergeSpanProfile", of_span()), SPAN_GRAPH);
    let metrics = server.get("/metrics");
    for outcome in ["hit", "unknown_span", "no_samples_of_type", "selector_mismatch", "outside_window"] {
        let counted = format!("spanflame_span_queries_total{{outcome=\"{outcome}\"}} 1\n");
        assert!(metrics.text().contains(&counted), "{outcome}: {}", metrics.text());
        if outcome != "hit" {
            server.logged(&format!("reason=\"{outcome}\""));
        }
    }
}

#[test]
fn grpc_is_spoken_on_the_same_paths() {
    let server = filled();
    let message = bytes(SPAN_REQUEST_PROTO);
    let frame = |message: &[u8]| {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[0], &length[..], message].concat()
    };
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let path = "/querier.v1.QuerierService/SelectMergeSpanProfile";
    let answer = server.send_h2c(path, &headers, frame(&message));
    assert_eq!((answer.status, &answer.body[..]), (200, &frame(&bytes(SPAN_GRAPH_PROTO))[..]));
    assert!(answer.header("content-type").starts_with("application/grpc"));
    let refused = server.send_h2c("/querier.v1.QuerierService/Diff", &headers, frame(b""));
    assert_eq!((refused.status, refused.header("grpc-status")), (200, "3"));
}
