use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cancel::Cancel;
use crate::model::{Labels, Profile, ProfileType, SpanId, TenantId, TimeRange};
use crate::selector::LabelSelector;
use crate::store::{Store, StoreOptions};
use crate::testing::{CPU, PprofBuilder, SAMPLES, START_MS};

mod forms;
mod over_time;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MS: i64 = 10_000_000;

struct Fixture {
    engine: Engine,
    store: Arc<Store>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(StoreOptions::new(dir.path())).unwrap());
        Self { engine: Engine::new(Arc::clone(&store), [tenant()].into()), store, _dir: dir }
    }

    fn of(builders: &[(&PprofBuilder, &[(&str, &str)])]) -> Self {
        let fixture = Self::new();
        builders.iter().for_each(|(builder, labels)| fixture.append(builder.profiles(labels)));
        fixture
    }

    /// What another tenant sees.
    fn of_others(&self) -> Engine {
        Engine::new(Arc::clone(&self.store), [TenantId::new("other").unwrap()].into())
    }

    fn append(&self, profiles: Vec<Profile>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.store.append(&tenant(), profiles)).unwrap();
    }

    fn graph(&self, selector: &str, range: Option<TimeRange>, filter: &SpanFilter) -> FlameGraph {
        self.graph_at(selector, range, filter, &[])
    }

    fn graph_at(
        &self,
        selector: &str,
        range: Option<TimeRange>,
        filter: &SpanFilter,
        call_site: &[&str],
    ) -> FlameGraph {
        let call_site = call_site.iter().map(|name| name.to_string()).collect();
        let selection = Selection {
            selector: LabelSelector::parse(selector).unwrap(),
            range,
            spans: filter.clone(),
            stacks: StackFilter { call_site, ..StackFilter::default() },
            ..Selection::of(cpu())
        };
        self.engine.merge(&selection).unwrap().flame_graph(8192)
    }

    fn merged(&self, selection: &Selection) -> MergedStacks {
        self.engine.merge(selection).unwrap()
    }
}

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn cpu() -> ProfileType {
    CPU.parse().unwrap()
}

fn id(number: u64) -> SpanId {
    SpanId::new(number).unwrap()
}

fn hex(number: u64) -> String {
    id(number).to_string()
}

fn around(start: i64, end: i64) -> Option<TimeRange> {
    TimeRange::new(START_MS + start, START_MS + end)
}

/// Root span 1 with child 2 and grandchild 3; 9 is a child of 2 in another process; 5 is somebody else.
fn family() -> PprofBuilder {
    let span =
        |builder: PprofBuilder, frame: &str, count: i64, span: u64, parent: u64, root: u64, name: &str| {
            let (span, parent, root) = (hex(span), format!("#{parent}"), format!("#{root}"));
            let mut labels = vec![("span_id", &*span), ("trace_id", TRACE), ("span_name", name)];
            labels.extend(
                [("parent_span_id", &*parent), ("local_root_span_id", &*root)]
                    .iter()
                    .filter(|(_, v)| *v != "#0"),
            );
            builder.sample(&["main", frame], count, &labels)
        };
    let builder = span(PprofBuilder::new(), "root_work", 1, 1, 0, 1, "GET /pay");
    let builder = span(builder, "child_work", 2, 2, 1, 1, "charge");
    let builder = span(builder, "grandchild_work", 4, 3, 2, 1, "hash");
    let builder = span(builder, "remote_work", 8, 9, 2, 9, "remote");
    let builder = span(builder, "other_work", 16, 5, 0, 5, "GET /other");
    builder.sample(&["main", "no_span"], 32, &[])
}

