//! How much is taken on: load, time, memory, limits of tenants, and an end that loses nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use buffa::Message;
use http::Method;

use crate::edges::{QUERY, address, rest};
use crate::support::{
    Answer, CPU, DEADLINE, PUSH, Server, checkout, cpu_profile, grpc_frame, gzip, push_body, series, service,
};

/// A request whose body of two bytes lacks its second.
fn unfinished(server: &Server, path: &str) -> TcpStream {
    let address = address(server);
    let mut stream = TcpStream::connect(&address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
         connection: close\r\n\r\n{{"
    )
    .expect("writes");
    stream
}

/// A query that is under way, on a server that takes one at a time, and the answer to another that came beside it.
fn held(server: &Server) -> (TcpStream, String) {
    let mut both = [unfinished(server, QUERY), unfinished(server, QUERY)];
    for stream in &both {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket option");
    }
    let begun = Instant::now();
    // Neither ends by itself, so that the one which is answered was refused.
    let refused = loop {
        if let Some(at) = both.iter().position(|stream| stream.peek(&mut [0]).is_ok()) {
            break at;
        }
        assert!(begun.elapsed() < DEADLINE, "both queries are under way");
    };
    both.iter().for_each(|stream| stream.set_read_timeout(Some(DEADLINE)).expect("a socket option"));
    both.swap(0, 1 - refused);
    let [held, refused] = both;
    (held, rest(refused))
}

#[test]
fn too_many_queries_are_refused_at_once_and_pushes_go_on() {
    let server = Server::with_args(&["--max-query-requests=1"]);
    let (mut held, refused) = held(&server);
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let answer = server.query("Series", "{}");
    let message = answer.refused(503, "unavailable");
    assert!(message.contains("max_query_requests"), "{message}");
    assert_eq!(answer.header("retry-after"), "1");
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let answer = server.send_h2c(QUERY, &grpc, grpc_frame(&[]));
    assert_eq!((answer.status, answer.header("grpc-status"), answer.header("retry-after")), (200, "14", "1"));
    server.pushed(checkout());
    assert_eq!(server.get("/metrics").status, 200);
    server.alive();
    held.write_all(b"}").expect("writes");
    assert!(rest(held).starts_with("HTTP/1.1 200 "));
    server.until(|server| server.query("Series", "{}"), |answer| answer.status == 200);
    let metrics = server.get("/metrics");
    assert!(
        metrics.text().contains("spanflame_refusals_total{reason=\"max_query_requests\"}"),
        "{}",
        metrics.text()
    );
}

#[test]
fn probes_are_answered_when_there_is_no_connection_left() {
    let server = Server::with_args(&["--max-connections=2"]);
    let address = address(&server);
    // Idle ones that have asked once, so that they are known to be there.
    let ask = |stream: &mut TcpStream, path: &str| -> String {
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").expect("writes");
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("reads") == 1 {
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("text").to_lowercase()
    };
    let connect = || TcpStream::connect(&address).expect("connects");
    let mut held = [connect(), connect()];
    for stream in &mut held {
        assert!(ask(stream, "/ready").starts_with("http/1.1 200 "));
    }
    for (path, status) in [("/ready", 200), ("/metrics", 200), ("/api/v1/spans", 503), ("/", 503)] {
        let head = ask(&mut connect(), path);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path}: {head}");
        assert!(head.contains("connection: close\r\n"), "{path}: {head}");
        assert!(status == 200 || head.contains("retry-after: 1\r\n"), "{path}: {head}");
    }
    drop(held);
    let metrics = server.until(
        |server| server.get("/metrics"),
        |answer| answer.status == 200 && answer.header("connection").is_empty(),
    );
    let line = "spanflame_refusals_total{reason=\"max_connections\"} 2\n";
    assert!(metrics.text().contains(line), "{}", metrics.text());
}

#[test]
fn each_class_has_its_time() {
    let server = Server::with_args(&["--query-timeout-ms=100"]);
    let answer = rest(unfinished(&server, QUERY));
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("\"code\":\"deadline_exceeded\"") && answer.contains("query_timeout_ms"),
        "{answer}"
    );
    let metrics = server.get("/metrics");
    assert!(
        metrics.text().contains("spanflame_refusals_total{reason=\"query_timeout_ms\"} 1\n"),
        "{}",
        metrics.text()
    );
    let server = Server::with_args(&["--ingest-timeout-ms=100"]);
    let answer = rest(unfinished(&server, PUSH));
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("ingest_timeout_ms"), "{answer}");
}

