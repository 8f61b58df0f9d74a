//! OpenTelemetry traces in, as messages of OpenTelemetry's own Rust crate, and what is answered from them.

use bytes::Bytes;
use http::Method;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message as _;
use serde_json::json;
use spanflame_wire::google::v1 as pprof;

use crate::support::{Answer, SPAN, Server, TRACE, cpu_profile, grpc_frame, gzip, service};

const PATH: &str = "/v1/traces";
const RPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const START: i64 = 1_767_225_600_000;
const CHILD: &str = "00000000000000c1";
const QUIET: &str = "00000000000000c3";

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

/// A span that began so many milliseconds after [`START`] and lasted so many.
fn span(id: &str, parent: &str, name: &str, at_ms: i64, ms: i64) -> Span {
    let nanos = |ms: i64| ((START + ms) * 1_000_000) as u64;
    Span {
        trace_id: hex(TRACE),
        span_id: hex(id),
        parent_span_id: hex(parent),
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: nanos(at_ms),
        end_time_unix_nano: nanos(at_ms + ms),
        ..Default::default()
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attributes = vec![attribute("service.name", text("checkout")), attribute("host.name", text("north"))];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { spans, ..Default::default() }],
            ..Default::default()
        }],
    }
}

/// A request of 120 ms with a child of 80 ms, and one that failed and took no CPU time.
fn trace() -> ExportTraceServiceRequest {
    let root = Span {
        attributes: vec![attribute("http.status", Value::IntValue(200)), attribute("user", text("ada"))],
        events: vec![span::Event {
            time_unix_nano: (START as u64 + 5) * 1_000_000,
            name: "cache miss".to_owned(),
            ..Default::default()
        }],
        ..span(SPAN, "", "GET /pay", 0, 120)
    };
    let failed = Status { code: 2, message: "no such card".to_owned() };
    let quiet = Span { status: Some(failed), ..span(QUIET, SPAN, "look up", 5, 10) };
    request(vec![root, span(CHILD, SPAN, "charge", 20, 80), quiet])
}

/// Samples of the root and of the child.
fn profile() -> pprof::Profile {
    let root =
        [("span_id", SPAN), ("trace_id", TRACE), ("span_name", "GET /pay"), ("local_root_span_id", SPAN)];
    let child = [
        ("span_id", CHILD),
        ("trace_id", TRACE),
        ("span_name", "charge"),
        ("parent_span_id", SPAN),
        ("local_root_span_id", SPAN),
    ];
    cpu_profile(
        START,
        &[
            (&["handler"], 10_000_000, &root),
            (&["handler", "hash"], 30_000_000, &child),
            (&["idle"], 20_000_000, &[]),
        ],
    )
}

#[track_caller]
fn taken(answer: &Answer, body: &[u8]) {
    assert_eq!((answer.status, &answer.body[..]), (200, body), "{:?}", answer.body);
}

#[track_caller]
fn has_trace(server: &Server) {
    let answer = server.get(&format!("/api/v1/traces/{TRACE}"));
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(answer.json()["spanCount"], 3, "{}", answer.text());
}

#[test]
fn a_trace_comes_in_by_every_way_and_survives_a_kill() {
    let body = trace().encode_to_vec();
    let ways: [&dyn Fn(&Server); 3] = [
        &|server| taken(&server.send(Method::POST, PATH, &[PROTO], body.clone()), b""),
        &|server| {
            let headers = [PROTO, ("content-encoding", "gzip")];
            taken(&server.send(Method::POST, PATH, &headers, gzip(&body)), b"");
        },
        &|server| {
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            let answer = server.send_h2c(RPC, &headers, grpc_frame(&body));
            assert_eq!(answer.trailer("grpc-status"), "0", "{:?}", answer.body);
            taken(&answer, &grpc_frame(b""));
        },
    ];
    for send in ways {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Server::on(dir.path(), &[]);
        send(&server);
        has_trace(&server);
        server.kill();
        has_trace(&Server::on(dir.path(), &[]));
    }
}

