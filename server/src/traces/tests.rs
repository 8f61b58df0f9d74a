use std::collections::HashMap;
use std::sync::atomic::AtomicI64;

use buffa::Message;
use proptest::prelude::*;
use spanflame_wire::opentelemetry::proto::common::v1::__buffa::oneof::any_value::Value;
use spanflame_wire::opentelemetry::proto::common::v1::{AnyValue, KeyValue};
use spanflame_wire::opentelemetry::proto::resource::v1::Resource;
use spanflame_wire::opentelemetry::proto::trace::v1::{ResourceSpans, Span, Status};

use super::*;
use crate::model::{SpanId, TimeRange, TraceId};
use crate::testing::START_MS;

const START: u64 = START_MS as u64 * 1_000_000;

/// A span as tests tell it.
#[derive(Debug, Clone)]
struct Told {
    trace: u128,
    span: u64,
    parent: u64,
    service: &'static str,
    name: &'static str,
    /// Milliseconds from [`START`].
    at_ms: u64,
    nanos: u64,
    status: i32,
    color: &'static str,
}

impl Told {
    fn new(trace: u128, span: u64) -> Self {
        let (service, name, color) = ("checkout", "GET /pay", "red");
        Self { trace, span, parent: 0, service, name, at_ms: span, nanos: 1_000, status: 0, color }
    }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(text.to_owned())), ..Default::default() };
    KeyValue { key: key.to_owned(), value: value.into(), ..Default::default() }
}

fn batches(spans: &[Told]) -> Vec<SpanBatch> {
    let batch = |told: &Told| {
        let attributes = vec![attribute("service.name", told.service), attribute("zone", "north")];
        let resource = ResourceSpans {
            resource: Resource { attributes, ..Default::default() }.into(),
            ..Default::default()
        };
        let parent = (told.parent != 0).then(|| told.parent.to_be_bytes().to_vec());
        let span = Span {
            trace_id: told.trace.to_be_bytes().to_vec(),
            span_id: told.span.to_be_bytes().to_vec(),
            parent_span_id: parent.unwrap_or_default(),
            name: told.name.to_owned(),
            start_time_unix_nano: START + told.at_ms * 1_000_000,
            end_time_unix_nano: START + told.at_ms * 1_000_000 + told.nanos,
            attributes: vec![attribute("color", told.color)],
            status: Status { code: told.status.into(), ..Default::default() }.into(),
            ..Default::default()
        };
        SpanBatch {
            service: told.service.into(),
            resource: resource.encode_to_vec().into(),
            library: Vec::new(),
            spans: vec![span],
        }
    };
    spans.iter().map(batch).collect()
}

fn one() -> Vec<TenantId> {
    vec![TenantId::anonymous()]
}

fn id(number: u128) -> TraceId {
    TraceId::new(number).unwrap()
}

fn open(dir: &Path) -> TraceStore {
    TraceStore::open(TraceOptions::new(dir, None)).unwrap()
}

async fn append(store: &TraceStore, spans: &[Told]) {
    store.append(&TenantId::anonymous(), batches(spans)).await.unwrap();
}

fn trace(store: &TraceStore, number: u128) -> Vec<TracedSpan> {
    let WholeTrace { spans, truncated } = store.trace(&one(), id(number)).unwrap();
    assert!(!truncated);
    spans
}

