use std::io::Write;

use buffa::Message;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use spanflame_wire::google::v1::{Location, Mapping, Profile as Pprof, Sample, ValueType};

use super::*;
use crate::model::SpanId;
use crate::testing::{CPU, PprofBuilder, SAMPLES, START_MS, series_labels, without_ids};

const NOW: i64 = START_MS + 10_000;
const SPAN: &str = "00f067aa0ba902b7";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn decode(pprof: &Pprof) -> Result<Vec<Profile>, IngestError> {
    decode_with(pprof, &Limits::default())
}

fn decode_with(pprof: &Pprof, limits: &Limits) -> Result<Vec<Profile>, IngestError> {
    decode_series(series_labels(&[]), pprof.encode_to_vec().into(), limits, NOW)
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

fn one(profiles: Vec<Profile>) -> Profile {
    let [profile] = <[Profile; 1]>::try_from(profiles).expect("one profile");
    profile
}

/// Frames of a row, the root first.
fn frames(profile: &Profile, row: usize) -> Vec<String> {
    let symbols = &profile.symbols;
    let locations = symbols.stack(profile.row_stacks[row]).iter().rev().map(|&l| symbols.location(l));
    let lines = locations.flat_map(|location| symbols.lines(location).iter().rev());
    lines.map(|line| symbols.string(symbols.function_name(line.function)).to_owned()).collect()
}

#[test]
fn a_profile_keeps_what_it_says() {
    let builder = PprofBuilder::new()
        .sample(&["main", "handler"], 1, &[("span_id", SPAN), ("trace_id", TRACE), ("span_name", "GET /pay")])
        .sample(
            &["main", "handler", "hash"],
            2,
            &[("span_id", SPAN), ("trace_id", TRACE), ("span_name", "GET /pay")],
        )
        .sample(&["main"], 3, &[]);
    let profile = one(builder.profiles(&[("pod", "a")]));
    assert_eq!(profile.labels.iter().collect::<Vec<_>>(), [("pod", "a"), ("service_name", "checkout")]);
    assert_eq!(profile.types.iter().map(ToString::to_string).collect::<Vec<_>>(), [SAMPLES, CPU]);
    assert_eq!((profile.start_nanos, profile.duration_nanos), (START_MS * 1_000_000, 10_000_000_000));
    assert_eq!(profile.column(0), [1, 2, 3]);
    assert_eq!(profile.column(1), [10_000_000, 20_000_000, 30_000_000]);
    assert_eq!(frames(&profile, 1), ["main", "handler", "hash"]);
    assert_eq!(profile.row_spans, [1, 1, 0]);
    let span = &profile.spans[1];
    assert_eq!(span.span_id.unwrap().to_string(), SPAN);
    assert_eq!(span.trace_id.unwrap().to_string(), TRACE);
    assert_eq!(profile.symbols.string(span.name), "GET /pay");
}

#[test]
fn gzip_is_seen_by_its_magic() {
    let builder = PprofBuilder::new().sample(&["main"], 1, &[]);
    let plain = decode_series(series_labels(&[]), builder.bytes(), &Limits::default(), NOW).unwrap();
    let zipped = decode_series(series_labels(&[]), gzip(&builder.bytes()), &Limits::default(), NOW).unwrap();
    assert_eq!(without_ids(plain), without_ids(zipped));
}

#[test]
fn labels_that_come_first_say_the_same() {
    let labels = [("span_id", SPAN), ("endpoint", "/pay")];
    let mut builder = PprofBuilder::new();
    for count in 0..3 {
        // Equal labels, with other values and stack traces behind them.
        builder = builder.sample(&["main", ["a", "b", "c"][count]], count as i64, &labels);
    }
    let mut pprof = builder.pprof.clone();
    let samples = std::mem::take(&mut pprof.sample);
    let mut bytes = pprof.encode_to_vec();
    for sample in samples {
        let rest = Sample { label: Vec::new(), ..sample.clone() };
        let mut turned = Sample { label: sample.label, ..Sample::default() }.encode_to_vec();
        turned.extend(rest.encode_to_vec());
        bytes.extend([0x12, u8::try_from(turned.len()).expect("a small sample")]);
        bytes.extend(turned);
    }
    let turned = decode_series(series_labels(&[]), bytes.into(), &Limits::default(), NOW).unwrap();
    assert_eq!(without_ids(turned), without_ids(decode(&builder.pprof).unwrap()));
}

#[test]
fn ids_become_columns_and_other_labels_split() {
    let builder = PprofBuilder::new()
        .sample(&["a"], 1, &[("profile_id", SPAN), ("endpoint", "/pay")])
        .sample(&["a"], 2, &[("span_id", "abc"), ("endpoint", "/pay")])
        .sample(&["a"], 4, &[("endpoint", "/buy"), ("bytes", "#7"), ("service_name", "ignored")])
        .sample(
            &["a"],
            8,
            &[
                ("span_id", SPAN),
                ("parent_span_id", "#18446744073709551615"),
                ("local_root_span_id", "#5"),
                ("local_root_span_name", "GET /pay"),
            ],
        );
    let profiles = builder.profiles(&[]);
    let endpoints: Vec<_> = profiles.iter().map(|p| p.labels.get("endpoint")).collect();
    assert_eq!(endpoints, [Some("/pay"), Some("/buy"), None]);
    assert!(profiles.iter().all(|p| p.labels.service() == "checkout"));
    assert_eq!(profiles[0].row_spans, [1, 0], "an id that is none is no span");
    assert_eq!(profiles[0].spans[1].span_id, SPAN.parse().ok());
    let span = &profiles[2].spans[1];
    assert_eq!(span.parent, SpanId::new(u64::MAX));
    assert_eq!(span.local_root, SpanId::new(5));
    assert_eq!(profiles[2].symbols.string(span.local_root_name), "GET /pay");
    assert!(profiles.iter().all(|p| p.labels.get("local_root_span_name").is_none()), "it splits no series");
}

#[test]
fn rows_that_say_the_same_add_up_and_worthless_ones_go() {
    let mut builder = PprofBuilder::new()
        .sample(&["a"], 1, &[("thread", "#1")])
        .sample(&["a"], 2, &[("thread", "#2")])
        .sample(&["a"], 4, &[("span_id", SPAN)])
        .sample(&["b"], 0, &[])
        .sample(&["b"], -1, &[]);
    let profile = one(builder.profiles(&[]));
    assert_eq!(profile.column(0), [3, 4]);
    assert_eq!(profile.symbols.stack_count(), 1, "b is nowhere");
    for sample in &mut builder.pprof.sample {
        sample.value[0] = 0;
    }
    let profile = one(builder.profiles(&[]));
    assert_eq!(profile.types.len(), 1, "a column of zeros is no column");
    assert!(profile.types[0].is_cpu_time());
    builder.pprof.sample.clear();
    assert_eq!(builder.profiles(&[]), []);
}

#[test]
fn defaults_fill_what_is_missing() {
    let mut builder = PprofBuilder::new().sample(&["a"], 1, &[]);
    builder.pprof.time_nanos = 0;
    builder.pprof.period_type = Default::default();
    let labels =
        vec![("__name__".to_owned(), "memory".to_owned()), ("__delta__".to_owned(), "false".to_owned())];
    let profile = one(decode_series(labels, builder.bytes(), &Limits::default(), NOW).unwrap());
    assert_eq!(profile.labels.iter().collect::<Vec<_>>(), [("service_name", "unknown_service")]);
    assert_eq!(profile.start_nanos, NOW * 1_000_000);
    assert_eq!(profile.types[1].to_string(), "memory:cpu:nanoseconds::");

    let named = builder.sample(&["a"], 1, &[("service_name", "of the sample")]);
    let labels = vec![("__name__".to_owned(), "wall".to_owned())];
    let profiles = decode_series(labels, named.bytes(), &Limits::default(), NOW).unwrap();
    assert_eq!(profiles[1].labels.service(), "of the sample");
    assert_eq!(profiles[0].types[0].name.as_ref(), "wall");
    assert_eq!(profiles[0].types[1].name.as_ref(), "process_cpu");
}

#[test]
fn addresses_stay_only_where_functions_are_not_known() {
    let mut builder = PprofBuilder::new().sample(&["main"], 1, &[]);
    let filename = builder.string("/usr/bin/app");
    builder.pprof.mapping.push(Mapping { id: 1, memory_start: 4096, filename, ..Default::default() });
    builder.pprof.location[0].mapping_id = 1;
    builder.pprof.location[0].address = 5000;
    builder.pprof.location.push(Location { id: 9, mapping_id: 1, address: 6000, ..Default::default() });
    builder.pprof.location.push(Location { id: 10, ..Default::default() });
    // The leaf is not symbolized, the next says nothing, the third is nowhere.
    builder.pprof.sample[0].location_id = vec![9, 10, 77, 1];
    let profile = one(builder.profiles(&[]));
    let stack = profile.symbols.stack(0);
    assert_eq!(stack.len(), 2);
    let [leaf, root] = [stack[0], stack[1]].map(|location| profile.symbols.location(location));
    assert_eq!((leaf.address, root.address), (6000, 0));
    assert_eq!(profile.symbols.mapping(leaf.mapping).start, 4096);
    assert_eq!(profile.symbols.mapping(root.mapping).start, 0);
    assert_eq!(profile.symbols.unsymbolized_name(leaf), "app 0x1770");
}

#[test]
fn what_is_too_long_is_cut_at_the_right_end() {
    let limits = Limits { max_string_bytes: 4, max_stack_depth: 2, ..Limits::default() };
    let builder = PprofBuilder::new().sample(&["root", "häße", "leaf"], 1, &[]);
    let profile = one(decode_with(&builder.pprof, &limits).unwrap());
    assert_eq!(frames(&profile, 0), ["root", "ße"]);
}

#[test]
fn refusals_name_the_field_and_the_limit() {
    type Change = fn(&mut PprofBuilder);
    let cases: [(&str, Change); 19] = [
        ("sample[0].value: expected 2 values", |b| b.pprof.sample[0].value.truncate(1)),
        ("sample_type: is empty", |b| b.pprof.sample_type.clear()),
        ("sample_type[0].type: string 99", |b| b.pprof.sample_type[0].r#type = 99),
        ("sample_type[0]: expected names without colons", |b| b.pprof.string_table[1] = "a-b".into()),
        ("sample_type[0]: has no type", |b| b.pprof.sample_type[0].r#type = 0),
        ("sample_type[1]: samples/count is there twice", |b| {
            b.pprof.sample_type[1] = b.pprof.sample_type[0].clone()
        }),
        ("string_table: is empty", |b| b.pprof.string_table.clear()),
        ("string_table[0]: must be the empty string", |b| b.pprof.string_table[0] = "x".into()),
        ("function[0].id: is 0", |b| b.pprof.function[0].id = 0),
        ("function[1].id: 1 is there twice", |b| b.pprof.function[1].id = 1),
        ("function[0].name: string -1", |b| b.pprof.function[0].name = -1),
        ("location[0].id: is 0", |b| b.pprof.location[0].id = 0),
        ("mapping[0].filename: string 99", |b| {
            b.pprof.mapping.push(Mapping { id: 1, filename: 99, ..Default::default() });
        }),
        ("sample[0].label.key: string 99", |b| b.pprof.sample[0].label[0].key = 99),
        ("sample[0].label.str: string 99", |b| b.pprof.sample[0].label[0].str = 99),
        ("max_ahead_ms", |b| b.pprof.time_nanos = (NOW + 600_001) * 1_000_000),
        ("with its duration, the end at", |b| b.pprof.duration_nanos = i64::MAX),
        ("time_nanos: -1 ns is before 1970", |b| b.pprof.time_nanos = -1),
        ("period_type.unit: string 99", |b| {
            b.pprof.period_type.as_option_mut().unwrap().unit = 99;
        }),
    ];
    for (expected, change) in cases {
        let mut builder = PprofBuilder::new().sample(&["a", "b"], 1, &[("k", "v")]);
        change(&mut builder);
        let error = decode(&builder.pprof).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let builder = PprofBuilder::new().sample(&["a"], 1, &[("k", "v"), ("l", "w")]).sample(&["b"], 1, &[]);
    let limited: [(&str, Limits); 9] = [
        ("max_samples of 1", Limits { max_samples: 1, ..Limits::default() }),
        ("max_labels_per_sample of 1", Limits { max_labels_per_sample: 1, ..Limits::default() }),
        ("max_labels_per_series of 2", Limits { max_labels_per_series: 2, ..Limits::default() }),
        ("max_label_name_bytes of 0", Limits { max_label_name_bytes: 0, ..Limits::default() }),
        ("max_label_value_bytes of 0", Limits { max_label_value_bytes: 0, ..Limits::default() }),
        ("max_series_per_profile of 1", Limits { max_series_per_profile: 1, ..Limits::default() }),
        ("max_profile_bytes of 10", Limits { max_profile_bytes: 10, ..Limits::default() }),
        ("max_decoded_bytes of 10", Limits { max_decoded_bytes: 10, ..Limits::default() }),
        ("max_age_ms of 5", Limits { max_age_ms: Some(5), ..Limits::default() }),
    ];
    for (expected, limits) in limited {
        let error = decode_with(&builder.pprof, &limits).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn labels_of_the_series_are_checked() {
    let bytes = PprofBuilder::new().sample(&["a"], 1, &[]).bytes();
    let labels = |pairs: &[(&str, &str)]| -> String {
        let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        decode_series(pairs, bytes.clone(), &Limits::default(), NOW).unwrap_err().to_string()
    };
    assert!(labels(&[("service_name", "a")]).contains("labels: __name__: expected the profile's name"));
    assert!(labels(&[("__name__", "a:b")]).contains("got \"a:b\""));
    assert!(labels(&[("__name__", "a"), ("x", "1"), ("x", "1")]).contains("\"x\" is there twice"));
    assert!(labels(&[("__name__", "a"), ("__name__", "b")]).contains("\"__name__\" is there twice"));
    assert!(labels(&[("__name__", "a"), ("", "1")]).contains("empty name"));
}

#[test]
fn bytes_that_are_no_profile_say_so() {
    let limits = Limits { max_profile_bytes: 1 << 20, max_decoded_bytes: 4 << 20, ..Limits::default() };
    let decode = |bytes: &[u8]| {
        let bytes = Bytes::copy_from_slice(bytes);
        decode_series(series_labels(&[]), bytes, &limits, NOW).unwrap_err().to_string()
    };
    assert!(decode(b"").contains("raw_profile: is empty"));
    assert!(decode(b"\xff\xff\xff").contains("raw_profile: is no pprof"));
    assert!(decode(&gzip(b"x")[..8]).contains("raw_profile: is not complete gzip"));
    // Field 6, one byte that is not UTF-8.
    assert!(decode(&[0x32, 0x00, 0x32, 0x01, 0xff]).contains("string_table: a string is not valid UTF-8"));
    let bomb = gzip(&vec![0; (1 << 20) + 1]);
    assert!(decode(&bomb).contains("max_profile_bytes"));
    // Two bytes a message: decoded, many times that.
    let hollow = gzip(&[0x12, 0x00].repeat(1 << 19));
    assert!(decode(&hollow).contains("max_decoded_bytes"));
}

/// Samples: stack, count, span, and one label.
type Rows = Vec<(Vec<u8>, i64, Option<u8>, Option<u8>)>;

fn rows() -> impl Strategy<Value = Rows> {
    let row =
        (prop::collection::vec(0..5u8, 0..6), 0..100i64, prop::option::of(0..4u8), prop::option::of(0..3u8));
    prop::collection::vec(row, 0..40)
}

fn build(rows: &Rows) -> PprofBuilder {
    rows.iter().fold(PprofBuilder::new(), |builder, (stack, count, span, label)| {
        let stack: Vec<String> = stack.iter().map(|f| format!("f{f}")).collect();
        let stack: Vec<&str> = stack.iter().map(String::as_str).collect();
        let span = span.map(|id| format!("{:016x}", u64::from(id) + 1));
        let label = label.map(|value| format!("v{value}"));
        let mut labels = Vec::new();
        labels.extend(span.as_deref().map(|id| ("span_id", id)));
        labels.extend(label.as_deref().map(|value| ("endpoint", value)));
        builder.sample(&stack, *count, &labels)
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_series(series_labels(&[]), bytes.into(), &Limits::default(), NOW);
    }

    #[test]
    fn no_damage_panics(rows in rows(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), mask in 1..=255u8) {
        let bytes = build(&rows).bytes().to_vec();
        let mut flipped = bytes.clone();
        flipped[flip.index(bytes.len())] ^= mask;
        let _ = decode_series(series_labels(&[]), flipped.into(), &Limits::default(), NOW);
        let cut = bytes[..cut.index(bytes.len())].to_vec();
        let _ = decode_series(series_labels(&[]), cut.into(), &Limits::default(), NOW);
    }

    #[test]
    fn totals_survive(rows in rows()) {
        let profiles = build(&rows).profiles(&[]);
        let sum = |wanted: &dyn Fn(&Option<u8>, &Option<u8>) -> bool| -> i64 {
            rows.iter().filter(|(_, _, span, label)| wanted(span, label)).map(|(_, count, ..)| count).sum()
        };
        let total: i64 = profiles.iter().flat_map(|p| p.column(0)).sum();
        prop_assert_eq!(total, sum(&|_, _| true));
        for profile in &profiles {
            let label = profile.labels.get("endpoint").map(|v| v[1..].parse::<u8>().unwrap());
            let total: i64 = profile.column(0).iter().sum();
            prop_assert_eq!(total, sum(&|_, l| *l == label));
            for (number, entry) in profile.spans.iter().enumerate() {
                let of_span: i64 = profile.row_spans.iter().zip(profile.column(0)).filter(|(s, _)| **s as usize == number).map(|(_, v)| v).sum();
                let id = entry.span_id.map(|id| (id.get() - 1) as u8);
                prop_assert_eq!(of_span, sum(&|s, l| *s == id && *l == label));
            }
        }
    }
}

#[test]
fn few_bytes_that_name_long_texts_very_often_are_refused() {
    let long = "x".repeat(60_000);
    let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
    let refused = |pprof: &Pprof| decode_with(pprof, &limits).unwrap_err().to_string();
    // One location of very many lines of one function.
    let mut pprof = PprofBuilder::new().sample(&["f"], 1, &[]).pprof;
    let name = pprof.string_table.len() as i64;
    pprof.string_table.push(long.clone());
    pprof.function[0].name = name;
    let line = pprof.location[0].line[0].clone();
    pprof.location[0].line = vec![line; 1000];
    let error = refused(&pprof);
    assert!(error.contains("each time they are named") && error.contains("max_decoded_bytes"), "{error}");
    // Samples of different spans with the same long name.
    let samples = |spans: u64| {
        let builder = PprofBuilder::new();
        let sample = |builder: PprofBuilder, at: u64| {
            let span = format!("{:016x}", 1 + at % spans);
            builder.sample(&["f"], 1, &[("span_id", &span), ("span_name", &long)])
        };
        (0..100).fold(builder, sample).pprof
    };
    let error = refused(&samples(100));
    assert!(error.contains("each time they are named") && error.contains("max_decoded_bytes"), "{error}");
    // Those of one span name it once.
    assert_eq!(decode_with(&samples(1), &limits).unwrap()[0].rows(), 1);
}

#[test]
fn a_profile_has_a_handful_of_types() {
    let mut pprof = PprofBuilder::new().sample(&["f"], 1, &[]).pprof;
    let unit = pprof.sample_type[0].unit;
    for number in 0..70 {
        let kind = pprof.string_table.len() as i64;
        pprof.string_table.push(format!("kind{number}"));
        pprof.sample_type.push(ValueType { r#type: kind, unit, ..Default::default() });
        pprof.sample[0].value.push(1);
    }
    let error = decode(&pprof).unwrap_err().to_string();
    assert_eq!(error, "sample_type: expected at most 64 types, got 72");
}