#[test]
fn the_graph_of_a_span_is_as_grafana_expects_it() {
    let span = "00f067aa0ba902b7";
    let builder = PprofBuilder::new()
        .sample(&["handler"], 1, &[("span_id", span)])
        .sample(&["handler", "hash"], 2, &[("span_id", span)])
        .sample(&["elsewhere"], 5, &[]);
    let fixture = Fixture::of(&[(&builder, &[])]);
    let filter = SpanFilter::spans([span.parse().unwrap()]);
    let graph = fixture.graph(r#"{service_name="checkout"}"#, around(-30_000, 31_000), &filter);
    assert_eq!(graph.names, ["total", "handler", "hash"]);
    assert_eq!(graph.levels, [[0, 3 * MS, 0, 0], [0, 3 * MS, MS, 1], [MS, 2 * MS, 2 * MS, 2]]);
    assert_eq!((graph.total, graph.max_self, graph.samples), (3 * MS, 2 * MS, 3));

    let unknown = fixture.graph("{}", None, &SpanFilter::spans([id(77)]));
    assert_eq!((unknown.names.len(), unknown.levels), (1, vec![vec![0, 0, 0, 0]]));
    let all = fixture.graph("", None, &SpanFilter::default());
    assert_eq!((all.total, all.samples), (8 * MS, 8), "without a filter every sample counts");
}

#[test]
fn a_root_span_shows_its_descendants_work_in_its_process() {
    let fixture = Fixture::of(&[(&family(), &[])]);
    let total = |filter: SpanFilter| fixture.graph("{}", None, &filter).total / MS;
    assert_eq!(total(SpanFilter::spans([id(1)])), 7);
    assert_eq!(total(SpanFilter::spans([id(2)])), 6, "by the chain of parents");
    assert_eq!(total(SpanFilter::spans([id(3)])), 4);
    assert_eq!(total(SpanFilter::spans([id(9)])), 8);
    assert_eq!(total(SpanFilter { roll_up: false, ..SpanFilter::spans([id(1)]) }), 1);
    assert_eq!(total(SpanFilter::spans([id(1), id(3), id(5)])), 23, "no sample counts twice");
    assert_eq!(total(SpanFilter::traces([TRACE.parse().unwrap()])), 31);
}

#[test]
fn descendants_are_found_across_profiles_and_a_root_without_samples_has_them_too() {
    let child = PprofBuilder::new().sample(
        &["a"],
        1,
        &[("span_id", &hex(2)), ("parent_span_id", "#1"), ("trace_id", TRACE)],
    );
    let grandchild = PprofBuilder::new().sample(&["b"], 2, &[("span_id", &hex(3)), ("parent_span_id", "#2")]);
    let fixture = Fixture::of(&[(&child, &[("pod", "a")]), (&grandchild, &[("pod", "b")])]);
    assert_eq!(fixture.graph("{}", None, &SpanFilter::spans([id(1)])).total, 3 * MS);
    let summary = fixture.engine.span(id(1)).unwrap().unwrap();
    assert_eq!((summary.cpu_nanos, summary.own_cpu_nanos, summary.name), (3 * MS, 0, None));
    assert_eq!(summary.trace_id.unwrap().to_string(), TRACE);
    // A cycle of parents, which no tracer makes but anyone can send.
    let cycle = PprofBuilder::new()
        .sample(&["a"], 1, &[("span_id", &hex(50)), ("parent_span_id", "#51")])
        .sample(&["b"], 1, &[("span_id", &hex(51)), ("parent_span_id", "#50")]);
    fixture.append(cycle.profiles(&[]));
    assert_eq!(fixture.graph("{}", None, &SpanFilter::spans([id(50)])).total, 2 * MS);
}

#[test]
fn a_root_without_samples_has_its_name_from_its_descendants() {
    let descendant = |span: u64, root: &str, name: &str| {
        let labels = [
            ("span_id", &*hex(span)),
            ("span_name", "db"),
            ("local_root_span_id", root),
            ("local_root_span_name", name),
        ];
        PprofBuilder::new().sample(&["a"], 1, &labels).profiles(&[])
    };
    let fixture = Fixture::new();
    let name = |span| fixture.engine.span(id(span)).unwrap().unwrap().name;
    fixture.append(descendant(2, "#1", ""));
    assert_eq!(name(1), None);
    fixture.append(descendant(3, "#1", "GET /pay"));
    fixture.append(descendant(4, "#7", "GET /other"));
    assert_eq!(name(1).as_deref(), Some("GET /pay"));
    assert_eq!(name(3).as_deref(), Some("db"), "a root's name is not its descendant's");
    assert_eq!(name(7).as_deref(), Some("GET /other"));
    // What its own samples say comes first, whenever they come.
    fixture.append(
        PprofBuilder::new().sample(&["a"], 1, &[("span_id", &hex(1)), ("span_name", "own")]).profiles(&[]),
    );
    assert_eq!(name(1).as_deref(), Some("own"));
    let names = fixture.engine.label_names(&LabelSelector::default(), None).unwrap();
    assert!(!names.contains(&"local_root_span_name".to_owned()), "{names:?}");
    let values = fixture.engine.label_values("span_name", &LabelSelector::default(), None).unwrap();
    assert_eq!(values, ["db", "own"], "only names that samples are under select samples");
}

#[test]
fn selectors_span_names_time_and_call_sites_narrow() {
    let other = PprofBuilder::new().sample(&["main", "x"], 100, &[]).at(START_MS + 60_000, 10_000);
    let fixture = Fixture::of(&[(&family(), &[]), (&other, &[("service_name", "other")])]);
    let total = |selector: &str, range| fixture.graph(selector, range, &SpanFilter::default()).total / MS;
    assert_eq!(total("{}", None), 163);
    assert_eq!(total(r#"{service_name="other"}"#, None), 100);
    assert_eq!(total(r#"{service_name!="other"}"#, None), 63);
    assert_eq!(total(r#"{span_name="hash"}"#, None), 4);
    assert_eq!(total(r#"{span_name=~"GET .*"}"#, None), 17);
    assert_eq!(total(r#"{span_name=""}"#, None), 132);
    assert_eq!(total(r#"{__profile_type__="x"}"#, None), 0);
    // A profile is everything from its beginning to its end.
    assert_eq!(total("{}", around(10_000, 10_000)), 63);
    assert_eq!(total("{}", around(10_001, 59_999)), 0);
    assert_eq!(total("{}", around(5_000, 60_000)), 163);
    let filter = SpanFilter::spans([id(1)]);
    assert_eq!(fixture.graph(r#"{span_name="hash"}"#, None, &filter).total, 4 * MS);
    assert_eq!(fixture.graph("{}", around(10_001, 20_000), &filter).total, 0);

    let graph = fixture.graph_at("{}", None, &SpanFilter::default(), &["main", "x"]);
    assert_eq!((graph.total, graph.samples), (100 * MS, 100));
    assert_eq!(graph.names, ["total", "main", "x"]);
    assert_eq!(fixture.graph_at("{}", None, &SpanFilter::default(), &["x"]).total, 0);
}

#[test]
fn empty_answers_have_reasons() {
    let fixture = Fixture::of(&[(&family(), &[])]);
    let why = |kind: &str, selector: &str, range, span| {
        let selector = LabelSelector::parse(selector).unwrap();
        let filter = SpanFilter::spans([id(span)]);
        let reason = fixture.engine.why_empty(&kind.parse().unwrap(), &selector, range, &filter).unwrap();
        reason.map(EmptyReason::as_str)
    };
    assert_eq!(why(CPU, "{}", None, 77), Some("unknown_span"));
    assert_eq!(why("memory:alloc:bytes::", "{}", None, 1), Some("no_samples_of_type"));
    assert_eq!(why(CPU, r#"{service_name="x"}"#, None, 1), Some("selector_mismatch"));
    assert_eq!(why(CPU, r#"{span_name="x"}"#, None, 1), Some("selector_mismatch"));
    assert_eq!(why(CPU, "{}", around(20_000, 30_000), 1), Some("outside_window"));
    assert_eq!(why(CPU, "{}", around(0, 1), 1), None);
    let everything = LabelSelector::default();
    let nothing = SpanFilter::default();
    assert_eq!(fixture.engine.why_empty(&cpu(), &everything, None, &nothing).unwrap(), None);
}

#[test]
fn a_span_tells_what_is_known_of_it() {
    let fixture = Fixture::of(&[(&family(), &[]), (&family().at(START_MS + 10_000, 10_000), &[])]);
    let summary = fixture.engine.span(id(1)).unwrap().unwrap();
    assert_eq!(summary.name.as_deref(), Some("GET /pay"));
    assert_eq!(summary.trace_id.unwrap().to_string(), TRACE);
    assert_eq!((summary.parent, summary.local_root), (None, Some(id(1))));
    assert_eq!(summary.labels, Labels::new([("service_name", "checkout")]));
    assert_eq!(Some(summary.range), around(0, 20_000));
    assert_eq!((summary.samples, summary.cpu_nanos), (14, 14 * MS));
    assert_eq!((summary.own_samples, summary.own_cpu_nanos), (2, 2 * MS));
    let types: Vec<_> = summary.types.iter().map(|t| (t.kind.to_string(), t.total, t.samples)).collect();
    assert_eq!(types, [(CPU.to_owned(), 14 * MS, 14), (SAMPLES.to_owned(), 14, 14)]);
    assert_eq!(fixture.engine.span(id(2)).unwrap().unwrap().parent, Some(id(1)));
    assert_eq!(fixture.engine.span(id(77)).unwrap(), None);
    assert_eq!(fixture.of_others().span(id(1)).unwrap(), None);
}

#[test]
fn spans_are_listed_by_their_cpu_time() {
    let fixture = Fixture::of(&[
        (&family(), &[]),
        (&PprofBuilder::new().sample(&["x"], 50, &[("span_id", &hex(7))]), &[("service_name", "other")]),
        (
            &PprofBuilder::new().sample(&["x"], 3, &[("span_id", &hex(1)), ("trace_id", TRACE)]),
            &[("pod", "b")],
        ),
    ]);
    let list = |service: Option<&str>, trace: bool, limit| -> Vec<(u64, i64)> {
        let trace_id = trace.then(|| TRACE.parse().unwrap());
        let filter = SpanListFilter { service: service.map(str::to_owned), trace_id, ..Default::default() };
        let spans = fixture.engine.spans(&filter, limit).unwrap();
        spans.iter().map(|span| (span.span_id.get(), span.cpu_nanos / MS)).collect()
    };
    assert_eq!(list(None, false, 3), [(7, 50), (5, 16), (9, 8)]);
    assert_eq!(list(Some("checkout"), true, 100), [(5, 16), (9, 8), (1, 4), (3, 4), (2, 2)]);
    assert_eq!(list(Some("nobody"), false, 100), []);
    let first = &fixture.engine.spans(&SpanListFilter::default(), 2).unwrap()[1];
    assert_eq!((first.service.as_str(), first.name.as_deref()), ("checkout", Some("GET /other")));
    assert_eq!((first.samples, Some(first.range)), (16, around(0, 10_000)));
}

#[test]
fn labels_types_and_series_are_listed() {
    let fixture = Fixture::of(&[(&family(), &[("endpoint", "/pay")])]);
    let everything = LabelSelector::default();
    let engine = &fixture.engine;
    let types = engine.profile_types(None).unwrap();
    assert_eq!(types.iter().map(ToString::to_string).collect::<Vec<_>>(), [CPU, SAMPLES]);
    assert_eq!(engine.profile_types(TimeRange::new(1000, 4000)).unwrap(), []);
    let names = engine.label_names(&everything, None).unwrap();
    assert_eq!(names[..7], crate::model::SYNTHETIC_LABELS);
    assert_eq!(names[7..], ["endpoint", "service_name", "span_name"]);
    let values = |name: &str, selector: &str| {
        engine.label_values(name, &LabelSelector::parse(selector).unwrap(), None).unwrap()
    };
    assert_eq!(values("service_name", "{}"), ["checkout"]);
    assert_eq!(values("__profile_type__", "{}"), [CPU, SAMPLES]);
    assert_eq!(values("span_name", r#"{span_name=~"GET.*"}"#), ["GET /other", "GET /pay"]);
    assert!(values("absent", "{}").is_empty());
    assert!(values("service_name", r#"{endpoint="/other"}"#).is_empty());
    assert!(fixture.of_others().label_names(&everything, None).unwrap().is_empty());

    let wanted = ["service_name".to_owned(), "__profile_type__".to_owned()];
    let series = engine.series(&wanted, &everything, None).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let set = |kind: &str| vec![pair("__profile_type__", kind), pair("service_name", "checkout")];
    assert_eq!(series, [set(CPU), set(SAMPLES)]);
    let full = engine.series(&[], &everything, None).unwrap();
    assert_eq!(full[0].len(), 9);
}

#[test]
fn series_are_sums_in_steps_that_end_at_their_points() {
    let at = |ms: i64, count, endpoint: &str| {
        let builder =
            PprofBuilder::new().sample(&["a"], count, &[("endpoint", endpoint), ("span_name", "s")]);
        builder.at(START_MS + ms, 10_000).profiles(&[])
    };
    let fixture = Fixture::new();
    for profile in [
        at(-15_000, 7, "/pay"),
        at(-14_999, 100, "/pay"),
        at(1, 1, "/pay"),
        at(15_000, 2, "/pay"),
        at(31_000, 1, "/pay"),
        at(3_000, 1, "/buy"),
        at(60_001, 9, "/buy"),
    ] {
        fixture.append(profile);
    }
    let (kind, everything, all_stacks) = (cpu(), LabelSelector::default(), StackFilter::default());
    let over_time = TimeQuery {
        kind: &kind,
        selector: &everything,
        stacks: &all_stacks,
        range: around(0, 1).unwrap(),
        step_ms: 0,
        group_by: &[],
        limit: 0,
    };
    let select = |group_by: &[&str], limit, selector: &str| {
        let group_by: Vec<String> = group_by.iter().map(|name| name.to_string()).collect();
        let selector = LabelSelector::parse(selector).unwrap();
        let range = around(0, 60_000).unwrap();
        let query = TimeQuery {
            range,
            step_ms: 15_000,
            group_by: &group_by,
            limit,
            selector: &selector,
            ..over_time
        };
        let series = fixture.engine.select_series(&query, Aggregation::Sum, None).unwrap();
        series
            .into_iter()
            .map(|s| {
                let labels =
                    s.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
                let points = s
                    .points
                    .iter()
                    .map(|point| ((point.at_ms - START_MS) / 1000, point.value as i64 / MS))
                    .collect::<Vec<_>>();
                (labels.join(","), points)
            })
            .collect::<Vec<_>>()
    };
    let pay = ("endpoint=/pay".to_owned(), vec![(0, 100), (15, 3), (45, 1)]);
    let buy = ("endpoint=/buy".to_owned(), vec![(15, 1)]);
    assert_eq!(select(&["endpoint"], 0, "{}"), [pay.clone(), buy]);
    assert_eq!(select(&["endpoint"], 1, "{}"), [pay]);
    assert_eq!(select(&[], 0, r#"{endpoint="/buy"}"#), [(String::new(), vec![(15, 1)])]);
    assert_eq!(
        select(&["span_name"], 0, r#"{endpoint="/buy"}"#),
        [("span_name=s".to_owned(), vec![(15, 1)])]
    );
    assert_eq!(select(&[], 0, r#"{span_name="x"}"#), []);

    let error = fixture.engine.select_series(&over_time, Aggregation::Sum, None).unwrap_err();
    assert!(error.to_string().contains("step: expected at least 0.001 seconds"), "{error}");
}

#[test]
fn stats_count() {
    let fixture = Fixture::new();
    assert_eq!(fixture.engine.stats(), Stats::default());
    fixture.append(family().profiles(&[]));
    let stats = fixture.engine.stats();
    assert_eq!((stats.profiles, stats.spans), (1, 5));
    assert_eq!((stats.oldest_ms, stats.newest_ms), (Some(START_MS), Some(START_MS + 10_000)));
}

#[test]
fn locations_without_functions_show_binary_and_address() {
    let mut builder = PprofBuilder::new().sample(&["main", "x"], 1, &[]);
    builder.pprof.location[1].line.clear();
    builder.pprof.location[1].address = 0x1234;
    let fixture = Fixture::of(&[(&builder, &[])]);
    // Frames are added from the leaf, so `x` is the first location and `main` the second.
    assert_eq!(fixture.graph("{}", None, &SpanFilter::default()).names, ["total", "0x1234", "x"]);
}

#[test]
fn sums_stop_at_the_largest_number() {
    let mut builder = PprofBuilder::new();
    for (frame, span) in [("a", 1), ("b", 1), ("a", 2)] {
        builder =
            builder.sample(&["main", frame], 1, &[("span_id", &hex(span)), ("local_root_span_id", "#1")]);
    }
    builder.pprof.sample.iter_mut().for_each(|sample| sample.value = vec![i64::MAX; 2]);
    let fixture = Fixture::of(&[(&builder, &[]), (&builder, &[("pod", "b")])]);
    assert_eq!(fixture.graph("{}", None, &SpanFilter::default()).total, i64::MAX);
    let folded = fixture.merged(&Selection::of(cpu())).flame_graph(1);
    assert_eq!(folded.total, i64::MAX);
    assert_eq!(fixture.engine.span(id(1)).unwrap().unwrap().cpu_nanos, i64::MAX);
    assert_eq!(fixture.engine.spans(&SpanListFilter::default(), 10).unwrap().len(), 2);
}

/// Stack, count and span of samples.
type Rows = Vec<(Vec<u8>, i64, u64)>;

fn builder(rows: &[(Vec<u8>, i64, u64)]) -> PprofBuilder {
    rows.iter().fold(PprofBuilder::new(), |builder, (stack, count, span)| {
        let stack: Vec<String> = stack.iter().map(|frame| format!("f{frame}")).collect();
        let stack: Vec<&str> = stack.iter().map(String::as_str).collect();
        let span = SpanId::new(*span).map(|id| id.to_string());
        let labels: Vec<_> = span.iter().map(|id| ("span_id", id.as_str())).collect();
        builder.sample(&stack, *count, &labels)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn merging_does_not_depend_on_how_profiles_are_split(
        rows in prop::collection::vec((prop::collection::vec(0..4u8, 1..6), 1..50i64, 0..4u64), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        max_nodes in 0..12usize,
    ) {
        let rows: Rows = rows;
        let whole = Fixture::of(&[(&builder(&rows), &[])]);
        let split = Fixture::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            split.append(builder(&rows[pair[0]..pair[1]]).profiles(&[("pod", "p")]));
        }
        let filters = (0..4).map(|n| SpanFilter::spans(SpanId::new(n)));
        for filter in filters {
            let selection = Selection { spans: filter.clone(), ..Selection::of(cpu()) };
            let graph = |fixture: &Fixture| fixture.merged(&selection).flame_graph(max_nodes);
            let (one, many) = (graph(&whole), graph(&split));
            prop_assert_eq!(&one, &many);
            let wanted = |span: u64| filter.is_empty() || filter.span_ids.iter().any(|id| id.get() == span);
            let sum: i64 = rows.iter().filter(|(_, _, span)| wanted(*span)).map(|(_, count, _)| count).sum();
            prop_assert_eq!(one.total, sum * MS);
            prop_assert_eq!(one.samples, sum as u64);
            forms::check_shape(&one)?;
        }
    }
}

#[test]
fn a_query_that_nobody_waits_for_ends() {
    let span = "00000000000000a1";
    let builder = PprofBuilder::new().sample(&["main"], MS, &[("span_id", span)]);
    let fixture = Fixture::of(&[(&builder, &[("service_name", "a")])]);
    let all = Selection::of(CPU.parse().unwrap());
    let of_span = Selection { spans: SpanFilter::spans([span.parse().unwrap()]), ..all.clone() };
    let cancel = Cancel::default();
    drop(cancel.on_drop());
    for selection in [all, of_span] {
        assert!(fixture.engine.merge(&selection).is_ok());
        let ended = cancel.clone().within(|| fixture.engine.merge(&selection));
        assert!(matches!(ended, Err(QueryError::Cancelled(_))));
    }
}