#[test]
fn a_tenant_in_debt_waits_and_the_others_do_not() {
    // At a byte a second the debt is not paid within the test.
    let server = Server::with_file(
        "multi_tenant = true\n[tenants.slow]\ningestion_rate_bytes = 1\ningestion_burst_bytes = 1",
        &[],
    );
    let slow = [("x-scope-orgid", "slow")];
    // Much larger than the burst: it passes all the same. It counts as it is decompressed, which is much more than what is sent.
    let deep: Vec<String> = (0..500).map(|n| format!("function number {n} {}", "n".repeat(1000))).collect();
    let stack: Vec<&str> = deep.iter().map(String::as_str).collect();
    let profile = cpu_profile(1_767_225_605_000, &[(&stack, 10_000_000, &[])]).encode_to_vec();
    let labels = [("__name__", "process_cpu"), ("service_name", "large")];
    let large = || vec![series(&labels, gzip(&profile))];
    assert!(profile.len() > 500_000 && gzip(&profile).len() < 50_000);
    assert_eq!(server.push_with(&slow, large()).status, 200);
    let answer = server.push_with(&slow, large());
    let message = answer.refused(429, "resource_exhausted");
    let charged = profile.len() + "__name__process_cpuservice_namelarge".len();
    for part in ["ingestion_rate_bytes of 1", "\"slow\"", "ingestion_burst_bytes of 1", "[tenants.slow]"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let debt: usize = message
        .split_once("has pushed ")
        .expect("the value seen")
        .1
        .split(' ')
        .next()
        .expect("a number")
        .parse()
        .expect("a number");
    // A little is paid by then.
    assert!(debt < charged && debt > charged / 2, "{debt} of {charged}: {message}");
    assert!(answer.header("retry-after").parse::<u64>().expect("seconds") > 60);
    for _ in 0..3 {
        assert_eq!(server.push_with(&[("x-scope-orgid", "fast")], large()).status, 200);
    }
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_refusals_total{reason=\"ingestion_rate_bytes\"} 1\n",
        "spanflame_tenant_refusals_total{tenant=\"slow\",reason=\"ingestion_rate_bytes\"} 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[test]
fn a_body_that_says_it_is_too_long_need_not_be_sent() {
    let server = Server::with_args(&["--max-request-bytes=4096"]);
    let address = address(&server);
    let mut stream = TcpStream::connect(&address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket option");
    write!(
        stream,
        "POST {PUSH} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/proto\r\n\
         content-length: 90000000000\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    )
    .expect("writes");
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("max_request_bytes of 4096 bytes: it has 90000000000 ("), "{answer}");
}

#[test]
fn senders_that_stop_in_the_middle_hold_up_nobody() {
    // One MiB in all: less than what any of the bodies might become.
    let server = Server::with_args(&["--max-inflight-bytes=1048576"]);
    let address = address(&server);
    let stopped: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("connects");
            write!(
                stream,
                "POST {PUSH} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/proto\r\n\
                 content-encoding: gzip\r\ncontent-length: 1000000\r\n\r\n"
            )
            .expect("writes");
            stream.write_all(&gzip(&[0; 100])[..10]).expect("writes");
            stream
        })
        .collect();
    for _ in 0..20 {
        server.pushed(checkout());
        assert_eq!(server.query("Series", "{}").status, 200);
    }
    drop(stopped);
    // What cannot fit at all is refused, and says why.
    let answer = server.push(vec![series(&[("__name__", "process_cpu")], vec![0; 2 << 20])]);
    let message = answer.refused(503, "unavailable");
    assert!(message.contains("max_inflight_bytes of 1048576"), "{message}");
    assert_eq!(answer.header("retry-after"), "1");
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("spanflame_refusals_total{reason=\"max_inflight_bytes\"} 1\n"));
    server.pushed(checkout());
}

#[test]
fn a_tenant_may_have_limits_of_its_own() {
    let server = Server::with_file(
        "multi_tenant = true\nmax_samples = 1\n[tenants.large]\nmax_samples = 1000\n\
         [tenants.tiny]\nmax_request_bytes = 1024\nmax_message_bytes = 1024",
        &[],
    );
    let push = |tenant| server.push_with(&[("x-scope-orgid", tenant)], checkout());
    let message = push("small").refused(400, "invalid_argument");
    assert!(message.contains("over the limit max_samples of 1"), "{message}");
    assert_eq!(push("large").status, 200);
    let headers = [("content-type", "application/proto"), ("x-scope-orgid", "tiny")];
    let message = server.send(Method::POST, PUSH, &headers, vec![0; 2000]).refused(413, "resource_exhausted");
    assert!(
        message.contains("max_request_bytes of 1024 bytes: it has 2000 (")
            && message.contains("[tenants.tiny]"),
        "{message}"
    );
    let packed = [&headers[..], &[("content-encoding", "gzip")]].concat();
    let message =
        server.send(Method::POST, PUSH, &packed, gzip(&[0; 2000])).refused(413, "resource_exhausted");
    assert!(message.contains("max_message_bytes of 1024 bytes: decompressed, it has at least "), "{message}");
    let metrics = server.get("/metrics");
    for (tenant, limit) in
        [("small", "max_samples"), ("tiny", "max_request_bytes"), ("tiny", "max_message_bytes")]
    {
        let line = format!("spanflame_tenant_refusals_total{{tenant=\"{tenant}\",reason=\"{limit}\"}} 1\n");
        assert!(metrics.text().contains(&line), "{line}: {}", metrics.text());
    }
    // A tenant learns what was refused of its own, and nothing of others.
    let explain = |tenant| {
        let headers = [("x-scope-orgid", tenant)];
        server.send(Method::GET, "/api/v1/explain?span=00000000000000aa", &headers, "").text().to_owned()
    };
    let told = explain("tiny");
    assert!(told.contains("(max_request_bytes)") && !told.contains("(max_samples)"), "{told}");
    let told = explain("small");
    assert!(told.contains("(max_samples)") && !told.contains("(max_request_bytes)"), "{told}");
    assert!(!explain("large").contains("were refused"));
}

#[test]
fn limits_are_read_again_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("limits.toml");
    std::fs::write(&file, "max_samples = 1").expect("written");
    let server = Server::on(dir.path(), &["--config", file.to_str().expect("plain")]);
    server.push(checkout()).refused(400, "invalid_argument");
    std::fs::write(&file, "max_samples = 'many'").expect("written");
    server.logged("cannot reload");
    server.push(checkout()).refused(400, "invalid_argument");
    std::fs::write(&file, "max_samples = 1000").expect("written");
    server.until(|server| server.push(checkout()), |answer| answer.status == 200);
}

