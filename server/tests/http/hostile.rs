//! Broken and hostile requests: a clear refusal in the form that clients read, and a process that lives on.

use std::io::{Read, Write};
use std::net::TcpStream;

use buffa::Message;
use http::Method;
use spanflame_wire::google::v1::{Location, Profile, Sample};
use spanflame_wire::push::v1::{PushRequest, RawProfileSeries};

use crate::support::{CPU, DEADLINE, PUSH, SPAN, Server, checkout, cpu_profile, gzip, series, service};

const QUERY: &str = "/querier.v1.QuerierService/SelectMergeSpanProfile";
const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/proto");

fn body(span: &str) -> String {
    let span = serde_json::to_string(span).expect("json");
    format!(r#"{{"profile_typeID":"{CPU}","label_selector":"{{}}","span_selector":[{span}]}}"#)
}

#[test]
fn bad_span_ids_are_named() {
    let server = Server::start();
    for method in ["SelectMergeSpanProfile", "SelectMergeStacktraces"] {
        let message = server.query(method, body("abc")).refused(400, "invalid_argument");
        assert_eq!(message, r#"span_selector[0]: expected 16 hex characters, got "abc""#);
        let template = r#"${__span.tags["pyroscope.profile.id"]}"#;
        let message = server.query(method, body(template)).refused(400, "invalid_argument");
        assert!(message.starts_with("span_selector[0]: "), "{message}");
        assert!(message.contains("the span has no attribute pyroscope.profile.id"), "{message}");
        for bad in
            ["", "00f067aa0ba902b", "00f067aa0ba902b71", "00f067aa0ba902bg", "0000000000000000", "\u{0}"]
        {
            let message = server.query(method, body(bad)).refused(400, "invalid_argument");
            assert!(message.starts_with("span_selector[0]: "), "{message}");
        }
    }
    server.alive();
}

#[test]
fn the_profile_type_is_refused_before_all_else() {
    let server = Server::start();
    for bad in ["cpu", "", "a:b", "a:b:c:d:e:f", "a:b:c:d:e:delta:g", ":::::"] {
        for method in ["SelectMergeSpanProfile", "SelectMergeStacktraces", "SelectSeries"] {
            let request =
                format!(r#"{{"profile_typeID":"{bad}","label_selector":"{{","span_selector":["abc"]}}"#);
            let message = server.query(method, request).refused(400, "invalid_argument");
            assert!(message.starts_with("profile_typeID: "), "{method} {bad}: {message}");
        }
    }
}

#[test]
fn bad_fields_are_named() {
    let server = Server::start();
    let with = |more: &str| format!(r#"{{"profile_typeID":"{CPU}","label_selector":"{{}}"{more}}}"#);
    for (request, field) in [
        (with("").replace("{}", "{"), "label_selector: "),
        (with("").replace("{}", r#"{a=~\"[\"}"#), "label_selector: "),
        (with(r#","start":5,"end":4"#), "start, end: "),
        (with(r#","max_nodes":-1"#), "max_nodes: "),
        (with(r#","max_nodes":1048577"#), "max_nodes: "),
        (with(r#","trace_id_selector":["abc"]"#), "trace_id_selector[0]: "),
        (
            with(&format!(r#","trace_id_selector":["{SPAN}{SPAN}"],"span_selector":["{SPAN}"]"#)),
            "span_selector, trace_id_selector: ",
        ),
    ] {
        let message = server.query("SelectMergeStacktraces", &request).refused(400, "invalid_argument");
        assert!(message.starts_with(field), "{request}: {message}");
    }
    for format in ["5", "99"] {
        let request = with(&format!(r#","format":{format}"#));
        let message = server.query("SelectMergeStacktraces", request).refused(501, "unimplemented");
        assert!(message.starts_with("format: "), "{message}");
    }
    let message = server.query("LabelNames", r#"{"matchers":["{}","{a"]}"#).refused(400, "invalid_argument");
    assert!(message.starts_with("matchers[1]: "), "{message}");
    let groups = format!(
        r#"{{"profile_typeID":"{CPU}","label_selector":"","start":1,"end":9,"step":1,"group_by":{:?}}}"#,
        vec!["a"; 101]
    );
    let message = server.query("SelectSeries", groups).refused(400, "invalid_argument");
    assert!(message.starts_with("group_by: "), "{message}");
    let step = format!(
        r#"{{"profile_typeID":"{CPU}","label_selector":"","start":1,"end":9000000000000,"step":0.001}}"#
    );
    let message = server.query("SelectSeries", step).refused(400, "invalid_argument");
    assert!(message.starts_with("step: "), "{message}");
}

#[test]
fn bodies_that_are_no_message_are_refused() {
    let server = Server::start();
    for broken in ["", "{", "[]", "null", "{\"start\":{}}", "{\"start\":\"x\"}", "\u{0}"] {
        server.send(Method::POST, QUERY, &[JSON], broken.to_owned()).refused(400, "invalid_argument");
    }
    let deep = "{\"a\":".repeat(100_000);
    server.send(Method::POST, QUERY, &[JSON], deep).refused(400, "invalid_argument");
    for broken in [&b"\xff"[..], b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe", b"\x0b\x0b\x0b"] {
        for path in [QUERY, PUSH] {
            server.send(Method::POST, path, &[PROTO], broken.to_vec()).refused(400, "invalid_argument");
        }
    }
    let message = server
        .send(Method::POST, QUERY, &[JSON, ("content-encoding", "gzip")], "not gzip")
        .refused(400, "invalid_argument");
    assert!(message.starts_with("request body: "), "{message}");
    server.send(Method::POST, QUERY, &[JSON, ("content-encoding", "br")], "{}").refused(501, "unimplemented");
    server
        .send(Method::POST, QUERY, &[JSON, ("connect-protocol-version", "7")], "{}")
        .refused(400, "invalid_argument");
    server.alive();
}

#[test]
fn a_label_that_is_not_text_costs_its_neighbours_nothing() {
    let server = Server::start();
    let push = |series: Vec<RawProfileSeries>| {
        let mut bytes = PushRequest { series, ..Default::default() }.encode_to_vec();
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|&at| &bytes[at..at + 5] == b"caf__").collect();
        places.iter().for_each(|at| bytes[at + 3..at + 5].copy_from_slice(b"\xe9\xff"));
        server.send(Method::POST, PUSH, &[PROTO], bytes).refused(400, "invalid_argument")
    };
    let profile = cpu_profile(1_767_225_605_000, &[(&["x"], 10_000_000, &[("span_id", "00000000000000ee")])]);
    let (value, name) =
        (service("caf__", &profile), series(&[("service_name", "a"), ("caf__", "b")], vec![1]));
    let message = push(vec![checkout()[0].clone(), value.clone(), name]);
    assert_eq!(
        message,
        "2 of 3 series refused, the others are stored; series[1].labels[1].value: is not valid UTF-8; \
         series[2].labels[1].name: is not valid UTF-8"
    );
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).json()["cpuNanos"], 30_000_000);
    assert_eq!(server.get("/api/v1/spans/00000000000000ee").status, 404);
    // Together with a refusal of the other kind, which keeps its place.
    let message = push(vec![value.clone(), series(&[("service_name", "broken")], b"no pprof".to_vec())]);
    assert!(message.starts_with("1 of 2 series refused; series[0].labels[1].value: "), "{message}");
    assert!(message.contains("; 1 of 1 profiles refused; series[1]"), "{message}");
    assert_eq!(push(vec![value]), "1 of 1 series refused; series[0].labels[1].value: is not valid UTF-8");
    server.alive();
}

#[test]
fn wrong_methods_types_and_paths_are_connect_errors() {
    let server = Server::start();
    for content_type in
        ["text/plain", "application/x-protobuf", "application/octet-stream", "multipart/form-data"]
    {
        let answer = server.send(Method::POST, QUERY, &[("content-type", content_type)], "{}");
        let message = answer.refused(415, "invalid_argument");
        assert!(message.starts_with("content-type: "), "{message}");
    }
    server.send(Method::POST, QUERY, &[], "{}").refused(415, "invalid_argument");
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = server.send(method, QUERY, &[JSON], "");
        answer.refused(405, "unimplemented");
        assert_eq!(answer.header("allow"), "POST");
    }
    server.json("/ready", "{}").refused(405, "unimplemented");
    server.get("/no/such/path").refused(404, "not_found");
    server.get("/span/").refused(404, "not_found");
    server.json("/querier.v1.QuerierService/Nope", "{}").refused(501, "unimplemented");
    server.json("/no.such.Service/Method", "{}").refused(501, "unimplemented");
    for answer in [server.get("/no/such/path"), server.get("/ready"), server.json(QUERY, "{")] {
        assert_eq!(answer.header("server"), concat!("spanflame/", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn sizes_are_bounded_and_limits_named() {
    let server = Server::with_args(&[
        "--max-request-bytes=65536",
        "--max-message-bytes=131072",
        "--max-profile-bytes=4096",
    ]);
    let message =
        server.send(Method::POST, PUSH, &[PROTO], vec![0; 70_000]).refused(413, "resource_exhausted");
    assert!(
        message.contains("max_request_bytes of 65536 bytes: it has 70000 (send less at a time, or raise"),
        "{message}"
    );
    let bomb = gzip(&vec![0; 4_000_000]);
    assert!(bomb.len() < 65_536, "{}", bomb.len());
    let message = server
        .send(Method::POST, PUSH, &[PROTO, ("content-encoding", "gzip")], bomb)
        .refused(413, "resource_exhausted");
    assert!(message.contains("max_message_bytes"), "{message}");
    let labels = [("__name__", "process_cpu"), ("service_name", "bomb")];
    let message =
        server.push(vec![series(&labels, gzip(&vec![0; 5_000_000]))]).refused(400, "invalid_argument");
    assert!(message.contains("max_profile_bytes") && message.contains("samples[0]"), "{message}");
    let message =
        server.send(Method::POST, QUERY, &[JSON], " ".repeat(2 << 20)).refused(413, "resource_exhausted");
    assert!(
        message.contains("max_query_bytes of 1048576 bytes: it has 2097152 (send less at a time"),
        "{message}"
    );
    // A query that is small as it is sent is no larger decompressed.
    let packed = gzip(" ".repeat(2 << 20).as_bytes());
    let headers = [JSON, ("content-encoding", "gzip")];
    let message = server.send(Method::POST, QUERY, &headers, packed).refused(413, "resource_exhausted");
    assert!(message.contains("max_query_bytes of 1048576"), "{message}");
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_refusals_total{reason=\"max_request_bytes\"} 1\n",
        "spanflame_refusals_total{reason=\"max_message_bytes\"} 1\n",
        "spanflame_refusals_total{reason=\"max_query_bytes\"} 2\n",
        "spanflame_refusals_total{reason=\"max_profile_bytes\"} 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
    server.alive();
}

#[test]
fn broken_profiles_cost_their_neighbours_nothing() {
    let server = Server::start();
    let whole = cpu_profile(
        1_767_225_605_000,
        &[(&["main", "work"], 10_000_000, &[("span_id", "00000000000000ee")])],
    );
    let bytes = whole.encode_to_vec();
    let hostile = |change: &dyn Fn(&mut Profile)| {
        let mut profile = whole.clone();
        change(&mut profile);
        profile.encode_to_vec()
    };
    let mut not_text = bytes.clone();
    let at = not_text.windows(4).position(|window| window == b"work").expect("the name is in it");
    not_text[at] = 0xff;
    let broken: Vec<(&str, Vec<u8>)> = vec![
        ("cut", bytes[..bytes.len() - 3].to_vec()),
        ("cut in gzip", gzip(&bytes)[..30].to_vec()),
        ("not utf-8", not_text),
        ("string index", hostile(&|p| p.function[0].name = 999)),
        ("negative string index", hostile(&|p| p.sample_type[0].r#type = -1)),
        ("values missing", hostile(&|p| p.sample[0].value = vec![1])),
        ("no sample types", hostile(&|p| p.sample_type.clear())),
        ("first string not empty", hostile(&|p| p.string_table[0] = "x".into())),
        ("twins", hostile(&|p| p.location.push(Location { id: 1, ..Default::default() }))),
    ];
    let times = broken.len();
    for (what, raw) in broken {
        let labels = [("__name__", "process_cpu"), ("service_name", "broken")];
        let answer = server.push(vec![checkout()[0].clone(), series(&labels, raw)]);
        assert_eq!(answer.status, 400, "{what}");
        let message = answer.refused(400, "invalid_argument");
        assert!(message.starts_with("1 of 2 profiles refused, the others are stored"), "{what}: {message}");
        assert!(message.contains("series[1]"), "{what}: {message}");
    }
    server.alive();
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!(span["cpuNanos"], 30_000_000 * times, "{span}");
    assert_eq!(server.get("/api/v1/spans/00000000000000ee").status, 404);
}

#[test]
fn flipped_bits_never_end_the_process() {
    let server = Server::start();
    let bytes = cpu_profile(1_767_225_605_000, &[(&["main", "work"], 10_000_000, &[("span_id", SPAN)])])
        .encode_to_vec();
    let labels = [("__name__", "process_cpu"), ("service_name", "flipped")];
    for at in 0..bytes.len() {
        let flipped = (0..8).map(|bit| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            series(&labels, bytes)
        });
        let answer = server.push(flipped.collect());
        assert!(matches!(answer.status, 200 | 400), "byte {at}: {}", answer.status);
    }
    server.alive();
    server.pushed(checkout());
}

#[test]
fn a_profile_with_enormous_numbers_does_not_overflow() {
    let server = Server::start();
    let mut profile = cpu_profile(1_767_225_605_000, &[(&["main"], 10_000_000, &[("span_id", SPAN)])]);
    profile.period = i64::MAX;
    for sample in [i64::MAX, i64::MAX - 1] {
        profile.sample.push(Sample {
            location_id: vec![1],
            value: vec![sample, sample],
            ..Default::default()
        });
    }
    server.pushed(vec![service("huge", &profile)]);
    for (start, duration, wanted) in [
        (i64::MAX, 0, "max_ahead_ms of 600000"),
        (1_767_225_605_000_000_000, i64::MAX, "max_ahead_ms of 600000"),
        (0, i64::MAX, "max_ahead_ms of 600000"),
        (i64::MIN, 0, "is before 1970"),
        (i64::MIN, i64::MAX, "is before 1970"),
        (-1, 5, "is before 1970"),
    ] {
        (profile.time_nanos, profile.duration_nanos) = (start, duration);
        let message = server.push(vec![service("huge", &profile)]).refused(400, "invalid_argument");
        assert!(
            message.contains("time_nanos: ") && message.contains(wanted),
            "{start} {duration}: {message}"
        );
    }
    let all =
        format!(r#"{{"profile_typeID":"{CPU}","label_selector":"{{}}","start":1,"end":9000000000000}}"#);
    assert_eq!(server.query("SelectMergeStacktraces", &all).status, 200);
    server.alive();
}

#[test]
fn an_array_is_no_message_at_any_depth() {
    let server = Server::start();
    for (path, body, field) in [
        (PUSH, r#"[[]]"#, ""),
        (PUSH, r#"{"series":[[[],[]]]}"#, "series: "),
        ("/querier.v1.QuerierService/Diff", r#"{"left":["a"],"right":{}}"#, "left: "),
        ("/settings.v1.SettingsService/Set", r#"{"setting":["a","b"]}"#, "setting: "),
        ("/v1development/profiles", r#"{"resourceProfiles":[{"resource":[]}]}"#, "resource: "),
        ("/api/v1/spans:exists", r#"[["00f067aa0ba902b7"],true]"#, ""),
    ] {
        let message = server.json(path, body).refused(400, "invalid_argument");
        let wanted = format!(": {field}expected a JSON object, got an array");
        assert!(message.ends_with(&wanted), "{path} {body}: {message}");
    }
}

#[test]
fn deadlines_are_kept() {
    let server = Server::start();
    let address = server.url().strip_prefix("http://").expect("http").to_owned();
    // The head announces a body that never comes: only the deadline can end this.
    let mut stream = TcpStream::connect(&address).expect("connects");
    write!(
        stream,
        "POST {QUERY} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\
         connect-timeout-ms: 50\r\nconnection: close\r\n\r\n{{"
    )
    .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains(r#""code":"deadline_exceeded""#), "{answer}");
    server.alive();
}

#[test]
fn unfinished_bodies_on_unknown_paths_are_answered_and_take_no_memory() {
    // Memory for one body of unknown length at a time.
    let server = Server::with_args(&["--max-inflight-bytes=1048576"]);
    let address = server.url().strip_prefix("http://").expect("http").to_owned();
    let open = |method: &str, path: &str| {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n"
        )
        .expect("writes");
        stream
    };
    let wanted = [
        ("POST", "/no/such", "404"),
        ("POST", "/no.such.Service/Push", "501"),
        ("PUT", PUSH, "405"),
        ("POST", "/ready", "405"),
        ("GET", "/no/such", "404"),
    ];
    let held: Vec<TcpStream> =
        (0..8).flat_map(|_| wanted.map(|(method, path, _)| open(method, path))).collect();
    server.pushed(checkout());
    for (mut stream, (method, path, status)) in held.into_iter().zip(wanted.iter().cycle()) {
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer, although the body never ends");
        assert_eq!(String::from_utf8_lossy(&head), format!("HTTP/1.1 {status}"), "{method} {path}");
    }
    let metrics = server.get("/metrics");
    assert!(!metrics.text().contains("reason=\"busy\""), "{}", metrics.text());
}

#[test]
fn a_page_that_rebinds_its_name_to_loopback_reads_nothing() {
    let server = Server::with_args(&["--allowed-hosts=profiles.example,other.example"]);
    server.pushed(checkout());
    for path in ["/", "/ready", "/api/v1/spans", "/no/such"] {
        let answer = server.send(Method::GET, path, &[("host", "rebound.example:4040")], "");
        let message = answer.refused(403, "permission_denied");
        assert!(
            message.contains("\"rebound.example:4040\"") && message.contains("allowed_hosts"),
            "{message}"
        );
    }
    let answer = server.send(Method::POST, PUSH, &[PROTO, ("host", "rebound.example")], "");
    answer.refused(403, "permission_denied");
    for host in ["localhost:4040", "127.0.0.1", "[::1]:4040", "other.example"] {
        assert_eq!(server.send(Method::GET, "/ready", &[("host", host)], "").status, 200, "{host}");
    }
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("spanflame_refusals_total{reason=\"host\"} 5\n"), "{}", metrics.text());
}

#[test]
fn what_is_not_http_is_dropped() {
    let server = Server::start();
    let address = server.url().strip_prefix("http://").expect("http").to_owned();
    for noise in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        &[0u8; 1024],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(&address).expect("connects");
        stream.write_all(noise).expect("writes");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.alive();
}
