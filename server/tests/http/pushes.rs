//! Pushes that can be told apart afterwards: each has a span of its own, and all come to a sum.

use bytes::Bytes;
use serde_json::Value;

use crate::support::{Answer, CPU, PUSH, Sample, Server, cpu_profile, push_body, service};

/// Samples of a push beside that of its span, each of a stack trace of its own: they fill the memory for new profiles, so
/// that a dozen pushes become a segment.
const BALLAST: u64 = 60;
/// Of each sample.
const NANOS: i64 = 10_000_000;
/// As little memory as there may be, and segments as often.
pub(crate) const ARGS: [&str; 5] = [
    "--log=error",
    "--max-head-bytes=1048576",
    "--flush-bytes=1048576",
    "--flush-after-ms=1000",
    "--compaction-cpu-percent=100",
];

/// Pushes a span of its own; none if the server went away before it answered.
pub(crate) fn push(server: &Server, span: u64) -> Option<Answer> {
    let id = format!("{span:016x}");
    let begun = 1_767_225_600_000 + span as i64;
    let names: Vec<String> = (0..BALLAST).map(|number| noise(span * BALLAST + number)).collect();
    let stacks: Vec<[&str; 2]> = names.iter().map(|name| ["main", name.as_str()]).collect();
    let ids = [("span_id", id.as_str())];
    let mut samples: Vec<Sample<'_>> = vec![(&["main", "work"], NANOS, &ids)];
    samples.extend(stacks.iter().map(|stack| (stack.as_slice(), NANOS, &[] as &[_])));
    let body = push_body(vec![service("crash", &cpu_profile(begun, &samples))]);
    server.try_post(PUSH, &[("content-type", "application/proto")], Bytes::from(body))
}

/// A name that no other push has, and that hardly gets smaller by compressing it.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut name = String::from("idle_");
    for _ in 0..16 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        name += &format!("{state:016x}");
    }
    name
}

/// Whether a span is there; then it is there once.
pub(crate) fn is_there(server: &Server, span: u64) -> bool {
    let answer = server.get(&format!("/api/v1/spans/{span:016x}"));
    if answer.status == 404 {
        return false;
    }
    assert_eq!(answer.json()["cpuNanos"], NANOS, "span {span}");
    true
}

/// How many pushes the sum over the series and all time comes to.
pub(crate) fn by_series(server: &Server) -> u64 {
    let answer = server.query("SelectMergeStacktraces", all());
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    let total = match &answer.json()["flamegraph"]["total"] {
        Value::Null => 0,
        total => total.as_str().expect("a number as text").parse::<u64>().expect("a number"),
    };
    let each = (BALLAST + 1) * NANOS as u64;
    assert_eq!(total % each, 0, "a push is there whole or not at all");
    total / each
}

/// The question for the sum of all pushes.
pub(crate) fn all() -> String {
    let selector = r#"{service_name=\"crash\"}"#;
    format!(
        r#"{{"profileTypeID":"{CPU}","labelSelector":"{selector}","start":"1767225600000","end":"1767312000000"}}"#
    )
}
