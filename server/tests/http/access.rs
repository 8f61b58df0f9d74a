//! Tenants and tokens: who may ask, and about whose data.

use std::path::Path;

use http::Method;

use crate::support::{Answer, PUSH, SPAN, Server, checkout, command, grpc_frame, push_body, replace};

const READER: &str = "reader-reader-reader";
const WRITER: &str = "writer-writer-writer";

fn span(server: &Server, headers: &[(&str, &str)]) -> Answer {
    server.send(Method::GET, &format!("/api/v1/spans/{SPAN}"), headers, "")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A server that takes these tokens from a file, which lies in this directory.
fn locked(dir: &Path, tokens: &str) -> Server {
    let file = dir.join("tokens.toml");
    std::fs::write(&file, tokens).expect("written");
    Server::on(&dir.join("data"), &["--tokens-file", file.to_str().expect("plain")])
}

fn tokens() -> String {
    format!("[reader]\ntoken = '{READER}'\nread = true\n[writer]\ntoken = '{WRITER}'\nwrite = true\n")
}

#[test]
fn tenants_never_see_one_another() {
    let server = Server::with_args(&["--multi-tenant"]);
    let (a, b, both) = (("x-scope-orgid", "a"), ("x-scope-orgid", "b"), ("x-scope-orgid", "b|a|b"));
    for headers in [&[][..], &[("x-scope-orgid", "")]] {
        let message = server.push_with(headers, checkout()).refused(401, "unauthenticated");
        assert!(message.starts_with("X-Scope-OrgID: "), "{message}");
        span(&server, headers).refused(401, "unauthenticated");
    }
    server.push_with(&[("x-scope-orgid", "a/b")], checkout()).refused(400, "invalid_argument");
    server.push_with(&[both], checkout()).refused(400, "invalid_argument");
    assert_eq!(server.push_with(&[a], checkout()).status, 200);
    assert_eq!(span(&server, &[a]).json()["cpuNanos"], 30_000_000);
    assert_eq!(span(&server, &[both]).json()["cpuNanos"], 30_000_000);
    assert_eq!(span(&server, &[b]).status, 404);
    assert_eq!(server.push_with(&[b], checkout()).status, 200);
    assert_eq!(span(&server, &[both]).json()["cpuNanos"], 60_000_000, "both tenants' profiles are read");

    let stats = |tenant| {
        let headers = [("content-type", "application/json"), tenant];
        server.send(Method::POST, "/querier.v1.QuerierService/GetProfileStats", &headers, "{}")
    };
    assert_eq!(stats(a).json()["dataIngested"], true);
    stats(both).refused(400, "invalid_argument");

    // What is nobody's needs no tenant.
    for path in ["/", "/ready", "/metrics", "/api/v1/status/buildinfo"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let metrics = server.get("/metrics");
    assert!(metrics.text().contains("spanflame_store_profiles 4\n"), "{}", metrics.text());
}

#[test]
fn one_tenant_ignores_what_tenants_are_named() {
    let server = Server::start();
    assert_eq!(server.push_with(&[("x-scope-orgid", "a|b/../c")], checkout()).status, 200);
    assert_eq!(span(&server, &[("x-scope-orgid", "other")]).status, 200);
}

#[test]
fn grpc_callers_get_grpc_errors() {
    let server = Server::with_args(&["--multi-tenant"]);
    let call = |path: &str, kind: &str, tenant: &[(&str, &str)]| {
        let headers = [&[("content-type", kind), ("te", "trailers")], tenant].concat();
        server.send_h2c(path, &headers, grpc_frame(&push_body(checkout())))
    };
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"] {
        let answer = call(PUSH, kind, &[]);
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "16"), "{kind}");
        assert_eq!(answer.header("content-type"), kind);
        assert!(answer.header("grpc-message").starts_with("X-Scope-OrgID: "), "{kind}");
        assert!(answer.body.is_empty());
        let tenant = [("x-scope-orgid", "a b")];
        let answer = call(PUSH, kind, &tenant);
        assert_eq!(answer.header("grpc-status"), "3", "{kind}");
        let answer = call("/no.such.Service/Method", kind, &[("x-scope-orgid", "a")]);
        assert_eq!((answer.status, answer.header("grpc-status")), (200, "12"), "{kind}");
    }
    let answer = call(PUSH, "application/grpc", &[("x-scope-orgid", "a")]);
    assert_eq!((answer.status, answer.header("grpc-message")), (200, ""));
    assert_eq!(span(&server, &[("x-scope-orgid", "a")]).status, 200);
}