#[test]
fn json_has_ids_in_hexadecimal_and_is_answered_in_json() {
    let server = Server::start();
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "checkout" } }] },
        "scopeSpans": [{ "scope": { "name": "shop" }, "spans": [
            { "traceId": TRACE, "spanId": SPAN, "name": "GET /pay", "kind": 2, "startTimeUnixNano": "1767225600000000000",
              "endTimeUnixNano": 1_767_225_600_120_000_000_u64, "status": { "code": 2 }, "notYetInvented": [1],
              "links": [{ "traceId": TRACE, "spanId": CHILD }],
              "attributes": [{ "key": "tags", "value": { "arrayValue": { "values": [{ "intValue": "7" }] } } }] },
            { "traceId": TRACE, "spanId": "c1", "name": "bad id" },
            { "traceId": TRACE, "spanId": CHILD, "parentSpanId": SPAN, "name": "charge", "kind": "SPAN_KIND_CLIENT",
              "startTimeUnixNano": "1767225600020000000", "endTimeUnixNano": "1767225600100000000" },
        ] }],
    }] });
    let answer = server.send(Method::POST, PATH, &[JSON], body.to_string());
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let said = answer.json();
    assert_eq!(said["partialSuccess"]["rejectedSpans"], "1", "{said}");
    let message = said["partialSuccess"]["errorMessage"].as_str().expect("a message");
    assert!(
        message.starts_with("1 of 3 spans refused, the others are stored; resource_spans[0].scope_spans[0].spans[1]: span_id: "),
        "{message}"
    );
    let trace = server.get(&format!("/api/v1/traces/{TRACE}")).json();
    assert_eq!(trace["spans"][0]["traced"]["attributes"], json!({ "tags": [7] }), "{trace}");
    assert_eq!(trace["spans"][0]["traced"]["links"][0]["spanId"], CHILD, "{trace}");
    assert_eq!(
        (&trace["spans"][1]["depth"], &trace["spans"][1]["traced"]["kind"]),
        (&json!(1), &json!("client"))
    );
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_refusals_total{reason=\"invalid_span\"} 1\n",
        "spanflame_traces_spans_total 2\n",
        "spanflame_traces_accepts_writes 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[test]
fn what_holds_nothing_good_is_refused_with_its_reason() {
    let server = Server::with_args(&["--max-spans-per-push=2", "--max-attributes-per-span=1"]);
    let post = |headers: &[(&str, &str)], body: Vec<u8>| server.send(Method::POST, PATH, headers, body);
    let message = post(&[PROTO], b"\xff\xff\xff".to_vec()).refused(400, "invalid_argument");
    assert!(message.starts_with("body: is no export of traces"), "{message}");
    let message = post(&[JSON], b"{".to_vec()).refused(400, "invalid_argument");
    assert!(message.contains("line 1 column"), "{message}");
    post(&[("content-type", "text/plain")], Vec::new()).refused(415, "invalid_argument");
    let late = request(vec![Span { start_time_unix_nano: 0, ..span(SPAN, "", "GET /pay", 0, 1) }]);
    let message = post(&[PROTO], late.encode_to_vec()).refused(400, "invalid_argument");
    assert!(message.starts_with("1 of 1 spans refused; "), "{message}");
    server.get(PATH).refused(405, "unimplemented");
    taken(&post(&[PROTO], Vec::new()), b"");

    let answer = post(&[PROTO], trace().encode_to_vec());
    let said = ExportTraceServiceResponse::decode(&answer.body[..]).expect("a response");
    let partial = said.partial_success.expect("one was too many");
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("max_spans_per_push"), "{}", partial.error_message);
    let trace = server.get(&format!("/api/v1/traces/{TRACE}")).json();
    assert_eq!(trace["spans"][0]["traced"]["dropped"]["attributes"], 1, "{trace}");
    let metrics = server.get("/metrics");
    for line in [
        "spanflame_refusals_total{reason=\"max_spans_per_push\"} 1\n",
        "spanflame_traces_dropped_total{part=\"attributes\"} 3\n",
    ] {
        assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
    }
}

