//! Every RPC × a good request, each bad field, wrong methods, wrong content types, broken bodies, in every protocol.

use buffa::Message;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spanflame_wire::capabilities::v1 as capabilities;
use spanflame_wire::google::v1::Profile;
use spanflame_wire::push::v1 as push;
use spanflame_wire::querier::v1 as querier;
use spanflame_wire::settings::v1 as settings;
use spanflame_wire::types::v1 as types;
use spanflame_wire::version::v1 as version;

use crate::support::{CPU, SPAN, Server, TRACE, checkout};

const START: i64 = 1_767_225_570_000;
const END: i64 = 1_767_225_660_000;
const PROFILE_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";

/// One RPC: its path, a good request, bad ones with the beginning of what they are told, and its messages' codecs.
struct Rpc {
    path: &'static str,
    good: Value,
    bad: Vec<(Value, &'static str)>,
    encode: fn(&Value) -> Vec<u8>,
    decode: fn(&[u8]) -> Value,
}

/// The RPC with these messages. Bad requests are the good one with some of its fields changed.
fn rpc<Request, Answer>(path: &'static str, good: Value, bad: Vec<(Value, &'static str)>) -> Rpc
where
    Request: Message + DeserializeOwned,
    Answer: Message + Serialize,
{
    let changed = |change: Value| {
        let (Value::Object(mut fields), Value::Object(change)) = (good.clone(), change) else {
            panic!("messages are objects")
        };
        fields.extend(change);
        fields.retain(|_, value| !value.is_null());
        Value::Object(fields)
    };
    let bad = bad.into_iter().map(|(change, told)| (changed(change), told)).collect();
    Rpc {
        path,
        bad,
        good,
        encode: |value| serde_json::from_value::<Request>(value.clone()).expect("a message").encode_to_vec(),
        decode: |bytes| {
            serde_json::to_value(Answer::decode_from_slice(bytes).expect("a message")).expect("JSON")
        },
    }
}

fn many(text: &str, count: usize) -> Vec<String> {
    vec![text.to_owned(); count]
}

fn bad_range() -> Vec<(Value, &'static str)> {
    vec![(json!({"start": END, "end": START}), "start, end: ")]
}

/// What every selection of samples refuses.
fn bad_selection() -> Vec<(Value, &'static str)> {
    let mut bad = bad_range();
    bad.extend([
        (json!({"profileTypeID": null}), "profile_typeID: "),
        (json!({"profileTypeID": "cpu"}), "profile_typeID: "),
        (json!({"profileTypeID": "a:b:c:d:e:f"}), "profile_typeID: "),
        (json!({"labelSelector": "{"}), "label_selector: "),
        (json!({"labelSelector": "{a=~\"(\"}"}), "label_selector: "),
    ]);
    bad
}

fn bad_nodes() -> Vec<(Value, &'static str)> {
    vec![(json!({"maxNodes": -1}), "max_nodes: "), (json!({"maxNodes": 1_048_577}), "max_nodes: ")]
}

fn bad_stacks() -> Vec<(Value, &'static str)> {
    let filter = |filter: Value| json!({"stackTraceSelector": {"frameFilter": filter}});
    vec![
        (
            filter(json!({"includeFunctionNameRegexes": ["("]})),
            "stack_trace_selector.frame_filter.include_function_name_regexes[0]: ",
        ),
        (
            filter(json!({"excludeFunctionNameRegexes": ["a", "["]})),
            "stack_trace_selector.frame_filter.exclude_function_name_regexes[1]: ",
        ),
        (
            filter(json!({"includeFunctionNames": many("a", 101)})),
            "stack_trace_selector.frame_filter.include_function_names: ",
        ),
        (
            json!({"stackTraceSelector": {"callSite": vec![json!({"name": "a"}); 10_001]}}),
            "stack_trace_selector.call_site: ",
        ),
    ]
}

