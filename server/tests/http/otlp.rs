//! OpenTelemetry profiles in, as messages of OpenTelemetry's own Rust crate: over HTTP in protobuf and JSON, and over gRPC.

use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, Profile, ProfilesDictionary, ResourceProfiles,
    Sample, ScopeProfiles, Stack, ValueType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::support::{Answer, CPU, SPAN, Server, TRACE, grpc_frame, gzip};

const PATH: &str = "/v1development/profiles";
const RPC: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

/// Strings of the dictionary, by their places.
const STRINGS: [&str; 9] =
    ["", "samples", "count", "cpu", "nanoseconds", "handler", "hash", "endpoint", "/usr/bin/shop"];

fn text(text: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) })
}

fn hex<const N: usize>(text: &str) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..N).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal")).collect();
    assert_eq!(bytes.len() * 2, text.len());
    bytes
}

/// 10 ms of `handler` and 20 ms of `handler` → `hash` in one span, as an eBPF profiler counts them.
fn profile() -> Profile {
    let cpu = ValueType { type_strindex: 3, unit_strindex: 4 };
    let sample = |stack_index: i32, values: Vec<i64>| Sample {
        stack_index,
        values,
        link_index: 1,
        attribute_indices: vec![1],
        ..Default::default()
    };
    Profile {
        sample_type: Some(ValueType { type_strindex: 1, unit_strindex: 2 }),
        samples: vec![sample(1, vec![1]), sample(2, vec![1, 1])],
        time_unix_nano: 1_767_225_605_000_000_000,
        duration_nano: 10_000_000_000,
        period_type: Some(cpu),
        period: 10_000_000,
        ..Default::default()
    }
}

fn request(profiles: Vec<Profile>) -> ExportProfilesServiceRequest {
    let function = |name_strindex| Function { name_strindex, ..Default::default() };
    let location = |function_index| Location {
        mapping_index: 1,
        address: 0x1000,
        lines: vec![Line { function_index, line: 7, column: 3 }],
        ..Default::default()
    };
    let endpoint = KeyValueAndUnit { key_strindex: 7, value: text("/pay"), unit_strindex: 0 };
    let service = KeyValue { key: "service.name".to_owned(), value: text("checkout"), ..Default::default() };
    ExportProfilesServiceRequest {
        resource_profiles: vec![ResourceProfiles {
            resource: Some(Resource { attributes: vec![service], ..Default::default() }),
            scope_profiles: vec![ScopeProfiles { profiles, ..Default::default() }],
            ..Default::default()
        }],
        dictionary: Some(ProfilesDictionary {
            mapping_table: vec![Mapping::default(), Mapping { filename_strindex: 8, ..Default::default() }],
            location_table: vec![Location::default(), location(1), location(2)],
            function_table: vec![Function::default(), function(5), function(6)],
            link_table: vec![Link::default(), Link { trace_id: hex::<16>(TRACE), span_id: hex::<8>(SPAN) }],
            string_table: STRINGS.map(str::to_owned).to_vec(),
            attribute_table: vec![KeyValueAndUnit::default(), endpoint],
            stack_table: vec![
                Stack::default(),
                Stack { location_indices: vec![1] },
                Stack { location_indices: vec![2, 1] },
            ],
        }),
    }
}

/// The same request as a sender that follows the specification writes it in JSON, with ids in this form.
fn json(span: &str, trace: &str) -> String {
    let strings = serde_json::to_string(&STRINGS).expect("strings are JSON");
    format!(
        r#"{{
            "resourceProfiles": [{{
                "resource": {{"attributes": [{{"key": "service.name", "value": {{"stringValue": "checkout"}}}}]}},
                "scopeProfiles": [{{"profiles": [{{
                    "sampleType": {{"typeStrindex": 1, "unitStrindex": 2}},
                    "samples": [
                        {{"stackIndex": 1, "values": ["1"], "linkIndex": 1, "attributeIndices": [1]}},
                        {{"stackIndex": 2, "values": [1, "1"], "linkIndex": 1, "attributeIndices": [1]}}
                    ],
                    "timeUnixNano": "1767225605000000000",
                    "durationNano": 10000000000,
                    "periodType": {{"typeStrindex": 3, "unitStrindex": 4}},
                    "period": "10000000",
                    "profileId": "0102030405060708090a0b0c0d0e0f10",
                    "notYetInvented": {{"a": [1, null]}}
                }}]}}]
            }}],
            "dictionary": {{
                "mappingTable": [{{}}, {{"filenameStrindex": 8}}],
                "locationTable": [
                    {{}},
                    {{"mappingIndex": 1, "address": "4096", "lines": [{{"functionIndex": 1, "line": "7", "column": "3"}}]}},
                    {{"mappingIndex": 1, "address": "4096", "lines": [{{"functionIndex": 2, "line": "7", "column": "3"}}]}}
                ],
                "functionTable": [{{}}, {{"nameStrindex": 5}}, {{"nameStrindex": 6}}],
                "linkTable": [{{}}, {{"spanId": "{span}", "traceId": "{trace}"}}],
                "stringTable": {strings},
                "attributeTable": [{{}}, {{"keyStrindex": 7, "value": {{"stringValue": "/pay"}}}}],
                "stackTable": [{{}}, {{"locationIndices": [1]}}, {{"locationIndices": [2, 1]}}]
            }}
        }}"#
    )
}

