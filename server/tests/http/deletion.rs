//! Profiles that are deleted on demand: through the server, and in a data directory without one.

use http::Method;

use crate::pushes::{ARGS, by_series, is_there, push};
use crate::support::{Answer, Server, command};

const ADMIN: &str = "admin-admin-admin-admin";
const READER: &str = "reader-reader-reader";

fn delete(server: &Server, token: &str, query: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    server.send(Method::DELETE, &format!("/api/v1/profiles{query}"), &headers, "")
}

#[test]
fn whoever_administers_deletes_a_time_or_all_for_good() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = || Server::on(dir.path(), &ARGS);
    let server = start();
    for span in 1..=30 {
        assert_eq!(push(&server, span).expect("an answer").status, 200);
    }
    // Nobody administers a server without tokens.
    let message =
        server.send(Method::DELETE, "/api/v1/profiles?all=true", &[], "").refused(403, "permission_denied");
    assert!(message.contains("the right admin"), "{message}");
    assert_eq!(by_series(&server), 30);
    drop(server);

    let tokens = dir.path().join("tokens.toml");
    let text =
        format!("[ops]\ntoken = '{ADMIN}'\nadmin = true\n[grafana]\ntoken = '{READER}'\nread = true\n");
    std::fs::write(&tokens, text).expect("written");
    let file = format!("--tokens-file={}", tokens.display());
    let locked = Server::on(dir.path(), &[&ARGS[..], &[&file]].concat());
    delete(&locked, READER, "?all=true").refused(403, "permission_denied");
    for bad in ["", "?all=false", "?from=1&all=true", "?from=9&until=1", "?until=x", "?tenant=a"] {
        delete(&locked, ADMIN, bad).refused(400, "invalid_argument");
    }
    // Pushes begin a millisecond after one another.
    let deleted = delete(&locked, ADMIN, "?from=1767225600011&until=1767225600020");
    assert_eq!((deleted.status, deleted.json()["deletedProfiles"].clone()), (200, 10.into()));
    drop(locked);
    let server = start();
    assert!((1..=30).all(|span| is_there(&server, span) != (11..=20).contains(&span)));
    assert_eq!(by_series(&server), 20);
    drop(server);
    let locked = Server::on(dir.path(), &[&ARGS[..], &[&file]].concat());
    assert_eq!(delete(&locked, ADMIN, "?all=true").json()["deletedProfiles"], 20);
    drop(locked);
    assert_eq!(by_series(&start()), 0);
}

#[test]
fn a_directory_without_a_server_can_be_cleared_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("a plain path");
    let run = |args: &[&str]| {
        let fixed = ["store", "delete", "--data-dir", data];
        let output = command(&[&fixed, args].concat()).output().expect("the binary starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.success(), text(output.stdout) + &text(output.stderr))
    };
    let server = Server::on(dir.path(), &ARGS);
    for span in 1..=12 {
        assert_eq!(push(&server, span).expect("an answer").status, 200);
    }
    let (done, said) = run(&["--tenant=anonymous", "--all"]);
    assert!(!done && said.contains("in use by another process"), "{said}");
    drop(server);
    assert!(!run(&["--tenant=anonymous"]).0, "neither a time nor all is named");
    assert_eq!(run(&["--tenant=other", "--all"]), (true, "0 profiles deleted\n".to_owned()));
    let from = ["--tenant=anonymous", "--from=1767225600005"];
    assert_eq!(run(&from), (true, "8 profiles deleted\n".to_owned()));
    let server = Server::on(dir.path(), &ARGS);
    assert_eq!(by_series(&server), 4);
    drop(server);
    assert_eq!(run(&["--tenant=anonymous", "--all"]), (true, "4 profiles deleted\n".to_owned()));
}
