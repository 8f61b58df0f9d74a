//! Traces, lists of spans, and many spans in one call.

use http::Method;
use serde_json::{Value, json};

use crate::support::{CPU, SPAN, Server, TRACE, checkout, cpu_profile, service};

const START: i64 = 1_767_225_600_000;
const CHILD: &str = "00000000000000c1";
const REMOTE: &str = "00000000000000c2";

/// A trace of two services: SPAN → CHILD in `checkout`, and REMOTE of `payments` below CHILD.
fn traced(server: &Server) {
    let root =
        [("span_id", SPAN), ("trace_id", TRACE), ("span_name", "GET /pay"), ("local_root_span_id", SPAN)];
    let child = [
        ("span_id", CHILD),
        ("trace_id", TRACE),
        ("span_name", "charge"),
        ("parent_span_id", SPAN),
        ("local_root_span_id", SPAN),
    ];
    let remote = [
        ("span_id", REMOTE),
        ("trace_id", TRACE),
        ("span_name", "POST /charge"),
        ("parent_span_id", CHILD),
        ("local_root_span_id", REMOTE),
    ];
    let here = cpu_profile(START, &[(&["a"], 10_000_000, &root), (&["b"], 20_000_000, &child)]);
    let there = cpu_profile(START + 60_000, &[(&["c"], 40_000_000, &remote)]);
    server.pushed(vec![service("checkout", &here), service("payments", &there)]);
}

#[test]
fn a_trace_shows_its_spans_as_a_tree() {
    let server = Server::start();
    traced(&server);
    let answer = server.get(&format!("/api/v1/traces/{}", TRACE.to_uppercase()));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let trace = answer.json();
    assert_eq!(trace["traceId"], TRACE);
    assert_eq!(trace["services"], json!(["checkout", "payments"]));
    assert_eq!((&trace["from"], &trace["until"]), (&json!(START), &json!(START + 70_000)));
    assert_eq!((&trace["samples"], &trace["cpuNanos"]), (&json!(7), &json!(70_000_000)));
    assert_eq!(
        trace["profileTypes"][0],
        json!({ "id": CPU, "unit": "nanoseconds", "total": 70_000_000, "samples": 7 })
    );
    assert_eq!(trace["spanCount"], 3);
    assert_eq!(
        trace["spans"][1],
        json!({
            "spanId": CHILD, "parentSpanId": SPAN, "localRootSpanId": SPAN, "depth": 1,
            "service": "checkout", "name": "charge", "samples": 2, "cpuNanos": 20_000_000,
            "totalSamples": 6, "totalCpuNanos": 60_000_000, "from": START, "until": START + 10_000,
        })
    );
    let shape: Vec<(&Value, &Value)> = trace["spans"]
        .as_array()
        .expect("spans")
        .iter()
        .map(|span| (&span["spanId"], &span["depth"]))
        .collect();
    assert_eq!(shape, [(&json!(SPAN), &json!(0)), (&json!(CHILD), &json!(1)), (&json!(REMOTE), &json!(2))]);
    // The span itself is without what its child in another process burned, and names it.
    let child = server.get(&format!("/api/v1/spans/{CHILD}")).json();
    assert_eq!((&child["samples"], &child["children"][0]["remote"]), (&json!(2), &json!(true)));
}

#[test]
fn an_unknown_trace_says_so() {
    let server = Server::start();
    traced(&server);
    let answer = server.get("/api/v1/traces/00000000000000000000000000000001");
    let message = answer.refused(404, "not_found");
    assert_eq!(message, "no stored sample belongs to trace 00000000000000000000000000000001");
    assert_eq!(answer.json()["reason"], "unknown_span");
    assert_eq!(answer.json()["store"]["spans"], 3);
}

