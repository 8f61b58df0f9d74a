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

/// Copies a directory of `tests/data` to a place of its own.
fn copy_of(name: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name), dir.path());
    dir
}

#[tokio::test]
async fn the_first_data_directory_with_segments_is_read() {
    // Log version 2, manifest version 1, segment version 1.
    reads_all_of(copy_of("store-1"));
}

#[tokio::test]
async fn a_data_directory_with_filters_in_its_segments_is_read() {
    // As above, but segment version 2.
    reads_all_of(copy_of("store-2"));
}

/// Spans 1 to 20 are in two segments of two tenants, 21 to 25 in the log.
fn reads_all_of(dir: tempfile::TempDir) {
    let other = TenantId::new("team-a").unwrap();
    let check = |store: &Store| {
        let ours = tenant();
        let of = |number: u64| if number.is_multiple_of(5) { &other } else { &ours };
        assert!((1..=25).all(|number| has_span(store, of(number), number)));
        assert!(
            !has_span(store, &tenant(), 5) && !has_span(store, &other, 6) && !has_span(store, &tenant(), 26)
        );
        let profiles: u64 = [&tenant(), &other]
            .into_iter()
            .flat_map(|tenant| store.snapshot(tenant))
            .map(|source| source.profiles())
            .sum();
        assert_eq!(profiles, 25);
        assert_eq!((store.status().damaged_bytes, store.status().damaged_segments), (0, 0));
    };
    let store = open(dir.path());
    assert_eq!((store.status().segments, store.status().partitions), (2, 1));
    check(&store);
    store.flush().unwrap();
    assert_eq!((store.status().segments, store.status().partitions), (4, 0));
    check(&store);
    drop(store);
    check(&open(dir.path()));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_and_nothing_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.head_bytes = 100_000;
    options.cache_bytes = 100_000;
    let store = Store::open(options.clone()).unwrap();
    // What one append adds beyond the limit, as it is let in while there is room.
    let most = 100_000 + 5_000;
    for number in 0..400 {
        store.append(&tenant(), profiles(number)).await.unwrap();
        let status = store.status();
        assert!(status.head_bytes <= most, "{status:?}");
    }
    assert!(store.status().flushes > 0 && store.status().segments > 0);
    assert!((0..400).all(|number| has_span(&store, &tenant(), number)));
    assert!(store.status().cache_bytes <= 100_000);
    drop(store);
    // A lower limit holds from the start.
    options.head_bytes = 20_000;
    let files = log_files(dir.path());
    let store = Store::open(options).unwrap();
    // A file is begun while there is room, and has an eighth of what there was.
    assert!(store.status().head_bytes <= 20_000 + 100_000 / 8 + 5_000);
    assert!((0..400).all(|number| has_span(&store, &tenant(), number)));
    assert!(log_files(dir.path()) <= files);
    store.flush().unwrap();
    assert_eq!((store.status().partitions, log_files(dir.path())), (0, 0));
    drop(store);
    let store = open(dir.path());
    assert!((0..400).all(|number| has_span(&store, &tenant(), number)));
    store.append(&tenant(), profiles(400)).await.unwrap();
    drop(store);
    // The number of a log file that is in segments is not used again.
    assert!(has_span(&open(dir.path()), &tenant(), 400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_after_opening_a_full_head_waits_for_room_or_is_refused_until_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.head_bytes = 100_000;
    let store = Store::open(options.clone()).unwrap();
    // Something else in the place of their directory: segments cannot be written.
    let segments = dir.path().join("objects/segments");
    std::fs::write(&segments, "").unwrap();
    let mut count = 0;
    while store.append(&tenant(), profiles(count)).await.is_ok() {
        count += 1;
        assert!(count < 10_000, "nothing was ever refused");
    }
    drop(store);
    let store = Store::open(options.clone()).unwrap();
    assert!(store.status().head_bytes >= 100_000, "{:?}", store.status());
    assert!((0..count).all(|number| has_span(&store, &tenant(), number)));
    let refused = store.append(&tenant(), profiles(count)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unflushed(_)), "{refused}");
    drop(store);
    std::fs::remove_file(&segments).unwrap();
    let store = Store::open(options).unwrap();
    assert!((0..count).all(|number| has_span(&store, &tenant(), number)));
    store.append(&tenant(), profiles(count)).await.unwrap();
    assert!(store.status().flushes > 0, "the write waited for room");
    assert!((0..=count).all(|number| has_span(&store, &tenant(), number)));
    let stored: u64 = store.snapshot(&tenant()).iter().map(|source| source.profiles()).sum();
    assert_eq!(stored, count + 1, "each is there once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_become_segments_with_age_and_go_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(std::sync::atomic::AtomicI64::new(crate::testing::START_MS));
    let mut options = StoreOptions::new(dir.path());
    let clock = Arc::clone(&now);
    options.clock = Arc::new(move || clock.load(Ordering::Relaxed));
    options.flush_after_ms = 60_000;
    let keep = Keep { age_ms: Some(3_600_000), bytes: None };
    options.retention = Retention { of_tenant: Arc::new(move |_| keep), total_bytes: None };
    let store = Store::open(options).unwrap();
    store.append(&tenant(), profiles(1)).await.unwrap();
    let wait_for = async |what: &dyn Fn(StoreStatus) -> bool| {
        for _ in 0..1200 {
            if what(store.status()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{:?}", store.status());
    };
    now.fetch_add(61_000, Ordering::Relaxed);
    wait_for(&|status| status.segments == 1 && status.partitions == 0).await;
    assert!(has_span(&store, &tenant(), 1));
    let reading = store.snapshot(&tenant());
    now.fetch_add(3_600_000, Ordering::Relaxed);
    wait_for(&|status| status.expired_profiles == 1 && status.segments == 0).await;
    assert!(!has_span(&store, &tenant(), 1) && store.tenants().is_empty());
    // A query that is under way ends with what it began with.
    assert_eq!(reading[0].series(None).unwrap().len(), 1);
    let objects = || std::fs::read_dir(dir.path().join("objects/segments")).unwrap().count();
    assert_eq!(objects(), 1);
    drop(reading);
    for _ in 0..1200 {
        if objects() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the segment's file stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_segments_become_large_ones_and_a_tenant_can_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path());
    options.compaction.fan_out = 4;
    let store = Store::open(options).unwrap();
    let other = TenantId::new("other").unwrap();
    for number in 0..40 {
        store.append(&tenant(), profiles(number)).await.unwrap();
        store.append(&other, profiles(number)).await.unwrap();
        store.flush().unwrap();
    }
    for _ in 0..1200 {
        if store.status().segments <= 8 {
            break;
        }
        let _ = store.flusher.compact();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let status = store.status();
    assert!(status.segments <= 8 && status.compacted_segments > 60, "{status:?}");
    assert!((0..40).all(|number| has_span(&store, &tenant(), number) && has_span(&store, &other, number)));
    assert_eq!(store.snapshot(&other).iter().map(|source| source.profiles()).sum::<u64>(), 40);
    store.append(&other, profiles(40)).await.unwrap();
    assert_eq!(store.delete(&Deletion { tenant: other.clone(), range: None }).unwrap(), 41);
    assert_eq!(store.tenants(), [tenant()]);
    assert!((0..40).all(|number| has_span(&store, &tenant(), number) && !has_span(&store, &other, number)));
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.tenants(), [tenant()]);
    let objects = std::fs::read_dir(dir.path().join("objects/segments")).unwrap().count() as u64;
    assert_eq!(objects, store.status().segments, "nothing else is left");
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
    assert_eq!(find(SpanLookup::Family(id(1))), find(SpanLookup::LocalRoot(id(1))));
    assert_eq!(find(SpanLookup::Family(id(2))), find(SpanLookup::Span(id(2))));
    assert_eq!(find(SpanLookup::Trace(trace.parse::<TraceId>().unwrap())).len(), 4);
    let mut all = 0;
    sources[0].all_spans(None, None, &mut |_| all += 1).unwrap();
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