/// Asserts that all was taken: an empty answer in this type.
#[track_caller]
fn taken(answer: &Answer, content_type: &str, body: &[u8]) {
    assert_eq!((answer.status, &answer.body[..]), (200, body), "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), content_type);
}

/// Asserts that the server knows the span with both stack traces.
#[track_caller]
fn is_stored(server: &Server) {
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!((&span["service"], &span["cpuNanos"]), (&"checkout".into(), &30_000_000.into()), "{span}");
    assert_eq!(span["traceId"], TRACE, "{span}");
    let query = format!(
        r#"{{"profile_typeID":"{CPU}","label_selector":"{{service_name=\"checkout\",endpoint=\"/pay\"}}",
            "start":"1767225570000","end":"1767225631000","span_selector":["{SPAN}"]}}"#
    );
    let graph = server.query("SelectMergeSpanProfile", query).json();
    assert_eq!(graph["flamegraph"]["total"], "30000000", "{graph}");
    assert_eq!(graph["flamegraph"]["names"], serde_json::json!(["total", "handler", "hash"]));
}

#[test]
fn protobuf_over_http_is_taken_plain_and_gzipped() {
    for (headers, compressed) in [
        (vec![PROTO], false),
        (vec![("content-type", "application/protobuf; proto=x")], false),
        (vec![PROTO, ("content-encoding", "gzip")], true),
    ] {
        let server = Server::start();
        let body = request(vec![profile()]).encode_to_vec();
        let body = if compressed { gzip(&body) } else { body };
        taken(&server.send(Method::POST, PATH, &headers, body), "application/x-protobuf", b"");
        is_stored(&server);
    }
}

#[test]
fn json_over_http_is_taken_with_ids_in_hexadecimal_and_in_base64() {
    let (span, trace) = ("APBnqgupArc=", "S/kvNXezTaajzpKdDg5HNg==");
    for (body, content_type) in [
        (json(SPAN, TRACE), "application/json"),
        (json(&SPAN.to_uppercase(), &TRACE.to_uppercase()), "application/json; charset=utf-8"),
        (json(span, trace), "Application/JSON"),
    ] {
        let server = Server::start();
        let answer = server.send(Method::POST, PATH, &[("content-type", content_type)], body);
        taken(&answer, "application/json", b"{}");
        is_stored(&server);
    }
}

#[test]
fn grpc_is_taken_on_the_same_port() {
    let server = Server::start();
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let message = request(vec![profile()]).encode_to_vec();
    let answer = server.send_h2c(RPC, &headers, grpc_frame(&message));
    assert_eq!((answer.status, &answer.body[..]), (200, &grpc_frame(b"")[..]), "{:?}", answer.body);
    assert_eq!(answer.trailer("grpc-status"), "0");
    is_stored(&server);

    let mut bad = request(vec![profile()]);
    bad.resource_profiles[0].scope_profiles[0].profiles[0].samples[1].stack_index = 99;
    let answer = server.send_h2c(RPC, &headers, grpc_frame(&bad.encode_to_vec()));
    assert_eq!((answer.status, answer.trailer("grpc-status")), (200, "3"));
    assert!(answer.trailer("grpc-message").contains("stack_index"), "{}", answer.trailer("grpc-message"));

    let mut half = request(vec![profile(), profile()]);
    half.resource_profiles[0].scope_profiles[0].profiles[1].samples[0].link_index = -7;
    let answer = server.send_h2c(RPC, &headers, grpc_frame(&half.encode_to_vec()));
    assert_eq!(answer.trailer("grpc-status"), "0");
    let said = ExportProfilesServiceResponse::decode(&answer.body[5..]).expect("an answer");
    assert_eq!(said.partial_success.expect("it is partial").rejected_profiles, 1);
}