fn ids(spans: &[TracedSpan]) -> Vec<u64> {
    spans.iter().map(|span| span.span_id.get()).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn spans_come_back_whole_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let child = Told { parent: 1, service: "payments", name: "charge", status: 2, ..Told::new(7, 2) };
    append(&store, &[child.clone(), Told::new(7, 1)]).await;
    append(&store, &[Told::new(8, 3), child]).await;
    let mut first = Some(store);
    for _ in 0..2 {
        let store = first.take().unwrap_or_else(|| open(dir.path()));
        let spans = trace(&store, 7);
        assert_eq!(ids(&spans), [1, 2], "in order of time, and once");
        let child = &spans[1];
        assert_eq!((child.parent, child.status), (SpanId::new(1), SpanStatus::Error));
        assert_eq!((child.origin.service.as_str(), child.name.as_str()), ("payments", "charge"));
        assert_eq!((child.start_nanos, child.duration_nanos), (START as i64 + 2_000_000, 1_000));
        assert!(child.says("color", "red") && child.says("zone", "north") && !child.says("zone", "south"));
        let found = store.span(&one(), None, SpanId::new(3).unwrap()).unwrap().unwrap();
        assert_eq!(found.trace_id, id(8));
        assert_eq!(store.span(&one(), None, SpanId::new(9).unwrap()).unwrap(), None);
        assert_eq!(store.span(&one(), Some(id(7)), SpanId::new(3).unwrap()).unwrap(), None);
        assert_eq!(store.trace(&[TenantId::new("other").unwrap()], id(7)).unwrap().spans, []);
        store.shutdown();
        let refused = store.append(&TenantId::anonymous(), batches(&[Told::new(1, 1)])).await;
        assert!(matches!(refused, Err(TraceError::Closed)));
    }
}

#[tokio::test]
async fn a_file_that_was_not_closed_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store =
        TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
    for number in 1..=3 {
        append(&store, &[Told::new(7, number)]).await;
    }
    assert_eq!(files(dir.path()).len(), 3, "each is full with its first span");
    // As a process that is killed leaves them.
    for name in files(dir.path()) {
        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let store = open(copy.path());
    assert_eq!(ids(&trace(&store, 7)), [1, 2, 3]);
    append(&store, &[Told::new(7, 4)]).await;
    assert_eq!(ids(&trace(&store, 7)), [1, 2, 3, 4]);
    assert_eq!(store.status().stored_spans, 4);
}

#[tokio::test]
async fn what_is_too_old_is_not_seen_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(START_MS + 100));
    let clock = Arc::clone(&now);
    let options = TraceOptions {
        age_ms: Arc::new(|tenant| (tenant.as_str() == TenantId::ANONYMOUS).then_some(50)),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        file_ms: 10,
        ..TraceOptions::new(dir.path(), None)
    };
    let store = TraceStore::open(options.clone()).unwrap();
    append(&store, &[Told::new(7, 20), Told::new(7, 60)]).await;
    let other = TenantId::new("other").unwrap();
    store.append(&other, batches(&[Told::new(7, 20)])).await.unwrap();
    assert_eq!(ids(&trace(&store, 7)), [60]);
    assert_eq!(ids(&store.trace(std::slice::from_ref(&other), id(7)).unwrap().spans), [20]);
    now.store(START_MS + 200, Ordering::Relaxed);
    append(&store, &[Told::new(7, 180)]).await;
    assert_eq!(ids(&trace(&store, 7)), [180]);
    drop(store);
    assert_eq!(files(dir.path()).len(), 2, "the first has spans of somebody who keeps them");
    let store = TraceStore::open(TraceOptions { age_ms: Arc::new(|_| Some(50)), ..options }).unwrap();
    assert_eq!(files(dir.path()).len(), 1);
    assert_eq!(store.status().expired_files, 1);
    assert_eq!(store.trace(&[other], id(7)).unwrap().spans, []);
}

#[tokio::test]
async fn the_oldest_go_when_there_is_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let options = TraceOptions { file_bytes: 200 << 10, ..TraceOptions::new(dir.path(), Some(1 << 20)) };
    let store = TraceStore::open(options).unwrap();
    let mut number = 0;
    while store.status().expired_files < 2 {
        let spans: Vec<Told> =
            (0..200).map(|at| Told::new(u128::from(number + at + 1), number + at + 1)).collect();
        number += 200;
        append(&store, &spans).await;
    }
    assert_eq!(trace(&store, 1), []);
    assert_eq!(ids(&trace(&store, u128::from(number))), [number]);
    assert!(store.status().bytes <= (1 << 20) + (400 << 10), "{:?}", store.status());
    assert_eq!(store.status().files as usize, files(dir.path()).len());
}