#[test]
fn many_spans_are_asked_for_at_once() {
    let server = Server::start();
    traced(&server);
    let path = "/api/v1/spans:exists";
    let asked = json!({ "spanIds": [REMOTE.to_uppercase(), "ffffffffffffffff", SPAN, SPAN] });
    let answer = server.json(path, asked.to_string());
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let root = json!({ "spanId": SPAN, "exists": true, "samples": 3, "cpuNanos": 30_000_000 });
    assert_eq!(
        answer.json(),
        json!({ "spans": [
            { "spanId": REMOTE, "exists": true, "samples": 4, "cpuNanos": 40_000_000 },
            { "spanId": "ffffffffffffffff", "exists": false, "samples": 0, "cpuNanos": 0 },
            root, root,
        ] })
    );
    let alone = server.json(path, json!({ "spanIds": [SPAN], "rollUp": false }).to_string()).json();
    assert_eq!(alone["spans"][0]["samples"], 1);
    assert_eq!(server.json(path, r#"{"spanIds":[]}"#).json(), json!({ "spans": [] }));

    let most: Vec<String> = (1..=10_000).map(|id| format!("{id:016x}")).collect();
    let answer = server.json(path, json!({ "spanIds": most }).to_string());
    assert_eq!(answer.json()["spans"].as_array().map(Vec::len), Some(10_000));
    let too_many = server.json(path, json!({ "spanIds": vec![SPAN; 10_001] }).to_string());
    assert!(
        too_many
            .refused(400, "invalid_argument")
            .starts_with("spanIds: expected at most 10000 ids, got 10001")
    );
}

#[test]
fn bodies_that_are_no_question_are_refused() {
    let server = Server::start();
    let path = "/api/v1/spans:exists";
    for (body, field) in [
        ("", "request body: "),
        ("[]", "request body: "),
        ("{}", "request body: "),
        (r#"{"spanIds":"x"}"#, "request body: "),
        (r#"{"spanIds":[1]}"#, "request body: "),
        (r#"[["00f067aa0ba902b7"],true]"#, "request body: expected a JSON object, got an array"),
        (r#"{"spanIds":[],"more":1}"#, "request body: "),
        (r#"{"spanIds":["00f067aa0ba902b7","abc"]}"#, "spanIds[1]: expected 16 hexadecimal characters"),
        (
            r#"{"spanIds":["0000000000000000"]}"#,
            "spanIds[0]: expected 16 hexadecimal characters, not all zero",
        ),
        (r#"{"spanIds":["${__span}"]}"#, "spanIds[0]: expected 16 hexadecimal characters"),
    ] {
        let message = server.json(path, body).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{body}: {message}");
    }
    let deep = "[".repeat(100_000);
    server.json(path, deep).refused(400, "invalid_argument");
    let message = server
        .send(Method::POST, path, &[("content-type", "text/plain")], "{}")
        .refused(415, "invalid_argument");
    assert!(message.contains("application/json"), "{message}");
    let message = server.json(path, format!("{{\"spanIds\":[{}\"x\"]}}", " ".repeat(2 << 20)));
    message.refused(413, "resource_exhausted");
    server.alive();
}

#[test]
fn lists_are_narrowed_sorted_and_paged() {
    let server = Server::start();
    traced(&server);
    let list = |query: &str| {
        let answer = server.get(&format!("/api/v1/spans{query}"));
        assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
        answer.json()
    };
    let ids = |query: &str| -> Vec<String> {
        let list = list(query)["spans"].clone();
        list.as_array()
            .expect("spans")
            .iter()
            .map(|span| span["spanId"].as_str().expect("an id").to_owned())
            .collect()
    };
    assert_eq!(ids(""), [REMOTE, CHILD, SPAN]);
    assert_eq!(ids("?name=charge"), [CHILD]);
    assert_eq!(ids("?name=GET%20/pay&service=checkout"), [SPAN]);
    assert_eq!(ids("?name=GET%20/pay&service=payments"), [""; 0]);
    assert_eq!(ids(&format!("?from={}", START + 60_000)), [REMOTE]);
    assert_eq!(ids(&format!("?until={}", START + 59_999)), [CHILD, SPAN]);
    assert_eq!(ids(&format!("?from={}&until={}", START + 20_000, START + 30_000)), [""; 0]);
    assert_eq!(ids("?sort=newest"), [REMOTE, CHILD, SPAN]);
    let counted = list("?type=process_cpu:samples:count:cpu:nanoseconds&limit=1");
    assert_eq!((&counted["spans"][0]["spanId"], &counted["spans"][0]["total"]), (&json!(REMOTE), &json!(4)));
    assert_eq!(ids("?type=memory:alloc:bytes:space:bytes"), [""; 0]);

    let first = list("?limit=2&sort=samples");
    let next = first["next"].as_str().expect("there is more");
    let second = list(&format!("?limit=2&sort=samples&after={next}"));
    assert_eq!((&second["spans"][0]["spanId"], &second["next"]), (&json!(SPAN), &Value::Null));
    assert_eq!(list("?limit=3")["next"], Value::Null);
    assert_eq!(list("?limit=0"), json!({ "spans": [], "next": null }));

    for (query, field) in [
        ("sort=age".to_owned(), "sort: "),
        ("sort=total".to_owned(), "sort: "),
        ("from=2&until=1".to_owned(), "from, until: "),
        ("from=x".to_owned(), "query: "),
        ("type=cpu".to_owned(), "type: "),
        ("traceId=%24%7B__trace%7D".to_owned(), "traceId: expected 32 hexadecimal characters"),
        ("after=x".to_owned(), "after: "),
        (format!("after={next}"), "after: "),
        ("limit=1&limit=2".to_owned(), "query: "),
    ] {
        let message = server.get(&format!("/api/v1/spans?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{query}: {message}");
    }
}

#[test]
fn everything_is_found_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::on(dir.path(), &[]);
    traced(&server);
    server.pushed(checkout());
    let paths = [
        format!("/api/v1/traces/{TRACE}"),
        format!("/api/v1/spans/{SPAN}"),
        "/api/v1/spans".to_owned(),
        format!("/api/v1/spans/{SPAN}/profile?format=speedscope"),
    ];
    let before: Vec<Value> = paths.iter().map(|path| server.get(path).json()).collect();
    server.kill();
    let server = Server::on(dir.path(), &[]);
    let after: Vec<Value> = paths.iter().map(|path| server.get(path).json()).collect();
    assert_eq!(before, after);
}