fn bad_over_time() -> Vec<(Value, &'static str)> {
    let mut bad = bad_selection();
    bad.retain(|(_, told)| *told != "start, end: ");
    bad.extend([
        (json!({"start": END, "end": START}), "start, end: "),
        (json!({"start": 0}), "start, end: "),
        (json!({"end": 0}), "start, end: "),
        (json!({"step": 0}), "step: "),
        (json!({"step": -15}), "step: "),
        (json!({"step": 0.0001}), "step: "),
        (json!({"step": 0.001}), "step: "),
        (json!({"groupBy": many("a", 101)}), "group_by: "),
        (json!({"limit": -1}), "limit: "),
        (json!({"exemplarType": 9}), "exemplar_type: "),
    ]);
    bad
}

fn joined(lists: Vec<Vec<(Value, &'static str)>>) -> Vec<(Value, &'static str)> {
    lists.into_iter().flatten().collect()
}

fn rpcs() -> Vec<Rpc> {
    let range = json!({"start": START, "end": END});
    let matchers = vec![
        (json!({"matchers": ["{}", "{"]}), "matchers[1]: "),
        (json!({"matchers": many("{}", 101)}), "matchers: "),
    ];
    let selection = json!({
        "profileTypeID": CPU, "labelSelector": "{service_name=\"checkout\"}", "start": START, "end": END,
    });
    let with = |base: &Value, more: Value| {
        let (Value::Object(mut base), Value::Object(more)) = (base.clone(), more) else { panic!("objects") };
        base.extend(more);
        Value::Object(base)
    };
    let over_time = with(&selection, json!({"step": 15, "groupBy": ["endpoint"], "limit": "5"}));
    let raw_profile = json!({"rawProfile": "AAAA"});
    vec![
        rpc::<querier::ProfileTypesRequest, querier::ProfileTypesResponse>(
            "/querier.v1.QuerierService/ProfileTypes",
            range.clone(),
            bad_range(),
        ),
        rpc::<types::LabelNamesRequest, types::LabelNamesResponse>(
            "/querier.v1.QuerierService/LabelNames",
            with(&range, json!({"matchers": ["{service_name=\"checkout\"}", ""]})),
            joined(vec![bad_range(), matchers.clone()]),
        ),
        rpc::<types::LabelValuesRequest, types::LabelValuesResponse>(
            "/querier.v1.QuerierService/LabelValues",
            with(&range, json!({"name": "service_name"})),
            joined(vec![bad_range(), matchers.clone(), vec![(json!({"name": ""}), "name: ")]]),
        ),
        rpc::<querier::SeriesRequest, querier::SeriesResponse>(
            "/querier.v1.QuerierService/Series",
            with(&range, json!({"labelNames": ["service_name", "__profile_type__"]})),
            joined(vec![
                bad_range(),
                matchers,
                vec![(json!({"labelNames": many("a", 101)}), "label_names: ")],
            ]),
        ),
        rpc::<querier::SelectMergeStacktracesRequest, querier::SelectMergeStacktracesResponse>(
            "/querier.v1.QuerierService/SelectMergeStacktraces",
            with(&selection, json!({"spanSelector": [SPAN], "maxNodes": "16384"})),
            joined(vec![
                bad_selection(),
                bad_nodes(),
                bad_stacks(),
                vec![
                    (json!({"spanSelector": ["abc"]}), "span_selector[0]: expected 16 hex characters"),
                    (json!({"spanSelector": [SPAN, "${__span.tags}"]}), "span_selector[1]: "),
                    (json!({"spanSelector": many(SPAN, 10_001)}), "span_selector: "),
                    (json!({"spanSelector": null, "traceIdSelector": [SPAN]}), "trace_id_selector[0]: "),
                    (json!({"traceIdSelector": [TRACE]}), "span_selector, trace_id_selector: "),
                    (json!({"profileIdSelector": ["1"]}), "profile_id_selector[0]: expected a UUID"),
                ],
            ]),
        ),
        rpc::<querier::SelectMergeSpanProfileRequest, querier::SelectMergeSpanProfileResponse>(
            "/querier.v1.QuerierService/SelectMergeSpanProfile",
            with(&selection, json!({"spanSelector": [SPAN], "format": "PROFILE_FORMAT_TREE"})),
            joined(vec![
                bad_selection(),
                bad_nodes(),
                vec![(json!({"spanSelector": ["0000000000000000"]}), "span_selector[0]: ")],
            ]),
        ),
        rpc::<querier::SelectMergeProfileRequest, Profile>(
            "/querier.v1.QuerierService/SelectMergeProfile",
            with(&selection, json!({"traceIdSelector": [TRACE]})),
            joined(vec![
                bad_selection(),
                bad_nodes(),
                bad_stacks(),
                vec![
                    (json!({"traceIdSelector": ["abc"]}), "trace_id_selector[0]: "),
                    (json!({"profileIdSelector": ["abc"]}), "profile_id_selector[0]: "),
                ],
            ]),
        ),
        rpc::<querier::SelectSeriesRequest, querier::SelectSeriesResponse>(
            "/querier.v1.QuerierService/SelectSeries",
            with(&over_time, json!({"exemplarType": "EXEMPLAR_TYPE_SPAN", "aggregation": 1})),
            joined(vec![bad_over_time(), bad_stacks(), vec![(json!({"aggregation": 7}), "aggregation: ")]]),
        ),
        rpc::<querier::SelectHeatmapRequest, querier::SelectHeatmapResponse>(
            "/querier.v1.QuerierService/SelectHeatmap",
            with(
                &over_time,
                json!({"queryType": "HEATMAP_QUERY_TYPE_INDIVIDUAL", "exemplarType": "EXEMPLAR_TYPE_INDIVIDUAL"}),
            ),
            joined(vec![
                bad_over_time(),
                vec![
                    (json!({"queryType": null}), "query_type: "),
                    (json!({"queryType": 5}), "query_type: "),
                    (json!({"exemplarType": "EXEMPLAR_TYPE_SPAN"}), "exemplar_type: "),
                    (json!({"end": START}), "start, end: "),
                ],
            ]),
        ),
        rpc::<querier::DiffRequest, querier::DiffResponse>(
            "/querier.v1.QuerierService/Diff",
            json!({"left": selection, "right": with(&selection, json!({"maxNodes": 10}))}),
            vec![
                (json!({"left": null}), "left: "),
                (json!({"right": null}), "right: "),
                (json!({"left": {"profileTypeID": "cpu"}}), "left.profile_typeID: "),
                (json!({"right": with(&selection, json!({"labelSelector": "{"}))}), "right.label_selector: "),
                (json!({"right": {"profileTypeID": "a:b:c:d:e"}}), "right.profile_typeID: "),
            ],
        ),
        rpc::<types::GetProfileStatsRequest, types::GetProfileStatsResponse>(
            "/querier.v1.QuerierService/GetProfileStats",
            json!({}),
            vec![],
        ),
        rpc::<querier::AnalyzeQueryRequest, querier::AnalyzeQueryResponse>(
            "/querier.v1.QuerierService/AnalyzeQuery",
            with(&range, json!({"query": format!("{CPU}{{service_name=\"checkout\"}}")})),
            joined(vec![bad_range(), vec![(json!({"query": "{"}), "query: ")]]),
        ),
        rpc::<settings::SetSettingsRequest, settings::SetSettingsResponse>(
            "/settings.v1.SettingsService/Set",
            json!({"setting": {"name": "collapsedFlamegraphs", "value": "true", "modifiedAt": "1767225600000"}}),
            vec![
                (json!({"setting": null}), "setting: "),
                (json!({"setting": {"name": "", "value": "x"}}), "setting.name: "),
                (json!({"setting": {"name": "n".repeat(257)}}), "setting.name: "),
                (json!({"setting": {"name": "n", "value": "v".repeat(20_000)}}), "setting.value: "),
                (
                    json!({"setting": {"name": "n", "value": "x", "modifiedAt": i64::MAX.to_string()}}),
                    "setting.modifiedAt: ",
                ),
            ],
        ),
        rpc::<settings::GetSettingsRequest, settings::GetSettingsResponse>(
            "/settings.v1.SettingsService/Get",
            json!({}),
            vec![],
        ),
        rpc::<capabilities::GetFeatureFlagsRequest, capabilities::GetFeatureFlagsResponse>(
            "/capabilities.v1.FeatureFlagsService/GetFeatureFlags",
            json!({}),
            vec![],
        ),
        rpc::<version::VersionRequest, version::VersionResponse>(
            "/version.v1.Version/Version",
            json!({}),
            vec![],
        ),
        rpc::<push::PushRequest, push::PushResponse>(
            "/push.v1.PusherService/Push",
            json!({"series": []}),
            vec![
                (json!({"series": [{"samples": [raw_profile]}]}), "1 of 1 profiles refused"),
                (
                    json!({"series": [{"labels": [{"name": "a", "value": "b"}], "samples": [raw_profile]}]}),
                    "1 of 1 profiles refused; series[0]{a=\"b\"}",
                ),
            ],
        ),
    ]
}

fn filled() -> Server {
    let server = Server::start();
    let mut series = checkout();
    series[0].samples[0].ID = PROFILE_ID.to_owned();
    server.pushed(series);
    server
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[0], &length[..], message].concat()
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/proto");

#[test]
fn good_requests_are_answered_alike_in_every_protocol() {
    let server = filled();
    for Rpc { path, good, encode, decode, .. } in rpcs() {
        let answer = server.json(path, good.to_string());
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, JSON.1),
            "{path}: {:?}",
            answer.body
        );
        let body = encode(&good);
        let proto =
            server.send(Method::POST, path, &[PROTO, ("connect-protocol-version", "1")], body.clone());
        assert_eq!((proto.status, proto.header("content-type")), (200, PROTO.1), "{path}: {:?}", proto.body);
        assert_eq!(decode(&proto.body), answer.json(), "{path}");

        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let grpc = server.send_h2c(path, &grpc, frame(&body));
        assert_eq!((grpc.status, &grpc.body[..]), (200, &frame(&proto.body)[..]), "{path}");
        let web = [("content-type", "application/grpc-web+proto")];
        let web = server.send(Method::POST, path, &web, frame(&body));
        assert_eq!(web.status, 200, "{path}");
        let message = frame(&proto.body);
        assert_eq!(web.body[..message.len()], message, "{path}");
        let trailers = String::from_utf8_lossy(&web.body[message.len() + 5..]).to_lowercase();
        assert!(
            trailers.contains("grpc-status: 0") || trailers.contains("grpc-status:0"),
            "{path}: {trailers}"
        );

        let snake = snake_case(&good);
        assert_eq!(server.json(path, snake.to_string()).body, answer.body, "{path}: proto names");
        let Value::Object(mut unknown) = good.clone() else { panic!("an object") };
        unknown.insert("noSuchField".to_owned(), json!({"a": [1]}));
        assert_eq!(server.json(path, Value::Object(unknown).to_string()).body, answer.body, "{path}");
    }
    server.alive();
}

