//! What surrounds the routes: prefixes, origins, what comes before a handler, and the check of a configuration.

use std::io::{Read, Write};
use std::net::TcpStream;

use http::Method;

use crate::support::{CPU, PUSH, SPAN, Server, checkout, command, grpc_frame, gzip, push_body};

pub(crate) const QUERY: &str = "/querier.v1.QuerierService/Series";

pub(crate) fn address(server: &Server) -> String {
    server.url().strip_prefix("http://").expect("http").to_owned()
}

pub(crate) fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

#[test]
fn everything_is_below_the_base_path() {
    let server = Server::with_args(&["--base-path=/pro/files"]);
    assert!(server.url().ends_with("/pro/files"));
    server.pushed(checkout());
    assert_eq!(server.get(&format!("/api/v1/spans/{SPAN}")).status, 200);
    assert_eq!(server.query("ProfileTypes", "{}").json()["profileTypes"][0]["ID"], CPU);
    for path in ["/", "/services", "/span/x", "/trace/x"] {
        let page = server.get(path);
        assert_eq!(page.status, 200);
        // Relative links are right below any prefix.
        assert!(!page.text().contains("=\"/"), "{}", page.text());
    }
    server.get("/no/such").refused(404, "not_found");
    // The address itself lacks the slash that the links need.
    let bare = server.get("");
    assert_eq!((bare.status, bare.header("location")), (308, "/pro/files/"));

    let address = address(&server);
    let (host, _) = address.split_once('/').expect("a path");
    for (path, status) in [("/ready", 404), ("/pro/filesx/ready", 404), ("/push.v1.PusherService/Push", 501)]
    {
        let mut stream = TcpStream::connect(host).expect("connects");
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        .expect("writes");
        let answer = rest(stream).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("\"code\":\"") && answer.contains("server: spanflame/"), "{path}: {answer}");
    }
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("route=\"/api/v1/spans/{span_id}\""), "{}", metrics.text());
}

#[test]
fn pages_of_other_origins_ask_only_where_they_are_listed() {
    let preflight = |server: &Server, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-scope-orgid"),
        ];
        server.send(Method::OPTIONS, QUERY, &headers, "")
    };
    let closed = Server::start();
    let answer = preflight(&closed, "https://app.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (405, ""));

    let tokens =
        "cors_origins = ['https://app.example']\n[tokens.a]\ntoken = 'aaaaaaaaaaaaaaaa'\nread = true";
    let server = Server::with_file(tokens, &[]);
    let answer = preflight(&server, "https://app.example");
    assert_eq!(answer.status, 200, "a browser asks without a token first");
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
    assert!(answer.header("access-control-allow-headers").contains("x-scope-orgid"));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    assert_eq!(preflight(&server, "https://evil.example").header("access-control-allow-origin"), "");
    let ask = |headers: &[(&str, &str)]| server.send(Method::GET, "/api/v1/spans", headers, "");
    let answer = ask(&[("origin", "https://app.example")]);
    answer.refused(401, "unauthenticated");
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example", "the page may read why");
    let answer = ask(&[("origin", "https://app.example"), ("authorization", "Bearer aaaaaaaaaaaaaaaa")]);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_page_of_another_origin_cannot_push_with_what_its_reader_once_typed_in() {
    let server = Server::start();
    let push = |headers: &[(&str, &str)]| server.push_with(headers, checkout());
    let message = push(&[("origin", "https://evil.example")]).refused(403, "permission_denied");
    assert!(message.contains("evil.example") && message.contains("cors_origins"), "{message}");
    push(&[("sec-fetch-site", "cross-site")]).refused(403, "permission_denied");
    assert_eq!(push(&[("sec-fetch-site", "same-origin"), ("origin", "https://behind.example")]).status, 200);
    let server = Server::with_args(&["--cors-origins=https://app.example"]);
    assert_eq!(server.push_with(&[("origin", "https://app.example")], checkout()).status, 200);
}

#[test]
fn what_is_refused_before_its_handler_is_a_grpc_status_for_grpc() {
    let server = Server::with_args(&["--max-request-bytes=4096"]);
    let call = |path: &str, body: Vec<u8>| {
        server.send_h2c(path, &[("content-type", "application/grpc"), ("te", "trailers")], body)
    };
    let answer = call(PUSH, grpc_frame(&[0; 10_000]));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "8"));
    assert!(answer.header("grpc-message").contains("max_request_bytes of 4096"), "{:?}", answer.headers);
    // A message that is compressed within its body has the same limits.
    let server = Server::with_args(&["--max-message-bytes=4096"]);
    let packed = |message: &[u8]| {
        let mut frame = grpc_frame(&gzip(message));
        frame[0] = 1;
        let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", "gzip")];
        server.send_h2c(PUSH, &headers, frame)
    };
    let answer = packed(&push_body(checkout()));
    assert_eq!((answer.status, answer.trailer("grpc-status")), (200, "0"), "{:?}", answer.headers);
    let answer = packed(&[0; 100_000]);
    assert_eq!((answer.status, answer.trailer("grpc-status")), (200, "8"));
    let message = answer.trailer("grpc-message");
    assert!(message.contains("max_message_bytes of 4096 bytes: decompressed"), "{message}");
    let server = Server::start();
    let call = |path: &str, body: Vec<u8>| {
        server.send_h2c(path, &[("content-type", "application/grpc"), ("te", "trailers")], body)
    };
    let answer = call("/push.v1.PusherService/Pull", grpc_frame(&[]));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"));
    let answer = call("/no/such/path", grpc_frame(&[]));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "5"));
    let answer = server.send_h2c(
        PUSH,
        &[("content-type", "application/grpc"), ("host", "evil.example")],
        grpc_frame(&[]),
    );
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "7"));
}

