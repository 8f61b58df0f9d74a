use std::sync::Arc;

use spanflame_wire::google::v1::ValueType;

use super::*;
use crate::model::{Labels, SpanId, TenantId, TraceId};
use crate::query::Engine;
use crate::selector::LabelSelector;
use crate::store::{Store, StoreOptions};
use crate::testing::{CPU, PprofBuilder, SAMPLES, START_MS};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MS: i64 = 10_000_000;

struct Fixture {
    engine: Engine,
    store: Arc<Store>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn of(builders: &[(PprofBuilder, &[(&str, &str)])]) -> Self {
        Self::flushed(builders, &[])
    }

    /// The same, but all that came before becomes a segment after the profiles with these numbers.
    fn flushed(builders: &[(PprofBuilder, &[(&str, &str)])], after: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
        let engine = Engine::new(Arc::clone(&store), [TenantId::anonymous()].into());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (number, (builder, labels)) in builders.iter().enumerate() {
            runtime.block_on(store.append(&TenantId::anonymous(), builder.profiles(labels))).unwrap();
            if after.contains(&number) {
                store.flush().unwrap();
            }
        }
        Self { engine, store, _dir: dir }
    }
}

fn id(number: u64) -> SpanId {
    SpanId::new(number).unwrap()
}

fn trace() -> TraceId {
    TRACE.parse().unwrap()
}

fn at(start_ms: i64, end_ms: i64) -> TimeRange {
    TimeRange::new(START_MS + start_ms, START_MS + end_ms).unwrap()
}

/// Adds as many samples of a span of [`TRACE`] as its number; a parent or local root of 0 is not told.
fn sampled(builder: PprofBuilder, span: u64, parent: u64, root: u64, name: &str) -> PprofBuilder {
    let (id, parent, root) = (id(span).to_string(), format!("#{parent}"), format!("#{root}"));
    let mut labels = vec![("span_id", &*id), ("trace_id", TRACE), ("span_name", name)];
    labels.extend(
        [("parent_span_id", &*parent), ("local_root_span_id", &*root)].iter().filter(|(_, v)| *v != "#0"),
    );
    builder.sample(&["main", name], span as i64, &labels)
}

/// In `checkout`: root 1 with children 2 and 3, 4 below 2. In `payments`: 9, whose parent is 2, with child 10.
fn family() -> Fixture {
    let checkout = [(1, 0, "GET /pay"), (2, 1, "charge"), (3, 1, "hash"), (4, 2, "sign")]
        .iter()
        .fold(PprofBuilder::new(), |builder, &(span, parent, name)| sampled(builder, span, parent, 1, name));
    let payments = sampled(PprofBuilder::new(), 9, 2, 9, "POST /charge");
    let payments = sampled(payments, 10, 9, 9, "db").at(START_MS + 10_000, 10_000);
    Fixture::of(&[(checkout, &[]), (payments, &[("service_name", "payments")])])
}

#[test]
fn a_span_names_its_series_and_its_children() {
    let engine = family().engine;
    let summary = engine.span(id(2)).unwrap().unwrap();
    assert_eq!((summary.samples, summary.own_samples), (6, 2), "other processes' work is not its own");
    assert_eq!(summary.services(), ["checkout"]);
    let children: Vec<_> = summary
        .children
        .iter()
        .map(|child| (child.span_id.get(), child.total_samples, child.service.as_deref(), child.depth))
        .collect();
    assert_eq!(children, [(9, 19, Some("payments"), 2), (4, 4, Some("checkout"), 2)]);
    let root = engine.span(id(1)).unwrap().unwrap();
    let children: Vec<_> = root.children.iter().map(|child| child.span_id.get()).collect();
    assert_eq!(children, [2, 3], "the heaviest first, those below it included");
    assert!(engine.span(id(4)).unwrap().unwrap().children.is_empty());
}

