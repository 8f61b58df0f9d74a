use std::collections::BTreeMap;
use std::io::Write;

use buffa::Message;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::json;
use spanflame_wire::google::v1::Profile as Pprof;

use super::*;
use crate::testing::{PprofBuilder, START_MS, without_ids};

const NOW: i64 = START_MS + 10_000;
const SPAN: &str = "00f067aa0ba902b7";

/// Parameters of a query string, as `name=shop&format=tree`; values are not escaped.
fn describe(query: &str) -> Result<Upload, IngestError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Upload::parse(&pairs, "", NOW)
}

fn decode_with(query: &str, body: impl Into<Bytes>, limits: &Limits) -> Result<Vec<Profile>, IngestError> {
    let parts = Parts { profile: body.into(), ..Parts::default() };
    describe(query)?.decode(&parts, limits, &mut Budget::new(limits), NOW)
}

fn decode(query: &str, body: impl Into<Bytes>) -> Result<Vec<Profile>, IngestError> {
    decode_with(query, body, &Limits::default())
}

fn one(profiles: Vec<Profile>) -> Profile {
    let [profile] = <[Profile; 1]>::try_from(profiles).expect("one profile");
    profile
}

/// The first column by stack trace, as folded text.
fn counted(profile: &Profile) -> BTreeMap<String, i64> {
    let symbols = &profile.symbols;
    let stack = |row: usize| {
        let locations = symbols.stack(profile.row_stacks[row]).iter().rev().map(|&l| symbols.location(l));
        let lines = locations.flat_map(|location| symbols.lines(location).iter().rev());
        let names = lines.map(|line| symbols.string(symbols.function_name(line.function)));
        names.collect::<Vec<_>>().join(";")
    };
    let mut counted = BTreeMap::new();
    for row in 0..profile.rows() {
        *counted.entry(stack(row)).or_default() += profile.column(0)[row];
    }
    counted
}

fn map(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|&(stack, count)| (stack.to_owned(), count)).collect()
}

