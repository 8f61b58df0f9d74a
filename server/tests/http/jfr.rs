//! Recordings of Java Flight Recorder in, as Pyroscope's Java agent uploads them.

use http::Method;

use crate::support::{CPU, SPAN, Server, gzip};

/// Two samples of `Shop.main` → `Shop.pay` in the context 5 and in a span with the name 9, one of `Shop.main` that sleeps,
/// a wait of 2 ms for a monitor and 4 KiB allocated, written by the tests of the decoder as async-profiler writes it.
const RECORDING: &[u8] = include_bytes!("../data/java.jfr");
/// Context 5 is `endpoint=/pay`, string 9 `POST /pay`.
const LABELS: &[u8] = include_bytes!("../data/java.labels.pb");
const BOUNDARY: &str = "2b8c396b-2878-4dc0";

fn path(from: &str) -> String {
    format!(
        "/ingest?name=shop.java%7Bregion%3Deu%7D&units=samples&{from}&spyName=javaspy&sampleRate=100&format=jfr"
    )
}

fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

#[test]
fn a_form_of_the_java_agent_is_found_by_span_and_by_label() {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let (recording, labels) = (gzip(RECORDING), gzip(LABELS));
    for parts in
        [[("jfr", RECORDING), ("labels", LABELS)], [("jfr", &recording[..]), ("labels", &labels[..])]]
    {
        let server = Server::start();
        let headers = [("content-type", content_type.as_str())];
        let answer =
            server.send(Method::POST, &path("from=1767225600&until=1767225610"), &headers, form(&parts));
        assert_eq!((answer.status, answer.text()), (200, ""));
        let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
        assert_eq!((&span["service"], &span["name"]), (&"shop.java".into(), &"POST /pay".into()), "{span}");
        assert_eq!(span["cpuNanos"], 20_000_000, "{span}");
        let selector = r#"{service_name=\"shop.java\",region=\"eu\",endpoint=\"/pay\",jfr_event=\"itimer\",pyroscope_spy=\"javaspy\"}"#;
        let query = format!(
            r#"{{"profile_typeID":"{CPU}","label_selector":"{selector}","start":"1767225570000","end":"1767225631000"}}"#
        );
        let graph = server.query("SelectMergeStacktraces", query).json();
        assert_eq!(graph["flamegraph"]["total"], "20000000", "{graph}");
        assert_eq!(graph["flamegraph"]["names"], serde_json::json!(["total", "Shop.main", "Shop.pay"]));
        let types = server.query("ProfileTypes", "{}").json().to_string();
        for kind in
            [CPU, "mutex:delay:nanoseconds:mutex:count", "memory:alloc_in_new_tlab_bytes:bytes:space:bytes"]
        {
            assert!(types.contains(kind), "{kind}: {types}");
        }
    }
}

#[test]
fn a_bare_recording_is_taken_and_a_damaged_one_says_where() {
    let server = Server::start();
    let answer = server.send(Method::POST, &path("from=1767225600&until=1767225610"), &[], RECORDING);
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).status, 200);

    let cut = &RECORDING[..RECORDING.len() / 2];
    let message =
        server.send(Method::POST, &path("from=1767225600"), &[], cut).refused(422, "invalid_argument");
    assert!(message.contains("jfr: chunk[0], byte 0: ") && message.contains("cut off"), "{message}");
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let body = form(&[("jfr", RECORDING), ("labels", b"\xff\xff")]);
    let message = server
        .send(Method::POST, &path("from=1767225600"), &[("content-type", &content_type)], body)
        .refused(422, "invalid_argument");
    assert!(message.contains("labels: are no snapshot of labels"), "{message}");
    server.alive();
}