#[test]
fn a_span_that_changed_services_is_of_both() {
    let builder = || PprofBuilder::new().sample(&["a"], 3, &[("span_id", &id(1).to_string())]);
    let other = PprofBuilder::new().sample(&["a"], 5, &[("span_id", &id(1).to_string())]);
    let fixture = Fixture::of(&[
        (builder(), &[("pod", "a")]),
        (other, &[("service_name", "payments")]),
        (builder().at(START_MS + 60_000, 10_000), &[("pod", "a")]),
    ]);
    let summary = fixture.engine.span(id(1)).unwrap().unwrap();
    assert_eq!(summary.services(), ["checkout", "payments"]);
    let series: Vec<_> = summary.series.iter().map(|s| (s.labels.service(), s.samples, s.range)).collect();
    assert_eq!(series, [("checkout", 6, at(0, 70_000)), ("payments", 5, at(0, 10_000))]);
    assert_eq!(summary.labels, Labels::new([("pod", "a"), ("service_name", "checkout")]));
}

#[test]
fn a_trace_is_a_tree_across_processes() {
    let engine = family().engine;
    let found = engine.trace(trace()).unwrap().unwrap();
    assert_eq!((found.samples, found.cpu_nanos, found.range), (29, 29 * MS, at(0, 20_000)));
    assert_eq!(found.services, ["checkout", "payments"]);
    let types: Vec<_> = found.types.iter().map(|t| (t.kind.to_string(), t.total)).collect();
    assert_eq!(types, [(CPU.to_owned(), 29 * MS), (SAMPLES.to_owned(), 29)]);
    let spans: Vec<_> =
        found.spans.iter().map(|s| (s.span_id.get(), s.depth, s.samples, s.total_samples)).collect();
    let expected = [(1, 0, 1, 29), (2, 1, 2, 25), (9, 2, 9, 19), (10, 3, 10, 10), (4, 2, 4, 4), (3, 1, 3, 3)];
    assert_eq!(spans, expected);
    assert_eq!(engine.trace(TraceId::new(7).unwrap()).unwrap(), None);
}

#[test]
fn existence_is_told_with_and_without_descendants() {
    let engine = family().engine;
    let totals = |roll_up| -> Vec<Option<u64>> {
        let found = engine.span_totals(&[id(1), id(9), id(77)], roll_up).unwrap();
        found.iter().map(|totals| totals.map(|totals| totals.samples)).collect()
    };
    assert_eq!(totals(true), [Some(10), Some(19), None]);
    assert_eq!(totals(false), [Some(1), Some(9), None]);
}

#[test]
fn existence_of_many_is_what_it_is_of_each() {
    let engine = family().engine;
    // So many are asked about on several threads.
    let ids: Vec<SpanId> = (1..=3000).map(|number| id(1 + number % 1000)).collect();
    for roll_up in [true, false] {
        let one = |id: &SpanId| engine.span_totals(&[*id], roll_up).unwrap()[0];
        let each: Vec<_> = ids.iter().map(one).collect();
        assert!(each.iter().flatten().count() >= 9, "{each:?}");
        assert_eq!(engine.span_totals(&ids, roll_up).unwrap(), each);
    }
}

#[test]
fn a_list_of_a_time_has_spans_with_a_profile_in_it() {
    let sampled = || PprofBuilder::new().sample(&["a"], 3, &[("span_id", &id(1).to_string())]);
    let fixture = Fixture::of(&[(sampled(), &[]), (sampled().at(START_MS + 100_000, 10_000), &[])]);
    let listed = |start, end, kind: Option<&str>| {
        let kind = kind.map(|kind| kind.parse().unwrap());
        let filter = SpanListFilter { range: Some(at(start, end)), kind, ..SpanListFilter::default() };
        fixture.engine.spans(&filter, 10).unwrap().iter().map(|span| span.samples).sum::<u64>()
    };
    for kind in [None, Some(CPU)] {
        assert_eq!(listed(20_000, 90_000, kind), 0, "between its profiles there is none");
        assert_eq!(listed(5_000, 90_000, kind), 3, "what is told is of its profiles of that time");
        assert_eq!(listed(20_000, 100_000, kind), 3);
        assert_eq!(listed(5_000, 100_000, kind), 6);
        assert_eq!(listed(-5_000, 200_000, kind), 6);
        assert_eq!(listed(110_001, 200_000, kind), 0);
    }
}

