//! Uploads of older agents, as they send them.

use std::io::{Read, Write};
use std::net::TcpStream;

use buffa::Message;
use http::Method;
use serde_json::json;

use crate::support::{Answer, CPU, DEADLINE, SPAN, Server, cpu_profile, gzip};

const START_MS: i64 = 1_767_225_605_000;

fn post(server: &Server, query: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    server.send(Method::POST, &format!("/ingest?{query}"), headers, body)
}

#[track_caller]
fn taken(answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (200, 0), "{:?}", answer.body);
}

/// The names and the total of all that is kept of a type of a service.
fn graph(server: &Server, kind: &str, service: &str) -> (Vec<String>, i64) {
    let request =
        json!({"profile_typeID": kind, "label_selector": format!("{{service_name=\"{service}\"}}")});
    let answer = server.query("SelectMergeStacktraces", request.to_string());
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let graph = &answer.json()["flamegraph"];
    let names = graph["names"].as_array().into_iter().flatten();
    let names = names.map(|name| name.as_str().expect("text").to_owned()).collect();
    (names, graph["total"].as_str().map_or(0, |total| total.parse().expect("a number")))
}

/// A form as clients write them.
fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    ("multipart/form-data; boundary=xyz".to_owned(), body)
}

#[test]
fn every_format_is_found_by_its_service() {
    let server = Server::start();
    let tree = b"\x00\x00\x01\x04main\x00\x01\x04work\x03\x00";
    let trie = b"\x00\x00\x01\x09main;work\x03\x00";
    let speedscope = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "shared": {"frames": [{"name": "main"}, {"name": "work"}]},
        "profiles": [{"type": "sampled", "name": "", "unit": "none", "samples": [[0, 1]], "weights": [3]}],
    });
    let speedscope = speedscope.to_string().into_bytes();
    let pprof = cpu_profile(START_MS, &[(&["main", "work"], 30_000_000, &[])]).encode_to_vec();
    for (service, more, content_type, body) in [
        ("groups", "", "", &b"main;work 3\n"[..]),
        ("folded", "&format=folded", "text/plain", b"main;work 1\nmain;work 2"),
        ("lines", "&format=lines", "", b"main;work\nmain;work\nmain;work\n"),
        ("tree", "&format=tree", "", tree),
        ("tree-media", "", "binary/octet-stream+tree", tree),
        ("trie", "&format=trie", "", trie),
        ("trie-media", "", "binary/octet-stream+trie", trie),
        ("speedscope", "&format=speedscope", "application/json", &speedscope),
        ("pprof", "&format=pprof", "", &pprof),
    ] {
        let query = format!("name={service}&from=1767225605&until=1767225615{more}");
        let headers = if content_type.is_empty() { vec![] } else { vec![("content-type", content_type)] };
        taken(&post(&server, &query, &headers, body.to_vec()));
        let expected = ["total", "main", "work"].map(str::to_owned).to_vec();
        assert_eq!(graph(&server, CPU, service), (expected.clone(), 30_000_000), "{service}");

        // The same, compressed by the client, at the other path.
        let query = format!("/pyroscope/ingest?{}", query.replace("name=", "name=zipped-"));
        let headers = [headers.as_slice(), &[("content-encoding", "gzip")]].concat();
        taken(&server.send(Method::POST, &query, &headers, gzip(body)));
        assert_eq!(graph(&server, CPU, &format!("zipped-{service}")), (expected, 30_000_000), "{service}");
    }
    let metrics = server.get("/metrics").text().to_owned();
    for line in
        ["spanflame_pushes_total 18\n", "spanflame_profiles_total 18\n", "spanflame_samples_total 18\n"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn forms_bring_a_pprof_and_its_description() {
    let server = Server::start();
    let ids = [("span_id", SPAN), ("endpoint", "/pay")];
    let pprof = cpu_profile(START_MS, &[(&["main", "work"], 30_000_000, &ids)]).encode_to_vec();
    let config = br#"{"cpu":{"units":"samples","display-name":"cpu","sampled":true}}"#;
    let (content_type, body) =
        form(&[("profile", &gzip(&pprof)), ("sample_type_config", config), ("x", b"y")]);
    let query = "name=shop%7Bpod%3Da%7D&spyName=nodespy";
    taken(&post(&server, query, &[("content-type", &content_type)], body.clone()));
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!((&span["service"], &span["cpuNanos"]), (&json!("shop"), &json!(30_000_000)));
    let labels = &span["labels"];
    assert_eq!((&labels["pod"], &labels["pyroscope_spy"]), (&json!("a"), &json!("nodespy")));

    let headers = [("content-type", content_type.as_str()), ("content-encoding", "gzip")];
    taken(&post(&server, "name=zipped&format=pprof", &headers, gzip(&body)));

    let refused = |parts: &[(&str, &[u8])]| {
        let (content_type, body) = form(parts);
        post(&server, "name=shop", &[("content-type", &content_type)], body).refused(422, "invalid_argument")
    };
    let before = refused(&[("prev_profile", b"x"), ("profile", b"y")]);
    assert!(before.contains("prev_profile: ") && before.contains("update the agent"), "{before}");
    assert!(refused(&[("sample_type_config", b"{}")]).contains("profile: is no part of the form"));
    assert!(refused(&[("profile", &pprof), ("sample_type_config", b"[")]).contains("sample_type_config: "));
    assert!(refused(&[("x", &b""[..]); 20]).contains("more than 16 parts"));
    let headers = [("content-type", "multipart/form-data")];
    assert!(post(&server, "name=shop", &headers, "x").refused(422, "invalid_argument").contains("form: "));
    let headers = [("content-type", "multipart/form-data; boundary=abc")];
    assert!(post(&server, "name=shop", &headers, body).refused(422, "invalid_argument").contains("form: "));
    server.alive();
}

#[test]
fn descriptions_are_refused_by_field_and_before_the_body() {
    let server = Server::start();
    for (query, expected) in [
        ("", "name: the application's name is empty"),
        ("name=a%7B", "name: the labels do not end with }"),
        ("name=a+b", "name: ' ' in \"a b\""),
        ("name=a&from=yesterday", "from: expected an instant"),
        ("name=a&until=", ""),
        ("name=a&from=now&until=now-1h", "until: is before from"),
        ("name=%ff", "name: "),
    ] {
        let answer = post(&server, query, &[], "a 1");
        if expected.is_empty() {
            taken(&answer);
        } else {
            let message = answer.refused(400, "invalid_argument");
            assert!(message.starts_with(expected), "{query}: {message}");
        }
    }
    let answer = server.get("/ingest?name=a");
    assert_eq!(
        (answer.refused(405, "unimplemented"), answer.header("allow")),
        ("/ingest does not take GET".into(), "POST")
    );
    server.alive();
}

#[test]
fn bad_profiles_are_422_and_say_what_and_where() {
    let server = Server::start();
    for (query, body, expected) in [
        ("name=a", &b"x y"[..], "profile of \"a\" refused: line 1: expected a stack trace"),
        ("name=a&format=tree", b"\x09", "profile of \"a\" refused: node 1: its name of 9 bytes"),
        ("name=a&format=speedscope", b"{", "profile of \"a\" refused: speedscope file: EOF"),
        ("name=a&format=pprof", b"\xff", "profile of \"a\" refused: raw_profile: is no pprof"),
        ("name=a&format=pprof", b"", "profile of \"a\" refused: raw_profile: is empty"),
    ] {
        let message = post(&server, query, &[], body.to_vec()).refused(422, "invalid_argument");
        assert!(message.starts_with(expected), "{query}: {message}");
    }
    let headers = [("content-encoding", "gzip")];
    let message = post(&server, "name=a", &headers, "a 1").refused(400, "invalid_argument");
    assert!(message.starts_with("request body: "), "{message}");
    let headers = [("content-encoding", "br")];
    let message = post(&server, "name=a", &headers, "a 1").refused(415, "invalid_argument");
    assert_eq!(message, "Content-Encoding: expected gzip or none, got \"br\"");
    let metrics = server.get("/metrics").text().to_owned();
    assert!(metrics.contains("spanflame_refusals_total{reason=\"invalid_profile\"} 5\n"), "{metrics}");
}

#[test]
fn a_body_that_breaks_off_is_408() {
    let server = Server::start();
    let address = server.url().strip_prefix("http://").expect("clear text");
    let mut stream = TcpStream::connect(address).expect("connected");
    let head = format!("POST /ingest?name=a HTTP/1.1\r\nHost: {address}\r\nContent-Length: 10\r\n\r\na 1");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.shutdown(std::net::Shutdown::Write).expect("closed");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("it ended before it was all there"), "{answer}");
    server.alive();
}