#[test]
fn a_bad_profile_leaves_its_neighbours_and_is_named() {
    let server = Server::start();
    let mut half = request(vec![profile(), profile()]);
    half.resource_profiles[0].scope_profiles[0].profiles[0].samples[1].stack_index = 99;
    let answer = server.send(Method::POST, PATH, &[PROTO], half.encode_to_vec());
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-protobuf"));
    let said = ExportProfilesServiceResponse::decode(&answer.body[..]).expect("an answer");
    let partial = said.partial_success.expect("it is partial");
    assert_eq!(partial.rejected_profiles, 1);
    assert_eq!(
        partial.error_message,
        "1 of 2 profiles refused, the others are stored; resource_profiles[0].scope_profiles[0].profiles[0]: \
         samples[1].stack_index: 99 is not in stack_table, which has 3 entries"
    );
    is_stored(&server);

    let body = json(SPAN, TRACE).replace(r#""period": "10000000","#, "");
    let two = body.replacen(r#""profiles": [{"#, r#""profiles": [{}, {"#, 1);
    let answer = server.send(Method::POST, PATH, &[JSON], two);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let said = answer.json();
    assert_eq!(said["partialSuccess"]["rejectedProfiles"], "1", "{said}");
    let metrics = server.get("/metrics");
    for line in ["spanflame_pushes_total 2\n", "spanflame_refusals_total{reason=\"invalid_profile\"} 2\n"] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[test]
fn what_holds_nothing_good_is_refused_with_its_reason() {
    let server = Server::with_args(&["--max-request-bytes=65536", "--max-message-bytes=131072"]);
    let post = |headers: &[(&str, &str)], body: Vec<u8>| server.send(Method::POST, PATH, headers, body);
    let mut bad = request(vec![profile()]);
    bad.dictionary.as_mut().expect("it is there").stack_table[2].location_indices[1] = 40;
    let message = post(&[PROTO], bad.encode_to_vec()).refused(400, "invalid_argument");
    assert!(
        message.contains("dictionary.stack_table[2].location_indices[1]: 40 is not in location_table"),
        "{message}"
    );

    let message = post(&[PROTO], b"\xff\xff\xff".to_vec()).refused(400, "invalid_argument");
    assert!(message.starts_with("body: is no export request"), "{message}");
    let message = post(&[JSON], b"{".to_vec()).refused(400, "invalid_argument");
    assert!(message.contains("line 1 column"), "{message}");
    for content_type in ["text/plain", "application/proto", ""] {
        let message = post(&[("content-type", content_type)], Vec::new()).refused(415, "invalid_argument");
        assert!(message.starts_with("content-type: expected application/x-protobuf"), "{message}");
    }
    let message = post(&[PROTO, ("content-encoding", "zstd")], Vec::new()).refused(415, "invalid_argument");
    assert!(message.starts_with("Content-Encoding: "), "{message}");
    let message =
        post(&[PROTO, ("content-encoding", "gzip")], b"no".to_vec()).refused(400, "invalid_argument");
    assert!(message.starts_with("request body: "), "{message}");
    let message = post(&[PROTO], vec![0; 70_000]).refused(413, "resource_exhausted");
    assert!(message.contains("max_request_bytes"), "{message}");
    let bomb = gzip(&vec![0; 4_000_000]);
    let message = post(&[PROTO, ("content-encoding", "gzip")], bomb).refused(413, "resource_exhausted");
    assert!(message.contains("max_message_bytes"), "{message}");
    server.get(PATH).refused(405, "unimplemented");

    taken(&post(&[PROTO], Vec::new()), "application/x-protobuf", b"");
    taken(&post(&[JSON], b"{}".to_vec()), "application/json", b"{}");
    server.alive();
}

#[test]
fn connect_callers_are_answered_in_their_codec() {
    let server = Server::start();
    taken(&server.json(RPC, json(SPAN, TRACE)), "application/json", b"{}");
    is_stored(&server);
    let headers = [("content-type", "application/proto"), ("connect-protocol-version", "1")];
    let body = Bytes::from(request(vec![profile()]).encode_to_vec());
    taken(&server.send(Method::POST, RPC, &headers, body), "application/proto", b"");
}