#[test]
fn the_configuration_can_be_checked_without_a_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("spanflame.toml");
    let path = file.to_str().expect("plain");
    let check = |text: &str, args: &[&str]| {
        std::fs::write(&file, text).expect("written");
        let output = command(&[&["config", "check", path], args].concat())
            .env("SPANFLAME_LOG", "debug")
            .env("HOME", dir.path())
            .output()
            .expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let good = "max_samples = 5\n[tokens.a]\ntoken = 'aaaaaaaaaaaaaaaa'\nread = true";
    let (code, out, error) = check(good, &[]);
    assert_eq!((code, out.as_str(), error.as_str()), (Some(0), "the configuration is good\n", ""));
    let (code, out, _) = check(good, &["--print", "--listen=127.0.0.1:9"]);
    assert_eq!(code, Some(0));
    for (setting, origin) in [
        ("max_samples = 5", "# file, line 1"),
        ("listen = \"127.0.0.1:9\"", "# command line"),
        ("log = \"debug\"", "# environment"),
        ("max_head_bytes = 1073741824", "# default"),
    ] {
        let line = out.lines().find(|line| line.starts_with(setting)).expect("it is shown");
        assert!(line.ends_with(origin), "{line}");
    }
    assert!(out.contains("[tokens.a]") && !out.contains("aaaaaaaa"), "{out}");

    let (code, out, error) = check("lisen = 1\nmax_samples = 'x'", &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains(":1: unknown setting \"lisen\"; did you mean \"listen\"?"), "{error}");
    assert!(error.contains(":2: max_samples: expected a whole number"), "{error}");
    for (text, wanted) in [
        ("listen = '0.0.0.0:1'", "refusing to listen"),
        ("listen = 'nowhere'", "listen = \"nowhere\""),
        ("log = 'spanflame=loud'", "log = "),
        ("tokens_file = '/no/such'", "tokens_file: cannot read /no/such"),
        ("tls_cert_file = '/no/such'\ntls_key_file = '/no/such'", "tls_cert_file, tls_key_file: cannot read"),
    ] {
        // The environment's filter would win over the file's.
        let (code, _, error) =
            check(text, &["--log", if text.starts_with("log") { "spanflame=loud" } else { "info" }]);
        assert!(code == Some(1) && error.contains(wanted), "{text}: {error}");
    }
    assert!(!dir.path().join(".local").exists(), "checking makes no data directory");
}
