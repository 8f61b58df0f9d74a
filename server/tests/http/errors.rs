//! Every route, asked wrongly in every way: whoever answers, a layer, a library or a handler, an error has one form.

use http::{Method, StatusCode};

use crate::support::{Answer, PUSH, Server, grpc_frame};

/// All routes, and some that are none.
const PATHS: &[&str] = &[
    PUSH,
    "/push.v1.PusherService/NoSuchMethod",
    "/querier.v1.QuerierService/ProfileTypes",
    "/querier.v1.QuerierService/LabelNames",
    "/querier.v1.QuerierService/LabelValues",
    "/querier.v1.QuerierService/Series",
    "/querier.v1.QuerierService/SelectSeries",
    "/querier.v1.QuerierService/SelectMergeStacktraces",
    "/querier.v1.QuerierService/SelectMergeSpanProfile",
    "/querier.v1.QuerierService/SelectMergeProfile",
    "/querier.v1.QuerierService/SelectHeatmap",
    "/querier.v1.QuerierService/Diff",
    "/querier.v1.QuerierService/GetProfileStats",
    "/querier.v1.QuerierService/AnalyzeQuery",
    "/settings.v1.SettingsService/Get",
    "/capabilities.v1.FeatureFlagsService/GetFeatureFlags",
    "/version.v1.Version/Version",
    "/adhocprofiles.v1.AdHocProfileService/List",
    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    "/v1development/profiles",
    "/ingest",
    "/pyroscope/ingest",
    "/pyroscope/render",
    "/pyroscope/render-diff",
    "/pyroscope/label-values",
    "/pyroscope/labels",
    "/api/v1/spans",
    "/api/v1/spans/abc",
    "/api/v1/spans/abc/profile",
    "/api/v1/spans:exists",
    "/api/v1/traces/abc",
    "/api/v1/explain",
    "/api/v1/status/buildinfo",
    "/ready",
    "/metrics",
    "/",
    "/span/abc",
    "/assets/abc",
    "/no/such",
    "/%ff%00",
];

/// Connect's codes with their HTTP statuses; 405, 413, 415 and 422 are HTTP's own, for codes that are near.
const CODES: &[(&str, &[u16])] = &[
    ("canceled", &[499]),
    ("unknown", &[500]),
    ("invalid_argument", &[400, 411, 414, 415, 422, 431]),
    ("deadline_exceeded", &[504, 408]),
    ("not_found", &[404]),
    ("already_exists", &[409]),
    ("permission_denied", &[403]),
    ("resource_exhausted", &[429, 413]),
    ("failed_precondition", &[400]),
    ("aborted", &[409]),
    ("out_of_range", &[400]),
    ("unimplemented", &[501, 405]),
    ("internal", &[500]),
    ("unavailable", &[503]),
    ("data_loss", &[500]),
    ("unauthenticated", &[401]),
];

#[track_caller]
fn check(answer: &Answer, what: &str) {
    assert!(answer.header("server").starts_with("spanflame/"), "{what}");
    let status = StatusCode::from_u16(answer.status).expect("a status");
    // Nothing that a client sends is the server's fault.
    assert_ne!(answer.status, 500, "{what}: {:?}", answer.body);
    if !status.is_client_error() && !status.is_server_error() {
        return;
    }
    assert_eq!(answer.header("content-type"), "application/json", "{what}: {status}");
    let error = answer.json();
    let code = error["code"].as_str().unwrap_or_else(|| panic!("{what}: no code in {error}"));
    let statuses = CODES.iter().find(|(name, _)| *name == code);
    assert!(
        statuses.is_some_and(|(_, statuses)| statuses.contains(&answer.status)),
        "{what}: {status} {error}"
    );
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {status} {error}");
}

#[test]
fn errors_of_every_route_have_one_form() {
    let server = Server::start();
    let bodies: [(&str, &[u8]); 9] = [
        ("", b""),
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"[1]"),
        ("application/proto", b"\xff\xff\xff"),
        ("application/x-protobuf", b"\x0a\x05abc"),
        ("application/connect+json", b"\0\0\0\0\x02{}"),
        ("multipart/form-data", b"--x"),
        ("text/nonsense; a=\"", b"nonsense"),
    ];
    for path in PATHS {
        for query in ["", "?limit=x&from=y&until=&format=z&maxNodes=-1&name=%ff%zz&connect=v1&encoding=json"]
        {
            let target = format!("{path}{query}");
            for method in [Method::GET, Method::DELETE, Method::OPTIONS] {
                let answer = server.send(method.clone(), &target, &[], "");
                check(&answer, &format!("{method} {target}"));
            }
            for (kind, body) in bodies {
                let kind = [("content-type", kind)];
                let headers = if kind[0].1.is_empty() { &[][..] } else { &kind };
                let answer = server.send(Method::POST, &target, headers, body);
                check(&answer, &format!("POST {target} {kind:?} {body:?}"));
            }
        }
        let answer = server.send(Method::PUT, path, &[("content-type", "application/json")], "{}");
        check(&answer, &format!("PUT {path}"));
        let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
        check(&server.send(Method::POST, path, &packed, "{}"), &format!("POST {path} not gzip"));
        let odd = [("content-type", "application/json"), ("content-encoding", "sdch")];
        check(&server.send(Method::POST, path, &odd, "{}"), &format!("POST {path} unknown encoding"));
    }
    server.alive();
}

#[test]
fn errors_of_every_route_are_grpc_statuses_for_grpc() {
    let server = Server::start();
    for path in PATHS {
        for kind in ["application/grpc", "application/grpc-web+proto", "application/grpc+json"] {
            for body in [&b""[..], b"\xff", &grpc_frame(b"\xff\xff\xff"), &grpc_frame(b"")] {
                let answer =
                    server.send_h2c(path, &[("content-type", kind), ("te", "trailers")], body.to_vec());
                let what = format!("{path} {kind} {body:?}");
                assert!(answer.status < 300, "{what}: {}", answer.status);
                // A code in the head is that of an error which came before any message.
                let status = answer.header("grpc-status");
                assert!(
                    status.is_empty() || status.parse::<u8>().is_ok_and(|code| code <= 16),
                    "{what}: {status}"
                );
                assert_ne!(status, "13", "{what}: {}", answer.header("grpc-message"));
            }
        }
    }
    server.alive();
}

#[test]
fn heads_that_are_too_large_are_errors_like_all_others() {
    let server = Server::start();
    let long = |bytes: usize| format!("/api/v1/spans?service={}", "x".repeat(bytes));
    let message = server.get(&long(40_000)).refused(414, "invalid_argument");
    assert!(message.contains("expected at most 32768 bytes, got 40022"), "{message}");
    assert_eq!(server.get(&long(30_000)).status, 200);
    let many: Vec<(String, &str)> = (0..300).map(|n| (format!("x-{n}"), "1")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let message = server.send(Method::GET, "/api/v1/spans", &many, "").refused(431, "invalid_argument");
    assert!(message.contains("expected at most 128 of 65536 bytes"), "{message}");
    let large = "x".repeat(200_000);
    let message =
        server.send(Method::GET, "/ready", &[("cookie", &large)], "").refused(431, "invalid_argument");
    assert!(message.contains("200"), "{message}");
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("cookie", large.as_str())];
    let answer = server.send_h2c(PUSH, &headers, grpc_frame(&[]));
    assert_eq!((answer.status, answer.header("grpc-status")), (200, "3"), "{:?}", answer.headers);
    let metrics = server.get("/metrics");
    for line in ["{reason=\"request_target\"} 1\n", "{reason=\"request_headers\"} 3\n"] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}