/// The message with proto names in the place of lower camel case.
fn snake_case(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let name = |name: &str| match name {
                "profileTypeID" => "profile_typeID".to_owned(),
                // It is called so in either form.
                "modifiedAt" | "ID" => name.to_owned(),
                name => name
                    .chars()
                    .flat_map(|c| {
                        if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }
                    })
                    .collect(),
            };
            fields.iter().map(|(field, value)| (name(field), snake_case(value))).collect()
        }
        Value::Array(values) => values.iter().map(snake_case).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_bad_field_is_named() {
    let server = filled();
    for Rpc { path, bad, encode, .. } in rpcs() {
        for (body, told) in bad {
            let answer = server.json(path, body.to_string());
            let message = answer.refused(400, "invalid_argument");
            assert!(message.starts_with(told), "{path}: expected {told:?}, got {message:?}");
            let message =
                server.send(Method::POST, path, &[PROTO], encode(&body)).refused(400, "invalid_argument");
            assert!(message.starts_with(told), "{path}: expected {told:?}, got {message:?}");
        }
    }
    server.alive();
}

#[test]
fn broken_bodies_are_refused() {
    let server = filled();
    for Rpc { path, .. } in rpcs() {
        for body in ["", "{", "[]", "\"text\"", "{\"a\":}", "{} {}", "\u{feff}{"] {
            server.json(path, body).refused(400, "invalid_argument");
        }
        // A tag that never ends, a length beyond the end, and a field of wire type 7.
        for body in [&[0xff; 11][..], &[0x0a, 0x7f, 0x01], &[0x0f]] {
            server.send(Method::POST, path, &[PROTO], body.to_vec()).refused(400, "invalid_argument");
        }
        let gzip = [JSON, ("content-encoding", "gzip")];
        server.send(Method::POST, path, &gzip, "not gzip").refused(400, "invalid_argument");
    }
    server.alive();
}