fn types(profile: &Profile) -> Vec<String> {
    profile.types.iter().map(ToString::to_string).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn descriptions_say_what_an_upload_is() {
    let upload = describe(
        "name=shop.cpu{region=eu}&from=1767225600&until=1767225610000&sampleRate=97&spyName=rbspy&format=lines",
    )
    .unwrap();
    assert_eq!(upload.name.app(), "shop.cpu");
    assert_eq!((upload.from_nanos, upload.until_nanos), (START_MS * 1_000_000, NOW * 1_000_000));
    assert_eq!(
        (upload.rate, upload.spy_name.as_str(), upload.format),
        (Rate { hertz: 97 }, "rbspy", Format::Lines)
    );

    let bare = describe("name=shop&name=other&sampleRate=&format=").unwrap();
    assert_eq!(bare.name.app(), "shop");
    assert_eq!((bare.from_nanos, bare.until_nanos), (NOW * 1_000_000, NOW * 1_000_000));
    assert_eq!((bare.rate, bare.spy_name.as_str(), bare.format), (Rate::DEFAULT, "unknown", Format::Groups));
    assert_eq!(describe("name=shop&sampleRate=-1").unwrap().rate, Rate::DEFAULT);

    for (query, expected) in [
        ("", "name: the application's name is empty"),
        ("name=a{", "name: the labels do not end"),
        ("name=a&from=yesterday", "from: expected an instant"),
        ("name=a&until=soon", "until: expected an instant"),
        ("name=a&from=20&until=10", "until: is before from"),
    ] {
        let error = describe(query).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{query}: {error}");
    }
}

#[test]
fn formats_are_named_or_told_by_the_media_type() {
    for (format, content_type, expected) in [
        ("pprof", "", Format::Pprof),
        ("trie", "", Format::Trie),
        ("tree", "multipart/form-data; boundary=x", Format::Tree),
        ("lines", "", Format::Lines),
        ("speedscope", "application/json", Format::Speedscope),
        ("", "binary/octet-stream+trie", Format::Trie),
        ("", "binary/octet-stream+tree", Format::Tree),
        ("", "Multipart/Form-Data; boundary=x", Format::Pprof),
        ("folded", "", Format::Groups),
        ("groups", "text/plain", Format::Groups),
        ("", "", Format::Groups),
    ] {
        assert_eq!(Format::of(format, content_type), expected, "{format} {content_type}");
    }
}

#[test]
fn folded_text_is_counted() {
    let text =
        "main;handler;hash 3\r\nmain;;idle 1\n\ncomment\nmain;handler;hash 2\nmain;fn with blanks 4 \n 5\n";
    let profile =
        one(decode("name=shop{pod=a}&from=1767225600&until=1767225610&spyName=rbspy", text).unwrap());
    assert_eq!(types(&profile), ["process_cpu:cpu:nanoseconds:cpu:nanoseconds"]);
    assert_eq!(
        profile.labels.iter().collect::<Vec<_>>(),
        [("pod", "a"), ("pyroscope_spy", "rbspy"), ("service_name", "shop")]
    );
    assert_eq!((profile.start_nanos, profile.duration_nanos), (START_MS * 1_000_000, 10_000_000_000));
    assert_eq!(profile.period, 10_000_000);
    assert_eq!(
        counted(&profile),
        map(&[
            ("", 50_000_000),
            ("main;fn with blanks", 40_000_000),
            ("main;handler;hash", 50_000_000),
            ("main;idle", 10_000_000)
        ])
    );
    let zipped = decode("name=shop", gzip(text.as_bytes())).unwrap();
    assert_eq!(without_ids(zipped), without_ids(decode("name=shop", text).unwrap()));
    assert_eq!(decode("name=shop", "").unwrap(), []);
    assert_eq!(decode("name=shop", "main 0\n").unwrap(), []);
}

#[test]
fn a_line_of_any_length_is_read_whole() {
    let deep: Vec<String> = (0..40_000).map(|frame| format!("f{frame}")).collect();
    let text = format!("before 1\n{} 2\nafter 3\n", deep.join(";"));
    let profile = one(decode("name=shop.alloc_objects", text).unwrap());
    let counted = counted(&profile);
    assert_eq!(counted.values().sum::<i64>(), 6);
    // The leaf's side is cut, as everywhere.
    assert_eq!(counted[&deep[..1000].join(";")], 2);
    assert_eq!((counted["before"], counted["after"]), (1, 3));
    assert_eq!(profile.symbols.functions.len(), 1002, "what is cut is not named either");
}

#[test]
fn lines_count_one_each() {
    let profile = one(decode("name=shop.exceptions&format=lines", "a;b\na;b\n\na;c 7").unwrap());
    assert_eq!(types(&profile), ["exceptions:samples:count::"]);
    assert_eq!(counted(&profile), map(&[("a;b", 2), ("a;c 7", 1)]));
}

#[test]
fn what_is_counted_follows_the_name_and_the_rest_is_cpu_time() {
    let ids = |query: &str| {
        let profile = one(decode(query, "a 3").unwrap());
        (profile.labels.service().to_owned(), types(&profile).remove(0), counted(&profile)["a"])
    };
    let cpu = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
    for (query, service, kind, value) in [
        ("name=my.service", "my.service", cpu, 30_000_000),
        ("name=shop.cpu&sampleRate=1000", "shop", cpu, 3_000_000),
        ("name=shop.cpu&sampleRate=0", "shop", "process_cpu:samples:count::", 3),
        ("name=shop.wall", "shop", "wall:wall:nanoseconds:cpu:nanoseconds", 30_000_000),
        ("name=shop.inuse_space", "shop", "memory:inuse_space:bytes::", 3),
        ("name=shop&units=bytes", "shop", "memory:samples:bytes::", 3),
        ("name=shop.mutex_duration&units=bytes", "shop", "mutex:delay:nanoseconds::", 3),
    ] {
        assert_eq!(ids(query), (service.to_owned(), kind.to_owned(), value), "{query}");
    }
}

#[test]
fn a_span_in_the_name_is_every_samples() {
    let query = format!("name=shop{{profile_id={SPAN},trace_id=x,span_name=GET /pay,endpoint=/pay}}");
    let profile = one(decode(&query, "a 1\nb 2").unwrap());
    assert_eq!(profile.labels.get("endpoint"), Some("/pay"));
    assert_eq!(profile.labels.get("profile_id"), None);
    assert_eq!(profile.row_spans, [1, 1]);
    let span = &profile.spans[1];
    assert_eq!((span.span_id, span.trace_id), (SPAN.parse().ok(), None));
    assert_eq!(profile.symbols.string(span.name), "GET /pay");
    // What is no id costs nobody their data.
    let profile = one(decode("name=shop{profile_id=c0ffee}", "a 1").unwrap());
    assert_eq!((profile.row_spans.as_slice(), profile.column(0)), (&[0][..], &[10_000_000][..]));
}

/// The bytes of a node without its children.
fn node(name: &str, value: u64, children: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let put = |mut number: u64, bytes: &mut Vec<u8>| {
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
    };
    put(name.len() as u64, &mut bytes);
    bytes.extend(name.as_bytes());
    put(value, &mut bytes);
    put(children, &mut bytes);
    bytes
}

#[test]
fn trees_are_read() {
    let tree = [
        node("", 0, 2),
        node("main", 1, 2),
        node("idle", 0, 0),
        node("handler", 0, 1),
        node("a;b", 300, 0),
        node("", 0, 1),
        node("other", 7, 0),
    ];
    let profile = one(decode("name=shop.alloc_space&format=tree", tree.concat()).unwrap());
    assert_eq!(counted(&profile), map(&[("main", 1), ("main;handler;a;b", 300), ("other", 7)]));
    assert!(!profile.symbols.strings.iter().any(|name| name == "idle"), "nothing was counted there");
    let twice = [tree.concat(), tree.concat()].concat();
    let profile = one(decode("name=shop.alloc_space&format=tree", twice).unwrap());
    assert_eq!(counted(&profile)["other"], 14);
}

#[test]
fn tries_are_read() {
    let trie = [
        node("", 0, 2),
        node("main;h", 0, 2),
        node("andler", 2, 1),
        node(";ü", 3, 0),
        node("ash", 4, 0),
        node("x;", 5, 1),
        node(";", 0, 1),
        node("", 6, 0),
    ];
    let profile = one(decode("name=shop.alloc_space&format=trie", trie.concat()).unwrap());
    assert_eq!(
        counted(&profile),
        map(&[("main;handler", 2), ("main;handler;ü", 3), ("main;hash", 4), ("x", 11)])
    );
    // A character may be cut in two between nodes.
    let mut cut = node("", 0, 1);
    cut.extend([1, 0xc3, 0, 1, 1, 0xbc, 9, 0]);
    let profile = one(decode("name=shop.alloc_space&format=trie", cut).unwrap());
    assert_eq!(counted(&profile), map(&[("ü", 9)]));
}

#[test]
fn broken_input_says_where() {
    let long = [0x80; 11];
    let huge_name = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    for (format, body, expected) in [
        (
            "groups",
            &b"a 1\nb x"[..],
            "line 2: expected a stack trace, a blank and a whole number, got the number \"x\"",
        ),
        ("groups", b"a -1", "line 1: expected a stack trace"),
        ("groups", b"a 1.5", "line 1: expected a stack trace"),
        ("groups", b"a 99999999999999999999", "line 1: expected a stack trace"),
        ("groups", b"a 1\n\xff 1", "line 2: is not UTF-8"),
        ("lines", b"a\n\xff", "line 2: is not UTF-8"),
        ("groups", b"\x1f\x8bx", "profile: is not complete gzip"),
        ("tree", &node("", 0, 1), "node 2: is not all there"),
        ("tree", &[1], "node 1: its name of 1 bytes is not all there"),
        ("tree", &huge_name, "node 1: its name of 18446744073709551615 bytes"),
        ("tree", &long, "node 1: a number has more than 64 bits"),
        ("tree", &node("a", u64::MAX, 0), "node 1: its value 18446744073709551615 is over"),
        ("tree", &[1, 0xff, 1, 0], "node 1: a frame's name is not UTF-8"),
        ("trie", &[1, 0xff, 1, 0], "node 1: a frame's name is not UTF-8"),
        ("trie", &node("", 0, 2)[..2], "node 1: is not all there"),
    ] {
        let error = decode(&format!("name=a&format={format}"), Bytes::copy_from_slice(body)).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{expected}: {error}");
    }
}

#[test]
fn limits_hold_for_every_format() {
    let limits = Limits { max_samples: 2, ..Limits::default() };
    let three = [node("", 0, 3), node("a", 1, 0), node("b", 1, 0), node("c", 1, 0)].concat();
    for (format, body) in [
        ("groups", b"a 1\nb 1\nc 1".to_vec()),
        ("lines", b"a\nb\nc".to_vec()),
        ("tree", three.clone()),
        ("trie", three),
    ] {
        let error = decode_with(&format!("name=a&format={format}"), body, &limits).unwrap_err().to_string();
        assert!(error.contains("limit max_samples of 2"), "{format}: {error}");
    }
    let limits = Limits { max_profile_bytes: 5, ..Limits::default() };
    assert!(
        decode_with("name=a", "a 1\nb 1", &limits)
            .unwrap_err()
            .to_string()
            .contains("max_profile_bytes of 5")
    );
    let limits = Limits { max_age_ms: Some(1000), ..Limits::default() };
    let error = decode_with("name=a&from=1767225600", "a 1", &limits).unwrap_err().to_string();
    assert!(error.starts_with("from: 1767225600000 ms is too long ago"), "{error}");
}

/// Small inputs that stand for much: neither time nor memory may grow beyond the limits.
#[test]
fn hostile_trees_are_cheap() {
    let chain = |depth: usize, piece: &str, value: u64| -> Vec<u8> {
        (0..depth).flat_map(|_| node(piece, value, 1)).collect()
    };
    let limits = Limits { max_decoded_bytes: 8 << 20, ..Limits::default() };
    let decode = |format: &str, mut body: Vec<u8>| {
        body.extend(node("end", 1, 0));
        decode_with(&format!("name=a.live&format={format}"), body, &limits)
    };
    // Each of many frames deep down, and each counted.
    for (format, piece) in [("tree", "f"), ("trie", ";f")] {
        let profile = one(decode(format, chain(3_000, piece, 1)).unwrap());
        assert_eq!(profile.column(0).iter().sum::<i64>(), 3_001);
        assert_eq!(profile.rows(), 1000, "deeper frames are cut");
    }
    // A name that grows with each node.
    let error = decode("trie", chain(100_000, "f", 1)).unwrap_err().to_string();
    assert!(error.contains("max_decoded_bytes of 8388608"), "{error}");
    // A long name under which many others stand.
    let mut body = node(&"x".repeat(60_000), 0, 100_000);
    body.extend((0..99_999).flat_map(|_| node("f", 1, 0)));
    let error = decode("trie", body).unwrap_err().to_string();
    assert!(error.contains("max_decoded_bytes of 8388608"), "{error}");
    for format in ["tree", "trie"] {
        let error = decode(format, chain((1 << 20) + 2, "", 0)).unwrap_err().to_string();
        assert!(error.contains("no stack trace is so deep"), "{error}");
    }
}

fn speedscope(profiles: serde_json::Value) -> Vec<u8> {
    let file = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "a test",
        "shared": {"frames": [{"name": "main", "file": "main.rb", "line": 3, "col": 1}, {"name": "a"}, {"name": "b", "line": null}]},
        "profiles": profiles,
        "activeProfileIndex": null,
    });
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn speedscope_samples_are_read() {
    let profile = json!([{
        "type": "sampled", "name": "thread 1", "unit": "milliseconds", "startValue": 0, "endValue": 9,
        "samples": [[0, 1], [0, 2], [0, 1], []], "weights": [1, 2.5, 3, 0],
    }]);
    let profile = one(decode("name=shop&format=speedscope", speedscope(profile)).unwrap());
    assert_eq!(types(&profile), ["process_cpu:cpu:nanoseconds:cpu:nanoseconds"]);
    assert_eq!(profile.labels.get("profile_name"), Some("thread 1"));
    assert_eq!(counted(&profile), map(&[("main;a", 4_000_000), ("main;b", 2_500_000)]));
    let file = profile.symbols.strings.iter().any(|text| text == "main.rb");
    assert!(file, "files of frames are kept");
}