/// Samples of spans, each with a function, how often it was seen there and the bytes that were allocated meanwhile.
fn allocating(start_ms: i64, samples: &[(u64, &str, i64, i64)]) -> PprofBuilder {
    let add = |builder: PprofBuilder, &(span, function, count, _): &(u64, &str, i64, i64)| {
        builder.sample(&["main", function], count, &[("span_id", &id(span).to_string())])
    };
    let mut builder = samples.iter().fold(PprofBuilder::new(), add).at(START_MS + start_ms, 10_000);
    let (kind, unit) = (builder.string("alloc_space"), builder.string("bytes"));
    builder.pprof.sample_type.push(ValueType { r#type: kind, unit, ..Default::default() });
    for (sample, (.., bytes)) in builder.pprof.sample.iter_mut().zip(samples) {
        sample.value.push(*bytes);
    }
    builder
}

#[test]
fn lists_are_the_same_wherever_profiles_lie() {
    let profiles: [(PprofBuilder, &[(&str, &str)]); 3] = [
        (allocating(0, &[(1, "f", 3, 0), (2, "g", 2, 7)]), &[]),
        (allocating(100_000, &[(1, "g", 5, 5), (2, "f", 1, 0)]), &[]),
        (allocating(200_000, &[(1, "f", 2, 0), (3, "f", 4, 0), (9, "g", 1, 9)]), &[]),
    ];
    for after in [&[][..], &[2], &[0], &[1], &[0, 1, 2]] {
        let fixture = Fixture::flushed(&profiles, after);
        let engine = &fixture.engine;
        let filter = |start, end, kind: &str| SpanListFilter {
            range: Some(at(start, end)),
            kind: (!kind.is_empty()).then(|| kind.parse().unwrap()),
            ..SpanListFilter::default()
        };
        // Id, samples, total, and when the first profile began and the last one ended, in seconds.
        let told = |span: &SpanListItem| {
            let seconds = |ms| (ms - START_MS) / 1000;
            let TimeRange { start_ms, end_ms } = span.range;
            (span.span_id.get(), span.cpu_nanos / MS, span.total, seconds(start_ms), seconds(end_ms))
        };
        let list = |start, end, kind| -> Vec<_> {
            engine.spans(&filter(start, end, kind), 10).unwrap().iter().map(told).collect()
        };
        let bytes = "process_cpu:alloc_space:bytes:cpu:nanoseconds";
        assert_eq!(
            list(0, 300_000, ""),
            [(1, 10, 0, 0, 210), (3, 4, 0, 200, 210), (2, 3, 0, 0, 110), (9, 1, 0, 200, 210)]
        );
        assert_eq!(list(5000, 150_000, ""), [(1, 8, 0, 0, 110), (2, 3, 0, 0, 110)]);
        assert_eq!(
            list(0, 300_000, bytes),
            [(1, 10, 5, 0, 210), (2, 3, 7, 0, 110), (9, 1, 9, 200, 210)],
            "{after:?}"
        );
        assert_eq!(list(0, 50_000, bytes), [(2, 2, 7, 0, 10)]);
        assert_eq!(list(200_000, 300_000, bytes), [(9, 1, 9, 200, 210)]);
        let under = |start, end| -> Vec<_> {
            let found = engine.spans_under("f", &filter(start, end, ""), 10).unwrap();
            found.iter().map(|span| (told(&span.item), span.samples)).collect()
        };
        let nanos = |count| count * MS;
        assert_eq!(
            under(0, 150_000),
            [((1, 8, nanos(3), 0, 110), 3), ((2, 3, nanos(1), 0, 110), 1)],
            "{after:?}"
        );
        assert_eq!(
            under(200_000, 300_000),
            [((3, 4, nanos(4), 200, 210), 4), ((1, 2, nanos(2), 200, 210), 2)]
        );
    }
}

#[test]
fn what_is_too_long_ago_is_not_told() {
    let sampled = |span: u64, parent: &str| {
        let labels = [("span_id", &*id(span).to_string()), ("trace_id", TRACE), ("parent_span_id", parent)];
        PprofBuilder::new().sample(&["a"], 3, &labels)
    };
    let fixture =
        Fixture::of(&[(sampled(1, "#0"), &[]), (sampled(2, "#1").at(START_MS + 100_000, 10_000), &[])]);
    let since = |ms| fixture.engine.clone().since(Some(START_MS + ms));
    let samples = |engine: &Engine, span| engine.span(id(span)).unwrap().map(|span| span.samples);
    assert_eq!((samples(&since(10_000), 1), samples(&since(10_000), 2)), (Some(6), Some(3)));
    let later = since(10_001);
    assert_eq!((samples(&later, 1), later.trace(trace()).unwrap().unwrap().samples), (Some(3), 3));
    let none = since(110_001);
    assert_eq!((samples(&none, 1), samples(&none, 2), none.trace(trace()).unwrap()), (None, None, None));
    assert_eq!(none.span_totals(&[id(1), id(2)], true).unwrap(), [None, None]);
}

#[test]
fn lists_are_narrowed_and_sorted() {
    let engine = family().engine;
    let list = |filter: SpanListFilter| -> Vec<u64> {
        engine.spans(&filter, 100).unwrap().iter().map(|span| span.span_id.get()).collect()
    };
    let all = SpanListFilter::default;
    assert_eq!(list(all()), [10, 9, 4, 3, 2, 1]);
    assert_eq!(list(SpanListFilter { name: Some("charge".into()), ..all() }), [2]);
    assert_eq!(list(SpanListFilter { name: Some(String::new()), ..all() }), [0; 0]);
    assert_eq!(list(SpanListFilter { range: Some(at(10_001, 11_000)), ..all() }), [10, 9]);
    assert_eq!(list(SpanListFilter { range: Some(at(20_001, 21_000)), ..all() }), [0; 0]);
    assert_eq!(list(SpanListFilter { order: SpanOrder::Newest, ..all() }), [10, 9, 4, 3, 2, 1]);
    let service = Some("checkout".to_owned());
    assert_eq!(list(SpanListFilter { service, order: SpanOrder::Samples, ..all() }), [4, 3, 2, 1]);
    let counted = SpanListFilter { kind: Some(SAMPLES.parse().unwrap()), order: SpanOrder::Total, ..all() };
    assert_eq!(engine.spans(&counted, 1).unwrap()[0].total, 10);
    assert_eq!(list(counted), [10, 9, 4, 3, 2, 1]);
    let kind = Some("memory:alloc:bytes::".parse().unwrap());
    assert_eq!(list(SpanListFilter { kind, ..all() }), [0; 0]);
}

#[test]
fn more_spans_than_may_be_sorted_are_refused() {
    let engine = family().engine;
    let all = SpanListFilter::default();
    assert_eq!(engine.spans_among(&all, 1, 6).unwrap().len(), 1);
    let refused = engine.spans_among(&all, 1, 5).unwrap_err();
    assert!(matches!(refused, QueryError::TooMuch { what: "spans to sort", max: 5, .. }), "{refused}");
    let fewer = SpanListFilter { service: Some("checkout".to_owned()), ..all };
    assert_eq!(engine.spans_among(&fewer, 9, 5).unwrap().len(), 4);
}

#[test]
fn pages_make_up_the_whole_list() {
    // Many of equal rank, so that ids decide.
    let builder = (1..=40u64).fold(PprofBuilder::new(), |builder, span| {
        builder.sample(&["a"], span as i64 % 3 + 1, &[("span_id", &id(span).to_string())])
    });
    let engine = Fixture::of(&[(builder, &[])]).engine;
    for order in [SpanOrder::Cpu, SpanOrder::Samples, SpanOrder::Newest] {
        let mut filter = SpanListFilter { order, ..Default::default() };
        let whole = engine.spans(&filter, 100).unwrap();
        assert_eq!(whole.len(), 40);
        let mut pages = Vec::new();
        loop {
            let page = engine.spans(&filter, 7).unwrap();
            let Some(last) = page.last() else { break };
            filter.after = Some(last.cursor(order));
            pages.extend(page);
        }
        assert_eq!(pages, whole);
    }
}

fn explained(
    engine: &Engine,
    kind: &str,
    selector: &str,
    range: Option<TimeRange>,
    span: u64,
) -> Explanation {
    let query = ExplainQuery {
        filter: SpanId::new(span).map_or_else(SpanFilter::default, |id| SpanFilter::spans([id])),
        kind: Some(kind.parse().unwrap()),
        selector: LabelSelector::parse(selector).unwrap(),
        range,
    };
    engine.explain(&query).unwrap()
}

#[test]
fn explanations_tell_the_first_check_that_nothing_passed() {
    let engine = family().engine;
    let reason = |kind: &str, selector: &str, range, span| {
        let explanation = explained(&engine, kind, selector, range, span);
        let Stages { found, of_type, selected, in_window } = explanation.stages;
        (explanation.reason().map(EmptyReason::as_str), [found, of_type, selected, in_window])
    };
    assert_eq!(reason(CPU, "{}", None, 77), (Some("unknown_span"), [0; 4]));
    assert_eq!(reason("memory:alloc:bytes::", "{}", None, 1), (Some("no_samples_of_type"), [10, 0, 0, 0]));
    assert_eq!(reason(CPU, r#"{pod="a"}"#, None, 1), (Some("selector_mismatch"), [10, 10, 0, 0]));
    assert_eq!(reason(CPU, "{}", Some(at(60_000, 70_000)), 1), (Some("outside_window"), [10, 10, 10, 0]));
    assert_eq!(reason(CPU, r#"{span_name="hash"}"#, Some(at(0, 1)), 1), (None, [10, 10, 3, 3]));
    // Of everything.
    assert_eq!(reason(CPU, r#"{service_name="payments"}"#, None, 0), (None, [29, 29, 19, 19]));
}

#[test]
fn explanations_name_guilty_matchers_and_a_time_that_fits() {
    let engine = family().engine;
    let explanation =
        explained(&engine, CPU, r#"{service_name="payment",__name__="process_cpu",pod!="a"}"#, None, 1);
    let findings: Vec<_> =
        explanation.matchers.iter().map(|f| (f.matcher.as_str(), f.samples, f.others.join("|"))).collect();
    assert_eq!(
        findings,
        [
            (r#"service_name="payment""#, 0, "checkout".to_owned()),
            (r#"__name__="process_cpu""#, 10, String::new()),
            (r#"pod!="a""#, 10, String::new()),
        ]
    );
    assert_eq!(explanation.window, None);
    let named = explained(&engine, CPU, r#"{span_name=~"GET .*"}"#, Some(at(60_000, 70_000)), 1);
    assert_eq!((named.matchers[0].samples, named.matchers[0].others.len()), (1, 3));
    assert_eq!(named.window, Some(at(0, 10_000)));
    let types: Vec<_> = named.types.iter().map(|t| t.kind.to_string()).collect();
    assert_eq!(types, [CPU, SAMPLES]);
}

#[test]
fn other_tenants_see_nothing() {
    let fixture = family();
    let other = Engine::new(Arc::clone(&fixture.store), [TenantId::new("other").unwrap()].into());
    assert_eq!(other.trace(trace()).unwrap(), None);
    assert_eq!(other.span_totals(&[id(1)], true).unwrap(), [None]);
    assert!(other.spans(&SpanListFilter::default(), 10).unwrap().is_empty());
    assert_eq!(explained(&other, CPU, "{}", None, 0), Explanation::default());
}
