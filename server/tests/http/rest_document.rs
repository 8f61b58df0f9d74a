//! The document that describes the interface agrees with the routes.

use http::Method;
use serde_json::Value;

use crate::support::{SPAN, Server, TRACE, checkout};

const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

#[test]
fn every_documented_route_takes_its_methods_and_no_others() {
    let server = Server::start();
    server.pushed(checkout());
    let answer = server.get("/api/v1/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 10);
    for (path, item) in paths {
        let real = path.replace("{span_id}", SPAN).replace("{trace_id}", TRACE);
        for method in METHODS {
            let named =
                if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
            let answer = server.send(method.clone(), &real, &[], "");
            let taken = item.get(&named).is_some();
            assert_eq!(answer.status != 405, taken, "{method} {path}: {}", answer.status);
            if let Some(operation) = item.get(&named) {
                let documented = &operation["responses"][answer.status.to_string()];
                assert!(documented.is_object(), "{method} {path} answers {} without a word", answer.status);
            }
        }
    }
}

#[test]
fn the_document_is_served_as_it_was_written() {
    let server = Server::start();
    let answer = server.get("/api/v1/openapi.yaml");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/yaml"));
    assert!(answer.text().starts_with("openapi: 3.1.0\n"));
}

#[test]
fn what_must_be_there_is_there() {
    let server = Server::start();
    server.pushed(checkout());
    let document = server.get("/api/v1/openapi.json").json();
    let required = |name: &str| -> Vec<String> {
        let fields = document["components"]["schemas"][name]["required"].as_array().expect("required fields");
        let mut fields: Vec<String> =
            fields.iter().map(|field| field.as_str().expect("a name").to_owned()).collect();
        fields.sort();
        fields
    };
    let fields = |value: &Value| -> Vec<String> {
        let mut fields: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        fields.sort();
        fields
    };
    let span = server.get(&format!("/api/v1/spans/{SPAN}")).json();
    assert_eq!(fields(&span), required("Span"));
    assert_eq!(fields(&span["series"][0]), required("Series"));
    assert_eq!(fields(&span["profileTypes"][0]), required("ProfileType"));
    let trace = server.get(&format!("/api/v1/traces/{TRACE}")).json();
    assert_eq!(fields(&trace), required("Trace"));
    assert_eq!(fields(&trace["spans"][0]), required("TraceSpan"));
    let list = server.get("/api/v1/spans").json();
    assert_eq!(fields(&list), required("SpanList"));
    assert_eq!(fields(&list["spans"][0]), required("ListedSpan"));
    assert_eq!(fields(&server.get(&format!("/api/v1/explain?span={SPAN}")).json()), required("Explanation"));
    let table = server.get(&format!("/api/v1/spans/{SPAN}/profile?format=json")).json();
    assert_eq!(fields(&table), required("Nodes"));
}

/// The commands of the manual: their method, path and body.
fn commands() -> Vec<(Method, String, String)> {
    const MANUAL: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md"));
    let between = |text: &str, open: &str, close: char| -> Option<String> {
        let (_, rest) = text.split_once(open)?;
        Some(rest.split_once(close)?.0.to_owned())
    };
    let command = |line: &str| {
        let mut path = between(line, "\"$server", '"').unwrap_or_else(|| panic!("no address in {line}"));
        if let Some(field) = between(line, "--data-urlencode '", '\'') {
            let (name, value) = field.split_once('=').expect("name=value");
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            path.push_str(&format!("&{name}={value}"));
        }
        match between(line, "--json '", '\'') {
            Some(body) => (Method::POST, path, body),
            None => (Method::GET, path, String::new()),
        }
    };
    MANUAL.lines().filter(|line| line.starts_with("curl ")).map(command).collect()
}

#[test]
fn the_commands_of_the_manual_work() {
    let server = Server::start();
    server.pushed(checkout());
    let commands = commands();
    assert!(commands.len() > 12, "{commands:?}");
    for (method, path, body) in commands {
        let headers = [("content-type", "application/json")];
        let answer = server.send(method, &path, &headers, body);
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
    }
}
