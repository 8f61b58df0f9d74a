//! Recordings written as async-profiler writes them: the same types with the same ids, fields in the same order.

use std::io::Write as _;

use buffa::Message;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use spanflame_wire::jfr::v1::{Context, LabelsSnapshot};

use super::*;

const START_NANOS: i64 = 1_767_225_600_000_000_000;
const RECEIVED_MS: i64 = 1_767_225_610_000;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

/// Types that recordings declare: id, name, and fields as `name:type id`, with `*` for the key of a constant and `[]` for
/// a list.
const TYPES: &[(u64, &str, &[&str])] = &[
    (4, "boolean", &[]),
    (5, "char", &[]),
    (6, "float", &[]),
    (7, "double", &[]),
    (10, "int", &[]),
    (11, "long", &[]),
    (20, "java.lang.String", &[]),
    (21, "java.lang.Class", &["classLoader:23*", "name:30*", "package:29*", "modifiers:10"]),
    (22, "java.lang.Thread", &["osName:20", "osThreadId:11", "javaName:20", "javaThreadId:11"]),
    (25, "jdk.types.ThreadState", &["name:20"]),
    (26, "jdk.types.StackTrace", &["truncated:4", "frames:27[]"]),
    (27, "jdk.types.StackFrame", &["method:28*", "lineNumber:10", "bytecodeIndex:10", "type:24*"]),
    (28, "jdk.types.Method", &["type:21*", "name:30*", "descriptor:30*", "modifiers:10", "hidden:4"]),
    (30, "jdk.types.Symbol", &["string:20"]),
    (
        101,
        "jdk.ExecutionSample",
        &[
            "startTime:11",
            "sampledThread:22*",
            "stackTrace:26*",
            "state:25*",
            "contextId:11",
            "spanId:11",
            "spanName:11",
            "traceIdHi:11",
            "traceIdLo:11",
        ],
    ),
    (
        102,
        "jdk.ObjectAllocationInNewTLAB",
        &["startTime:11", "stackTrace:26*", "allocationSize:11", "tlabSize:11", "contextId:11"],
    ),
    (103, "jdk.ObjectAllocationOutsideTLAB", &["startTime:11", "stackTrace:26*", "allocationSize:11"]),
    (104, "jdk.JavaMonitorEnter", &["startTime:11", "duration:11", "stackTrace:26*", "contextId:11"]),
    (105, "jdk.ThreadPark", &["startTime:11", "duration:11", "stackTrace:26*"]),
    (106, "jdk.CPULoad", &["startTime:11", "jvmUser:6", "heap:90"]),
    (108, "jdk.ActiveSetting", &["startTime:11", "id:11", "name:20", "value:20"]),
    (115, "profiler.LiveObject", &["startTime:11", "stackTrace:26*", "allocationSize:11"]),
    (116, "jdk.ObjectAllocationSample", &["startTime:11", "stackTrace:26*", "weight:11"]),
    (117, "profiler.WallClockSample", &["startTime:11", "stackTrace:26*", "state:25*", "samples:10"]),
    (118, "profiler.Malloc", &["startTime:11", "stackTrace:26*", "address:11", "size:11"]),
    (90, "jdk.types.VirtualSpace", &["start:11", "end:7", "parts:91[]"]),
    (91, "example.Part", &["name:20", "of:90"]),
];