#[test]
fn traces_need_the_rights_that_profiles_need() {
    let tokens = "[tokens.writer]\ntoken = \"a-token-that-may-only-write\"\nwrite = true\n\
                  [tokens.reader]\ntoken = \"a-token-that-may-only-read\"\nread = true\n";
    let server = Server::with_file(tokens, &[]);
    let body = trace().encode_to_vec();
    server.send(Method::POST, PATH, &[PROTO], body.clone()).refused(401, "unauthenticated");
    let reader = ("authorization", "Bearer a-token-that-may-only-read");
    let writer = ("authorization", "Bearer a-token-that-may-only-write");
    server.send(Method::POST, PATH, &[PROTO, reader], body.clone()).refused(403, "permission_denied");
    taken(&server.send(Method::POST, PATH, &[PROTO, writer], body), b"");
    let path = format!("/api/v1/traces/{TRACE}");
    server.send(Method::GET, &path, &[writer], Bytes::new()).refused(403, "permission_denied");
    assert_eq!(server.send(Method::GET, &path, &[reader], Bytes::new()).status, 200);
}

#[test]
fn tenants_do_not_see_each_others_traces() {
    let server = Server::with_args(&["--multi-tenant"]);
    let of = |tenant: &'static str| ("x-scope-orgid", tenant);
    let body = trace().encode_to_vec();
    server.send(Method::POST, PATH, &[PROTO], body.clone()).refused(401, "unauthenticated");
    taken(&server.send(Method::POST, PATH, &[PROTO, of("a")], body), b"");
    let status = |tenant| {
        server.send(Method::GET, &format!("/api/v1/traces/{TRACE}"), &[of(tenant)], Bytes::new()).status
    };
    assert_eq!((status("a"), status("b"), status("a|b")), (200, 404, 200));
    let found = |tenant| {
        server.send(Method::GET, "/api/v1/traces", &[of(tenant)], Bytes::new()).json()["traces"]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!((found("a"), found("b")), (Some(1), Some(0)));
}

#[test]
fn other_ports_answer_as_the_main_one_does() {
    let server = Server::with_args(&["--otlp-http-listen=127.0.0.1:0", "--otlp-grpc-listen=127.0.0.1:0"]);
    let line = server.logged("listening for OpenTelemetry's senders too");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.expect("the line tells the address");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let body = trace().encode_to_vec();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut stream, &[head.as_bytes(), &body].concat()).expect("it reads");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    has_trace(&server);
}

#[test]
fn spans_are_told_with_their_cpu_time_and_without() {
    let server = Server::start();
    taken(&server.send(Method::POST, PATH, &[PROTO], trace().encode_to_vec()), b"");
    let bare = server.get(&format!("/api/v1/traces/{TRACE}")).json();
    assert_eq!((&bare["samples"], &bare["from"]), (&json!(0), &json!(START)), "{bare}");
    server.pushed(vec![service("checkout", &profile())]);

    let trace = server.get(&format!("/api/v1/traces/{TRACE}")).json();
    let facts = &trace["traced"];
    assert_eq!((&facts["start"], &facts["durationNanos"]), (&json!(START as f64), &json!(120_000_000)));
    assert_eq!((&facts["spanCount"], &facts["errorCount"]), (&json!(3), &json!(1)));
    let spans = trace["spans"].as_array().expect("spans");
    let told: Vec<_> = spans
        .iter()
        .map(|span| (&span["name"], &span["depth"], &span["cpuNanos"], &span["traced"]["durationNanos"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("GET /pay"), &json!(0), &json!(10_000_000), &json!(120_000_000)),
            (&json!("look up"), &json!(1), &json!(0), &json!(10_000_000)),
            (&json!("charge"), &json!(1), &json!(30_000_000), &json!(80_000_000)),
        ],
        "in the order in which they began"
    );
    assert_eq!(spans[0]["totalCpuNanos"], 40_000_000);
    assert_eq!(spans[0]["traced"]["attributes"], json!({ "http.status": 200, "user": "ada" }));
    assert_eq!(spans[0]["traced"]["events"][0]["name"], "cache miss");
    assert_eq!(
        (&spans[1]["traced"]["status"], &spans[1]["traced"]["statusMessage"]),
        (&json!("error"), &json!("no such card"))
    );

    let span = server.get(&format!("/api/v1/spans/{CHILD}")).json();
    assert_eq!(
        (&span["traced"]["durationNanos"], &span["traced"]["status"]),
        (&json!(80_000_000), &json!("unset"))
    );
    assert_eq!(span["traced"]["resource"], json!({ "service.name": "checkout", "host.name": "north" }));
    let quiet = server.get(&format!("/api/v1/spans/{QUIET}"));
    assert_eq!(quiet.status, 404);
    let quiet = quiet.json();
    assert_eq!(
        (&quiet["reason"], &quiet["name"], &quiet["traceId"]),
        (&json!("unknown_span"), &json!("look up"), &json!(TRACE))
    );
    assert_eq!(quiet["traced"]["status"], "error");
}

