//! The store on a real file system.

use std::path::Path;

use super::*;
use crate::model::{SpanId, TraceId};
use crate::testing::PprofBuilder;

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn profiles(number: u64) -> Vec<Profile> {
    let span = format!("{:016x}", number + 1);
    let name = format!("function_{number}");
    PprofBuilder::new().sample(&["main", &name], 1, &[("span_id", &span)]).profiles(&[])
}

fn open(dir: &Path) -> Store {
    Store::open(StoreOptions::new(dir)).unwrap()
}

fn has_span(store: &Store, tenant: &TenantId, number: u64) -> bool {
    let mut found = false;
    for source in store.snapshot(tenant) {
        let lookup = SpanLookup::Span(SpanId::new(number + 1).unwrap());
        source.spans(lookup, &mut |_| found = true).unwrap();
    }
    found
}

fn log_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("log")).unwrap().count()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/yet/there");
    let other = TenantId::new("other").unwrap();
    let store = open(&data);
    store.append(&tenant(), profiles(1)).await.unwrap();
    store.append(&other, profiles(2)).await.unwrap();
    store.append(&tenant(), Vec::new()).await.unwrap();
    let check = |store: &Store| {
        assert!(has_span(store, &tenant(), 1) && has_span(store, &other, 2));
        assert!(!has_span(store, &tenant(), 2) && !has_span(store, &other, 1), "tenants are apart");
    };
    check(&store);
    drop(store);
    let store = open(&data);
    check(&store);
    // It goes on in the same file.
    store.append(&tenant(), profiles(3)).await.unwrap();
    drop(store);
    assert_eq!(log_files(&data), 1);
    let store = open(&data);
    check(&store);
    assert!(has_span(&store, &tenant(), 3));
}

#[tokio::test]
async fn one_process_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = Store::open(StoreOptions::new(dir.path())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    store.shutdown();
    let second = open(dir.path());
    assert!(matches!(store.append(&tenant(), profiles(1)).await, Err(StoreError::Closed)));
    second.append(&tenant(), profiles(1)).await.unwrap();
    assert!(!has_span(&store, &tenant(), 1), "the first only reads what it had");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_wait_together_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.queue_bytes = 4096;
    let store = Arc::new(Store::open(options).unwrap());
    let tasks: Vec<_> = (0..300)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                store.append(&tenant(), profiles(number)).await.unwrap();
                assert!(has_span(&store, &tenant(), number), "its own write is seen at once");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let status = store.status();
    assert_eq!((status.appends, status.queued_bytes), (300, 0));
    assert!(status.syncs < 300, "{} syncs", status.syncs);
}

#[tokio::test]
async fn the_oldest_go_when_memory_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.head_bytes = 100_000;
    let store = Store::open(options.clone()).unwrap();
    for number in 0..400 {
        store.append(&tenant(), profiles(number)).await.unwrap();
        assert!(store.status().head_bytes <= 100_000);
    }
    let status = store.status();
    assert!(status.dropped_profiles > 0 && status.dropped_partitions > 0);
    assert!(status.partitions > 2, "only a part goes at a time: {} parts", status.partitions);
    assert!(!has_span(&store, &tenant(), 0) && has_span(&store, &tenant(), 399));
    let kept = (0..400).filter(|&number| has_span(&store, &tenant(), number)).count() as u64;
    assert_eq!(kept + status.dropped_profiles, 400);
    drop(store);
    let store = Store::open(options.clone()).unwrap();
    assert_eq!((0..400).filter(|&number| has_span(&store, &tenant(), number)).count() as u64, kept);
    drop(store);
    // A lower limit holds from the start, on disk too.
    options.head_bytes = 30_000;
    let files = log_files(dir.path());
    let store = Store::open(options).unwrap();
    assert!(store.status().head_bytes <= 30_000);
    assert!(has_span(&store, &tenant(), 399));
    assert!(log_files(dir.path()) < files);
}

#[tokio::test]
async fn an_append_that_cannot_fit_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.head_bytes = 2000;
    let store = Store::open(options).unwrap();
    let name = "x".repeat(2000);
    let large = PprofBuilder::new().sample(&[&name], 1, &[]).profiles(&[]);
    let error = store.append(&tenant(), large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("over the limit of 1000 bytes"), "{error}");
    store.append(&tenant(), profiles(1)).await.unwrap();
    assert!(has_span(&store, &tenant(), 1));
}

#[tokio::test]
async fn strangers_in_the_directory_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for name in ["notes.txt", "1.log", "00000000000000000001.log.damaged-1"] {
        std::fs::write(dir.path().join("log").join(name), "x").unwrap();
    }
    std::fs::write(dir.path().join("log/00000000000000000003.tmp"), "half of a file").unwrap();
    let store = open(dir.path());
    store.append(&tenant(), profiles(1)).await.unwrap();
    assert_eq!(log_files(dir.path()), 4, "three strangers and the log");
}

#[tokio::test]
async fn the_index_knows_traces_roots_and_children() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let span = |number: u64| format!("{number:016x}");
    let builder = PprofBuilder::new()
        .sample(&["a"], 1, &[("span_id", &span(1)), ("trace_id", trace), ("local_root_span_id", "#1")])
        .sample(
            &["b"],
            2,
            &[
                ("span_id", &span(2)),
                ("trace_id", trace),
                ("local_root_span_id", "#1"),
                ("parent_span_id", "#1"),
            ],
        )
        .sample(&["b"], 4, &[("span_id", &span(3))]);
    for pod in ["a", "b"] {
        store.append(&tenant(), builder.profiles(&[("pod", pod)])).await.unwrap();
    }
    let sources = store.snapshot(&tenant());
    let find = |lookup| {
        let mut found = Vec::new();
        sources[0]
            .spans(lookup, &mut |entry| {
                found.push((entry.span.span_id.unwrap().get(), entry.series, entry.samples))
            })
            .unwrap();
        found.sort_unstable();
        found
    };
    let id = |number| SpanId::new(number).unwrap();
    assert_eq!(find(SpanLookup::Span(id(2))), [(2, 0, 2), (2, 1, 2)]);
    assert_eq!(find(SpanLookup::Children(id(1))), [(2, 0, 2), (2, 1, 2)]);
    assert_eq!(find(SpanLookup::LocalRoot(id(1))), [(1, 0, 1), (1, 1, 1), (2, 0, 2), (2, 1, 2)]);
    assert_eq!(find(SpanLookup::Trace(trace.parse::<TraceId>().unwrap())).len(), 4);
    let mut all = 0;
    sources[0].all_spans(&mut |_| all += 1).unwrap();
    assert_eq!(all, 6);
    assert_eq!(find(SpanLookup::Span(id(9))), []);
    assert_eq!(sources[0].span_count(), 3);
    let entry = |number| {
        let mut entries = Vec::new();
        sources[0].spans(SpanLookup::Span(id(number)), &mut |entry| entries.push(entry.id)).unwrap();
        entries
    };
    let runs = sources[0].runs(&entry(3)).unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|found| found.chunk.column(0)[found.chunk.rows(found.run)] == [4]));
}