#[test]
fn speedscope_events_are_read() {
    let events = json!([
        {"type": "O", "frame": 0, "at": 10}, {"type": "O", "frame": 1, "at": 12},
        {"type": "C", "frame": 1, "at": 15}, {"type": "O", "frame": 2, "at": 15},
        {"type": "C", "frame": 2, "at": 16}, {"type": "C", "frame": 0, "at": 20},
        {"type": "O", "frame": 1, "at": 30},
    ]);
    let profile = json!([{
        "type": "evented", "name": "", "unit": "microseconds", "startValue": 5, "endValue": 33, "events": events,
    }]);
    let profile = one(decode("name=shop.wall&format=speedscope", speedscope(profile)).unwrap());
    assert_eq!(types(&profile), ["wall:wall:nanoseconds:cpu:nanoseconds"]);
    assert_eq!(profile.labels.service(), "shop");
    assert_eq!(counted(&profile), map(&[("a", 3000), ("main", 6000), ("main;a", 3000), ("main;b", 1000)]));
}

#[test]
fn several_speedscope_profiles_are_told_apart() {
    let sampled = |name: &str, unit: &str, weight: i64| {
        json!({"type": "sampled", "name": name, "unit": unit, "startValue": 0, "endValue": 1,
               "samples": [[0]], "weights": [weight]})
    };
    let body = speedscope(json!([
        sampled("one", "seconds", 1),
        sampled("two", "bytes", 5),
        sampled("one", "seconds", 2),
        sampled("two", "none", 3),
    ]));
    let profiles = decode("name=shop.x&format=speedscope&sampleRate=0", body).unwrap();
    let [one, two] = <[Profile; 2]>::try_from(profiles).expect("two sets of labels");
    assert_eq!((one.labels.get("profile_name"), one.labels.service()), (Some("one"), "shop.x"));
    assert_eq!(
        (types(&one), one.column(0)),
        (vec!["wall:wall:nanoseconds:cpu:nanoseconds".to_owned()], &[3_000_000_000][..])
    );
    assert_eq!(types(&two), ["memory:samples:bytes::", "process_cpu:samples:count::"]);
    assert_eq!((two.column(0), two.column(1)), (&[5][..], &[3][..]));
    assert_eq!(decode("name=shop&format=speedscope", speedscope(json!([]))).unwrap(), []);
}