#[test]
fn tokens_let_in_and_rights_decide_what_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = locked(dir.path(), &tokens());
    assert_eq!(server.get("/ready").status, 200);
    for path in ["/", "/span/x"] {
        assert_eq!(server.get(path).status, 200, "{path}: the page asks for the token itself");
    }
    let from_page = server.send(Method::GET, "/api/v1/spans", &[("x-requested-with", "XMLHttpRequest")], "");
    from_page.refused(401, "unauthenticated");
    assert!(from_page.header("www-authenticate").starts_with("Bearer "), "a browser would ask for Basic");
    for path in ["/metrics", "/api/v1/status/buildinfo", "/api/v1/spans", "/no/such"] {
        let answer = server.get(path);
        answer.refused(401, "unauthenticated");
        let challenges: Vec<&str> = answer
            .headers
            .get_all("www-authenticate")
            .iter()
            .map(|value| value.to_str().expect("text"))
            .collect();
        assert!(
            challenges[0].starts_with("Basic ") && challenges[1].starts_with("Bearer "),
            "{challenges:?}"
        );
    }
    server.push(checkout()).refused(401, "unauthenticated");
    let (reader, writer) = (bearer(READER), bearer(WRITER));
    let (reader, writer) = (("authorization", reader.as_str()), ("authorization", writer.as_str()));
    let message = server.push_with(&[reader], checkout()).refused(403, "permission_denied");
    assert_eq!(message, "the token \"reader\" lacks the right write for tenant \"anonymous\"");
    assert_eq!(server.push_with(&[writer], checkout()).status, 200);
    span(&server, &[writer]).refused(403, "permission_denied");
    assert_eq!(span(&server, &[reader]).status, 200);
    span(&server, &[("authorization", "Bearer nobody-nobody-nobody")]).refused(401, "unauthenticated");
    span(&server, &[("authorization", "Basic !")]).refused(401, "unauthenticated");
    // printf grafana:reader-reader-reader | base64
    let basic = [("authorization", "Basic Z3JhZmFuYTpyZWFkZXItcmVhZGVyLXJlYWRlcg==")];
    assert_eq!(span(&server, &basic).status, 200);
    for path in ["/", "/metrics", "/api/v1/status/buildinfo"] {
        assert_eq!(server.send(Method::GET, path, &basic, "").status, 200, "{path}");
    }
    server.send(Method::GET, "/metrics", &[writer], "").refused(403, "permission_denied");
    assert_eq!(server.send(Method::GET, "/api/v1/status/buildinfo", &[writer], "").status, 200);
    // With a locked door, names do not matter.
    let named = [("host", "profiles.example"), reader];
    assert_eq!(span(&server, &named).status, 200);
    let metrics = server.send(Method::GET, "/metrics", &[reader], "");
    for line in [
        "spanflame_refusals_total{reason=\"unauthenticated\"} 8\n",
        "spanflame_refusals_total{reason=\"permission_denied\"} 3\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

/// Whatever a route is called, whoever may only read is refused before the body is looked at.
#[test]
fn every_way_in_needs_the_right_to_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = locked(dir.path(), &tokens());
    let reader = bearer(READER);
    for path in [
        PUSH,
        "/ingest",
        "/pyroscope/ingest",
        "/v1development/profiles",
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    ] {
        let post = |headers: &[(&str, &str)]| server.send(Method::POST, path, headers, "no profile");
        post(&[]).refused(401, "unauthenticated");
        let message = post(&[("authorization", &reader)]).refused(403, "permission_denied");
        assert!(message.contains("the right write"), "{path}: {message}");
        let message = post(&[("origin", "https://evil.example")]).refused(403, "permission_denied");
        assert!(message.contains("cors_origins"), "{path}: {message}");
    }
}