#[tokio::test]
async fn damaged_files_are_set_aside_and_newer_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
    append(&store, &[Told::new(7, 1)]).await;
    append(&store, &[Told::new(7, 2)]).await;
    drop(store);
    let [first, last] = &files(dir.path())[..] else { panic!("two files") };
    let damage = |name: &str, with: &[u8]| std::fs::write(dir.path().join(name), with).unwrap();
    damage(last, b"no database");
    let store =
        TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
    assert_eq!(ids(&trace(&store, 7)), [1]);
    assert_eq!(store.status().damaged_files, 1);
    append(&store, &[Told::new(7, 3)]).await;
    drop(store);
    assert!(files(dir.path()).contains(&format!("{last}.damaged-1")), "{:?}", files(dir.path()));
    // Every page but the first: it opens, and is no use.
    let path = dir.path().join(first);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xaa);
    damage(first, &bytes);
    let store = open(dir.path());
    assert_eq!(ids(&trace(&store, 7)), [3]);
    drop(store);

    let newer = dir.path().join("00000000000000000009.redb");
    let database = redb::Database::create(&newer).unwrap();
    let write = database.begin_write().unwrap();
    let facts: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("facts");
    write.open_table(facts).unwrap().insert("version", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = TraceStore::open(TraceOptions::new(dir.path(), None)).unwrap_err();
    assert!(matches!(error, TraceError::Version { found: 2, supported: 1, .. }), "{error}");
}

#[tokio::test]
async fn names_beyond_those_that_are_told_apart_are_found_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names: Vec<String> = (0..10_050).map(|number| format!("name-{number}")).collect();
    let spans = names.iter().enumerate().map(|(at, name)| {
        let mut batch = batches(&[Told::new(at as u128 + 1, at as u64 + 1)]);
        batch[0].spans[0].name.clone_from(name);
        batch.remove(0)
    });
    store.append(&TenantId::anonymous(), spans.collect()).await.unwrap();
    let search = TraceSearch { name: Some("name-10049".to_owned()), ..Default::default() };
    let found = store.search(&one(), &search, 10).unwrap();
    assert_eq!(found.iter().map(|found| found.matched.name.as_str()).collect::<Vec<_>>(), ["name-10049"]);
    let operations = store.operations(&one(), None, None).unwrap();
    assert_eq!(operations.len(), 10_001);
    let rest = operations.iter().find(|operation| operation.name.is_none()).unwrap();
    assert_eq!((rest.count, rest.service.as_str()), (50, ""));
}

#[tokio::test]
async fn operations_have_their_percentiles_and_their_spread() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let spans: Vec<Told> = (1..=100)
        .map(|number| Told {
            nanos: number * 1_000_000,
            status: i32::from(number > 97) * 2,
            ..Told::new(7, number)
        })
        .collect();
    append(&store, &spans).await;
    append(&store, &[Told { name: "other", ..Told::new(7, 500) }]).await;
    let operations = store.operations(&one(), Some("checkout"), None).unwrap();
    assert_eq!(operations.len(), 2);
    let OperationDurations { name, count, errors, percentiles, longest, total, .. } = &operations[0];
    assert_eq!((name.as_deref(), *count, *errors), (Some("GET /pay"), 100, 3));
    for (got, wanted) in percentiles.iter().zip([50, 95, 99]) {
        assert!(got.abs_diff(wanted * 1_000_000) <= wanted * 10_000, "{got} is not {wanted} ms");
    }
    assert_eq!((*longest, *total), (100_000_000, 5_050_000_000));
    let range = TimeRange { start_ms: START_MS + 1, end_ms: START_MS + 50 };
    assert_eq!(store.operations(&one(), Some("checkout"), Some(range)).unwrap()[0].count, 50);
    assert_eq!(store.operations(&one(), Some("else"), None).unwrap(), []);

    let (service, name) = ("checkout".to_owned(), "GET /pay".to_owned());
    let mut query = SpreadQuery { service, name, range, seen: range, columns: 5, rows: 4 };
    let spread = store.spread(&one(), &query).unwrap();
    assert_eq!((spread.count, spread.columns.len(), spread.edges.len()), (50, 5, 5));
    assert!(spread.edges.is_sorted() && spread.edges[0] <= 1_000_000 && spread.edges[4] >= 50_000_000);
    assert_eq!(spread.columns.iter().map(|column| column.iter().sum::<u64>()).collect::<Vec<_>>(), [10; 5]);
    assert_eq!(spread.columns[4][3], 10, "the last are the longest");
    query.seen.start_ms = START_MS + 41;
    let spread = store.spread(&one(), &query).unwrap();
    assert_eq!(
        (spread.count, spread.range),
        (10, range),
        "of what is seen, in the columns of what was asked for"
    );
    assert_eq!(
        spread.columns.iter().map(|column| column.iter().sum::<u64>()).collect::<Vec<_>>(),
        [0, 0, 0, 0, 10]
    );
}