#[test]
fn broken_speedscope_files_say_where() {
    let sampled = |samples: serde_json::Value, weights: serde_json::Value| json!([{"type": "sampled", "name": "x", "unit": "none", "samples": samples, "weights": weights}]);
    let evented = |events: serde_json::Value| json!([{"type": "evented", "name": "x", "unit": "none", "startValue": 0, "events": events}]);
    for (profiles, expected) in [
        (
            sampled(json!([[3]]), json!([1])),
            "profiles[0].samples[0]: frame 3 is not one of the 3 shared frames",
        ),
        (sampled(json!([[0]]), json!([])), "profiles[0].weights: expected 1 of them"),
        (sampled(json!([[0]]), json!([-1])), "profiles[0].weights[0]: -1 is negative"),
        (sampled(json!([[-1]]), json!([1])), "speedscope file: invalid value: integer `-1`"),
        (evented(json!([{"type": "C", "frame": 0, "at": 1}])), "profiles[0].events[0]: closes frame 0"),
        (
            evented(json!([{"type": "O", "frame": 0, "at": 2}, {"type": "C", "frame": 0, "at": 1}])),
            "profiles[0].events[1]: at 1 is before 2",
        ),
        (evented(json!([{"type": "X", "frame": 0, "at": 2}])), "speedscope file: unknown variant `X`"),
        (json!([{"type": "heap", "unit": "none"}]), "speedscope file: unknown variant `heap`"),
        (json!([{"type": "sampled", "unit": "parsecs"}]), "speedscope file: unknown variant `parsecs`"),
    ] {
        let error = decode("name=a&format=speedscope", speedscope(profiles)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{expected}: {error}");
    }
    let other = br#"{"$schema":"x","shared":{"frames":[]},"profiles":[]}"#;
    let error = decode("name=a&format=speedscope", &other[..]).unwrap_err().to_string();
    assert!(error.starts_with("$schema: expected \"https://www.speedscope.app"), "{error}");
    let limits = Limits { max_decoded_bytes: 80, ..Limits::default() };
    let error =
        decode_with("name=a&format=speedscope", speedscope(json!([])), &limits).unwrap_err().to_string();
    assert!(error.contains("limit max_decoded_bytes of 10"), "{error}");
}

/// Decodes a pprof with a description of its sample types.
fn decode_pprof(query: &str, pprof: &Pprof, config: Option<&str>) -> Result<Vec<Profile>, IngestError> {
    let parts = Parts {
        profile: pprof.encode_to_vec().into(),
        sample_type_config: config.map(|text| Bytes::copy_from_slice(text.as_bytes())),
        ..Parts::default()
    };
    let limits = Limits::default();
    describe(&format!("{query}&format=pprof"))?.decode(&parts, &limits, &mut Budget::new(&limits), NOW)
}

#[test]
fn a_pprof_is_named_by_its_sample_types() {
    let name = |sample_types: &[&str], config: Option<&str>| {
        let mut builder = PprofBuilder::new().sample(&["a"], 1, &[]);
        builder.pprof.sample_type.truncate(sample_types.len());
        for (at, name) in sample_types.iter().enumerate() {
            let index = builder.string(name);
            builder.pprof.sample_type[at].r#type = index;
        }
        builder.pprof.sample[0].value = vec![1; sample_types.len()];
        types(&one(decode_pprof("name=a", &builder.pprof, config).unwrap())).remove(0)
    };
    for (sample_types, config, expected) in [
        (&["samples", "cpu"][..], None, "process_cpu:samples:"),
        (&["samples", "wall"], None, "wall:samples:"),
        (&["cpu", "wall"], None, "process_cpu:cpu:"),
        (&["inuse_objects", "inuse_space"], None, "memory:inuse_objects:"),
        (&["objects", "space"], None, "memory:objects:"),
        (&["goroutines"], None, "goroutines:goroutines:"),
        (
            &["contentions"],
            Some(r#"{"contentions":{"units":"lock_samples","display-name":"mutex_count"}}"#),
            "mutex:contentions:",
        ),
        (
            &["contentions"],
            Some(r#"{"contentions":{"display-name":"block_count","cumulative":true}}"#),
            "block:contentions:",
        ),
        (&["contentions"], None, "contentions:contentions:"),
        (&["x", "y"], Some("{}"), "y:x:"),
    ] {
        let name = name(sample_types, config);
        assert!(name.starts_with(expected), "{sample_types:?}: {name}");
    }
    let builder = PprofBuilder::new().sample(&["a"], 1, &[]);
    let error = decode_pprof("name=a", &builder.pprof, Some("[")).unwrap_err().to_string();
    assert!(error.starts_with("sample_type_config: "), "{error}");
}

#[test]
fn a_pprof_has_the_labels_of_its_name_and_a_time() {
    let mut builder = PprofBuilder::new().sample(&["a"], 1, &[("span_id", SPAN)]).sample(&["a"], 1, &[]);
    builder.pprof.time_nanos = 1_767_225_600_000_000;
    let query = "name=my.cpu{service_name=cart,trace_id=4bf92f3577b34da6a3ce929d0e0e4736}&from=1767225600&until=1767225601&spyName=nodespy";
    let profile = one(decode_pprof(query, &builder.pprof, None).unwrap());
    assert_eq!(
        profile.labels.iter().collect::<Vec<_>>(),
        [("app_name", "my.cpu"), ("pyroscope_spy", "nodespy"), ("service_name", "cart")]
    );
    assert_eq!(profile.start_nanos, START_MS * 1_000_000, "microseconds, so the time of the query string");
    assert_eq!(profile.row_spans, [1, 2]);
    assert!(profile.spans[1..].iter().all(|span| span.trace_id.is_some()));
    assert_eq!(profile.spans[1].span_id, SPAN.parse().ok());
    builder.pprof.time_nanos = NOW * 1_000_000;
    assert_eq!(one(decode_pprof(query, &builder.pprof, None).unwrap()).start_nanos, NOW * 1_000_000);
    assert!(decode_pprof("name=a", &Pprof::default(), None).is_err());
    assert!(decode("name=a&format=pprof", "").unwrap_err().to_string().contains("is empty"));
}

#[test]
fn functions_of_scripts_have_their_files() {
    let names = |spy: &str, path: &str| {
        let mut builder = PprofBuilder::new().sample(&["main", "run"], 1, &[]);
        let filename = builder.string(path);
        builder.pprof.function.iter_mut().for_each(|function| function.filename = filename);
        counted(&one(decode_pprof(&format!("name=a&spyName={spy}"), &builder.pprof, None).unwrap()))
    };
    for (spy, path, expected) in [
        ("rbspy", "app.rb", "app.rb main;app.rb run"),
        ("scripting", "/srv/app.rb", "/srv/app.rb main;/srv/app.rb run"),
        ("pyspy", "shop/app.py", "shop/app.py main;shop/app.py run"),
        ("pyspy", "/srv/app.py", "main;run"),
        ("pyspy", "C:\\app.py", "main;run"),
        ("pyspy", "", "main;run"),
        ("gospy", "app.go", "main;run"),
    ] {
        assert_eq!(names(spy, path), map(&[(expected, 1)]), "{spy} {path}");
    }
}

#[test]
fn what_the_dotnet_agent_breaks_is_repaired() {
    let mut builder = PprofBuilder::new().sample(&["main", "run"], 1, &[]);
    let name = builder.string("inuse-space");
    builder.pprof.sample_type[0].r#type = name;
    builder.pprof.function.iter_mut().for_each(|function| function.id = 0);
    let expected = map(&[("main;run", 1)]);
    let profile = one(decode_pprof("name=a&spyName=dotnetspy", &builder.pprof, None).unwrap());
    assert_eq!(
        (counted(&profile), types(&profile)[0].starts_with("memory:inuse_space:")),
        (expected.clone(), false)
    );
    let config = Some(r#"{"inuse-space":{}}"#);
    assert_eq!(counted(&one(decode_pprof("name=a", &builder.pprof, config).unwrap())), expected);
    let error = decode_pprof("name=a&spyName=gospy", &builder.pprof, config).unwrap_err().to_string();
    assert!(error.contains("expected names without colons and dashes"), "{error}");
}

/// Stack traces with counts.
fn stacks() -> impl Strategy<Value = BTreeMap<Vec<String>, i64>> {
    let frame = "[a-cü ]{1,3}";
    prop::collection::btree_map(prop::collection::vec(frame, 1..6), 1..1000i64, 0..20)
}

fn expected(stacks: &BTreeMap<Vec<String>, i64>) -> BTreeMap<String, i64> {
    stacks.iter().map(|(stack, count)| (stack.join(";"), *count)).collect()
}

fn read(format: &str, body: Vec<u8>) -> BTreeMap<String, i64> {
    let mut profiles = decode(&format!("name=a.live&format={format}"), body).unwrap();
    assert!(profiles.len() <= 1);
    profiles.pop().map(|profile| counted(&profile)).unwrap_or_default()
}

#[derive(Default)]
struct TreeNode {
    value: u64,
    children: BTreeMap<String, TreeNode>,
}

impl TreeNode {
    fn encode(&self, name: &str, out: &mut Vec<u8>) {
        out.extend(node(name, self.value, self.children.len() as u64));
        self.children.iter().for_each(|(name, child)| child.encode(name, out));
    }
}

/// A tree of these pieces of text.
fn tree_of<'a>(stacks: impl Iterator<Item = (Vec<&'a str>, i64)>) -> Vec<u8> {
    let mut root = TreeNode::default();
    for (pieces, count) in stacks {
        let node = pieces
            .iter()
            .fold(&mut root, |node, piece| node.children.entry((*piece).to_owned()).or_default());
        node.value += count as u64;
    }
    let mut bytes = Vec::new();
    root.encode("", &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn folded_text_round_trips(stacks in stacks()) {
        let text: String = stacks.iter().map(|(stack, count)| format!("{} {count}\n", stack.join(";"))).collect();
        prop_assert_eq!(read("groups", text.into_bytes()), expected(&stacks));
    }

    #[test]
    fn lines_round_trip(stacks in stacks()) {
        let few = stacks.iter().map(|(stack, count)| (stack.clone(), count % 5)).filter(|(_, count)| *count > 0);
        let few: BTreeMap<Vec<String>, i64> = few.collect();
        let text: String =
            few.iter().map(|(stack, count)| format!("{}\n", stack.join(";")).repeat(*count as usize)).collect();
        prop_assert_eq!(read("lines", text.into_bytes()), expected(&few));
    }

    #[test]
    fn trees_round_trip(stacks in stacks()) {
        let tree = tree_of(stacks.iter().map(|(stack, count)| (stack.iter().map(String::as_str).collect(), *count)));
        prop_assert_eq!(read("tree", tree), expected(&stacks));
    }

    #[test]
    fn tries_round_trip_wherever_they_are_cut(stacks in stacks(), width in 1..5usize) {
        let joined: Vec<(String, i64)> = expected(&stacks).into_iter().collect();
        let trie = tree_of(joined.iter().map(|(text, count)| {
            let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(width).skip(1).collect();
            ends.push(text.len());
            let starts = std::iter::once(0).chain(ends.iter().copied());
            (starts.zip(&ends).map(|(start, end)| &text[start..*end]).collect(), *count)
        }));
        prop_assert_eq!(read("trie", trie), expected(&stacks));
    }

    #[test]
    fn speedscope_samples_and_events_say_the_same(stacks in stacks()) {
        let mut frames: Vec<&String> = stacks.keys().flatten().collect();
        frames.sort();
        frames.dedup();
        let index = |name: &String| frames.binary_search(&name).unwrap();
        let file = |profile: serde_json::Value| serde_json::to_vec(&json!({
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "shared": {"frames": frames.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()},
            "profiles": [profile],
        })).unwrap();
        let indexes = |stack: &Vec<String>| stack.iter().map(index).collect::<Vec<_>>();
        let sampled = file(json!({
            "type": "sampled", "name": "x", "unit": "none",
            "samples": stacks.keys().map(indexes).collect::<Vec<_>>(),
            "weights": stacks.values().collect::<Vec<_>>(),
        }));
        prop_assert_eq!(read("speedscope", sampled), expected(&stacks));
        let (mut now, mut events) = (0, Vec::new());
        for (stack, count) in &stacks {
            let frames = indexes(stack);
            events.extend(frames.iter().map(|frame| json!({"type": "O", "frame": frame, "at": now})));
            now += count;
            events.extend(frames.iter().rev().map(|frame| json!({"type": "C", "frame": frame, "at": now})));
        }
        let evented = file(json!({"type": "evented", "name": "x", "unit": "none", "startValue": 0, "events": events}));
        prop_assert_eq!(read("speedscope", evented), expected(&stacks));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), format in 0..6usize) {
        let format = ["groups", "lines", "trie", "tree", "speedscope", "pprof"][format];
        let _ = decode(&format!("name=a&format={format}"), bytes);
    }

    #[test]
    fn no_numbers_panic(numbers in prop::collection::vec(0..6u8, 0..60), format in 0..2usize) {
        let format = ["trie", "tree"][format];
        let _ = decode(&format!("name=a&format={format}"), numbers);
    }

    #[test]
    fn no_query_panics(query in "(name|from|until|sampleRate|format)=[a-z0-9{}=,-]{0,12}(&(name|from|until)=[a-z0-9{}=,+-]{0,12}){0,3}") {
        let _ = describe(&query);
    }

    #[test]
    fn no_damaged_speedscope_file_panics(cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), mask in 1..=255u8) {
        let mut bytes = speedscope(json!([{"type": "sampled", "name": "x", "unit": "none", "samples": [[0]], "weights": [1]}]));
        let at = flip.index(bytes.len());
        bytes[at] ^= mask;
        let _ = decode("name=a&format=speedscope", bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        let _ = decode("name=a&format=speedscope", bytes);
    }
}

#[test]
fn an_array_is_no_object_in_json_of_any_kind() {
    let file = |shared: &str, profile: &str| {
        format!(
            r#"{{"$schema":"https://www.speedscope.app/file-format-schema.json","shared":{shared},"profiles":[{profile}]}}"#
        )
    };
    let (shared, profile) =
        (r#"{"frames":[{"name":"a"}]}"#, r#"{"type":"sampled","unit":"none","samples":[[0]],"weights":[1]}"#);
    let read = |json: String| decode("name=a&format=speedscope", json.into_bytes());
    assert!(read(file(shared, profile)).is_ok());
    for json in [
        file(r#"[[{"name":"a"}]]"#, profile),
        file(r#"{"frames":[["a",null,null]]}"#, profile),
        file(shared, r#"["sampled","","none",0,0,[],[[0]],[1]]"#),
        file(shared, r#"{"type":"evented","unit":"none","events":[["O",0,0]]}"#),
    ] {
        let error = read(json.clone()).unwrap_err().to_string();
        assert!(error.contains("expected a JSON object"), "{json}: {error}");
    }
    let pprof = PprofBuilder::new().sample(&["a"], 1, &[]).pprof;
    let error = decode_pprof("name=a", &pprof, Some(r#"{"cpu":["cpu"]}"#)).unwrap_err().to_string();
    assert!(error.starts_with("sample_type_config: ") && error.contains("expected a JSON object"), "{error}");
}
