//! Profiles of spans and traces in the formats of other tools.

use std::io::Read;

use buffa::Message;
use flate2::read::GzDecoder;
use spanflame_wire::google::v1 as pprof;

use crate::support::{CPU, SPAN, Server, TRACE, checkout, cpu_profile, service};

const START: i64 = 1_767_225_600_000;

fn profile(server: &Server, query: &str) -> crate::support::Answer {
    let answer = server.get(&format!("/api/v1/spans/{SPAN}/profile?{query}"));
    assert_eq!(answer.status, 200, "{query}: {:?}", answer.body);
    answer
}

#[test]
fn each_format_has_its_type_and_a_file_name() {
    let server = Server::start();
    server.pushed(checkout());
    for (format, media_type, disposition) in [
        ("flamegraph", "application/json", "inline; filename=\"span-00f067aa0ba902b7.cpu.flamegraph.json\""),
        (
            "folded",
            "text/plain; charset=utf-8",
            "attachment; filename=\"span-00f067aa0ba902b7.cpu.folded.txt\"",
        ),
        (
            "speedscope",
            "application/json",
            "attachment; filename=\"span-00f067aa0ba902b7.cpu.speedscope.json\"",
        ),
        ("svg", "image/svg+xml", "inline; filename=\"span-00f067aa0ba902b7.cpu.svg\""),
        ("json", "application/json", "inline; filename=\"span-00f067aa0ba902b7.cpu.json\""),
    ] {
        let answer = profile(&server, &format!("format={format}"));
        assert_eq!(answer.header("content-type"), media_type);
        assert_eq!(answer.header("content-disposition"), disposition);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    }
}

#[test]
fn formats_hold_the_samples() {
    let server = Server::start();
    server.pushed(checkout());
    assert_eq!(profile(&server, "format=folded").text(), "handler 10000000\nhandler;hash 20000000\n");
    let counted = profile(&server, "format=folded&type=process_cpu:samples:count:cpu:nanoseconds");
    assert_eq!(counted.text(), "handler 1\nhandler;hash 2\n");
    let table = profile(&server, "format=json").json();
    assert_eq!(
        (&table["type"], &table["total"], &table["samples"]),
        (&CPU.into(), &30_000_000.into(), &3.into())
    );
    assert_eq!(table["nodes"][2]["name"], "hash");
    let file = profile(&server, "format=speedscope").json();
    assert_eq!(file["$schema"], "https://www.speedscope.app/file-format-schema.json");
    assert_eq!(file["profiles"][0]["endValue"], 30_000_000);
    let picture = profile(&server, "format=svg");
    assert!(picture.text().contains("30.0 ms in 3 samples"), "{}", picture.text());
    // A type that the span has no values of is nothing, in every format.
    let none = "type=memory:alloc:bytes:space:bytes";
    assert_eq!(profile(&server, &format!("{none}&format=folded")).text(), "");
    assert!(profile(&server, &format!("{none}&format=svg")).text().contains("no samples"));
    assert_eq!(profile(&server, &format!("{none}&format=json")).json()["total"], 0);
    assert_eq!(profile(&server, none).json()["flamegraph"]["names"], serde_json::json!(["total"]));
}

