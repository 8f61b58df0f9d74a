//! Why a query is empty.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{CPU, SPAN, Server, TRACE, checkout, cpu_profile, service};

fn explain(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/api/v1/explain?{query}"));
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{:?}",
        answer.body
    );
    answer.json()
}

fn of_span(server: &Server, more: &str) -> Value {
    explain(server, &format!("span={SPAN}&{more}"))
}

/// `{`, `"` and `}` as they stand in an address.
fn selector(text: &str) -> String {
    format!("selector={}", text.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"))
}

#[test]
fn each_check_is_told_with_what_to_do() {
    let server = Server::start();
    server.pushed(checkout());
    let text = |answer: &Value, field: &str| answer[field].as_str().expect("a sentence").to_owned();

    let hit = of_span(&server, "");
    assert_eq!((&hit["empty"], &hit["reason"], &hit["advice"]), (&json!(false), &json!("hit"), &Value::Null));
    assert_eq!(hit["samples"], json!({ "found": 3, "ofType": 3, "selected": 3, "inWindow": 3 }));
    assert_eq!(
        hit["profileTypes"][0],
        json!({ "id": CPU, "unit": "nanoseconds", "total": 30_000_000, "samples": 3 })
    );

    let unknown = explain(&server, "span=ffffffffffffffff");
    assert_eq!((&unknown["empty"], &unknown["reason"]), (&json!(true), &json!("unknown_span")));
    assert_eq!(unknown["message"], "no stored sample belongs to span ffffffffffffffff");
    let causes: Vec<&Value> =
        unknown["causes"].as_array().expect("causes").iter().map(|c| &c["reason"]).collect();
    assert_eq!(causes, ["too_short", "not_pushed_yet", "not_profiled"]);
    assert_eq!(unknown["store"]["profiles"], 2);

    let typed = of_span(&server, "type=memory:alloc:bytes:space:bytes");
    assert_eq!(typed["reason"], "no_samples_of_type");
    assert_eq!(
        text(&typed, "message"),
        format!("span {SPAN} has 3 samples, but none of type memory:alloc:bytes:space:bytes")
    );
    assert!(text(&typed, "advice").contains(CPU), "{typed}");

    let mismatch = of_span(&server, &selector(r#"{service_name="payments",endpoint="/pay"}"#));
    assert_eq!(mismatch["reason"], "selector_mismatch");
    assert_eq!(
        text(&mismatch, "message"),
        format!(r#"span {SPAN} has 3 such samples, but service_name="payments" lets none of them through"#)
    );
    assert!(text(&mismatch, "advice").contains(r#"there is "checkout""#), "{mismatch}");
    assert_eq!(
        mismatch["matchers"],
        json!([
            { "matcher": r#"service_name="payments""#, "samples": 0, "others": ["checkout"] },
            { "matcher": r#"endpoint="/pay""#, "samples": 3, "others": [] },
        ])
    );

    let outside = of_span(&server, "from=1767225700000&until=1767225800000");
    assert_eq!(outside["reason"], "outside_window");
    assert_eq!(outside["window"], json!({ "from": 1_767_225_605_000_i64, "until": 1_767_225_615_000_i64 }));
    assert!(text(&outside, "advice").contains("from=1767225605000 and until=1767225615000"), "{outside}");
    // What the advice says works.
    let inside = of_span(&server, "from=1767225605000&until=1767225615000");
    assert_eq!(inside["reason"], "hit");
}

#[test]
fn traces_and_everything_can_be_explained_too() {
    let server = Server::start();
    let nothing = explain(&server, "");
    assert_eq!(
        (&nothing["reason"], &nothing["message"]),
        (&json!("no_profiles"), &json!("no profile is stored"))
    );
    assert_eq!(nothing["causes"][0]["reason"], "no_profiles");
    server.pushed(checkout());
    assert_eq!(explain(&server, &format!("trace={TRACE}"))["samples"]["inWindow"], 3);
    assert_eq!(explain(&server, "trace=00000000000000000000000000000001")["reason"], "unknown_span");
    assert_eq!(explain(&server, &format!("type={CPU}"))["samples"]["inWindow"], 4);
    assert_eq!(explain(&server, &selector(r#"{service_name="x"}"#))["reason"], "selector_mismatch");
}

#[test]
fn what_has_reached_its_retention_is_a_cause() {
    let server = Server::with_args(&["--flush-after-ms", "1000", "--retention-ms", "86400000"]);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = since_epoch.as_millis() as i64;
    let ids = [("span_id", SPAN)];
    for start_ms in [now - 5 * 86_400_000, now - 60_000] {
        server.pushed(vec![service("checkout", &cpu_profile(start_ms, &[(&["main"], 10_000_000, &ids)]))]);
        let deadline = Instant::now() + Duration::from_secs(60);
        // Each in a segment of its own.
        while !server.get("/metrics").text().contains("spanflame_store_log_files 0\n") {
            assert!(Instant::now() < deadline, "no segment was made");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let before = format!("span=ffffffffffffffff&from={}", now - 6 * 86_400_000);
    let deadline = Instant::now() + Duration::from_secs(60);
    let unknown = loop {
        let unknown = explain(&server, &before);
        if unknown["causes"][0]["reason"] == "expired" {
            break unknown;
        }
        assert!(Instant::now() < deadline, "nothing ever expired: {unknown}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(unknown["causes"][0]["advice"], "raise retention_ms or retention_bytes");
    let oldest = unknown["store"]["oldest"].as_i64().expect("something is kept");
    assert_eq!(oldest, now - 60_000, "{unknown}");
    // A time that is kept has not expired.
    let kept = explain(&server, &format!("span=ffffffffffffffff&from={oldest}"));
    assert_eq!(kept["causes"][0]["reason"], "too_short");
}

#[test]
fn what_the_sender_lost_is_a_cause_even_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::on(dir.path(), &[]);
    let push = |server: &Server, name: &str, start_ms: i64, notes: &[&str]| {
        let ids = [("span_id", SPAN)];
        let mut profile = cpu_profile(start_ms, &[(&["main"], 10_000_000, &ids)]);
        for note in notes {
            profile.comment.push(profile.string_table.len() as i64);
            profile.string_table.push((*note).to_owned());
        }
        server.pushed(vec![service(name, &profile)]);
    };
    push(&server, "checkout", 1_767_225_600_000, &["frequency=100", "lost.ring_full=2", "lost.queue_full=7"]);
    push(&server, "checkout", 1_767_225_700_000, &["lost.ring_full=3"]);
    push(&server, "payments", 1_767_225_600_000, &["lost.labels=1"]);
    let unknown = |server: &Server, more: &str| explain(server, &format!("span=ffffffffffffffff&{more}"));
    let of_checkout = selector(r#"{service_name="checkout"}"#);
    let check = |server: &Server| {
        let all = unknown(server, "")["losses"].clone();
        assert_eq!(
            all,
            json!([
                { "cause": "queue_full", "samples": 7 },
                { "cause": "ring_full", "samples": 5 },
                { "cause": "labels", "samples": 1 },
            ])
        );
        let early = unknown(server, &format!("{of_checkout}&until=1767225650000"));
        assert_eq!(
            early["losses"],
            json!([{ "cause": "queue_full", "samples": 7 }, { "cause": "ring_full", "samples": 2 }])
        );
        assert_eq!(early["causes"][0]["reason"], "lost_by_sender");
        assert_eq!(early["causes"][0]["message"], "the sender lost 7 samples (queue_full)");
        assert!(
            early["causes"][0]["advice"]
                .as_str()
                .is_some_and(|advice| advice.contains("pushing took too long"))
        );
        assert_eq!(unknown(server, "from=1767225800000")["losses"], json!([]));
    };
    check(&server);
    server.kill();
    check(&Server::on(dir.path(), &[]));
}

#[test]
fn limits_on_queries_are_told() {
    let server = Server::with_args(&["--max-query-lookback-ms", "60000"]);
    server.pushed(checkout());
    // The samples are years old.
    let hidden = of_span(&server, "");
    assert_eq!((&hidden["empty"], &hidden["reason"]), (&json!(true), &json!("limits")));
    assert_eq!(hidden["samples"]["selected"], 3);
    assert!(
        hidden["advice"].as_str().is_some_and(|advice| advice.contains("max_query_lookback_ms")),
        "{hidden}"
    );
    assert_eq!(server.get("/api/v1/spans").json()["spans"], json!([]));
    let profile = server.get(&format!("/api/v1/spans/{SPAN}/profile?format=folded"));
    let message = profile.refused(404, "not_found");
    assert!(message.contains("3 samples, but they are longer ago than queries see"), "{message}");
    for path in [format!("/api/v1/spans/{SPAN}"), format!("/api/v1/spans/{SPAN}/profile")] {
        assert_eq!(server.get(&path).json()["reason"], "limits", "{path}");
    }
    // Nor would they be in a time that does not hold them.
    let outside = of_span(&server, "from=1767229200000&until=1767229200001");
    assert_eq!(outside["reason"], "outside_window");

    let server = Server::with_args(&["--max-query-length-ms", "1000"]);
    server.pushed(checkout());
    let long = "from=1767225605000&until=1767225615000";
    assert_eq!(of_span(&server, long)["reason"], "hit", "a span is found however long the time is");
    let refused = server.get(&format!("/api/v1/explain?{long}")).json();
    assert_eq!((&refused["empty"], &refused["reason"]), (&json!(true), &json!("limits")));
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("max_query_length_ms")),
        "{refused}"
    );
    let message =
        server.get("/api/v1/spans?from=1767225605000&until=1767225615000").refused(400, "invalid_argument");
    assert!(message.starts_with("from, until: "), "{message}");
    // An open beginning is as early as may be.
    let listed = |until: &str| server.get(&format!("/api/v1/spans?until={until}")).json()["spans"].clone();
    assert_eq!(listed("1767225605500").as_array().map(Vec::len), Some(1));
    assert_eq!(listed("1767225604000"), json!([]));
    // A span is found by its id however long ago it was.
    let profile = server.get(&format!("/api/v1/spans/{SPAN}/profile?format=folded"));
    assert!(profile.status == 200 && !profile.text().is_empty());
}

#[test]
fn bad_questions_name_the_field() {
    let server = Server::start();
    for (query, field) in [
        ("span=abc".to_owned(), "span: expected 16 hexadecimal characters"),
        ("span=0000000000000000".to_owned(), "span: expected 16 hexadecimal characters, not all zero"),
        ("span=%24%7B__span.tags%7D".to_owned(), "span: expected 16 hexadecimal characters"),
        ("trace=abc".to_owned(), "trace: expected 32 hexadecimal characters"),
        (format!("span={SPAN}&trace={TRACE}"), "span, trace: "),
        ("type=cpu".to_owned(), "type: "),
        ("selector=%7Ba".to_owned(), "selector: "),
        ("from=5&until=4".to_owned(), "from, until: "),
        ("what=1".to_owned(), "query: "),
    ] {
        let message = server.get(&format!("/api/v1/explain?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{query}: {message}");
    }
}