#[test]
fn what_is_too_large_names_its_limit() {
    let server = Server::with_args(&[
        "--max-request-bytes=2048",
        "--max-message-bytes=65536",
        "--max-profile-bytes=1024",
    ]);
    let message = post(&server, "name=a", &[], vec![b'a'; 4096]).refused(413, "resource_exhausted");
    assert!(message.contains("max_request_bytes of 2048"), "{message}");
    let bomb = gzip(&vec![b'a'; 128 << 10]);
    let headers = [("content-encoding", "gzip")];
    let message = post(&server, "name=a", &headers, bomb.clone()).refused(413, "resource_exhausted");
    assert!(message.contains("max_message_bytes of 65536"), "{message}");
    // A profile that is compressed by itself.
    let message = post(&server, "name=a", &[], bomb.clone()).refused(400, "invalid_argument");
    assert!(message.contains("max_profile_bytes of 1024"), "{message}");
    let message = post(&server, "name=a&format=pprof", &[], bomb).refused(422, "invalid_argument");
    assert!(message.contains("max_profile_bytes of 1024"), "{message}");
    server.alive();
    taken(&post(&server, "name=a", &[], "a 1"));
}

#[test]
fn a_profile_too_large_for_the_log_is_refused_and_counted() {
    let server = Server::with_args(&["--max-head-bytes=1048576"]);
    let names: String = (0..12).map(|at| format!("{at}{} 1\n", "n".repeat(60_000))).collect();
    let message = post(&server, "name=a", &[], names).refused(400, "invalid_argument");
    assert!(message.contains("max_head_bytes"), "{message}");
    assert!(
        server.get("/metrics").text().contains("spanflame_refusals_total{reason=\"max_head_bytes\"} 1\n")
    );
}