#[tokio::test]
async fn pages_of_a_search_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
    // Each trace has spans early and late, so that pages could name it twice.
    for half in [0, 1] {
        let spans: Vec<Told> =
            (1..=20).map(|number| Told::new(u128::from(number), half * 100 + number)).collect();
        append(&store, &spans).await;
    }
    let mut search = TraceSearch::default();
    let mut seen = Vec::new();
    loop {
        let page = store.search(&one(), &search, 6).unwrap();
        seen.extend(page.iter().map(|found| found.matched.trace_id.get()));
        let Some(last) = page.last() else { break };
        assert_eq!((last.spans, last.matches, last.duration_nanos), (2, 2, 100_001_000));
        search.after = Some(last.cursor());
    }
    assert_eq!(seen, (1..=20).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_makes_no_sense_costs_none_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, &[Told::new(7, 1), Told::new(8, 2)]).await;
    store.shutdown();
    drop(store);
    let path = dir.path().join(&files(dir.path())[0]);
    let database = redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let records: redb::TableDefinition<(u32, u128, u64), (u32, &[u8])> =
        redb::TableDefinition::new("records");
    {
        let mut records = write.open_table(records).unwrap();
        records.insert((0, 7, 1000), (0, &[1, 0xff, 0xff][..])).unwrap();
        records.insert((0, 7, 1001), (99, &[0][..])).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let store = open(dir.path());
    assert_eq!(ids(&trace(&store, 7)), [1]);
    assert_eq!(store.status().unreadable_records, 2);
    assert_eq!((store.status().damaged_files, store.status().files), (0, 1));
    assert_eq!(ids(&trace(&store, 8)), [2]);
    append(&store, &[Told::new(7, 3)]).await;
    assert_eq!(ids(&trace(&store, 7)), [1, 3]);
}

#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_was_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, &[Told::new(7, 1)]).await;
    // A reader found it damaged while it was being written.
    let slice = store.shared.slices().remove(0);
    store.shared.set_aside(&slice, &TraceError::damaged(&slice.path, "said so"));
    assert!(matches!(slice.write(&[], &mut slice::Known::default()), Err(TraceError::Damaged { .. })));
    append(&store, &[Told::new(7, 2)]).await;
    assert_eq!(ids(&trace(&store, 7)), [2], "what is acknowledged is seen");
    assert_eq!(store.status().files, 1);
    drop(store);
    assert_eq!(files(dir.path()).len(), 2, "{:?}", files(dir.path()));
    assert_eq!(ids(&trace(&open(dir.path()), 7)), [2], "and after a restart too");
}

#[tokio::test]
async fn damage_of_one_file_does_not_concern_another_that_was_read_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let options = TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) };
    let store = TraceStore::open(options).unwrap();
    append(&store, &[Told::new(7, 1)]).await;
    append(&store, &[Told::new(7, 2)]).await;
    let [a, b] = &store.shared.slices()[..] else { panic!("two files") };
    let inner = || store.shared.look(b, || Err::<(), _>(TraceError::damaged(&b.path, "said so")));
    assert!(store.shared.look(a, inner).is_err());
    assert_eq!(ids(&trace(&store, 7)), [1], "the sound one is served");
    assert_eq!((store.status().files, store.status().damaged_files), (1, 1));
}