#[test]
fn fields_of_the_wrong_kind_are_refused() {
    let server = filled();
    for Rpc { path, good, .. } in rpcs() {
        let Value::Object(fields) = &good else { panic!("an object") };
        for (name, value) in fields {
            let mut wrong = fields.clone();
            let other = match value {
                Value::Array(_) => json!({"a": 1}),
                Value::Object(_) => json!("text"),
                _ => json!([{}]),
            };
            wrong.insert(name.clone(), other);
            server.json(path, Value::Object(wrong).to_string()).refused(400, "invalid_argument");
        }
    }
}

#[test]
fn wrong_methods_and_content_types_are_connect_errors() {
    let server = filled();
    for Rpc { path, good, .. } in rpcs() {
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
            let answer = server.send(method, path, &[JSON], good.to_string());
            answer.refused(405, "unimplemented");
            assert_eq!(answer.header("allow"), "POST", "{path}");
        }
        for content_type in
            ["text/plain", "application/x-protobuf", "application/octet-stream", "application/xml"]
        {
            let headers = [("content-type", content_type)];
            let message =
                server.send(Method::POST, path, &headers, good.to_string()).refused(415, "invalid_argument");
            assert!(message.starts_with("content-type: "), "{path}: {message}");
        }
        server.send(Method::POST, path, &[], good.to_string()).refused(415, "invalid_argument");
    }
}