/// Sets its flag when it goes, in a test that fails as well: the scope would wait for its threads for ever.
#[cfg(unix)]
struct OnDrop<'a>(&'a AtomicBool);

#[cfg(unix)]
impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every push that was acknowledged is there afterwards, and every one that was accepted is acknowledged.
#[cfg(unix)]
#[test]
fn under_load_the_server_finishes_what_it_accepted() {
    const THREADS: u64 = 4;
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Server::on(dir.path(), &["--max-query-requests=1"]);
    let stopping = AtomicBool::new(false);
    let acknowledged: Vec<String> = std::thread::scope(|scope| {
        let (server, stopping) = (&server, &stopping);
        let pushing: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut acknowledged = Vec::new();
                    while !stopping.load(Ordering::Relaxed) || acknowledged.is_empty() {
                        let id = format!("{:016x}", (acknowledged.len() as u64 + 1) * THREADS + thread);
                        let labels = [("span_id", id.as_str())];
                        let profile = cpu_profile(1_767_225_605_000, &[(&["main"], 10_000_000, &labels)]);
                        let body = push_body(vec![service("load", &profile)]).into();
                        let headers = [("content-type", "application/proto")];
                        // None once it takes no more connections; what it took it answers.
                        let Some(answer) = server.try_post(PUSH, &headers, body) else { break };
                        assert_eq!(answer.status, 200, "{:?}", answer.body);
                        acknowledged.push(id);
                    }
                    acknowledged
                })
            })
            .collect();
        let stop = OnDrop(stopping);
        server.until(
            |server| server.get("/metrics"),
            |answer| !answer.text().contains("spanflame_profiles_total 0\n"),
        );
        let (mut held, _) = held(server);
        rustix::process::kill_process(server.pid(), rustix::process::Signal::TERM)
            .expect("the process is ours");
        server.logged("stopping");
        drop(stop);
        held.write_all(b"}").expect("the connection is kept until it is answered");
        assert!(rest(held).starts_with("HTTP/1.1 200 "), "a request under way is answered");
        pushing.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(server.ended().success());
    server.logged("stopped");
    assert!(acknowledged.len() >= THREADS as usize, "{acknowledged:?}");
    let again = Server::on(dir.path(), &[]);
    for id in &acknowledged {
        assert_eq!(again.get(&format!("/api/v1/spans/{id}")).status, 200, "{id}");
    }
}

