use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use prost::Message as _;
// The same format from an independent definition.
use pyroscope::encode::r#gen::google as independent;

use super::*;
use crate::aggregate::{Added, Aggregator, Editor, Limits as WindowLimits, SpanLabel};
use crate::sampler::Module;
use crate::spans::{LabelSetId, LabelSets, SpanId, TraceId};

fn module(path: &str, start: u64, build_id: &[u8]) -> Module {
    Module {
        start,
        end: start + 0x1000,
        bias: start,
        file_offset: 0x200,
        path: Path::new(path).into(),
        build_id: build_id.into(),
        unloaded: false,
    }
}

fn window(rows: Aggregator) -> Window {
    let mut rows = rows;
    Window {
        start: UNIX_EPOCH + Duration::new(1_700_000_000, 5),
        duration: Duration::from_millis(9_500),
        period: Duration::from_millis(10),
        modules: Arc::from([
            module("/does/not/exist/app", 0x1000, &[0xab, 0x01]),
            module("/does/not/exist/lib.so", 0x9000, &[]),
        ]),
        rows: rows.take(),
        notes: vec!["frequency=100".to_owned()],
    }
}

fn aggregator() -> (Aggregator, &'static LabelSets) {
    let sets: &'static LabelSets = Box::leak(Box::new(LabelSets::new()));
    (Aggregator::new(WindowLimits::default(), Editor::new(sets, 10, None)), sets)
}

fn span(id: u64, labels: LabelSetId) -> SpanLabel {
    SpanLabel {
        span_id: SpanId(id),
        trace_id: TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736),
        parent: SpanId(0),
        local_root: SpanId(id),
        labels,
        root_labels: labels,
    }
}

/// With symbols looked up and no notes but the window's.
fn encode(
    window: &Window,
    symbolizer: &mut Symbolizer,
    labels: SampleLabels,
    limits: Limits,
) -> Vec<Encoded> {
    super::encode(window, &Symbols::look_up(window, symbolizer), labels, &[], limits)
}

fn decode(bytes: &[u8]) -> independent::Profile {
    independent::Profile::decode(bytes).expect("a well-formed profile")
}

