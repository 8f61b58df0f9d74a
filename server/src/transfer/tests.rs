//! What is exported is imported as it was.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use buffa::Message;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ingest::{Limits, decode_series};
use crate::model::{Loss, Profile, ProfileType, SpanId, Symbols, TenantId, TimeRange};
use crate::query::{Engine, Selection, SpanFilter};
use crate::selector::LabelSelector;
use crate::store::{NO_SPAN, Store, StoreOptions};
use crate::testing::{CPU, PprofBuilder, START_MS, series_labels};

fn tenant() -> TenantId {
    TenantId::anonymous()
}

fn export_to(
    data: &Path,
    out: &Path,
    selector: &str,
    range: Option<TimeRange>,
) -> Result<Exported, ExportError> {
    let selector = LabelSelector::parse(selector).unwrap();
    let (data_dir, out) = (data.to_owned(), out.to_owned());
    export(&ExportOptions { data_dir, bucket: None, tenant: tenant(), range, selector, out })
}

async fn import_from(store: &Store, paths: &[&Path], labels: &[(&str, &str)]) -> (Imported, Vec<String>) {
    let options = ImportOptions {
        tenant: tenant(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        limits: Limits::default(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let mut told = Vec::new();
    let tell = |path: &Path, what: &str| {
        told.push(format!("{}: {what}", path.file_name().unwrap().to_string_lossy()));
    };
    let imported = import(store, &options, tell).await.unwrap();
    (imported, told)
}

fn frame(symbols: &Symbols, location: u32) -> String {
    let location = symbols.location(location);
    let mapping = symbols.mapping(location.mapping);
    let lines: Vec<String> = symbols
        .lines(location)
        .iter()
        .map(|line| {
            let function = symbols.function(line.function);
            let text = |number| symbols.string(number);
            format!(
                "{:?}",
                (
                    text(function.name),
                    text(function.system_name),
                    text(function.filename),
                    function.start_line,
                    line.line
                )
            )
        })
        .collect();
    let (file, build) = (symbols.string(mapping.filename), symbols.string(mapping.build_id));
    format!("{:?}", (lines, location.address, file, build, mapping.start, mapping.limit, mapping.offset))
}

/// All that a store has of the tenant, as texts that do not depend on where it lies.
fn everything(store: &Store) -> Vec<String> {
    let mut all = Vec::new();
    for source in store.snapshot(&tenant()) {
        for series in source.series(None).unwrap() {
            source
                .chunks_of(series.id, &mut |chunk| {
                    let mut stacks: BTreeMap<u32, Vec<String>> = BTreeMap::new();
                    source
                        .stacks(&chunk.stacks, &mut |at, symbols, stack| {
                            let frames = stack.iter().map(|location| frame(symbols, *location)).collect();
                            stacks.insert(chunk.stacks[at], frames);
                        })
                        .unwrap();
                    let mut rows = Vec::new();
                    for (number, run) in chunk.runs.iter().enumerate() {
                        let span = (run.entry != NO_SPAN).then(|| {
                            let span = source.entries(&[run.entry]).unwrap().remove(0).span;
                            let names =
                                [span.name, span.local_root_name].map(|name| source.string(name).unwrap());
                            (span.span_id, span.trace_id, span.parent, span.local_root, names)
                        });
                        for row in chunk.rows(number) {
                            let values: Vec<i64> =
                                (0..series.types.len()).map(|column| chunk.column(column)[row]).collect();
                            rows.push(format!("{span:?} {:?} {values:?}", stacks[&chunk.stacks[row]]));
                        }
                    }
                    rows.sort();
                    let (start, duration, period) = (chunk.start_nanos, chunk.duration_nanos, chunk.period);
                    let (labels, types) = (&series.labels, &series.types);
                    all.push(format!(
                        "{} {labels:?} {types:?} {start} {duration} {period} {rows:#?}",
                        chunk.id
                    ));
                })
                .unwrap();
        }
        source.losses(&mut |_, range, losses| all.push(format!("lost {range:?} {losses:?}"))).unwrap();
    }
    all.sort();
    all
}

/// Answers of queries, as texts.
fn answers(store: Arc<Store>) -> Vec<String> {
    let engine = Engine::new(store, [tenant()].into());
    let kind: ProfileType = CPU.parse().unwrap();
    let ids: Vec<SpanId> = (1..6).map(|id| SpanId::new(id).unwrap()).collect();
    let mut answers = vec![
        format!("{:?}", engine.stats().profiles),
        format!("{:?}", engine.span_totals(&ids, true).unwrap()),
        format!("{:?}", engine.profile_types(None).unwrap()),
    ];
    for spans in [SpanFilter::default(), SpanFilter::spans([ids[0]]), SpanFilter::spans([ids[1], ids[2]])] {
        let merged = engine.merge(&Selection { spans, ..Selection::of(kind.clone()) }).unwrap();
        answers.push(format!("{} {}", merged.total(), merged.samples()));
        answers.push(format!("{:?}", merged.tree_bytes(0)));
    }
    answers
}

fn labels() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let value = prop::sample::select(vec!["a", "b/../c", "ü \u{202e}\n", "-x", "*"]);
    let of =
        |name: &'static str| prop::option::of(value.clone().prop_map(move |value| (name, value.to_owned())));
    (of("service_name"), of("pod"), of("k8s.pod name"))
        .prop_map(|(a, b, c)| [a, b, c].into_iter().flatten().collect())
}

fn profile() -> impl Strategy<Value = Vec<Profile>> {
    let id = || prop::option::of(1..6u64);
    let sample = (
        prop::collection::vec(prop::sample::select(vec!["main", "f", "g::<T>", "", "λ"]), 0..5),
        1..1000i64,
        (id(), id(), id(), id()),
        prop::option::of(prop::sample::select(vec!["GET /", "ñ", "x"])),
        prop::option::of(prop::sample::select(vec!["eu", "us"])),
    );
    let samples = prop::collection::vec(sample, 1..12);
    let lost = prop::option::of(1..9u64);
    (samples, labels(), 0..100_000i64, 0..20_000i64, lost).prop_map(
        |(samples, labels, start, duration, lost)| {
            let mut builder = PprofBuilder::new();
            for (frames, count, (span, trace, parent, root), name, region) in &samples {
                let mut of_sample: Vec<(&str, String)> = Vec::new();
                of_sample.extend(span.map(|id| ("span_id", format!("{id:016x}"))));
                of_sample.extend(trace.map(|id| ("trace_id", format!("{id:032x}"))));
                of_sample.extend(parent.map(|id| ("parent_span_id", format!("#{}", id | 1 << 63))));
                of_sample.extend(root.map(|id| ("local_root_span_id", format!("#{id}"))));
                of_sample.extend(name.map(|name| ("span_name", name.to_owned())));
                of_sample.extend(name.map(|name| ("local_root_span_name", format!("{name}…"))));
                of_sample.extend(region.map(|region| ("region", region.to_owned())));
                let of_sample: Vec<(&str, &str)> = of_sample.iter().map(|(n, v)| (*n, v.as_str())).collect();
                builder = builder.sample(frames, *count, &of_sample);
            }
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut profiles = builder.at(START_MS + start, duration).profiles(&labels);
            if let Some(samples) = lost {
                profiles[0].losses = vec![Loss { cause: "ring_full".into(), samples }];
            }
            profiles
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_exported_is_imported_as_it_was(
        profiles in prop::collection::vec(profile(), 1..8),
        flush_after in prop::option::of(0..8usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (one, other, out) =
                (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let store = Arc::new(Store::open(StoreOptions::new(one.path())).unwrap());
            for (at, profiles) in profiles.into_iter().enumerate() {
                store.append(&tenant(), profiles).await.unwrap();
                if flush_after == Some(at) {
                    store.flush().unwrap();
                }
            }
            let exported = export_to(one.path(), out.path(), "{}", None).unwrap();
            assert!(exported.damages.is_empty());
            let again = Arc::new(Store::open(StoreOptions::new(other.path())).unwrap());
            let (imported, told) = import_from(&again, &[out.path()], &[]).await;
            assert_eq!((imported.failed, told), (0, Vec::new()));
            assert_eq!(imported.files, exported.files);
            assert_eq!(everything(&store), everything(&again));
            // Symbols have other numbers there, so trees come in another order before they are merged.
            assert_eq!(answers(Arc::clone(&store)), answers(Arc::clone(&again)));
        });
    }
}

#[tokio::test]
async fn profiles_of_some_series_and_time_are_exported_and_nothing_is_written_over() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    for number in 0..10i64 {
        let service = if number % 2 == 0 { "even" } else { "odd" };
        let builder = PprofBuilder::new().sample(&["main"], 1, &[]).at(START_MS + number * 60_000, 10_000);
        store.append(&tenant(), builder.profiles(&[("service_name", service)])).await.unwrap();
        if number == 4 {
            store.flush().unwrap();
        }
    }
    let count = |name: &str, selector: &str, range| {
        export_to(dir.path(), &out.path().join(name), selector, range)
            .map(|exported| (exported.files, exported.series))
    };
    assert_eq!(count("all", "{}", None).unwrap(), (10, 2));
    assert_eq!(count("odd", r#"{service_name="odd"}"#, None).unwrap(), (5, 1));
    let range = TimeRange::new(START_MS + 65_000, START_MS + 180_000);
    assert_eq!(count("some", "{}", range).unwrap(), (3, 2));
    assert_eq!(count("none", r#"{service_name="nobody"}"#, None).unwrap(), (0, 0));
    assert!(matches!(count("all", "{}", None), Err(ExportError::NotEmpty(_))));
    assert!(matches!(count("names", r#"{span_name="x"}"#, None), Err(ExportError::SpanName)));
}

#[tokio::test]
async fn twins_under_one_id_stay_two_and_wall_profiles_keep_their_cpu_time() {
    let (dir, out, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let twin = PprofBuilder::new().sample(&["main"], 1, &[]).profiles(&[]);
    for _ in 0..3 {
        store.append(&tenant(), twin.clone()).await.unwrap();
    }
    let mut wall = PprofBuilder::new().sample(&["main"], 1, &[]);
    let name = wall.string("wall");
    wall.pprof.sample_type[0].r#type = name;
    let labels =
        vec![("__name__".to_owned(), "wall".to_owned()), ("service_name".to_owned(), "w".to_owned())];
    let profiles = decode_series(labels, wall.bytes(), &Limits::default(), START_MS + 10_000).unwrap();
    assert_eq!(profiles[0].types.iter().map(|kind| &*kind.name).collect::<Vec<_>>(), ["wall", "process_cpu"]);
    store.append(&tenant(), profiles).await.unwrap();
    assert_eq!(export_to(dir.path(), out.path(), "{}", None).unwrap().files, 4);
    let again = Store::open(StoreOptions::new(other.path())).unwrap();
    assert_eq!(import_from(&again, &[out.path()], &[]).await.0.files, 4);
    assert_eq!(everything(&store), everything(&again));
}

#[tokio::test]
async fn a_damaged_segment_costs_what_it_held() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    for number in 0..2 {
        let builder = PprofBuilder::new().sample(&["main"], 1, &[]).at(START_MS + number * 60_000, 10_000);
        store.append(&tenant(), builder.profiles(&[])).await.unwrap();
        store.flush().unwrap();
    }
    drop(store);
    let segment =
        std::fs::read_dir(dir.path().join("objects/segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.len() - 40;
    bytes[end] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let exported = export_to(dir.path(), &out.path().join("x"), "{}", None).unwrap();
    assert_eq!((exported.files, exported.damages.len()), (1, 1), "{:?}", exported.damages);
    std::fs::remove_file(&segment).unwrap();
    let exported = export_to(dir.path(), &out.path().join("y"), "{}", None).unwrap();
    assert_eq!((exported.files, exported.damages.len()), (1, 1), "{:?}", exported.damages);
}

#[tokio::test]
async fn files_of_other_profilers_are_taken_and_bad_ones_named() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(files.path().join(name), bytes).unwrap();
    let cpu = PprofBuilder::new().sample(&["main"], 1, &[]);
    write("cpu.pb", &cpu.bytes());
    write("notes.txt", b"no profile");
    write(".hidden", b"no profile");
    write("empty.pb", b"");
    write("idle.pb.gz", &PprofBuilder::new().bytes());
    let mut heap = PprofBuilder::new().sample(&["main", "alloc"], 3, &[]);
    for (at, name) in ["alloc_objects", "inuse_space"].into_iter().enumerate() {
        let number = heap.string(name);
        heap.pprof.sample_type[at].r#type = number;
    }
    write("heap.pb", &heap.bytes());
    let mut broken = cpu.pprof.clone();
    let comment = "spanflame.profile {\"id\":\"no id\",\"name\":\"process_cpu\",\"labels\":{}}";
    broken.comment.push(broken.string_table.len() as i64);
    broken.string_table.push(comment.to_owned());
    write("broken.pb", &Bytes::from(broken.encode_to_vec()));
    let missing = files.path().join("missing.pb");
    let labels = [("service_name", "job"), ("run", "7")];
    let (imported, told) = import_from(&store, &[files.path(), &missing], &labels).await;
    assert_eq!((imported.files, imported.profiles, imported.failed), (2, 2, 5), "{told:?}");
    for name in
        ["broken.pb: comment: id", "empty.pb: ", "idle.pb.gz: no sample", "missing.pb: ", "notes.txt: "]
    {
        assert!(told.iter().any(|told| told.starts_with(name)), "{name} {told:?}");
    }
    let all = everything(&store);
    assert!(all.iter().all(|profile| profile.contains(r#""run": "7", "service_name": "job""#)), "{all:?}");
    assert!(
        all.iter().any(|profile| profile.contains("memory")) && all.iter().any(|p| p.contains("process_cpu"))
    );
}

#[tokio::test]
async fn a_series_with_as_many_labels_as_there_may_be_comes_back() {
    let (dir, out, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(StoreOptions::new(dir.path())).unwrap();
    let most = Limits::default().max_labels_per_series;
    let names: Vec<String> = (0..most).map(|number| format!("label_{number}")).collect();
    let of_series: Vec<(&str, &str)> = names[..most - 2].iter().map(|name| (name.as_str(), "x")).collect();
    let of_sample = [(names[most - 1].as_str(), "y")];
    let profiles = PprofBuilder::new().sample(&["main"], 1, &of_sample);
    let labels = series_labels(&of_series);
    let profiles = decode_series(labels, profiles.bytes(), &Limits::default(), START_MS + 10_000).unwrap();
    assert_eq!(profiles[0].labels.len(), most);
    store.append(&tenant(), profiles).await.unwrap();
    export_to(dir.path(), out.path(), "{}", None).unwrap();
    let again = Store::open(StoreOptions::new(other.path())).unwrap();
    assert_eq!(import_from(&again, &[out.path()], &[]).await.1, Vec::<String>::new());
    assert_eq!(everything(&store), everything(&again));
}