#[test]
fn a_token_for_certain_tenants_decides_and_narrows() {
    let server = Server::with_file(
        "multi_tenant = true\n[tokens.team]\ntoken = 'team-team-team-team'\nread = ['a', 'b']\nwrite = ['a']\n\
         [tokens.ops]\ntoken = 'ops-ops-ops-ops-ops'\nadmin = true",
        &[],
    );
    let (team, ops) =
        (("authorization", "Bearer team-team-team-team"), ("authorization", "Bearer ops-ops-ops-ops-ops"));
    assert_eq!(server.push_with(&[team], checkout()).status, 200);
    let message =
        server.push_with(&[team, ("x-scope-orgid", "b")], checkout()).refused(403, "permission_denied");
    assert!(
        message.contains("\"team\"") && message.contains("write") && message.contains("\"b\""),
        "{message}"
    );
    assert_eq!(span(&server, &[team]).status, 200);
    assert_eq!(span(&server, &[team, ("x-scope-orgid", "b")]).status, 404);
    span(&server, &[team, ("x-scope-orgid", "a|c")]).refused(403, "permission_denied");
    span(&server, &[ops]).refused(401, "unauthenticated");
    assert_eq!(span(&server, &[ops, ("x-scope-orgid", "a")]).status, 200);
    server.send(Method::GET, "/metrics", &[team], "").refused(403, "permission_denied");
    assert_eq!(server.send(Method::GET, "/metrics", &[ops], "").status, 200);
}

#[test]
fn a_changed_file_is_in_force_without_a_restart_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = locked(dir.path(), &tokens());
    let ask = |token: &str| {
        let value = bearer(token);
        server.send(Method::GET, "/api/v1/spans", &[("authorization", &value)], "")
    };
    assert_eq!(ask(READER).status, 200);
    let file = dir.path().join("tokens.toml");
    replace(&file, "[other]\ntoken = 'other-other-other'\nread = true\n");
    server.until(|_| ask("other-other-other"), |answer| answer.status == 200);
    assert_eq!(ask(READER).status, 401, "a token that was taken away is unknown");
    server.logged("reloaded");
    replace(&file, "[other]\ntoken = 'short'\nread = true\n");
    let line = server.logged("cannot reload");
    assert!(line.contains("tokens.other.token: expected 16") && !line.contains("short'"), "{line}");
    assert_eq!(ask("other-other-other").status, 200);
    std::fs::remove_file(&file).expect("it is there");
    server.logged("cannot read");
    assert_eq!(ask("other-other-other").status, 200);
    replace(&file, &tokens());
    server.until(|_| ask(READER), |answer| answer.status == 200);
}

#[test]
fn with_tokens_the_server_may_be_reached_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let tokens = format!("reader = {{ token = '{READER}', read = true }}");
    let server = Server::with_env(dir.path(), &["--listen=0.0.0.0:0"], &[("SPANFLAME_TOKENS", &tokens)]);
    assert!(server.url().starts_with("http://0.0.0.0:"));
    server.logged("clear text");
    server.alive();
    server.get("/api/v1/spans").refused(401, "unauthenticated");
    let output = command(&["serve", "--listen=0.0.0.0:0", "--data-dir", "/nowhere"])
        .env("SPANFLAME_TOKENS", "")
        .output()
        .expect("the binary starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("SPANFLAME_TOKENS: expected at least one token"),
        "{error}"
    );
}
