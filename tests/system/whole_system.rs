//! From a request to the flame graph of its span: the axum example under concurrent requests, and every answer checked
//! against the samples that went over the wire.

use std::collections::{BTreeMap, BTreeSet};

use spanflame_tests::collector::Span;
use spanflame_tests::flame::Tree;
use spanflame_tests::grafana::{CPU, Call, Grafana, Query};
use spanflame_tests::http::get;
use spanflame_tests::pprof::Sample;
use spanflame_tests::process::Process;
use spanflame_tests::until;

use crate::house::{
    Burn, House, assert_samples_are_in_their_spans, assert_shares, family, is_within, local_root, own,
};

const CHECKOUT: [Burn; 5] = [
    Burn { span: "GET /checkout", function: "authorize_customer", milliseconds: 30 },
    Burn { span: "price cart", function: "price_cart", milliseconds: 120 },
    Burn { span: "verify payment", function: "verify_payment", milliseconds: 240 },
    Burn { span: "reserve stock", function: "reserve_stock", milliseconds: 60 },
    Burn { span: "render receipt", function: "render_receipt", milliseconds: 60 },
];
const CHECKOUT_QUERY: &str = "authorize_ms=30&price_ms=120&verify_ms=240&stock_ms=60&render_ms=60";

const SEARCH: [Burn; 2] = [
    Burn { span: "GET /search", function: "parse_query", milliseconds: 20 },
    Burn { span: "rank products", function: "rank_products", milliseconds: 120 },
];
const SEARCH_QUERY: &str = "parse_ms=20&rank_ms=120";

const PROBE: &str = "probe_dependencies";

/// How many clients call at the same time, and what each calls.
const CLIENTS: u32 = 5;
const CHECKOUTS: u32 = 3;
const SEARCHES: u32 = 2;
const PROBES: u32 = 1;

/// So many samples are expected where none at all is a chance of less than one in a million.
const SURE: f64 = 14.0;

#[test]
fn a_span_of_a_real_service_becomes_its_flame_graph() {
    let house = House::open();
    let mut command = house.example("example-axum-tracing");
    let service = Process::start(command.args(["--listen", "127.0.0.1:0"]).env("SPANFLAME_FREQUENCY", "200"));
    let address = service.address();
    // The bridge tags local roots alone until it has heard that the server adds up spans by itself, and the first profile
    // takes longer than others, as all symbols are new.
    until("a child span with a profile of its own", || {
        call(&address, "/search");
        let spans = house.collector.spans();
        let tagged = |id: &str| spans.iter().any(|span| span.span_id == id && span.parent.is_some());
        house.samples().iter().filter_map(Sample::span_id).any(tagged).then_some(())
    });
    let Driven { traces, probes } = drive(&address);
    // All spans exported, all profiles pushed and acknowledged.
    service.terminate();

    let all = house.samples();
    let (spans, warm_up): (BTreeMap<_, _>, BTreeMap<_, _>) =
        house.spans().into_iter().partition(|(_, span)| traces.contains(&span.trace_id));
    let of_warm_up = |sample: &&Sample| sample.span_id().is_some_and(|id| warm_up.contains_key(id));
    let samples: Vec<Sample> = all.iter().filter(|sample| !of_warm_up(sample)).cloned().collect();
    let burns: Vec<Burn> = CHECKOUT.into_iter().chain(SEARCH).collect();

    assert_tagged(&spans);
    assert_samples_are_in_their_spans(&spans, &burns, &samples);
    let shares: Vec<_> = burns.iter().map(|burn| (*burn, CLIENTS * times(burn.span))).collect();
    assert_shares(&shares, &spans, &samples);

    let grafana = Grafana::new(&house.address);
    assert!(grafana.works(), "save & test");
    assert_graphs(&grafana, &spans, &burns, &samples);
    assert_wider_questions(&grafana, &spans, &all);
    assert_rest(&house.address, &spans, &samples);
    assert_untagged(&house.address, &grafana, &spans, &probes, &samples);
}

/// The requests that were made.
#[derive(Default)]
struct Driven {
    /// The trace ids of those that are sampled.
    traces: BTreeSet<String>,
    /// The span ids of those that are not.
    probes: BTreeSet<String>,
}