/// A profile as text, with every reference followed.
fn text(profile: &independent::Profile) -> String {
    let string = |index: i64| &*profile.string_table[index as usize];
    let mut out = String::new();
    for kind in &profile.sample_type {
        writeln!(out, "type {}/{}", string(kind.r#type), string(kind.unit)).expect("memory");
    }
    let period = profile.period_type.as_ref().expect("a period type");
    writeln!(out, "period {} {}/{}", profile.period, string(period.r#type), string(period.unit))
        .expect("memory");
    writeln!(out, "default {}", string(profile.default_sample_type)).expect("memory");
    writeln!(out, "time {} for {}", profile.time_nanos, profile.duration_nanos).expect("memory");
    for comment in &profile.comment {
        writeln!(out, "comment {}", string(*comment)).expect("memory");
    }
    for m in &profile.mapping {
        let (start, limit, offset) = (m.memory_start, m.memory_limit, m.file_offset);
        writeln!(
            out,
            "mapping {} {start:x}-{limit:x}@{offset:x} {} [{}] {}",
            m.id,
            string(m.filename),
            string(m.build_id),
            m.has_functions
        )
        .expect("memory");
    }
    for sample in &profile.sample {
        let frames: Vec<String> = sample
            .location_id
            .iter()
            .map(|id| {
                let location = &profile.location[*id as usize - 1];
                assert_eq!(location.id, *id);
                let lines: Vec<String> = location
                    .line
                    .iter()
                    .map(|line| {
                        let function = &profile.function[line.function_id as usize - 1];
                        assert_eq!(function.id, line.function_id);
                        format!("{}:{}", string(function.name), line.line)
                    })
                    .collect();
                format!("{:x}@{}({})", location.address, location.mapping_id, lines.join("<"))
            })
            .collect();
        let labels: Vec<String> = sample
            .label
            .iter()
            .map(|label| match label.str {
                0 => format!("{}={}", string(label.key), label.num),
                text => format!("{}={:?}", string(label.key), string(text)),
            })
            .collect();
        writeln!(out, "{:?} {} {{{}}}", sample.value, frames.join(" "), labels.join(" ")).expect("memory");
    }
    out
}

#[test]
fn a_window_reads_back_as_it_was_sampled() {
    let (mut rows, sets) = aggregator();
    let tenant = (Arc::from("tenant"), "acme".into());
    let pay = sets.intern("GET /pay", &[tenant]);
    let child = SpanLabel {
        parent: SpanId(0x00f0_67aa_0ba9_02b7),
        local_root: SpanId(0x00f0_67aa_0ba9_02b7),
        root_labels: pay,
        ..span(u64::MAX, LabelSetId::NONE)
    };
    rows.add(&[0x1010, 0x1021, 0x9031], Some(span(0x00f0_67aa_0ba9_02b7, pay)), 1);
    rows.add(&[0x1010, 0x1021, 0x9031], Some(span(0x00f0_67aa_0ba9_02b7, pay)), 2);
    rows.add(&[0x1020, 0x5], Some(child), 1);
    rows.add(&[0x1010], None, 7);
    let window = window(rows);

    let labels = SampleLabels { trace_id: true, relations: true, root_names: true };
    let mut symbolizer = Symbolizer::new();
    let profiles = encode(&window, &mut symbolizer, labels, Limits::default());
    assert_eq!(profiles.len(), 1);
    assert_eq!(profiles[0].samples, 4);
    let expected = "\
type samples/count
type cpu/nanoseconds
period 10000000 cpu/nanoseconds
default cpu
time 1700000000000000005 for 9500000000
comment frequency=100
mapping 1 1000-2000@200 /does/not/exist/app [ab01] false
mapping 2 9000-a000@200 /does/not/exist/lib.so [] false
[2, 30000000] 1010@1(app+0x10:0) 1020@1(app+0x20:0) 9030@2(lib.so+0x30:0) {span_id=\"00f067aa0ba902b7\" trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\" span_name=\"GET /pay\" tenant=\"acme\" local_root_span_id=67667974448284343}
[1, 10000000] 1020@1(app+0x20:0) 4@0([unknown]:0) {span_id=\"ffffffffffffffff\" trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\" parent_span_id=67667974448284343 local_root_span_id=67667974448284343 local_root_span_name=\"GET /pay\"}
[1, 70000000] 1010@1(app+0x10:0) {}
";
    assert_eq!(text(&decode(&profiles[0].bytes)), expected);

    let labels = SampleLabels { root_names: false, ..labels };
    let profiles = encode(&window, &mut symbolizer, labels, Limits::default());
    let nameless = expected.replace(" local_root_span_name=\"GET /pay\"", "");
    assert_eq!(text(&decode(&profiles[0].bytes)), nameless);

    let labels = SampleLabels::default();
    let profiles = encode(&window, &mut symbolizer, labels, Limits::default());
    let plain = text(&decode(&profiles[0].bytes));
    assert!(
        plain.contains("{span_id=\"00f067aa0ba902b7\" span_name=\"GET /pay\" tenant=\"acme\"}"),
        "{plain}"
    );
    assert!(plain.contains("{span_id=\"ffffffffffffffff\"}"), "{plain}");
}

#[test]
fn the_bytes_are_those_that_the_format_describes() {
    // Written by hand from the format's description, so that a wrong field number cannot hide in a round trip.
    let (mut rows, _) = aggregator();
    rows.add(&[0x5], None, 1);
    let window = Window { modules: Arc::from([]), notes: Vec::new(), ..window(rows) };
    let profiles = encode(&window, &mut Symbolizer::new(), SampleLabels::default(), Limits::default());
    let mut expected = Vec::new();
    // 1: sample types (samples, count) and (cpu, nanoseconds), as string indices
    expected.extend([0x0a, 4, 0x08, 1, 0x10, 2, 0x0a, 4, 0x08, 3, 0x10, 4]);
    // 2: a sample: 1: location ids [1]; 2: values [1, 10000000]
    expected.extend([0x12, 10, 0x0a, 1, 1, 0x12, 5, 1, 0x80, 0xad, 0xe2, 0x04]);
    // 4: a location: 1: id 1; 3: address 5; 4: a line: 1: function 1
    expected.extend([0x22, 8, 0x08, 1, 0x18, 5, 0x22, 2, 0x08, 1]);
    // 5: a function: 1: id 1; 2: name 5; 3: system name 5
    expected.extend([0x2a, 6, 0x08, 1, 0x10, 5, 0x18, 5]);
    // 6: strings
    for string in ["", "samples", "count", "cpu", "nanoseconds", "[unknown]"] {
        expected.extend([0x32, string.len() as u8]);
        expected.extend(string.bytes());
    }
    // 9: time; 10: duration; 11: period type; 12: period; 14: default sample type
    expected.extend([0x48, 0x85, 0x80, 0xa8, 0xb1, 0xe3, 0x9f, 0xe7, 0xcb, 0x17]);
    expected.extend([0x50, 0x80, 0xfe, 0xf9, 0xb1, 0x23]);
    expected.extend([0x5a, 4, 0x08, 3, 0x10, 4]);
    expected.extend([0x60, 0x80, 0xad, 0xe2, 0x04, 0x70, 3]);
    assert_eq!(profiles[0].bytes, expected);
}

#[test]
fn an_empty_profile_is_a_valid_one() {
    let profile = decode(&encode_empty(UNIX_EPOCH + Duration::from_secs(7)));
    assert_eq!((profile.sample_type.len(), profile.sample.len()), (2, 0));
    assert_eq!((&*profile.string_table[0], profile.time_nanos), ("", 7_000_000_000));
    assert!(profile.period_type.is_some());
}

/// (label, stack) → (samples, nanoseconds) of all profiles together.
type Sums = HashMap<(Option<String>, Vec<u64>), (i64, i64)>;

fn sums(profiles: &[Encoded]) -> Sums {
    let mut sums = Sums::new();
    for profile in profiles {
        let profile = decode(&profile.bytes);
        for sample in &profile.sample {
            let label = sample.label.iter().find(|l| profile.string_table[l.key as usize] == "span_id");
            let label = label.map(|label| profile.string_table[label.str as usize].clone());
            let stack = sample.location_id.iter().map(|id| profile.location[*id as usize - 1].address);
            let sum = sums.entry((label, stack.collect())).or_default();
            sum.0 += sample.value[0];
            sum.1 += sample.value[1];
        }
    }
    sums
}

#[test]
fn fifty_thousand_spans_in_a_window_stay_within_bounds_and_lose_no_time() {
    const SPANS: u64 = 50_000;
    let sets: &'static LabelSets = Box::leak(Box::new(LabelSets::new()));
    let mut rows = Aggregator::new(WindowLimits::default(), Editor::new(sets, 2000, None));
    let mut without = 0;
    for i in 0..SPANS {
        let name = sets.intern(&format!("GET /items/{i}"), &[]);
        // Ids as random ones look, so that nothing compresses better than it would.
        let id = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let span = SpanLabel { trace_id: TraceId(u128::from(id) << 64 | u128::from(!id)), ..span(id, name) };
        let stack: Vec<u64> = (0..30).map(|depth| 0x1000 + (i * 7 + depth * 31) % 0xfff).collect();
        without += u64::from(rows.add(&stack, Some(span), 1) == Added::WithoutSpan);
    }
    let window = window(rows);
    assert_eq!(without, SPANS - WindowLimits::default().spans as u64);
    assert!(window.rows.bytes() < 32 << 20, "{}", window.rows.bytes());
    let labels = SampleLabels { trace_id: true, relations: true, root_names: true };
    let profiles = encode(&window, &mut Symbolizer::new(), labels, Limits::default());
    assert_eq!(profiles.iter().map(|profile| profile.samples).sum::<u64>(), SPANS);
    for profile in &profiles {
        let gzipped = crate::export::gzip(&profile.bytes).len();
        assert!(profile.bytes.len() < 2_000_000 && gzipped < 1_000_000, "{gzipped}");
        assert!(decode(&profile.bytes).sample.len() <= 15_000);
    }
    let all: usize = profiles.iter().map(|profile| crate::export::gzip(&profile.bytes).len()).sum();
    assert!(all < 5_000_000, "{all}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn splitting_loses_nothing_and_keeps_to_the_limits(
        samples in proptest::collection::vec(
            (proptest::collection::vec(0x1000u64..0x1040, 0..8), proptest::option::of(1u64..6), 1u32..4),
            0..120,
        ),
        max_samples in 1usize..50,
        max_bytes in 2_000usize..6_000,
    ) {
        let (mut rows, sets) = aggregator();
        let name = sets.intern("name", &[]);
        let mut expected = Sums::new();
        for (frames, id, weight) in &samples {
            rows.add(frames, id.map(|id| span(id, name)), *weight);
            let stack = frames.iter().enumerate().map(|(depth, frame)| lookup_address(*frame, depth));
            let key = (id.map(|id| format!("{id:016x}")), stack.collect());
            let sum = expected.entry(key).or_default();
            sum.0 += 1;
            sum.1 += i64::from(*weight) * 10_000_000;
        }
        let limits = Limits { samples: max_samples, bytes: max_bytes };
        let labels = SampleLabels { trace_id: true, relations: true, root_names: true };
        let notes = ["frequency=100", "lost.ring_full=2"].map(str::to_owned).to_vec();
        let window = Window { notes, ..window(rows) };
        let profiles = encode(&window, &mut Symbolizer::new(), labels, limits);
        prop_assert_eq!(sums(&profiles), expected);
        prop_assert_eq!(profiles.iter().map(|p| p.samples).sum::<u64>(), samples.len() as u64);
        for (part, profile) in profiles.iter().enumerate() {
            let decoded = decode(&profile.bytes);
            let notes: Vec<&str> =
                decoded.comment.iter().map(|note| &*decoded.string_table[*note as usize]).collect();
            let expected = ["frequency=100", "lost.ring_full=2"];
            prop_assert_eq!(notes, if part == 0 { &expected[..] } else { &expected[..1] });
            prop_assert!(decoded.sample.len() <= max_samples);
            // One row more than the limit is where a profile is closed; a row is small.
            prop_assert!(profile.bytes.len() <= max_bytes + 1_500);
        }
    }
}
