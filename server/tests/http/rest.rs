//! Our own routes: a span by its id and nothing else.

use http::Method;
use serde_json::json;

use crate::support::{CPU, SPAN, Server, TRACE, checkout, cpu_profile, service};

#[test]
fn the_bridge_recognises_the_server() {
    let server = Server::start();
    let answer = server.get("/api/v1/status/buildinfo");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json()["status"], "success");
    assert_eq!(answer.json()["data"]["application"], "spanflame");
    assert_eq!(answer.json()["data"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_span_is_found_by_its_id_alone() {
    let server = Server::start();
    let ids = [("span_id", SPAN), ("trace_id", TRACE), ("span_name", "GET /pay")];
    let profile = cpu_profile(
        1_767_225_600_000,
        &[(&["handler"], 10_000_000, &ids), (&["handler", "hash"], 20_000_000, &ids)],
    );
    server.pushed(vec![service("checkout", &profile)]);
    let answer = server.get(&format!("/api/v1/spans/{SPAN}"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(
        answer.json(),
        json!({
            "spanId": SPAN,
            "traceId": TRACE,
            "parentSpanId": null,
            "localRootSpanId": null,
            "service": "checkout",
            "services": ["checkout"],
            "name": "GET /pay",
            "labels": { "service_name": "checkout" },
            "series": [{
                "labels": { "service_name": "checkout" },
                "from": 1_767_225_600_000_i64, "until": 1_767_225_610_000_i64,
                "samples": 3, "cpuNanos": 30_000_000,
            }],
            "from": 1_767_225_600_000_i64,
            "until": 1_767_225_610_000_i64,
            "profileTypes": [
                { "id": CPU, "unit": "nanoseconds", "total": 30_000_000, "samples": 3 },
                { "id": "process_cpu:samples:count:cpu:nanoseconds", "unit": "count", "total": 3, "samples": 3 },
            ],
            "samples": 3,
            "cpuNanos": 30_000_000,
            "ownSamples": 3,
            "ownCpuNanos": 30_000_000,
            "children": [],
            "childCount": 0,
        })
    );
    assert_eq!(server.get(&format!("/api/v1/spans/{}", SPAN.to_uppercase())).json(), answer.json());
}

#[test]
fn a_root_span_whose_children_had_the_cpu_has_its_name_even_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::on(dir.path(), &[]);
    let labels = [
        ("span_id", "00000000000000c1"),
        ("span_name", "hash"),
        ("parent_span_id", SPAN),
        ("local_root_span_id", SPAN),
        ("local_root_span_name", "GET /checkout"),
    ];
    let profile = cpu_profile(1_767_225_600_000, &[(&["work"], 20_000_000, &labels)]);
    server.pushed(vec![service("checkout", &profile)]);
    let check = |server: &Server| {
        let root = server.get(&format!("/api/v1/spans/{SPAN}")).json();
        assert_eq!((&root["name"], &root["cpuNanos"]), (&json!("GET /checkout"), &json!(20_000_000)));
        assert_eq!(root["labels"], json!({ "service_name": "checkout" }));
        assert_eq!((&root["ownCpuNanos"], &root["childCount"]), (&json!(0), &json!(1)));
        assert_eq!(
            root["children"],
            json!([{
                "spanId": "00000000000000c1", "service": "checkout", "name": "hash", "remote": false,
                "samples": 2, "cpuNanos": 20_000_000, "ownSamples": 2, "ownCpuNanos": 20_000_000,
            }])
        );
        let child = server.get("/api/v1/spans/00000000000000c1").json();
        assert_eq!((&child["name"], &child["localRootSpanId"]), (&json!("hash"), &json!(SPAN)));
        // The list is of spans with samples of their own.
        let listed = server.get("/api/v1/spans").json()["spans"].clone();
        assert_eq!((listed.as_array().map(Vec::len), &listed[0]["name"]), (Some(1), &json!("hash")));
    };
    check(&server);
    server.kill();
    check(&Server::on(dir.path(), &[]));
}

#[test]
fn its_profile_is_the_graph_that_grafana_gets() {
    let server = Server::start();
    server.pushed(checkout());
    let graph = server.get(&format!("/api/v1/spans/{SPAN}/profile"));
    assert_eq!((graph.status, graph.header("content-type")), (200, "application/json"));
    let asked = format!(r#"{{"profile_typeID":"{CPU}","label_selector":"","span_selector":["{SPAN}"]}}"#);
    assert_eq!(graph.body, server.query("SelectMergeStacktraces", asked).body);
    let typed =
        server.get(&format!("/api/v1/spans/{SPAN}/profile?type={CPU}&maxNodes=8192&format=flamegraph"));
    assert_eq!(typed.body, graph.body);
    let count = "process_cpu:samples:count:cpu:nanoseconds";
    let counted = server.get(&format!("/api/v1/spans/{SPAN}/profile?type={count}")).json();
    assert_eq!(counted["flamegraph"]["total"], "3");
    for (query, field) in [
        ("type=cpu", "type: "),
        ("maxNodes=-1", "maxNodes: "),
        ("format=dot", "format: "),
        ("rollUp=maybe", "query: "),
        ("what=1", "query: "),
    ] {
        let answer = server.get(&format!("/api/v1/spans/{SPAN}/profile?{query}"));
        let message = answer.refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{message}");
    }
}

#[test]
fn unknown_and_bad_ids_say_so() {
    let server = Server::start();
    let unknown = |path: &str| {
        let answer = server.get(path);
        answer.refused(404, "not_found");
        answer.json()
    };
    let empty = unknown("/api/v1/spans/ffffffffffffffff");
    assert_eq!(empty["reason"], "unknown_span");
    assert_eq!(empty["store"], json!({ "profiles": 0, "spans": 0, "oldest": null, "newest": null }));
    assert!(empty["hints"][0].as_str().is_some_and(|hint| hint.contains("no profiles yet")));
    server.pushed(checkout());
    for path in ["/api/v1/spans/ffffffffffffffff", "/api/v1/spans/ffffffffffffffff/profile"] {
        let error = unknown(path);
        assert_eq!(error["store"]["profiles"], 2);
        assert_eq!(error["store"]["spans"], 1);
        assert_eq!(error["store"]["oldest"], 1_767_225_605_000_i64);
        assert!(error["hints"].as_array().is_some_and(|hints| hints.len() >= 2));
    }
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).status, 200);
    let metrics = server.get("/metrics");
    for counted in ["{outcome=\"unknown_span\"} 3\n", "{outcome=\"hit\"} 1\n"] {
        let line = format!("spanflame_span_queries_total{counted}");
        assert!(metrics.text().contains(&line), "{line}: {}", metrics.text());
    }
}

/// What is no id, as it stands in a path and as it is shown.
const NO_IDS: [(&str, &str); 9] = [
    ("abc", "abc"),
    ("00f067aa0ba902bz", "00f067aa0ba902bz"),
    ("00f067aa0ba902b70", "00f067aa0ba902b70"),
    ("%2B0f067aa0ba902b7", "+0f067aa0ba902b7"),
    ("%24%7B__span%7D", "${__span}"),
    ("%24%7B__span.tags%5B%22pyroscope.profile.id%22%5D%7D", r#"${__span.tags["pyroscope.profile.id"]}"#),
    ("00f067aa%00ba902b7", "00f067aa\u{0}ba902b7"),
    ("..%2F..%2Fetc%2Fpasswd", "../../etc/passwd"),
    ("%3Cscript%3E", "<script>"),
];

#[test]
fn what_is_no_id_is_shown_and_named() {
    let server = Server::start();
    server.pushed(checkout());
    for (kind, field, length) in [("spans", "span_id", 16), ("traces", "trace_id", 32)] {
        for rest in ["", "/profile"] {
            for (bad, shown) in NO_IDS {
                let answer = server.get(&format!("/api/v1/{kind}/{bad}{rest}"));
                let message = answer.refused(400, "invalid_argument");
                let expected = format!("{field}: expected {length} hexadecimal characters, got {shown:?}");
                assert!(message.starts_with(&expected), "{message}");
                assert_eq!(
                    message.contains("pyroscope.profile.id, so it"),
                    bad.starts_with("%24"),
                    "{message}"
                );
                assert_eq!(answer.json()["reason"], format!("bad_{field}"));
            }
            let zero = server.get(&format!("/api/v1/{kind}/{}{rest}", "0".repeat(length)));
            let message = zero.refused(400, "invalid_argument");
            assert!(message.contains("characters, not all zero, got"), "{message}");
            server.get(&format!("/api/v1/{kind}/%ff{rest}")).refused(400, "invalid_argument");
            server
                .get(&format!("/api/v1/{kind}/{}{rest}", "f".repeat(4000)))
                .refused(400, "invalid_argument");
        }
    }
    server.alive();
}

#[test]
fn wrong_methods_and_paths_are_connect_errors_and_head_works() {
    let server = Server::start();
    server.pushed(checkout());
    for path in [
        "/api/v1/spans".to_owned(),
        format!("/api/v1/spans/{SPAN}"),
        format!("/api/v1/spans/{SPAN}/profile?format=svg"),
        format!("/api/v1/traces/{TRACE}"),
        format!("/api/v1/traces/{TRACE}/profile"),
        format!("/api/v1/explain?span={SPAN}"),
        "/api/v1/openapi.json".to_owned(),
    ] {
        let (whole, head) = (server.get(&path), server.send(Method::HEAD, &path, &[], ""));
        assert_eq!((whole.status, head.status, head.body.len()), (200, 200, 0), "{path}");
        for header in ["content-type", "content-disposition", "content-length"] {
            assert_eq!(whole.header(header), head.header(header), "{header} of {path}");
        }
        let wrong = server.send(Method::DELETE, &path, &[], "");
        wrong.refused(405, "unimplemented");
        assert_eq!(wrong.header("allow"), "GET,HEAD");
    }
    server.get("/api/v1/spans:exists").refused(405, "unimplemented");
    for path in ["/api/v1/span", "/api/v1/spans/", "/api/v1/trace", "/api/v2/spans", "/api/v1/spans:delete"] {
        server.get(path).refused(404, "not_found");
    }
}

#[test]
fn spans_are_listed_by_cpu() {
    let server = Server::start();
    let profile = |cpu: &[(&str, i64)]| {
        let labels: Vec<[(&str, &str); 2]> =
            cpu.iter().map(|(span, _)| [("span_id", *span), ("trace_id", TRACE)]).collect();
        let samples: Vec<crate::support::Sample<'_>> = cpu
            .iter()
            .zip(&labels)
            .map(|((_, nanos), labels)| (&["work"][..], *nanos, &labels[..]))
            .collect();
        cpu_profile(1_767_225_600_000, &samples)
    };
    let a = profile(&[("00000000000000a1", 20_000_000), ("00000000000000a2", 50_000_000)]);
    let b = profile(&[("00000000000000b1", 30_000_000)]);
    server.pushed(vec![service("a", &a), service("b", &b)]);
    let ids = |query: &str| -> Vec<String> {
        let spans = server.get(&format!("/api/v1/spans{query}")).json();
        let spans = spans["spans"].as_array().expect("a list").clone();
        spans.iter().map(|span| span["spanId"].as_str().expect("an id")[14..].to_owned()).collect()
    };
    assert_eq!(ids(""), ["a2", "b1", "a1"]);
    assert_eq!(ids("?limit=1"), ["a2"]);
    assert_eq!(ids("?service=b"), ["b1"]);
    assert_eq!(ids("?service=none"), [""; 0]);
    assert_eq!(ids(&format!("?traceId={TRACE}&service=a&limit=10")), ["a2", "a1"]);
    assert_eq!(ids("?traceId=0123456789abcdef0123456789abcdef"), [""; 0]);
    let first = server.get("/api/v1/spans?limit=1").json()["spans"][0].clone();
    assert_eq!(
        first,
        json!({
            "spanId": "00000000000000a2", "traceId": TRACE, "service": "a", "name": null, "samples": 5,
            "cpuNanos": 50_000_000, "from": 1_767_225_600_000_i64, "until": 1_767_225_610_000_i64,
        })
    );
    for (query, field) in
        [("limit=x", "query: "), ("limit=99999", "limit: "), ("traceId=abc", "traceId: "), ("x=1", "query: ")]
    {
        let message = server.get(&format!("/api/v1/spans?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{message}");
    }
}