#[test]
fn queries_have_their_limits_and_a_query_of_several_tenants_those_of_each() {
    let server = Server::with_file(
        "multi_tenant = true\n[tenants.a]\nmax_query_length_ms = 1000\n\
         [tenants.b]\nmax_query_lookback_ms = 1000\nmax_flamegraph_nodes = 2\ndefault_flamegraph_nodes = 1",
        &[],
    );
    for tenant in ["a", "b", "c"] {
        assert_eq!(server.push_with(&[("x-scope-orgid", tenant)], checkout()).status, 200);
    }
    let ask = |tenants: &str, method: &str, more: &str| {
        let body = format!(r#"{{"profile_typeID":"{CPU}","label_selector":"{{}}"{more}}}"#);
        let headers = [("content-type", "application/json"), ("x-scope-orgid", tenants)];
        server.send(Method::POST, &format!("/querier.v1.QuerierService/{method}"), &headers, body)
    };
    let day = r#","start":1767225600000,"end":1767312000000"#;
    for tenants in ["a", "a|b", "a|c"] {
        let message = ask(tenants, "SelectMergeStacktraces", day).refused(400, "invalid_argument");
        assert!(message.contains("max_query_length_ms of 1000"), "{message}");
    }
    let total = |answer: Answer| answer.json()["flamegraph"]["total"].clone();
    assert_eq!(total(ask("c", "SelectMergeStacktraces", day)), "40000000");
    // Long ago: nothing is seen, which is no error.
    for tenants in ["b", "b|c"] {
        assert_eq!(total(ask(tenants, "SelectMergeStacktraces", day)), serde_json::Value::Null);
        assert_eq!(ask(tenants, "ProfileTypes", day).json(), serde_json::json!({}));
        let message =
            ask(tenants, "SelectMergeStacktraces", r#","max_nodes":3"#).refused(400, "invalid_argument");
        assert!(
            message.contains("expected 0 to 2 (max_flamegraph_nodes), got 3; ask for fewer, or raise"),
            "{message}"
        );
    }
    assert_eq!(ask("c", "SelectMergeStacktraces", r#","max_nodes":3"#).status, 200);
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_refusals_total{reason=\"max_query_length_ms\"} 3\n",
        "spanflame_refusals_total{reason=\"max_flamegraph_nodes\"} 2\n",
        "spanflame_tenant_refusals_total{tenant=\"a\",reason=\"max_query_length_ms\"} 1\n",
        "spanflame_tenant_refusals_total{tenant=\"b\",reason=\"max_flamegraph_nodes\"} 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}