fn number(bytes: &mut Vec<u8>, mut value: u64) {
    for _ in 0..8 {
        if value < 0x80 {
            return bytes.push(value as u8);
        }
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(3);
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// An event with its size before it, in four bytes as writers do that fill it in afterwards.
fn event_of(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    number(&mut head, kind);
    let size = (4 + head.len() + body.len()) as u32;
    let mut bytes: Vec<u8> = (0..4).map(|at| (size >> (7 * at)) as u8 & 0x7f | 0x80).collect();
    bytes[3] &= 0x7f;
    bytes.extend(head);
    bytes.extend_from_slice(body);
    bytes
}

fn interned(table: &mut Vec<String>, text: &str) -> u64 {
    let at = table.iter().position(|known| known == text).unwrap_or_else(|| {
        table.push(text.to_owned());
        table.len() - 1
    });
    at as u64
}

/// A chunk in the making.
#[derive(Default)]
struct ChunkWriter {
    /// Symbols; a symbol's key is its place plus 1, that of the method with this name the same plus 1000.
    symbols: Vec<String>,
    methods: Vec<(u64, u64)>,
    stacks: Vec<Vec<(u64, u64)>>,
    events: Vec<u8>,
    ticks_per_second: u64,
    /// Whether constants come in two parts.
    split: bool,
    /// Texts that are constants; a text's key is its place.
    texts: Vec<String>,
}

impl ChunkWriter {
    fn new() -> Self {
        Self { ticks_per_second: 1_000_000_000, ..Self::default() }
    }

    /// The key of the stack trace of these methods, `class.method`, the root first.
    fn stack(&mut self, frames: &[&str]) -> u64 {
        let frames = frames.iter().rev().enumerate().map(|(depth, frame)| {
            let (class, method) = frame.rsplit_once('.').unwrap_or(("", frame));
            let pair = (interned(&mut self.symbols, class) + 1, interned(&mut self.symbols, method) + 1);
            let at = self.methods.iter().position(|known| *known == pair).unwrap_or_else(|| {
                self.methods.push(pair);
                self.methods.len() - 1
            });
            (at as u64 + 1000, depth as u64 + 1)
        });
        let frames: Vec<_> = frames.collect();
        self.stacks.push(frames);
        // Beyond 32 bits, as async-profiler's are.
        (1 << 40) + self.stacks.len() as u64 - 1
    }

    fn event(mut self, kind: u64, fields: &[u64]) -> Self {
        let mut body = Vec::new();
        fields.iter().for_each(|field| number(&mut body, *field));
        self.events.extend(event_of(kind, &body));
        self
    }

    fn setting(mut self, name: &str, value: &str) -> Self {
        let mut body = vec![0, 0];
        text(&mut body, name);
        text(&mut body, value);
        self.events.extend(event_of(108, &body));
        self
    }

    /// A setting whose name is the first of the texts.
    fn setting_of_a_constant(mut self) -> Self {
        let mut body = vec![0, 0, 2, 0];
        text(&mut body, "");
        self.events.extend(event_of(108, &body));
        self
    }

    /// An execution sample: state 1 runs, state 2 sleeps.
    fn sample(mut self, frames: &[&str], state: u64, context: u64, span: (u64, u64)) -> Self {
        let stack = self.stack(frames);
        self.event(101, &[7, 1, stack, state, context, span.0, span.1, 0, 0])
    }

    /// One of a running thread in this span of this trace.
    fn traced(mut self, frames: &[&str], span: u64, trace: u128) -> Self {
        let stack = self.stack(frames);
        self.event(101, &[7, 1, stack, 1, 0, span, 0, (trace >> 64) as u64, trace as u64])
    }

    fn metadata() -> Vec<u8> {
        let mut strings: Vec<String> = Vec::new();
        let mut tree = Vec::new();
        {
            let mut word = |tree: &mut Vec<u8>, text: &str| number(tree, interned(&mut strings, text));
            word(&mut tree, "root");
            tree.extend([0, 2]);
            word(&mut tree, "metadata");
            tree.push(0);
            number(&mut tree, TYPES.len() as u64);
            for (id, name, fields) in TYPES {
                word(&mut tree, "class");
                tree.push(2);
                for (key, value) in [("id", id.to_string()), ("name", name.to_string())] {
                    word(&mut tree, key);
                    word(&mut tree, &value);
                }
                number(&mut tree, fields.len() as u64);
                for field in *fields {
                    let (name, kind) = field.split_once(':').unwrap();
                    let (constant, array) = (kind.ends_with('*'), kind.ends_with("[]"));
                    let kind = kind.trim_end_matches(['*', '[', ']']);
                    word(&mut tree, "field");
                    tree.push(2 + u8::from(constant) + u8::from(array));
                    let mut attribute = |key: &str, value: &str| {
                        word(&mut tree, key);
                        word(&mut tree, value);
                    };
                    attribute("name", name);
                    attribute("class", kind);
                    if constant {
                        attribute("constantPool", "true");
                    }
                    if array {
                        attribute("dimension", "1");
                    }
                    // An annotation, which nobody asks for.
                    tree.push(1);
                    word(&mut tree, "annotation");
                    tree.extend([0, 0]);
                }
            }
            word(&mut tree, "region");
            tree.extend([0, 0]);
        }
        let mut body = vec![0, 0, 1];
        number(&mut body, strings.len() as u64);
        strings.iter().for_each(|string| text(&mut body, string));
        body.extend(tree);
        event_of(0, &body)
    }

    fn pools(&self) -> [Vec<u8>; 2] {
        let mut names = Vec::new();
        number(&mut names, 4);
        number(&mut names, 20);
        number(&mut names, self.texts.len() as u64);
        for (key, constant) in self.texts.iter().enumerate() {
            number(&mut names, key as u64);
            text(&mut names, constant);
        }
        number(&mut names, 30);
        number(&mut names, self.symbols.len() as u64);
        for (at, symbol) in self.symbols.iter().enumerate() {
            number(&mut names, at as u64 + 1);
            text(&mut names, symbol);
        }
        number(&mut names, 21);
        number(&mut names, self.symbols.len() as u64);
        for at in 0..self.symbols.len() as u64 {
            [at + 1, 0, at + 1, 0, 0].into_iter().for_each(|value| number(&mut names, value));
        }
        number(&mut names, 25);
        number(&mut names, 2);
        for (key, state) in [(1, "STATE_RUNNABLE"), (2, "STATE_SLEEPING")] {
            number(&mut names, key);
            text(&mut names, state);
        }

        let mut stacks = Vec::new();
        number(&mut stacks, 2);
        number(&mut stacks, 28);
        number(&mut stacks, self.methods.len() as u64);
        for (at, (class, name)) in self.methods.iter().enumerate() {
            [at as u64 + 1000, *class, *name, 0, 0, 0]
                .into_iter()
                .for_each(|value| number(&mut stacks, value));
        }
        number(&mut stacks, 26);
        number(&mut stacks, self.stacks.len() as u64);
        for (at, frames) in self.stacks.iter().enumerate() {
            number(&mut stacks, (1 << 40) + at as u64);
            stacks.push(0);
            number(&mut stacks, frames.len() as u64);
            for (method, line) in frames {
                [*method, *line, 0, 1].into_iter().for_each(|value| number(&mut stacks, value));
            }
        }
        [names, stacks]
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = vec![0; 68];
        bytes.extend_from_slice(&self.events);
        let metadata_at = bytes.len();
        bytes.extend(Self::metadata());
        let [names, stacks] = self.pools();
        let part = |distance: i64, pools: &[u8]| {
            let mut body = vec![0, 0];
            number(&mut body, distance as u64);
            body.push(1);
            body.extend_from_slice(pools);
            event_of(1, &body)
        };
        let first = bytes.len();
        let constants_at = if self.split {
            bytes.extend(part(0, &names));
            let second = bytes.len();
            bytes.extend(part(first as i64 - second as i64, &stacks));
            second
        } else {
            let all: Vec<u8> = [&[6][..], &names[1..], &stacks[1..]].concat();
            bytes.extend(part(0, &all));
            first
        };
        bytes[..4].copy_from_slice(b"FLR\0");
        bytes[4..8].copy_from_slice(&[0, 2, 0, 0]);
        for (at, value) in [
            (8, bytes.len() as u64),
            (16, constants_at as u64),
            (24, metadata_at as u64),
            (32, START_NANOS as u64),
            (40, 10_000_000_000),
            (48, 0),
            (56, self.ticks_per_second),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        bytes[67] = 1;
        bytes
    }
}

fn decode_with(
    recording: &[u8],
    labels: Option<&LabelsSnapshot>,
    limits: &Limits,
) -> Result<Vec<Profile>, IngestError> {
    let series =
        |name: &str| SeriesLabels::new([("__name__", name), ("service_name", "shop")].into_iter(), limits);
    let files = Files {
        recording: recording.to_vec().into(),
        labels: labels.map(|labels| labels.encode_to_vec().into()),
    };
    let header = Header { start_nanos: 0, duration_nanos: 0, period: 10_000_000 };
    decode_jfr(series, &[], files, header, limits, &mut Budget::new(limits), RECEIVED_MS)
}

fn decode(recording: &[u8], labels: Option<&LabelsSnapshot>) -> Vec<Profile> {
    decode_with(recording, labels, &Limits::default()).unwrap()
}

/// Type, stack trace from the root with its lines, span, and value of each row.
fn rows(profiles: &[Profile]) -> Vec<String> {
    let mut rows = Vec::new();
    for profile in profiles {
        for (column, kind) in profile.types.iter().enumerate() {
            for row in 0..profile.rows() {
                let symbols = &profile.symbols;
                let frames = symbols.stack(profile.row_stacks[row]).iter().rev().map(|&location| {
                    let line = symbols.lines(symbols.location(location))[0];
                    format!("{}:{}", symbols.string(symbols.function_name(line.function)), line.line)
                });
                let frames: Vec<_> = frames.collect();
                let value = profile.column(column)[row];
                rows.push(format!("{}:{} {} {value}", kind.name, kind.sample_type, frames.join(";")));
            }
        }
    }
    rows
}

fn snapshot(contexts: &[(i64, &[(i64, i64)])], strings: &[(i64, &str)]) -> LabelsSnapshot {
    let context =
        |labels: &[(i64, i64)]| Context { labels: labels.iter().copied().collect(), ..Default::default() };
    LabelsSnapshot {
        contexts: contexts.iter().map(|(id, labels)| (*id, context(labels))).collect(),
        strings: strings.iter().map(|(id, text)| (*id, (*text).to_owned())).collect(),
        ..Default::default()
    }
}

#[test]
fn running_threads_burn_cpu_and_equal_samples_add_up() {
    let chunk = ChunkWriter::new()
        .setting("event", "itimer")
        .sample(&["java/lang/Thread.run", "Shop.pay"], 1, 0, (0, 0))
        .sample(&["java/lang/Thread.run", "Shop.pay"], 1, 0, (0, 0))
        .sample(&["java/lang/Thread.run", "Shop.sleep"], 2, 0, (0, 0))
        .sample(&["clone"], 9, 0, (0, 0));
    let profiles = decode(&chunk.finish(), None);
    assert_eq!(
        rows(&profiles),
        ["process_cpu:cpu java/lang/Thread.run:2;Shop.pay:1 20000000", "process_cpu:cpu clone:1 10000000"]
    );
    let [profile] = &profiles[..] else { panic!("one profile") };
    assert_eq!(profile.types[0].to_string(), "process_cpu:cpu:nanoseconds:cpu:nanoseconds");
    assert_eq!((profile.start_nanos, profile.duration_nanos), (START_NANOS, 10_000_000_000));
    assert_eq!(profile.period, 10_000_000);
    assert_eq!(
        profile.labels.iter().collect::<Vec<_>>(),
        [("jfr_event", "itimer"), ("service_name", "shop")]
    );
}

#[test]
fn each_kind_of_event_is_a_profile() {
    let mut chunk = ChunkWriter { ticks_per_second: 2_000_000_000, ..ChunkWriter::new() };
    let stack = chunk.stack(&["A.run"]);
    let unknown = 77;
    let chunk = chunk
        .setting("event", "wall")
        .event(101, &[0, 1, stack, 2, 0, 0, 0, 0, 0])
        .event(102, &[0, stack, 16, 4096, 0])
        .event(103, &[0, stack, 100_000])
        .event(116, &[0, stack, 512])
        .event(104, &[0, 3_000, stack, 0])
        .event(105, &[0, 5_000, stack])
        .event(115, &[0, stack, 24])
        .event(117, &[0, stack, 2, 3])
        .event(117, &[0, stack, 1, 2])
        .event(118, &[0, stack, 0xffff_ffff_0000, 64])
        .event(103, &[0, unknown, 1]);
    let profiles = decode(&chunk.finish(), None);
    let mut types: Vec<_> =
        profiles.iter().flat_map(|profile| profile.types.iter().map(ToString::to_string)).collect();
    types.sort();
    assert_eq!(
        types,
        [
            "block:contentions:count:block:count",
            "block:delay:nanoseconds:block:count",
            "memory:alloc_in_new_tlab_bytes:bytes:space:bytes",
            "memory:alloc_in_new_tlab_objects:count:space:bytes",
            "memory:alloc_outside_tlab_bytes:bytes:space:bytes",
            "memory:alloc_outside_tlab_objects:count:space:bytes",
            "memory:alloc_sample_bytes:bytes:space:bytes",
            "memory:alloc_sample_objects:count:space:bytes",
            "memory:live:count:objects:count",
            "memory:malloc_bytes:bytes::",
            "memory:malloc_objects:count::",
            "mutex:contentions:count:mutex:count",
            "mutex:delay:nanoseconds:mutex:count",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
            "wall:wall:nanoseconds:wall:nanoseconds",
        ]
    );
    let mut rows = rows(&profiles);
    rows.sort();
    assert_eq!(
        rows,
        [
            "block:contentions A.run:1 1",
            "block:delay A.run:1 2500",
            "memory:alloc_in_new_tlab_bytes A.run:1 4096",
            "memory:alloc_in_new_tlab_objects A.run:1 1",
            "memory:alloc_outside_tlab_bytes A.run:1 100000",
            "memory:alloc_outside_tlab_objects A.run:1 1",
            "memory:alloc_sample_bytes A.run:1 512",
            "memory:alloc_sample_objects A.run:1 1",
            "memory:live A.run:1 1",
            "memory:malloc_bytes A.run:1 64",
            "memory:malloc_objects A.run:1 1",
            "mutex:contentions A.run:1 1",
            "mutex:delay A.run:1 1500",
            "process_cpu:cpu A.run:1 20000000",
            "wall:wall A.run:1 60000000",
        ]
    );
}

#[test]
fn contexts_and_spans_of_events_become_labels_and_columns() {
    let chunk = ChunkWriter::new().sample(&["A.a"], 1, 5, (SPAN, 9)).sample(&["A.a"], 1, 6, (0, 0)).sample(
        &["A.a"],
        1,
        7,
        (0, 0),
    );
    let strings = [(1, "endpoint"), (2, "/pay"), (3, "profile_id"), (4, "00000000000000ef"), (9, "GET /pay")];
    let labels = snapshot(&[(5, &[(1, 2)]), (6, &[(3, 4), (1, 99)])], &strings);
    let profiles = decode(&chunk.finish(), Some(&labels));
    let found: Vec<_> = profiles
        .iter()
        .flat_map(|profile| {
            profile.row_spans.iter().map(|&span| {
                let span = &profile.spans[span as usize];
                let id = span.span_id.map(|id| id.to_string());
                let endpoint = profile.labels.get("endpoint").map(str::to_owned);
                (endpoint, id, profile.symbols.string(span.name).to_owned())
            })
        })
        .collect();
    assert_eq!(
        found,
        [
            (Some("/pay".to_owned()), Some("00f067aa0ba902b7".to_owned()), "GET /pay".to_owned()),
            (None, Some("00000000000000ef".to_owned()), String::new()),
            (None, None, String::new()),
        ]
    );
    let span = |profile: &Profile| profile.spans[profile.row_spans[0] as usize].span_id.map(|id| id.get());
    assert_eq!(span(&decode(&chunk_with_span().finish(), None)[0]), Some(SPAN), "a span needs no labels");
}

fn chunk_with_span() -> ChunkWriter {
    ChunkWriter::new().sample(&["A.a", "B.b"], 1, 5, (SPAN, 9)).sample(&["A.a"], 1, 5, (0, 0))
}

#[test]
fn a_trace_id_comes_in_two_halves() {
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    let recording = ChunkWriter::new().traced(&["A.a"], SPAN, trace).traced(&["B.b"], SPAN, 7).finish();
    let profiles = decode(&recording, None);
    let spans: Vec<_> = profiles[0].spans[1..]
        .iter()
        .map(|span| (span.span_id.unwrap().get(), span.trace_id.unwrap().get()))
        .collect();
    assert_eq!(spans, [(SPAN, trace), (SPAN, 7)]);
}

#[test]
fn chunks_stand_for_themselves_and_constants_may_come_in_parts() {
    let mut recording = ChunkWriter::new().sample(&["A.a", "B.b"], 1, 0, (0, 0)).finish();
    let second = ChunkWriter { split: true, ..ChunkWriter::new() };
    recording
        .extend(second.sample(&["C.c", "D.d"], 1, 0, (0, 0)).sample(&["A.a", "B.b"], 1, 0, (0, 0)).finish());
    assert_eq!(
        rows(&decode(&recording, None)),
        ["process_cpu:cpu A.a:2;B.b:1 20000000", "process_cpu:cpu C.c:2;D.d:1 10000000"]
    );
}

#[test]
fn either_part_may_be_gzipped() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let limits = Limits::default();
    let labels = snapshot(&[(5, &[(1, 2)])], &[(1, "endpoint"), (2, "/pay")]);
    let files =
        Files { recording: gzip(&chunk_with_span().finish()), labels: Some(gzip(&labels.encode_to_vec())) };
    let series = |name: &str| SeriesLabels::new([("__name__", name)].into_iter(), &limits);
    let span = [("trace_id", LabelValue::Text("4bf92f3577b34da6a3ce929d0e0e4736"))];
    let header = Header { start_nanos: START_NANOS + 7, duration_nanos: 5, period: 0 };
    let profiles =
        decode_jfr(series, &span, files, header, &limits, &mut Budget::new(&limits), RECEIVED_MS).unwrap();
    assert_eq!(profiles[0].labels.get("endpoint"), Some("/pay"));
    assert_eq!((profiles[0].start_nanos, profiles[0].duration_nanos), (START_NANOS + 7, 5));
    assert_eq!(profiles[0].column(0), [10_000_000, 10_000_000]);
    assert!(profiles[0].row_spans.iter().all(|&span| profiles[0].spans[span as usize].trace_id.is_some()));
}

#[test]
fn deep_stack_traces_lose_their_leaves_and_made_up_names_their_numbers() {
    let frames: Vec<String> = (0..50).map(|depth| format!("A.f{depth}")).collect();
    let mut frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    frames[1] = "A$$Lambda$14/605981969.run";
    let recording = ChunkWriter::new().sample(&frames, 1, 0, (0, 0)).finish();
    let limits = Limits { max_stack_depth: 3, ..Limits::default() };
    let profiles = decode_with(&recording, None, &limits).unwrap();
    assert_eq!(rows(&profiles), ["process_cpu:cpu A.f0:50;A$$Lambda_.run:49;A.f2:48 10000000"]);
}

#[test]
fn limits_are_named() {
    let recording = chunk_with_span().finish();
    let refused = |limits: Limits| decode_with(&recording, None, &limits).unwrap_err().to_string();
    let limits = Limits { max_samples: 1, ..Limits::default() };
    assert!(refused(limits).contains("max_samples of 1"));
    let limits = Limits { max_decoded_bytes: 1000, ..Limits::default() };
    assert!(refused(limits).contains("max_decoded_bytes of 1000"));
    let limits = Limits { max_profile_bytes: 100, ..Limits::default() };
    assert!(refused(limits).contains("max_profile_bytes of 100"));
    let labels = snapshot(&[(5, &[(1, 2), (3, 4)])], &[]);
    let limits = Limits { max_labels_per_sample: 1, ..Limits::default() };
    let error = decode_with(&recording, Some(&labels), &limits).unwrap_err().to_string();
    assert!(error.contains("labels: context 5") && error.contains("max_labels_per_sample of 1"), "{error}");
}

#[test]
fn a_text_counts_each_time_that_it_is_looked_up() {
    let writer = ChunkWriter { texts: vec!["x".repeat(100_000)], ..chunk_with_span() };
    let recording = (0..20).fold(writer, |writer, _| writer.setting_of_a_constant()).finish();
    let limits = Limits { max_decoded_bytes: 4_000_000, ..Limits::default() };
    decode_with(&recording, None, &limits).unwrap();
    let limits = Limits { max_decoded_bytes: 1_000_000, ..limits };
    let error = decode_with(&recording, None, &limits).unwrap_err().to_string();
    assert!(error.contains("max_decoded_bytes of 1000000"), "{error}");
}

#[test]
fn damage_is_told_with_its_place() {
    let good = chunk_with_span().finish();
    let refused = |bytes: &[u8]| decode_with(bytes, None, &Limits::default()).unwrap_err().to_string();
    assert!(refused(b"PK\x03\x04").starts_with("jfr: chunk[0], byte 0: a chunk begins with FLR"));
    assert!(refused(b"FLR\0").contains("68 bytes, got 4: it is cut off"));
    assert!(refused(&good[..good.len() - 1]).contains("it is cut off"));
    let mut second = good.clone();
    second.extend_from_slice(b"FLRX");
    assert!(refused(&second).starts_with(&format!("jfr: chunk[1], byte {}: ", good.len())));
    let mut plain = good.clone();
    plain[67] = 0;
    assert!(refused(&plain).contains("expected compressed numbers"));
    let mut version = good.clone();
    version[5] = 9;
    assert!(refused(&version).contains("version 1 or 2, got 9.0"));
    let mut nowhere = good.clone();
    nowhere[24..32].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(refused(&nowhere).contains("its metadata should be at byte 18446744073709551615"));
    let mut endless = good.clone();
    endless[68..72].copy_from_slice(&[0x80, 0x80, 0x80, 0x00]);
    assert!(refused(&endless).contains("byte 68: an event of 0 bytes"));
}

#[test]
fn values_without_end_are_refused() {
    // jdk.CPULoad declares a value that holds lists of its own kind.
    let mut body = vec![0, 0, 0, 0, 0];
    body.extend([0; 64]);
    let mut chunk = chunk_with_span();
    chunk.events.extend(event_of(106, &body));
    // It is none of the events that are read, and is read over by its size.
    assert_eq!(decode(&chunk.finish(), None).len(), 1);
    let memory = &mut Memory { left: 1 << 20, max: 1 << 20 };
    let bytes = chunk_with_span().finish();
    let (chunk, _) = Chunk::read(&bytes, memory).unwrap();
    let nested = [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1][..]; 40].concat();
    let mut reader = reader::Reader::new(&nested, 0);
    assert!(matches!(chunk.types.skip_value(90, &mut reader), Err(Fault::Damaged { .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_with(&bytes, None, &Limits::default());
        let snapshot = Snapshot::read(&bytes, &Limits::default());
        prop_assert!(snapshot.is_ok() || snapshot.is_err());
    }

    #[test]
    fn damaged_recordings_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut recording = ChunkWriter { split: true, ..ChunkWriter::new() }
            .setting("event", "wall")
            .sample(&["A.a", "B.b"], 1, 5, (SPAN, 9))
            .event(118, &[0, 1 << 40, 1, 64])
            .finish();
        for (place, byte) in changes {
            let place = place.index(recording.len());
            recording[place] = byte;
        }
        let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
        for bytes in [&recording[..], &recording[..cut.index(recording.len())]] {
            for profile in decode_with(bytes, None, &limits).unwrap_or_default() {
                prop_assert!(profile.values.iter().all(|value| *value >= 0));
            }
        }
    }
}