#[tokio::test]
async fn a_file_that_is_closed_is_not_written_nor_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
    append(&store, &[Told::new(7, 1)]).await;
    append(&store, &[Told::new(7, 2)]).await;
    drop(store);
    // Without the last one, the one before it is the last, and opened as one that is closed.
    std::fs::write(dir.path().join(&files(dir.path())[1]), b"no database").unwrap();
    let store = open(dir.path());
    append(&store, &[Told::new(7, 3)]).await;
    assert_eq!(ids(&trace(&store, 7)), [1, 3]);
    assert_eq!((store.status().files, store.status().damaged_files), (2, 1));
}

#[tokio::test]
async fn what_is_read_of_a_trace_is_bounded_by_memory_and_single_spans_are_found_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // A mebibyte each, and next to nothing on disk.
    let large = |number: u64| {
        let mut batch = batches(&[Told::new(7, number)]);
        batch[0].spans[0].attributes = (0..64)
            .map(|n| attribute(&format!("a{n}"), &"x".repeat(16 << 10)))
            .chain([attribute("number", &number.to_string())])
            .collect();
        batch
    };
    for number in 1..=8 {
        store.append(&TenantId::anonymous(), large(number)).await.unwrap();
    }
    assert!(store.status().bytes < 4 << 20, "{:?}", store.status());
    let whole = store.trace(&one(), id(7)).unwrap();
    assert_eq!((whole.spans.len(), whole.truncated), (8, false));
    let some = store.trace_within(&one(), id(7), (usize::MAX, 4 << 20)).unwrap();
    assert_eq!((ids(&some.spans), some.truncated), (vec![1, 2, 3], true));
    let some = store.trace_within(&one(), id(7), (5, usize::MAX)).unwrap();
    assert_eq!((some.spans.len(), some.truncated), (5, true));
    // The same span again takes the place of the one before.
    for _ in 0..8 {
        store.append(&TenantId::anonymous(), large(8)).await.unwrap();
    }
    let whole = store.trace_within(&one(), id(7), (8, 9 << 20)).unwrap();
    assert_eq!((whole.spans.len(), whole.truncated), (8, false));

    let last = SpanId::new(8).unwrap();
    assert!(store.span(&one(), None, last).unwrap().unwrap().says("number", "8"));
    assert_eq!(store.facts(&one(), &[(None, last)]).unwrap().len(), 1);
    let attributes = vec![("number".to_owned(), "8".to_owned())];
    let found = store.search(&one(), &TraceSearch { attributes, ..Default::default() }, 5).unwrap();
    assert_eq!((found.len(), found[0].spans, found[0].matches), (1, 8, 1));
    assert_eq!(found[0].matched.span_id, last);
    assert!(found[0].matched.attributes.is_empty() && found[0].matched.origin.resource.is_empty());
}

#[tokio::test]
async fn a_page_is_filled_though_traces_on_it_were_on_pages_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let spans = [(1, 100), (1, 50), (2, 90), (3, 80), (4, 40), (5, 30)];
    let spans = spans.map(|(trace, at_ms)| Told { at_ms, ..Told::new(trace, at_ms) });
    append(&store, &spans).await;
    assert_eq!(pages(&store, &TraceSearch::default(), 2), [vec![1, 2], vec![3, 4], vec![5]]);
}

/// The traces of each page, as the route asks for them: one more than are shown tells whether there is another page.
fn pages(store: &TraceStore, search: &TraceSearch, limit: usize) -> Vec<Vec<u128>> {
    let mut search = search.clone();
    let mut pages = Vec::new();
    loop {
        let mut page = store.search(&one(), &search, limit + 1).unwrap();
        let more = page.len() > limit;
        page.truncate(limit);
        search.after = page.last().map(FoundTrace::cursor);
        pages.push(page.iter().map(|found| found.matched.trace_id.get()).collect());
        if !more {
            return pages;
        }
    }
}

