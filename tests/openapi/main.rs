//! The interface below `/api/v1` against its own document: a real server, asked by schemathesis whatever the document
//! allows and forbids.
//!
//! `cargo xtask test` installs schemathesis and names it in `SCHEMATHESIS`; the feature `schemathesis` switches this on.

use std::process::Command;

use prost::Message as _;
use spanflame_tests::binaries::serve;
use spanflame_tests::http::{get, send};
use spanflame_tests::pprof::{LabelPair, PushRequest, RawProfileSeries, RawSample};

mod profile;

/// What is asked depends on nothing else.
const SEED: &str = "1784";
/// Cases of each operation and phase.
const CASES: &str = "20";

#[test]
fn the_server_does_what_its_document_says() {
    let data = tempfile::tempdir().expect("there is room for temporary files");
    let server = serve(data.path());
    let address = server.address();
    fill(&address);

    let schemathesis =
        std::env::var_os("SCHEMATHESIS").expect("SCHEMATHESIS names the program: cargo xtask test");
    let status = Command::new(schemathesis)
        // Its cache of examples, and settings of whoever runs the tests, would make runs differ.
        .current_dir(data.path())
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/schemathesis.toml"), "run"])
        .args(["--seed", SEED, "--max-examples", CASES])
        .arg(format!("{address}/api/v1/openapi.json"))
        .status()
        .expect("schemathesis runs");
    assert!(status.success(), "schemathesis ended with {status}");
    assert_eq!(get(&format!("{address}/ready")).status, 200);
    server.terminate();
}

/// Stores what the document's examples ask for.
fn fill(address: &str) {
    let label = |name: &str, value: &str| LabelPair { name: name.into(), value: value.into() };
    let series = |service: &str, raw_profile: Vec<u8>| RawProfileSeries {
        labels: vec![label("__name__", "process_cpu"), label("service_name", service)],
        samples: vec![RawSample { raw_profile }],
    };
    let push = PushRequest {
        series: vec![series("checkout", profile::checkout()), series("payments", profile::payments())],
    };
    let headers = [("content-type", "application/proto")];
    let path = format!("{address}/push.v1.PusherService/Push");
    let answer = send("POST", &path, &headers, push.encode_to_vec()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let span = get(&format!("{address}/api/v1/spans/{}", profile::SPAN));
    assert_eq!(span.status, 200, "{}", span.text());
    assert_eq!(span.json()["children"][0]["name"], "charge", "{}", span.text());
    let json = [("content-type", "application/json")];
    let answer = send("POST", &format!("{address}/v1/traces"), &json, profile::traces().into_bytes());
    assert_eq!(answer.expect("an answer").status, 200);
    let trace = get(&format!("{address}/api/v1/traces/{}", profile::TRACE));
    assert_eq!(trace.json()["spanCount"], 4, "{}", trace.text());
}
