//! What the query RPCs beyond the flame graph answer, and the older HTTP routes.

use buffa::Message;
use http::Method;
use serde_json::{Value, json};
use spanflame_wire::google::v1::Profile;
use spanflame_wire::querier::v1::SelectMergeStacktracesResponse;

use crate::support::{CPU, SPAN, Server, TRACE, checkout, cpu_profile, service};

const PROFILE_ID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds{service_name=\"checkout\"}";

fn filled() -> Server {
    let server = Server::start();
    let mut series = checkout();
    series[0].samples[0].ID = PROFILE_ID.to_owned();
    series[1].samples[0].ID = "a name that is no UUID".to_owned();
    server.pushed(series);
    server
}

fn selection(more: Value) -> Value {
    let (mut all, Value::Object(more)) = (
        json!({"profileTypeID": CPU, "labelSelector": "{service_name=\"checkout\"}", "start": 1_767_225_600_000i64, "end": 1_767_225_660_000i64}),
        more,
    ) else {
        panic!("objects")
    };
    all.as_object_mut().expect("an object").extend(more);
    all
}

/// Asks for an answer that must be good.
#[track_caller]
fn ask(server: &Server, method: &str, body: &Value) -> Value {
    let answer = server.query(method, body.to_string());
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

fn stacks(profile: &Profile) -> Vec<(Vec<&str>, i64)> {
    let text = |number: i64| profile.string_table[number as usize].as_str();
    let name = |id: &u64| {
        let line = &profile.location[*id as usize - 1].line[0];
        text(profile.function[line.function_id as usize - 1].name)
    };
    let stack = |ids: &[u64]| ids.iter().rev().map(name).collect();
    let mut stacks: Vec<_> =
        profile.sample.iter().map(|sample| (stack(&sample.location_id), sample.value[0])).collect();
    stacks.sort_unstable();
    stacks
}

#[test]
fn merged_samples_come_in_every_form() {
    let server = filled();
    let span = |format: &str| {
        let body = selection(json!({"spanSelector": [SPAN], "format": format}));
        server.query("SelectMergeStacktraces", body.to_string())
    };
    // The tree: a root without a name, `handler` with one child, `hash`.
    let tree = span("PROFILE_FORMAT_TREE").json();
    assert_eq!(tree, json!({"tree": "AAABB2hhbmRsZXKAreIEAQRoYXNogNrECQA="}));
    let body = selection(json!({"spanSelector": [SPAN], "format": 2}));
    assert_eq!(ask(&server, "SelectMergeSpanProfile", &body), tree);
    let dot = span("PROFILE_FORMAT_DOT").json();
    let dot = dot["dot"].as_str().expect("text");
    assert!(dot.starts_with("digraph ") && dot.contains("N1 -> N2 [label=\"20ms\""), "{dot}");
    let pprof = span("PROFILE_FORMAT_PPROF").json();
    assert_eq!(pprof["pprof"]["profile"]["sample"].as_array().map(Vec::len), Some(2));
    assert_eq!(pprof.get("flamegraph"), None);
    // As profilecli asks.
    let mut request = spanflame_wire::querier::v1::SelectMergeStacktracesRequest {
        profile_typeID: CPU.to_owned(),
        label_selector: "{}".to_owned(),
        ..Default::default()
    };
    request.format = spanflame_wire::querier::v1::ProfileFormat::PROFILE_FORMAT_PPROF.into();
    let answer = server.proto("SelectMergeStacktraces", request.encode_to_vec());
    let answer = SelectMergeStacktracesResponse::decode_from_slice(&answer.body).expect("the message");
    let profile = answer.pprof.as_option().and_then(|pprof| pprof.profile.as_option()).expect("a profile");
    assert_eq!(
        stacks(profile),
        [(vec!["handler"], 10_000_000), (vec!["handler", "hash"], 20_000_000), (vec!["idle"], 10_000_000)]
    );
}

#[test]
fn a_merged_profile_is_a_bare_pprof() {
    let server = filled();
    let mut request = spanflame_wire::querier::v1::SelectMergeProfileRequest {
        profile_typeID: CPU.to_owned(),
        trace_id_selector: vec![TRACE.to_owned()],
        ..Default::default()
    };
    let answer = server.proto("SelectMergeProfile", request.encode_to_vec());
    let profile = Profile::decode_from_slice(&answer.body).expect("pprof");
    assert_eq!(stacks(&profile), [(vec!["handler"], 10_000_000), (vec!["handler", "hash"], 20_000_000)]);
    assert_eq!((profile.period, profile.time_nanos), (10_000_000, 1_767_225_605_000_000_000));
    // What was exported can be sent again.
    server.pushed(vec![service("again", &profile)]);
    let again = selection(json!({"labelSelector": "{service_name=\"again\"}"}));
    assert_eq!(ask(&server, "SelectMergeStacktraces", &again)["flamegraph"]["total"], "30000000");
    request.trace_id_selector = vec!["f".repeat(32)];
    let empty = server.proto("SelectMergeProfile", request.encode_to_vec());
    let empty = Profile::decode_from_slice(&empty.body).expect("pprof");
    assert_eq!((empty.sample.len(), empty.sample_type.len()), (0, 1));
}

#[test]
fn profiles_keep_the_ids_that_their_senders_gave_them() {
    let server = filled();
    let total = |id: &str| {
        let body = selection(json!({"profileIdSelector": [id]}));
        ask(&server, "SelectMergeStacktraces", &body)["flamegraph"]["total"].clone()
    };
    assert_eq!(total(PROFILE_ID), "30000000");
    assert_eq!(total(&PROFILE_ID.to_uppercase()), "30000000");
    assert_eq!(total("7c9e6679-7425-40de-944b-e07fc1f90ae8"), Value::Null);
    let body = selection(json!({"step": 15, "exemplarType": "EXEMPLAR_TYPE_INDIVIDUAL"}));
    let series = ask(&server, "SelectSeries", &body);
    let points = series["series"][0]["points"].as_array().expect("points");
    let first = &points[0]["exemplars"][0];
    assert_eq!((&first["profileId"], &first["value"]), (&json!(PROFILE_ID), &json!("30000000")));
    assert_eq!(first["timestamp"], "1767225605000");
    // One without an id got one, which leads back to it.
    let made = points[1]["exemplars"][0]["profileId"].as_str().expect("an id");
    assert_eq!(total(made), "10000000");
}

#[test]
fn descendants_are_rolled_up_unless_switched_off() {
    let server = Server::start();
    let child = [("span_id", "00000000000000aa"), ("local_root_span_id", SPAN)];
    let profile = cpu_profile(
        1_767_225_605_000,
        &[(&["root"], 10_000_000, &[("span_id", SPAN)]), (&["child"], 20_000_000, &child)],
    );
    server.pushed(vec![service("checkout", &profile)]);
    let body = selection(json!({"spanSelector": [SPAN]})).to_string();
    let total = |headers: &[(&str, &str)]| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let path = "/querier.v1.QuerierService/SelectMergeStacktraces";
        server.send(Method::POST, path, &headers, body.clone())
    };
    assert_eq!(total(&[]).json()["flamegraph"]["total"], "30000000");
    assert_eq!(total(&[("x-spanflame-roll-up", "true")]).json()["flamegraph"]["total"], "30000000");
    assert_eq!(total(&[("X-Spanflame-Roll-Up", "false")]).json()["flamegraph"]["total"], "10000000");
    let message = total(&[("x-spanflame-roll-up", "maybe")]).refused(400, "invalid_argument");
    assert!(message.starts_with("x-spanflame-roll-up: "), "{message}");
}

#[test]
fn frame_filters_and_call_sites_narrow_every_form() {
    let server = filled();
    let filter =
        json!({"stackTraceSelector": {"frameFilter": {"includeFunctionNameRegexes": ["^ha", "sh$"]}}});
    let graph = ask(&server, "SelectMergeStacktraces", &selection(filter.clone()));
    assert_eq!(graph["flamegraph"]["total"], "20000000");
    let profile = ask(&server, "SelectMergeProfile", &selection(filter));
    assert_eq!(profile["sample"].as_array().map(Vec::len), Some(1));
    let series = selection(json!({"step": 15, "stack_trace_selector": {"call_site": [{"name": "idle"}]}}));
    let series = ask(&server, "SelectSeries", &series);
    assert_eq!(series["series"][0]["points"], json!([{"value": 10_000_000.0, "timestamp": "1767225645000"}]));
    // As the newest plugin sends it: an unknown field of the released interface.
    let mut request = spanflame_wire::querier::v1::SelectMergeStacktracesRequest {
        profile_typeID: CPU.to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    request.extend([0x3a, 0x08, 0x1a, 0x06, 0x12, 0x04]);
    request.extend(b"hash");
    let answer = server.proto("SelectMergeStacktraces", request);
    let answer = SelectMergeStacktracesResponse::decode_from_slice(&answer.body).expect("the message");
    assert_eq!(answer.flamegraph.as_option().map(|graph| graph.total), Some(20_000_000));
}

#[test]
fn two_selections_are_compared() {
    let server = filled();
    let of_span = selection(json!({"spanSelector": [SPAN]}));
    let diff = ask(&server, "Diff", &json!({"left": of_span, "right": selection(json!({}))}));
    assert_eq!(
        diff,
        json!({"flamegraph": {
            "names": ["total", "handler", "hash", "idle"],
            "levels": [
                {"values": ["0", "30000000", "0", "0", "40000000", "0", "0"]},
                {"values": ["0", "30000000", "10000000", "0", "30000000", "10000000", "1",
                            "0", "0", "0", "0", "10000000", "10000000", "3"]},
                {"values": ["10000000", "20000000", "20000000", "10000000", "20000000", "20000000", "2"]},
            ],
            "total": "70000000", "maxSelf": "20000000", "leftTicks": "30000000", "rightTicks": "40000000",
        }})
    );
}

#[test]
fn heatmaps_count_profiles_and_spans() {
    let server = filled();
    let heatmap = |of: &str| {
        let body = selection(json!({
            "step": 15, "queryType": format!("HEATMAP_QUERY_TYPE_{of}"), "exemplarType": format!("EXEMPLAR_TYPE_{of}"),
        }));
        ask(&server, "SelectHeatmap", &body)
    };
    let profiles = heatmap("INDIVIDUAL");
    let slots = profiles["series"][0]["slots"].as_array().expect("slots");
    assert_eq!(slots.len(), 2);
    assert_eq!(slots[0]["timestamp"], "1767225615000");
    assert_eq!(slots[0]["yMin"].as_array().map(Vec::len), Some(20));
    assert_eq!(slots[0]["counts"].as_array().and_then(|counts| counts.last()), Some(&json!(1)));
    assert_eq!(slots[0]["exemplars"][0]["profileId"], PROFILE_ID);
    let spans = heatmap("SPAN");
    let slots = spans["series"][0]["slots"].as_array().expect("slots");
    assert_eq!(slots.len(), 1, "samples without a span are no span");
    let exemplar = &slots[0]["exemplars"][0];
    assert_eq!((&exemplar["spanId"], &exemplar["traceId"]), (&json!(SPAN), &json!(TRACE)));
    assert_eq!(exemplar["value"], "30000000", "two samples of one span are one point");
}

#[test]
fn an_analysis_has_true_figures() {
    let server = filled();
    let analysis = ask(&server, "AnalyzeQuery", &json!({"query": QUERY}));
    let scope = &analysis["queryScopes"][0];
    assert_eq!(
        (&scope["seriesCount"], &scope["profileCount"], &scope["sampleCount"]),
        (&json!("1"), &json!("2"), &json!("3"))
    );
    let bytes = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let sum: u64 =
        ["indexBytes", "profileBytes", "symbolBytes"].iter().map(|name| bytes(&scope[*name])).sum();
    assert_eq!(bytes(&analysis["queryImpact"]["totalBytesInTimeRange"]), sum);
    assert!(bytes(&scope["profileBytes"]) > 0 && bytes(&scope["symbolBytes"]) > 0);
    let nothing = ask(&server, "AnalyzeQuery", &json!({"query": "{service_name=\"nobody\"}"}));
    assert_eq!(nothing["queryScopes"], json!([{"componentType": "store", "componentCount": "1"}]));
}

#[test]
fn settings_are_kept_and_flags_and_version_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::on(dir.path(), &[]);
    let settings = |server: &Server, method: &str, body: Value| {
        server.json(&format!("/settings.v1.SettingsService/{method}"), body.to_string())
    };
    assert_eq!(settings(&server, "Get", json!({})).json(), json!({}));
    let set =
        |value: &str, at: &str| json!({"setting": {"name": "maxNodes", "value": value, "modifiedAt": at}});
    assert_eq!(settings(&server, "Set", set("100", "1000")).json(), set("100", "1000"));
    settings(&server, "Set", set("50", "999")).refused(409, "already_exists");
    let now = settings(&server, "Set", json!({"setting": {"name": "other", "value": "x"}})).json();
    assert!(now["setting"]["modifiedAt"].as_str().is_some_and(|at| at.len() == 13), "{now}");
    drop(server);
    let server = Server::on(dir.path(), &[]);
    let kept = settings(&server, "Get", json!({})).json();
    assert_eq!(kept["settings"][0], set("100", "1000")["setting"]);
    assert_eq!(kept["settings"][1]["name"], "other");

    let flags = server.json("/capabilities.v1.FeatureFlagsService/GetFeatureFlags", "{}").json();
    let flag = |name: &str| {
        let flags = flags["featureFlags"].as_array().expect("flags");
        let found = flags.iter().find(|flag| flag["name"] == name).expect("the flag is listed");
        found.get("enabled").is_some_and(|enabled| enabled == true)
    };
    assert!(flag("utf8LabelNames") && !flag("functionProjections") && !flag("pyroscopeRuler"));
    let version = server.json("/version.v1.Version/Version", "{}").json();
    assert_eq!(version, json!({"QuerierAPI": "1"}));
}

fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[test]
fn render_answers_a_flamebearer() {
    let server = filled();
    let path = format!("/pyroscope/render?query={}&from=1767225600&until=1767225660000", encoded(QUERY));
    let answer = server.get(&path);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(
        answer.json(),
        json!({
            "version": 1,
            "flamebearer": {
                "names": ["total", "handler", "hash", "idle"],
                "levels": [
                    [0, 40_000_000, 0, 0],
                    [0, 30_000_000, 10_000_000, 1, 0, 10_000_000, 10_000_000, 3],
                    [10_000_000, 20_000_000, 20_000_000, 2],
                ],
                "numTicks": 40_000_000,
                "maxSelf": 20_000_000,
            },
            "metadata": {
                "format": "single", "spyName": "unknown", "sampleRate": 1_000_000_000, "units": "samples", "name": "cpu",
            },
            "timeline": {
                "startTime": 1_767_225_600, "samples": [0, 30_000_000, 0, 10_000_000, 0], "durationDelta": 15,
                "watermarks": null,
            },
            "groups": null,
            "heatmap": null,
        })
    );
    let grouped = server.get(&format!("{path}&groupBy=endpoint&aggregation=avg&max-nodes=1")).json();
    assert_eq!(grouped["groups"]["/pay"]["samples"], json!([0, 30_000_000, 0, 10_000_000, 0]));
    let dot = server.get(&format!("{path}&format=dot"));
    assert_eq!((dot.status, dot.header("content-type")), (200, "text/plain; charset=utf-8"));
    assert!(dot.text().starts_with("digraph "), "{}", dot.text());
    let recent = server.get(&format!("/pyroscope/render?query={}&from=now-1h", encoded(QUERY))).json();
    assert_eq!(recent["flamebearer"]["levels"], json!([[0, 0, 0, 0]]));

    for (query, field) in [
        ("", "query: "),
        ("?query=cpu", "query: "),
        (&format!("?query={}", encoded("a:b:c:d:e{")), "query: "),
        (&format!("?query={}&from=0", encoded(QUERY)), "from: "),
        (&format!("?query={}&until=0", encoded(QUERY)), "until: "),
        (&format!("?query={}&from=soon", encoded(QUERY)), "from: "),
        (&format!("?query={}&from=now&until=now-1h", encoded(QUERY)), "from, until: "),
        (&format!("?query={}&max-nodes=-5", encoded(QUERY)), "max-nodes: "),
        (&format!("?query={}&format=png", encoded(QUERY)), "format: "),
    ] {
        let message = server.get(&format!("/pyroscope/render{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{query}: {message}");
    }
}

#[test]
fn render_diff_compares_two_ranges() {
    let server = filled();
    let side = |side: &str, from: i64, until: i64| {
        format!("{side}Query={}&{side}From={from}&{side}Until={until}", encoded(QUERY))
    };
    let (early, late) = (1_767_225_600_000, 1_767_225_630_000);
    let query = [side("left", early, early + 20_000), side("right", late, late + 30_000)].join("&");
    let diff = server.get(&format!("/pyroscope/render-diff?{query}&max-nodes=100")).json();
    assert_eq!(diff["flamebearer"]["names"], json!(["total", "handler", "hash", "idle"]));
    assert_eq!(diff["flamebearer"]["levels"][0], json!([0, 30_000_000, 0, 0, 10_000_000, 0, 0]));
    assert_eq!((&diff["leftTicks"], &diff["rightTicks"]), (&json!(30_000_000), &json!(10_000_000)));
    assert_eq!((&diff["metadata"]["format"], &diff["version"]), (&json!("double"), &json!(1)));
    let message = server
        .get(&format!("/pyroscope/render-diff?{}", side("left", early, late)))
        .refused(400, "invalid_argument");
    assert!(message.starts_with("rightQuery: "), "{message}");
    let other = query.replacen("process", "other", 1);
    let message = server.get(&format!("/pyroscope/render-diff?{other}")).refused(400, "invalid_argument");
    assert!(message.starts_with("rightQuery: expected the profile type of leftQuery"), "{message}");
}

#[test]
fn older_label_routes_answer_lists() {
    let server = filled();
    let list = |path: &str| server.get(path).json();
    assert_eq!(list("/pyroscope/label-values?label=service_name"), json!(["checkout"]));
    assert_eq!(
        list("/pyroscope/label-values?label=__name__"),
        json!([CPU, "process_cpu:samples:count:cpu:nanoseconds"])
    );
    assert_eq!(list("/pyroscope/label-values?label=service_name&from=now-1h"), json!([]));
    let narrowed = format!("/pyroscope/label-values?label=endpoint&query={}", encoded(QUERY));
    assert_eq!(list(&narrowed), json!(["/pay"]));
    let labels = list("/pyroscope/labels?from=20260101&until=now");
    assert!(labels.as_array().is_some_and(|names| names.contains(&json!("endpoint"))), "{labels}");
    let message = server.get("/pyroscope/label-values").refused(400, "invalid_argument");
    assert!(message.starts_with("label: "), "{message}");
    server.get("/pyroscope/labels?query=%7B").refused(400, "invalid_argument");
    server.get("/pyroscope/labels?from=now&until=now-1h").refused(400, "invalid_argument");
    for path in ["render", "render-diff", "label-values", "labels"] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let answer = server.send(method, &format!("/pyroscope/{path}"), &[], "");
            answer.refused(405, "unimplemented");
        }
    }
}