/// One request: its trace id and its span id.
fn call(address: &str, path: &str) -> (String, String) {
    let answer = get(&format!("{address}{path}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let handled = answer.json();
    let id = |name: &str| handled[name].as_str().expect("the service says which span it was").to_owned();
    (id("traceId"), id("spanId"))
}

/// Calls every route from several clients at once.
fn drive(address: &str) -> Driven {
    let client = || {
        let mut driven = Driven::default();
        for round in 0..CHECKOUTS.max(SEARCHES).max(PROBES) {
            if round < CHECKOUTS {
                driven.traces.insert(call(address, &format!("/checkout?{CHECKOUT_QUERY}")).0);
            }
            if round < SEARCHES {
                driven.traces.insert(call(address, &format!("/search?{SEARCH_QUERY}")).0);
            }
            if round < PROBES {
                driven.probes.insert(call(address, "/health?probe_ms=60").1);
            }
        }
        driven
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let mut all = Driven::default();
        for client in clients {
            let driven = client.join().expect("every request is answered");
            all.traces.extend(driven.traces);
            all.probes.extend(driven.probes);
        }
        all
    })
}

/// How often each client makes a span of that name.
fn times(span: &str) -> u32 {
    if SEARCH.iter().any(|burn| burn.span == span) { SEARCHES } else { CHECKOUTS }
}

/// Every exported span says that it has a profile under its own id, and there are just the spans that were asked for.
fn assert_tagged(spans: &BTreeMap<String, Span>) {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for span in spans.values() {
        assert_eq!(span.profile_id(), Some(span.span_id.as_str()), "{span:?}");
        assert_eq!(span.resource.get("service.name").map(String::as_str), Some("checkout"));
        assert_eq!(span.resource.get("service.namespace").map(String::as_str), Some("shop"));
        *counts.entry(&span.name).or_default() += 1;
    }
    let expected: BTreeMap<&str, u32> = CHECKOUT
        .iter()
        .map(|burn| (burn.span, CLIENTS * CHECKOUTS))
        .chain(SEARCH.iter().map(|burn| (burn.span, CLIENTS * SEARCHES)))
        .collect();
    assert_eq!(counts, expected);
}

/// What Grafana gets for each span, by both calls, is exactly what was sampled in the span and its descendants.
fn assert_graphs(grafana: &Grafana, spans: &BTreeMap<String, Span>, burns: &[Burn], samples: &[Sample]) {
    let burned: u32 = burns.iter().map(|burn| burn.milliseconds * CLIENTS * times(burn.span)).sum();
    let taken: i64 = samples.iter().filter(|sample| sample.span_id().is_some()).map(Sample::count).sum();
    let per_millisecond = taken as f64 / f64::from(burned);
    let mut in_function: BTreeMap<&str, i64> = BTreeMap::new();

    for span in spans.values() {
        let graph = grafana.flame_graph(Call::Span, Query::embedded(span)).expect("an answer");
        for (call, query) in [
            (Call::Stacktraces, Query::embedded(span)),
            (Call::Span, Query::button(span)),
            (Call::Stacktraces, Query::button(span)),
        ] {
            let same = grafana.flame_graph(call, query).expect("an answer");
            assert_eq!(same.bytes, graph.bytes, "{call:?} for {span:?}");
        }

        assert_eq!(graph.tree, Tree::of_samples(family(samples, spans, span)), "{span:?}");

        for burn in burns {
            let burned = graph.tree.within(burn.function);
            let of_family =
                spans.values().any(|other| other.name == burn.span && is_within(spans, other, &span.span_id));
            assert!(of_family || burned == 0, "{} is in the flame graph of {span:?}", burn.function);
            if burn.span == span.name {
                let expected = f64::from(burn.milliseconds) * per_millisecond;
                assert!(
                    burned > 0 || expected < SURE,
                    "{} is not in the flame graph, {expected:.1} samples expected: {span:?}\n{:#?}",
                    burn.function,
                    graph.tree
                );
                *in_function.entry(burn.span).or_default() += burned;
            }
        }
    }
    for burn in burns {
        let of_span = samples.iter().filter(|sample| {
            sample.span_id().and_then(|id| spans.get(id)).is_some_and(|span| span.name == burn.span)
        });
        let (total, part) = (of_span.map(Sample::cpu).sum::<i64>() as f64, in_function[burn.span] as f64);
        eprintln!("{:>16}: {:.1} % of it in {}", burn.span, 100.0 * part / total, burn.function);
        let expected = f64::from(burn.milliseconds * CLIENTS * times(burn.span)) * per_millisecond;
        assert!(total > 0.0 || expected < SURE, "no sample of any {:?}, {expected:.1} expected", burn.span);
        // A request's own span also reads the request, starts the others and writes the answer.
        let least = if burn.span.starts_with("GET") { 0.5 } else { 0.9 };
        assert!(part >= least * total, "{} is {part} ns of the {total} ns of {:?}", burn.function, burn.span);
    }
}

/// Whole traces, the whole service, and times when there was nothing.
fn assert_wider_questions(grafana: &Grafana, spans: &BTreeMap<String, Span>, samples: &[Sample]) {
    let all: Vec<Span> = spans.values().cloned().collect();
    let everything = || Query::everything(&all, 30_000);

    let service = grafana.flame_graph(Call::Stacktraces, everything()).expect("an answer");
    assert_eq!(service.tree, Tree::of_samples(samples), "without a span, all samples of the service");
    assert!(service.tree.within(PROBE) > 0, "what no span burned is there, too");

    for root in spans.values().filter(|span| span.parent.is_none()) {
        let trace = Query { traces: vec![root.trace_id.clone()], ..everything() };
        let trace = grafana.flame_graph(Call::Stacktraces, trace).expect("an answer");
        let of_root = grafana.flame_graph(Call::Stacktraces, Query::embedded(root)).expect("an answer");
        assert_eq!(trace.bytes, of_root.bytes, "a trace is what its root and all below it burned: {root:?}");
    }

    let root = all.iter().find(|span| span.parent.is_none()).expect("there are roots");
    let hour = 3_600_000;
    let query = Query::embedded(root);
    let before = Query { start: query.start - hour, end: query.end - hour, ..query.clone() };
    let elsewhere = Query { selector: query.selector.replace("checkout", "elsewhere"), ..query };
    for nothing in [before, elsewhere] {
        let graph = grafana.flame_graph(Call::Span, nothing.clone()).expect("an answer");
        assert_eq!(graph.tree.total(), 0, "{nothing:?}");
    }

    let types = grafana.profile_types(root_milliseconds(root) - hour, root_milliseconds(root) + hour);
    assert!(
        types.expect("an answer").contains(&CPU.to_owned()),
        "the type that the data source is set up with"
    );
}

fn root_milliseconds(span: &Span) -> i64 {
    i64::try_from(span.start / 1_000_000).expect("a time of our era")
}

/// The server's own interface knows the same.
fn assert_rest(address: &str, spans: &BTreeMap<String, Span>, samples: &[Sample]) {
    for span in spans.values().filter(|span| own(samples, &span.span_id).next().is_some()) {
        let answer = get(&format!("{address}/api/v1/spans/{}", span.span_id));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let summary = answer.json();
        assert_eq!(summary["spanId"], span.span_id.as_str());
        assert_eq!(summary["traceId"], span.trace_id.as_str());
        assert_eq!(summary["parentSpanId"].as_str(), span.parent.as_deref());
        assert_eq!(summary["localRootSpanId"], local_root(spans, span).span_id.as_str());
        assert_eq!(summary["service"], "checkout");
        assert_eq!(summary["name"], span.name.as_str());
        assert_eq!(summary["labels"]["service_namespace"], "shop");

        let cpu: i64 = family(samples, spans, span).map(Sample::cpu).sum();
        let count: i64 = family(samples, spans, span).map(Sample::count).sum();
        assert_eq!(summary["cpuNanos"], cpu, "{summary}");
        assert_eq!(summary["samples"], count, "{summary}");

        let profile = get(&format!("{address}/api/v1/spans/{}/profile", span.span_id)).json();
        assert_eq!(profile["flamegraph"]["total"], cpu.to_string().as_str());
    }

    for root in spans.values().filter(|span| span.parent.is_none()) {
        let list = get(&format!("{address}/api/v1/spans?traceId={}", root.trace_id)).json();
        let listed: BTreeMap<&str, i64> = list["spans"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| (row["spanId"].as_str().expect("an id"), row["cpuNanos"].as_i64().expect("a number")))
            .collect();
        let of_trace = spans.values().filter(|span| span.trace_id == root.trace_id);
        let expected: BTreeMap<&str, i64> = of_trace
            .map(|span| (span.span_id.as_str(), own(samples, &span.span_id).map(Sample::cpu).sum()))
            .filter(|(_, cpu)| *cpu > 0)
            .collect();
        assert_eq!(listed, expected, "the spans of a trace, each with its own CPU time");
    }

    let bad = get(&format!("{address}/api/v1/spans/abc"));
    assert_eq!((bad.status, bad.json()["reason"].as_str()), (400, Some("bad_span_id")));
}

/// A span that is not sampled carries no id and has no profile, although what it burned was sampled.
fn assert_untagged(
    address: &str,
    grafana: &Grafana,
    spans: &BTreeMap<String, Span>,
    probes: &BTreeSet<String>,
    samples: &[Sample],
) {
    assert_eq!(probes.len(), (CLIENTS * PROBES) as usize);
    let mut probing = samples.iter().filter(|sample| sample.runs(PROBE)).peekable();
    assert!(probing.peek().is_some(), "the probes were sampled");
    assert!(probing.all(|sample| sample.span_id().is_none()), "what probes burn belongs to no span");

    let any = spans.values().next().expect("there are spans");
    for probe in probes {
        assert!(!spans.contains_key(probe), "a probe's span was exported");
        let query =
            Query { spans: vec![probe.clone()], ..Query::everything(std::slice::from_ref(any), 60_000) };
        let graph = grafana.flame_graph(Call::Span, query).expect("an empty answer, and no error");
        assert_eq!(graph.tree, Tree::of_samples(&[]));

        let unknown = get(&format!("{address}/api/v1/spans/{probe}"));
        assert_eq!(unknown.status, 404, "{}", unknown.text());
        assert_eq!(unknown.json()["reason"], "unknown_span");
    }
}