#[test]
fn what_is_not_served_is_unimplemented() {
    let server = Server::start();
    for path in [
        "/querier.v1.QuerierService/SelectMergeEverything",
        "/settings.v1.SettingsService/Delete",
        "/settings.v1.RecordingRulesService/ListRecordingRules",
        "/settings.v1.RecordingRulesService/UpsertRecordingRule",
        "/vcs.v1.VCSService/GithubApp",
        "/vcs.v1.VCSService/GetFile",
        "/adhocprofiles.v1.AdHocProfileService/List",
        "/debuginfo.v1alpha1.DebuginfoService/Upload",
    ] {
        server.json(path, "{}").refused(501, "unimplemented");
        server.send(Method::POST, path, &[PROTO], "").refused(501, "unimplemented");
    }
    let functions = json!({"profileTypeID": CPU, "format": 7});
    let message = server.query("SelectMergeStacktraces", functions.to_string()).refused(501, "unimplemented");
    assert!(message.starts_with("format: "), "{message}");
}

/// Nothing of a request is a whole one but itself: cut anywhere, it is refused or means less, and the server lives.
#[test]
fn truncated_messages_do_no_harm() {
    let server = filled();
    for Rpc { path, good, encode, .. } in rpcs() {
        let whole = encode(&good);
        for end in (0..whole.len()).step_by(whole.len() / 16 + 1) {
            let answer = server.send(Method::POST, path, &[PROTO], whole[..end].to_vec());
            assert!(
                answer.status == 200 || answer.status == 400,
                "{path}: {} {:?}",
                answer.status,
                answer.body
            );
        }
    }
    server.alive();
}