fn told() -> impl Strategy<Value = Told> {
    let names = prop::sample::select(vec![("checkout", "a"), ("checkout", "b"), ("payments", "a")]);
    let color = prop::sample::select(vec!["red", "blue"]);
    (1..6u128, 1..60u64, 0..50u64, 0..9u64, names, 0..3i32, color).prop_map(
        |(trace, span, at_ms, nanos, (service, name), status, color)| {
            // An id belongs to one trace.
            let span = span * 10 + trace as u64;
            Told { at_ms, nanos, service, name, status, color, ..Told::new(trace, span) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_search_finds_what_looking_at_everything_finds(
        spans in prop::collection::vec(told(), 1..40),
        service in prop::option::of(prop::sample::select(vec!["checkout", "payments"])),
        name in prop::option::of(prop::sample::select(vec!["a", "b"])),
        least in prop::option::of(0..9u64),
        most in prop::option::of(0..9u64),
        status in prop::option::of(0..3i32),
        color in prop::option::of(prop::sample::select(vec!["red", "blue"])),
        range in prop::option::of((0..50i64, 0..50i64)),
        limit in 1..7usize,
    ) {
        // What came later under one id replaces what came before.
        let mut distinct: HashMap<u64, Told> = HashMap::new();
        for span in spans {
            distinct.entry(span.span).or_insert(span);
        }
        let spans: Vec<Told> = distinct.into_values().collect();
        let range = range.map(|(a, b)| TimeRange { start_ms: START_MS + a.min(b), end_ms: START_MS + a.max(b) });
        let search = TraceSearch {
            service: service.map(str::to_owned),
            name: name.map(str::to_owned),
            min_nanos: least,
            max_nanos: most,
            status: status.map(SpanStatus::of),
            attributes: color.map(|color| ("color".to_owned(), color.to_owned())).into_iter().collect(),
            range,
            after: None,
        };
        let good = |span: &&Told| {
            service.is_none_or(|service| service == span.service)
                && name.is_none_or(|name| name == span.name)
                && least.is_none_or(|least| span.nanos >= least)
                && most.is_none_or(|most| span.nanos <= most)
                && status.is_none_or(|status| status == span.status)
                && color.is_none_or(|color| color == span.color)
                && range.is_none_or(|range| {
                    (range.start_ms..=range.end_ms).contains(&(START_MS + span.at_ms as i64))
                })
        };
        let mut wanted: HashMap<u128, (u64, u64)> = HashMap::new();
        for span in spans.iter().filter(good) {
            let place = wanted.entry(span.trace).or_default();
            *place = (*place).max((span.at_ms, span.span));
        }
        let mut wanted: Vec<(u64, u64)> = wanted.into_values().collect();
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        wanted.truncate(limit);

        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async {
            let store =
                TraceStore::open(TraceOptions { file_bytes: 1, ..TraceOptions::new(dir.path(), None) }).unwrap();
            for part in spans.chunks(15) {
                append(&store, part).await;
            }
            store.search(&one(), &search, limit).unwrap()
        });
        let found: Vec<(u64, u64)> = found
            .iter()
            .map(|found| (((found.matched.start_nanos as u64) - START) / 1_000_000, found.matched.span_id.get()))
            .collect();
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn pages_together_are_everything_and_nothing_twice(
        spans in prop::collection::vec(told(), 1..60),
        color in prop::option::of(prop::sample::select(vec!["red", "blue"])),
        limit in 1..5usize,
    ) {
        let mut distinct: HashMap<u64, Told> = HashMap::new();
        for span in spans {
            distinct.entry(span.span).or_insert(span);
        }
        let spans: Vec<Told> = distinct.into_values().collect();
        let search = TraceSearch {
            attributes: color.map(|color| ("color".to_owned(), color.to_owned())).into_iter().collect(),
            ..Default::default()
        };
        let mut wanted: HashMap<u128, (u64, u64)> = HashMap::new();
        for span in spans.iter().filter(|span| color.is_none_or(|color| color == span.color)) {
            let place = wanted.entry(span.trace).or_default();
            *place = (*place).max((span.at_ms, span.span));
        }
        let mut wanted: Vec<(u128, (u64, u64))> = wanted.into_iter().collect();
        wanted.sort_unstable_by_key(|(_, place)| std::cmp::Reverse(*place));
        let wanted: Vec<u128> = wanted.into_iter().map(|(trace, _)| trace).collect();

        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pages = runtime.block_on(async {
            let store = open(dir.path());
            append(&store, &spans).await;
            pages(&store, &search, limit)
        });
        prop_assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit), "{:?}", pages);
        prop_assert_eq!(pages.concat(), wanted);
    }
}