#[test]
fn traces_are_found_by_what_their_spans_say() {
    let server = Server::start();
    server.pushed(vec![service("checkout", &profile())]);
    assert_eq!(server.get("/api/v1/traces").json(), json!({ "traces": [], "next": null, "known": false }));
    let mut body = trace();
    let other = Span { trace_id: vec![9; 16], span_id: vec![9; 8], ..span(SPAN, "", "GET /cart", 1000, 3) };
    body.resource_spans[0].scope_spans[0].spans.push(other);
    taken(&server.send(Method::POST, PATH, &[PROTO], body.encode_to_vec()), b"");
    let found = |query: &str| {
        let answer = server.get(&format!("/api/v1/traces?{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let found = answer.json();
        let name = |trace: &serde_json::Value| trace["matched"]["name"].as_str().expect("a name").to_owned();
        found["traces"].as_array().expect("traces").iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(found(""), ["GET /cart", "charge"]);
    assert_eq!(found("service=checkout&name=GET%20/pay"), ["GET /pay"]);
    assert_eq!(found("service=other"), Vec::<String>::new());
    assert_eq!(found("minDuration=100ms"), ["GET /pay"]);
    assert_eq!(found("maxDuration=5ms"), ["GET /cart"]);
    assert_eq!(found("status=error"), ["look up"]);
    assert_eq!(found("attribute=user%3Dada&attribute=http.status%3D200"), ["GET /pay"]);
    assert_eq!(found("attribute=user%3Dbob"), Vec::<String>::new());
    assert_eq!(found("attribute=host.name%3Dnorth&name=charge"), ["charge"]);
    assert_eq!(found(&format!("from={}", START + 500)), ["GET /cart"]);
    assert_eq!(found(&format!("until={}", START + 10)), ["look up"]);

    let page = server.get("/api/v1/traces?limit=1").json();
    let next = page["next"].as_str().expect("there is more");
    let row = server.get(&format!("/api/v1/traces?limit=1&after={next}")).json();
    assert_eq!(row["next"], json!(null));
    let row = &row["traces"][0];
    assert_eq!(
        (&row["name"], &row["service"], &row["traceId"]),
        (&json!("GET /pay"), &json!("checkout"), &json!(TRACE))
    );
    assert_eq!(
        (&row["durationNanos"], &row["spanCount"], &row["errorCount"]),
        (&json!(120_000_000), &json!(3), &json!(1))
    );
    assert_eq!(
        (&row["cpuNanos"], &row["samples"], &row["matchCount"]),
        (&json!(40_000_000), &json!(4), &json!(3))
    );

    for (query, said) in [
        ("status=bad", "status: expected unset, ok or error"),
        ("minDuration=1x", "minDuration: expected a duration such as 250ms"),
        ("minDuration=2s&maxDuration=1s", "minDuration, maxDuration: "),
        ("attribute=x", "attribute: expected key=value"),
        ("after=x", "after: expected what `next` was"),
        ("limit=1001", "limit: expected 0 to 1000"),
        ("nonsense=1", "query: "),
        ("service=a&service=b", "query: "),
        ("from=2&until=1", "from, until: "),
    ] {
        let message = server.get(&format!("/api/v1/traces?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(said), "{query}: {message}");
    }
}

#[test]
fn operations_have_their_durations_beside_their_cpu_time() {
    let server = Server::start();
    server.pushed(vec![service("checkout", &profile())]);
    let before = server.get("/api/v1/operations").json();
    assert_eq!((&before["cpuNanos"], &before["tracesKnown"]), (&json!(60_000_000), &json!(false)));
    assert_eq!(
        before["operations"][0],
        json!({ "service": "checkout", "name": "charge", "cpuNanos": 30_000_000, "samples": 3, "share": 0.5,
                "sampledSpans": 1, "cpuNanosPerRequest": 30_000_000.0, "traced": null })
    );
    assert_eq!(
        before["services"],
        json!([{ "service": "checkout", "cpuNanos": 60_000_000, "samples": 6, "share": 1.0,
                 "outsideCpuNanos": 20_000_000, "outsideSamples": 2 }])
    );
    let mut body = trace();
    let faster = Span { span_id: vec![8; 8], ..span(CHILD, SPAN, "charge", 30, 40) };
    body.resource_spans[0].scope_spans[0].spans.push(faster);
    taken(&server.send(Method::POST, PATH, &[PROTO], body.encode_to_vec()), b"");
    let after = server.get("/api/v1/operations?service=checkout").json();
    let names: Vec<_> = after["operations"].as_array().expect("them").iter().map(|of| &of["name"]).collect();
    assert_eq!(names, ["charge", "GET /pay", "look up"]);
    let charge = &after["operations"][0];
    assert_eq!(charge["cpuNanosPerRequest"], 15_000_000.0, "of two requests one was sampled");
    let traced = &charge["traced"];
    assert_eq!((&traced["count"], &traced["maxNanos"]), (&json!(2), &json!(80_000_000)), "{traced}");
    let near = |name: &str, wanted: f64| {
        let got = traced[name].as_f64().expect("a number");
        assert!((got - wanted).abs() <= wanted / 100.0, "{name}: {got}");
    };
    near("p50Nanos", 4e7);
    near("p99Nanos", 8e7);
    assert_eq!(after["operations"][2]["traced"]["errorCount"], 1);
    assert_eq!(server.get("/api/v1/operations?service=else").json()["operations"], json!([]));

    let path = "/api/v1/operations/durations?service=checkout&name=charge";
    let spread = server.get(&format!("{path}&from={START}&until={}&columns=4&rows=2", START + 39)).json();
    assert_eq!(
        (&spread["count"], &spread["columns"]),
        (&json!(2), &json!([[0, 0], [0, 0], [0, 1], [1, 0]])),
        "{spread}"
    );
    let message = server.get(&format!("{path}&from=5&until=1")).refused(400, "invalid_argument");
    assert!(message.starts_with("from, until: "), "{message}");
    let message = server.get(&format!("{path}&from=1&until=5&rows=0")).refused(400, "invalid_argument");
    assert!(message.starts_with("rows: expected 1 to 200"), "{message}");
}

#[test]
fn durations_are_of_what_a_query_sees() {
    let path = format!(
        "/api/v1/operations/durations?service=checkout&name=charge&from={START}&until={}&columns=4",
        START + 39
    );
    // The spans began longer ago than an hour.
    for (args, count) in [(&["--max-query-lookback-ms=3600000"][..], 0), (&[][..], 1)] {
        let server = Server::with_args(args);
        taken(&server.send(Method::POST, PATH, &[PROTO], trace().encode_to_vec()), b"");
        let spread = server.get(&path).json();
        assert_eq!((&spread["count"], &spread["from"]), (&json!(count), &json!(START)), "{spread}");
        assert_eq!(spread["columns"].as_array().map(Vec::len), Some(4), "of the time that was asked for");
    }
}

#[test]
fn spans_under_a_function_come_with_their_time_there() {
    let server = Server::start();
    server.pushed(vec![service("checkout", &profile())]);
    let found = |query: &str| server.get(&format!("/api/v1/spans?{query}")).json();
    let all = found("function=handler");
    let told: Vec<_> = all["spans"]
        .as_array()
        .expect("spans")
        .iter()
        .map(|span| (&span["spanId"], &span["functionNanos"], &span["functionSamples"], &span["cpuNanos"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!(CHILD), &json!(30_000_000), &json!(3), &json!(30_000_000)),
            (&json!(SPAN), &json!(10_000_000), &json!(1), &json!(10_000_000)),
        ]
    );
    assert_eq!(found("function=hash")["spans"].as_array().map(Vec::len), Some(1));
    assert_eq!(found("function=idle")["spans"], json!([]), "it ran in no span");
    assert_eq!(found("function=handler&name=GET%20/pay")["spans"][0]["spanId"], SPAN);
    assert_eq!(found("function=handler&service=other")["spans"], json!([]));
    let first = found("function=handler&limit=1");
    let next = first["next"].as_str().expect("there is more");
    let second = found(&format!("function=handler&limit=1&after={next}"));
    assert_eq!((&second["spans"][0]["spanId"], &second["next"]), (&json!(SPAN), &json!(null)));
    for (query, said) in [
        ("function=", "function: expected a function's name"),
        ("function=a&sort=cpu", "sort: with function"),
        ("function=a&type=process_cpu:samples:count:cpu:nanoseconds", "type: has no meaning with function"),
        ("sort=function", "sort: expected cpu, samples, total or newest"),
    ] {
        let message = server.get(&format!("/api/v1/spans?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(said), "{query}: {message}");
    }
}

#[test]
fn any_selection_has_its_profile_in_every_format() {
    let server = Server::start();
    server.pushed(vec![service("checkout", &profile())]);
    let folded = |query: &str| {
        let answer = server.get(&format!("/api/v1/profile?format=folded&{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let mut lines: Vec<String> = answer.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(folded(""), ["handler 10000000", "handler;hash 30000000", "idle 20000000"]);
    assert_eq!(folded(&format!("spans={SPAN}&rollUp=false")), ["handler 10000000"]);
    assert_eq!(folded(&format!("spans={SPAN},{CHILD}")), ["handler 10000000", "handler;hash 30000000"]);
    assert_eq!(folded(&format!("traces={TRACE}")).len(), 2);
    assert_eq!(folded("selector=%7Bspan_name%3D%22charge%22%7D"), ["handler;hash 30000000"]);
    assert_eq!(folded("selector=%7Bservice_name%3D%22x%22%7D"), Vec::<String>::new());
    assert_eq!(folded(&format!("until={}", START - 1)), Vec::<String>::new());
    for (format, content_type) in [
        ("flamegraph", "application/json"),
        ("pprof", "application/octet-stream"),
        ("speedscope", "application/json"),
        ("svg", "image/svg+xml"),
        ("json", "application/json"),
    ] {
        let answer = server.get(&format!("/api/v1/profile?format={format}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type));
        assert!(answer.header("content-disposition").contains("filename=\"profile.cpu."), "{format}");
    }
    for (query, said) in [
        ("spans=x", "spans[0]: expected 16 hexadecimal characters"),
        ("selector=%7Bx", "selector: "),
        ("type=x", "type: "),
        ("from=2&until=1", "from, until: "),
    ] {
        let message = server.get(&format!("/api/v1/profile?{query}")).refused(400, "invalid_argument");
        assert!(message.starts_with(said), "{query}: {message}");
    }
}