#[test]
fn pprof_holds_stacks_and_values() {
    let server = Server::start();
    server.pushed(checkout());
    let answer = profile(&server, "format=pprof");
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"span-00f067aa0ba902b7.cpu.pb.gz\""
    );
    let mut bytes = Vec::new();
    GzDecoder::new(&*answer.body).read_to_end(&mut bytes).expect("gzip");
    let message = pprof::Profile::decode_from_slice(&bytes).expect("a pprof");
    let text = |index: i64| message.string_table[index as usize].as_str();
    assert_eq!(
        (text(message.sample_type[0].r#type), text(message.sample_type[0].unit)),
        ("cpu", "nanoseconds")
    );
    let function = |id: u64| {
        let location = message.location.iter().find(|location| location.id == id).expect("a location");
        let line = &location.line[0];
        let function = message.function.iter().find(|f| f.id == line.function_id).expect("a function");
        text(function.name)
    };
    let mut samples: Vec<(Vec<&str>, i64)> = message
        .sample
        .iter()
        .map(|sample| (sample.location_id.iter().map(|&id| function(id)).collect(), sample.value[0]))
        .collect();
    samples.sort();
    assert_eq!(samples, [(vec!["handler"], 10_000_000), (vec!["hash", "handler"], 20_000_000)]);
    // It can be stored again.
    let labels = [("__name__", "process_cpu"), ("service_name", "again")];
    server.pushed(vec![crate::support::series(&labels, answer.body.to_vec())]);
}

#[test]
fn exports_have_all_nodes_unless_asked_for_fewer() {
    let server = Server::start();
    let names: Vec<String> = (0..9000).map(|n| format!("f{n}")).collect();
    let stacks: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
    let ids = [("span_id", SPAN)];
    let samples: Vec<crate::support::Sample<'_>> = stacks
        .iter()
        .enumerate()
        .map(|(at, stack)| (&stack[..], (at as i64 + 1) * 10_000_000, &ids[..]))
        .collect();
    server.pushed(vec![service("checkout", &cpu_profile(START, &samples))]);
    assert_eq!(profile(&server, "format=folded").text().lines().count(), 9000);
    assert_eq!(profile(&server, "format=folded&maxNodes=10").text().lines().count(), 11);
    assert_eq!(profile(&server, "format=json").json()["nodes"].as_array().map(Vec::len), Some(8194));
}

#[test]
fn hostile_names_stay_text() {
    let server = Server::start();
    let hostile = "a;b\n<script>alert(1)</script>\u{1b}]0;x\u{7}";
    let ids = [("span_id", SPAN), ("span_name", "\"><img src=x onerror=alert(1)>\r\nX-Evil: 1")];
    let profile_of = cpu_profile(START, &[(&["main", hostile], 10_000_000, &ids)]);
    server.pushed(vec![service("checkout", &profile_of)]);
    let picture = profile(&server, "format=svg");
    assert!(!picture.text().contains("<script") && !picture.text().contains("<img"), "{}", picture.text());
    assert_eq!(picture.header("x-evil"), "");
    let folded = profile(&server, "format=folded");
    assert_eq!(folded.text().lines().count(), 1);
    assert!(folded.text().starts_with("main;a:b <script>"), "{}", folded.text());
    let file = profile(&server, "format=speedscope").json();
    assert!(
        file["shared"]["frames"].as_array().is_some_and(|frames| frames.iter().any(|f| f["name"] == hostile))
    );
}

#[test]
fn descendants_belong_to_a_span_unless_it_is_asked_alone() {
    let server = Server::start();
    let child = [
        ("span_id", "00000000000000c1"),
        ("trace_id", TRACE),
        ("parent_span_id", SPAN),
        ("local_root_span_id", SPAN),
    ];
    let root = [("span_id", SPAN), ("trace_id", TRACE)];
    let profile_of =
        cpu_profile(START, &[(&["handler"], 10_000_000, &root), (&["handler", "hash"], 20_000_000, &child)]);
    server.pushed(vec![service("checkout", &profile_of)]);
    let both = "handler 10000000\nhandler;hash 20000000\n";
    assert_eq!(profile(&server, "format=folded").text(), both);
    assert_eq!(profile(&server, "format=folded&rollUp=true").text(), both);
    assert_eq!(profile(&server, "format=folded&rollUp=false").text(), "handler 10000000\n");
    let trace = server.get(&format!("/api/v1/traces/{TRACE}/profile?format=folded"));
    assert_eq!((trace.status, trace.text()), (200, both));
    assert_eq!(
        trace.header("content-disposition"),
        format!("attachment; filename=\"trace-{TRACE}.cpu.folded.txt\"")
    );
    let message =
        server.get(&format!("/api/v1/traces/{TRACE}/profile?rollUp=true")).refused(400, "invalid_argument");
    assert!(message.starts_with("rollUp: "), "{message}");
    let unknown = server.get("/api/v1/traces/00000000000000000000000000000001/profile");
    unknown.refused(404, "not_found");
    assert_eq!(unknown.json()["reason"], "unknown_span");
}
