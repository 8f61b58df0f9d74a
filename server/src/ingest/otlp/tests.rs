use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use buffa::Message;
use proptest::prelude::*;
use spanflame_wire::opentelemetry::proto::collector::profiles::v1development::ExportProfilesServiceRequest;
use spanflame_wire::opentelemetry::proto::common::v1::any_value::Value;
use spanflame_wire::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use spanflame_wire::opentelemetry::proto::profiles::v1development as wire;
use spanflame_wire::opentelemetry::proto::resource::v1::Resource;

use super::*;
use crate::testing::without_ids;

const START_NANOS: u64 = 1_767_225_600_000_000_000;
const RECEIVED_MS: i64 = 1_767_225_610_000;
const SPAN: &str = "00f067aa0ba902b7";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value), ..Default::default() }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn attribute(key: &str, of: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value(of).into(), ..Default::default() }
}

/// A message in the making, with one resource, one scope and one profile to begin with.
struct Export {
    request: ExportProfilesServiceRequest,
}

impl Export {
    fn new() -> Self {
        let dictionary = wire::ProfilesDictionary {
            mapping_table: vec![Default::default()],
            location_table: vec![Default::default()],
            function_table: vec![Default::default()],
            link_table: vec![Default::default()],
            string_table: vec![String::new()],
            attribute_table: vec![Default::default()],
            stack_table: vec![Default::default()],
            ..Default::default()
        };
        let scope =
            wire::ScopeProfiles { scope: InstrumentationScope::default().into(), ..Default::default() };
        let resource = wire::ResourceProfiles {
            resource: Resource {
                attributes: vec![attribute("service.name", text("shop"))],
                ..Default::default()
            }
            .into(),
            scope_profiles: vec![scope],
            ..Default::default()
        };
        let request = ExportProfilesServiceRequest {
            resource_profiles: vec![resource],
            dictionary: dictionary.into(),
            ..Default::default()
        };
        Self { request }.cpu()
    }

    fn dictionary(&mut self) -> &mut wire::ProfilesDictionary {
        self.request.dictionary.get_or_insert_default()
    }

    fn profiles(&mut self) -> &mut Vec<wire::Profile> {
        &mut self.request.resource_profiles[0].scope_profiles[0].profiles
    }

    fn last(&mut self) -> &mut wire::Profile {
        self.profiles().last_mut().unwrap()
    }

    fn string(&mut self, text: &str) -> i32 {
        let table = &mut self.dictionary().string_table;
        let at = table.iter().position(|known| known == text).unwrap_or_else(|| {
            table.push(text.to_owned());
            table.len() - 1
        });
        at as i32
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> wire::ValueType {
        wire::ValueType {
            type_strindex: self.string(kind),
            unit_strindex: self.string(unit),
            ..Default::default()
        }
    }

    /// Adds a profile without samples.
    fn profile(mut self, kind: (&str, &str), period_type: Option<(&str, &str)>, period: i64) -> Self {
        let profile = wire::Profile {
            sample_type: self.value_type(kind.0, kind.1).into(),
            period_type: period_type
                .map(|of| self.value_type(of.0, of.1))
                .map(Into::into)
                .unwrap_or_default(),
            period,
            time_unix_nano: START_NANOS,
            duration_nano: 5_000_000_000,
            ..Default::default()
        };
        self.profiles().push(profile);
        self
    }

    fn cpu(self) -> Self {
        self.profile(("samples", "count"), Some(("cpu", "nanoseconds")), 10_000_000)
    }

    /// Adds a stack trace of these functions, the root first.
    fn stack(&mut self, frames: &[&str]) -> i32 {
        let mut location_indices = Vec::new();
        for frame in frames.iter().rev() {
            let name_strindex = self.string(frame);
            let dictionary = self.dictionary();
            dictionary.function_table.push(wire::Function { name_strindex, ..Default::default() });
            let function_index = dictionary.function_table.len() as i32 - 1;
            let lines = vec![wire::Line { function_index, line: 3, ..Default::default() }];
            dictionary.location_table.push(wire::Location { lines, ..Default::default() });
            location_indices.push(dictionary.location_table.len() as i32 - 1);
        }
        self.dictionary().stack_table.push(wire::Stack { location_indices, ..Default::default() });
        self.dictionary().stack_table.len() as i32 - 1
    }

    fn link(&mut self, span: &[u8], trace: &[u8]) -> i32 {
        let link = wire::Link { span_id: span.to_vec(), trace_id: trace.to_vec(), ..Default::default() };
        self.dictionary().link_table.push(link);
        self.dictionary().link_table.len() as i32 - 1
    }

    fn attribute(&mut self, key: &str, of: Value) -> i32 {
        let key_strindex = self.string(key);
        let attribute = wire::KeyValueAndUnit { key_strindex, value: value(of).into(), ..Default::default() };
        self.dictionary().attribute_table.push(attribute);
        self.dictionary().attribute_table.len() as i32 - 1
    }

    /// Adds a sample of these functions to the last profile.
    fn sample(mut self, frames: &[&str], values: &[i64], attributes: &[(&str, Value)]) -> Self {
        let sample = wire::Sample {
            stack_index: self.stack(frames),
            values: values.to_vec(),
            attribute_indices: attributes.iter().map(|(key, of)| self.attribute(key, of.clone())).collect(),
            ..Default::default()
        };
        self.last().samples.push(sample);
        self
    }

    /// Links the last sample.
    fn linked(mut self, span: &[u8], trace: &[u8]) -> Self {
        let link = self.link(span, trace);
        self.last().samples.last_mut().unwrap().link_index = link;
        self
    }

    fn resource(mut self, attributes: Vec<KeyValue>) -> Self {
        self.request.resource_profiles[0].resource.get_or_insert_default().attributes = attributes;
        self
    }

    fn scope(mut self, attributes: Vec<KeyValue>) -> Self {
        self.request.resource_profiles[0].scope_profiles[0].scope.get_or_insert_default().attributes =
            attributes;
        self
    }

    fn exported(&self, limits: &Limits) -> Vec<Exported> {
        decode(&self.request.encode_to_vec(), limits, &mut Budget::new(limits), RECEIVED_MS).unwrap()
    }

    /// The profiles that all of it became.
    fn decoded(&self) -> Vec<Profile> {
        self.exported(&Limits::default())
            .into_iter()
            .flat_map(|exported| exported.profiles.unwrap())
            .collect()
    }

    /// Why its only profile was refused.
    fn refused(&self) -> String {
        let [exported] = <[Exported; 1]>::try_from(self.exported(&Limits::default())).unwrap();
        exported.profiles.unwrap_err().to_string()
    }
}

fn one(profiles: Vec<Profile>) -> Profile {
    let [profile] = <[Profile; 1]>::try_from(profiles).expect("one profile");
    profile
}

fn frames(profile: &Profile, row: usize) -> Vec<String> {
    let symbols = &profile.symbols;
    let locations = symbols.stack(profile.row_stacks[row]).iter().rev().map(|&l| symbols.location(l));
    let lines = locations.flat_map(|location| symbols.lines(location).iter().rev());
    lines.map(|line| symbols.string(symbols.function_name(line.function)).to_owned()).collect()
}

fn labels(profile: &Profile) -> Vec<(&str, &str)> {
    profile.labels.iter().filter(|(name, _)| *name != "__otel__").collect()
}

#[test]
fn samples_of_a_cpu_profile_become_nanoseconds() {
    let export = Export::new()
        .sample(&["main", "handler"], &[3], &[])
        .linked(
            &0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
            &TRACE.parse::<crate::model::TraceId>().unwrap().get().to_be_bytes(),
        )
        .sample(&["main"], &[1, 1], &[]);
    let profile = one(export.decoded());
    assert_eq!(profile.types[0].to_string(), "process_cpu:cpu:nanoseconds:cpu:nanoseconds");
    assert_eq!(profile.column(0), [30_000_000, 20_000_000]);
    assert_eq!(frames(&profile, 0), ["main", "handler"]);
    assert_eq!((profile.start_nanos, profile.duration_nanos), (START_NANOS as i64, 5_000_000_000));
    assert_eq!(profile.period, 10_000_000);
    assert_eq!(profile.labels.iter().collect::<Vec<_>>(), [("__otel__", "true"), ("service_name", "shop")]);
    let span = &profile.spans[profile.row_spans[0] as usize];
    assert_eq!(span.span_id.unwrap().to_string(), SPAN);
    assert_eq!(span.trace_id.unwrap().to_string(), TRACE);
    assert_eq!(profile.row_spans[1], 0);
}

#[test]
fn other_types_are_named_by_their_period_or_by_themselves() {
    let cpu = Some(("cpu", "nanoseconds"));
    for (kind, period_type, period, name, value) in [
        (("off_cpu", "nanoseconds"), None, 0, "off_cpu:off_cpu:nanoseconds::", 7),
        (("cpu", "nanoseconds"), cpu, 10, "cpu:cpu:nanoseconds:cpu:nanoseconds", 7),
        (("samples", "count"), cpu, 10, "process_cpu:cpu:nanoseconds:cpu:nanoseconds", 70),
        (("samples", "count"), cpu, 0, "cpu:samples:count:cpu:nanoseconds", 7),
        (("samples", "count"), Some(("wall", "nanoseconds")), 10, "wall:samples:count:wall:nanoseconds", 7),
        (("alloc_space", "bytes"), Some(("space", "bytes")), 512, "space:alloc_space:bytes:space:bytes", 7),
        (("events", ""), None, 0, "events:events:::", 7),
    ] {
        let mut export = Export::new();
        export.profiles().clear();
        let export = export.profile(kind, period_type, period).sample(&["main"], &[3, 4], &[]);
        let profile = one(export.decoded());
        assert_eq!((profile.types[0].to_string().as_str(), profile.column(0)), (name, &[value][..]));
    }
}

#[test]
fn timestamps_without_values_are_counted_and_a_profile_without_times_has_some() {
    let mut export = Export::new().sample(&["main"], &[], &[]);
    export.last().samples[0].timestamps_unix_nano = vec![START_NANOS; 4];
    export.last().time_unix_nano = 0;
    export.last().duration_nano = 0;
    let profile = one(export.decoded());
    assert_eq!(profile.column(0), [40_000_000]);
    assert_eq!((profile.start_nanos, profile.duration_nanos), (RECEIVED_MS * 1_000_000, 10_000_000_000));
    assert_eq!(Export::new().sample(&["main"], &[], &[]).decoded(), [], "it says nothing");
}

#[test]
fn attributes_of_resource_and_scope_become_labels_and_the_first_of_a_name_wins() {
    let list = |values: Vec<Value>| {
        let values = values.into_iter().map(value).collect();
        Value::ArrayValue(Box::new(ArrayValue { values, ..Default::default() }))
    };
    let mut export =
        Export::new().sample(&["main"], &[1], &[("k8s.pod.name", text("other")), ("zone", text("a"))]);
    let (key_strindex, in_table) = (export.string("by.number"), export.string("text"));
    let by_number = KeyValue {
        key_strindex,
        value: value(Value::StringValueStrindex(in_table)).into(),
        ..Default::default()
    };
    let export = export
        .resource(vec![
            attribute("k8s.pod.name", text("pod-1")),
            attribute("count", Value::IntValue(-3)),
            attribute("flag", Value::BoolValue(true)),
            attribute("ratio", Value::DoubleValue(0.5)),
            attribute("one", list(vec![text("only")])),
            attribute("two", list(vec![text("a"), text("b")])),
            attribute("raw", Value::BytesValue(vec![1])),
            attribute("empty", text("")),
            attribute("__name__", text("evil")),
            attribute("span_id", text(SPAN)),
            by_number,
        ])
        .scope(vec![attribute("k8s_pod_name", text("second")), attribute("scope.only", text("yes"))]);
    assert_eq!(
        labels(&one(export.decoded())),
        [
            ("by.number", "text"),
            ("count", "-3"),
            ("flag", "true"),
            ("k8s.pod.name", "pod-1"),
            ("one", "only"),
            ("ratio", "0.5"),
            ("scope.only", "yes"),
            ("service_name", "unknown_service"),
            ("zone", "a"),
        ]
    );
}

#[test]
fn a_service_is_that_of_the_sample_or_of_the_resource_or_unknown() {
    let named = Export::new()
        .sample(&["a"], &[1], &[("service.name", text("cart"))])
        .sample(&["b"], &[1], &[])
        .sample(&["c"], &[1], &[("service_name", text("cart"))]);
    let services = |export: &Export| -> Vec<(String, usize)> {
        export.decoded().iter().map(|profile| (profile.labels.service().to_owned(), profile.rows())).collect()
    };
    assert_eq!(services(&named), [("cart".to_owned(), 2), ("shop".to_owned(), 1)]);
    let unnamed = named.resource(vec![attribute("process.executable.name", text("nginx"))]);
    assert_eq!(services(&unnamed)[1].0, "unknown_service:nginx");
    assert_eq!(services(&unnamed.resource(Vec::new()))[1].0, "unknown_service");
}

#[test]
fn attributes_of_samples_are_labels_and_numbers_of_relatives_are_columns() {
    let export = Export::new()
        .sample(
            &["a"],
            &[1],
            &[
                ("thread.name", text("worker")),
                ("thread.id", Value::IntValue(77)),
                ("parent_span_id", Value::IntValue(5)),
                ("local_root_span_id", Value::IntValue(-1)),
                ("local_root_span_name", text("GET /pay")),
                ("span_name", text("charge")),
                ("load", Value::DoubleValue(0.5)),
            ],
        )
        .linked(&[0, 0, 0, 0, 0, 0, 0, 9], &[]);
    let profile = one(export.decoded());
    assert_eq!(labels(&profile), [("service_name", "shop"), ("thread.name", "worker")]);
    let span = &profile.spans[1];
    assert_eq!((span.span_id.unwrap().get(), span.trace_id), (9, None));
    assert_eq!((span.parent.unwrap().get(), span.local_root.unwrap().get()), (5, u64::MAX));
    assert_eq!(profile.symbols.string(span.name), "charge");
    assert_eq!(profile.symbols.string(span.local_root_name), "GET /pay");
}

#[test]
fn frames_without_symbols_keep_their_binary() {
    let mut export = Export::new().sample(&[], &[1], &[]);
    let (filename_strindex, go, gnu) = (
        export.string("/usr/lib/libc.so.6"),
        export.attribute("process.executable.build_id.htlhash", text("hash")),
        export.attribute("process.executable.build_id.gnu", text("b1d")),
    );
    let dictionary = export.dictionary();
    dictionary.mapping_table.push(wire::Mapping {
        memory_start: 0x1000,
        memory_limit: 0x2000,
        file_offset: 0x10,
        filename_strindex,
        attribute_indices: vec![go, gnu],
        ..Default::default()
    });
    let location = wire::Location { mapping_index: 1, address: 0x1234, ..Default::default() };
    dictionary.location_table.extend([location, wire::Location::default()]);
    dictionary.stack_table[1].location_indices = vec![1, 2, 0];
    let profile = one(export.decoded());
    let stack = profile.symbols.stack(profile.row_stacks[0]);
    assert_eq!(stack.len(), 1, "what says nothing is no frame");
    let location = profile.symbols.location(stack[0]);
    assert_eq!(profile.symbols.unsymbolized_name(location), "libc.so.6 0x1234");
    let mapping = profile.symbols.mapping(location.mapping);
    assert_eq!((mapping.start, mapping.limit, mapping.offset), (0x1000, 0x2000, 0x10));
    assert_eq!(profile.symbols.string(mapping.build_id), "b1d");
}

#[test]
fn what_the_dictionary_lacks_is_named_and_costs_one_profile() {
    type Damage = fn(&mut Export);
    let bad: &[(&str, Damage, &str)] = &[
        (
            "stack",
            |e| e.last().samples[0].stack_index = 9,
            "samples[0].stack_index: 9 is not in stack_table, which has 2 entries",
        ),
        ("link", |e| e.last().samples[0].link_index = -1, "samples[0].link_index: -1 is not in link_table"),
        (
            "attribute",
            |e| e.last().samples[0].attribute_indices = vec![0, 4],
            "samples[0].attribute_indices[1]: 4 is not in attribute_table",
        ),
        (
            "location",
            |e| e.dictionary().stack_table[1].location_indices[0] = 7,
            "dictionary.stack_table[1].location_indices[0]: 7 is not in location_table",
        ),
        (
            "mapping",
            |e| e.dictionary().location_table[1].mapping_index = 7,
            "dictionary.location_table[1].mapping_index: 7 is not in mapping_table",
        ),
        (
            "function",
            |e| e.dictionary().location_table[1].lines[0].function_index = 7,
            "dictionary.location_table[1].lines[0].function_index: 7 is not in function_table",
        ),
        (
            "string",
            |e| e.dictionary().function_table[1].filename_strindex = i32::MIN,
            "dictionary.function_table[1].filename_strindex: -2147483648 is not in string_table",
        ),
        (
            "type",
            |e| e.last().sample_type.get_or_insert_default().type_strindex = 99,
            "sample_type.type_strindex: 99 is not in string_table",
        ),
        ("no type", |e| e.last().sample_type = Default::default(), "sample_type[0]: has no type"),
        ("future", |e| e.last().time_unix_nano = u64::MAX, "time_unix_nano: "),
        (
            "resource",
            |e| {
                e.request.resource_profiles[0].resource.get_or_insert_default().attributes[0] =
                    KeyValue { key_strindex: 99, ..Default::default() }
            },
            "resource.attributes[0].key_strindex: 99 is not in string_table",
        ),
        (
            "id",
            |e| {
                let link = e.link(&[1, 2, 3], &[]);
                e.last().samples[0].link_index = link;
            },
            "dictionary.link_table[1].span_id: expected an id of 8 bytes, got 3",
        ),
    ];
    for (what, damage, expected) in bad {
        let mut export = Export::new().sample(&["main"], &[1], &[]);
        damage(&mut export);
        let error = export.refused();
        assert!(error.starts_with(expected), "{what}: {error}");
    }
    let mut export = Export::new().sample(&["bad"], &[1], &[]).cpu().sample(&["good"], &[1], &[]);
    export.profiles()[0].samples[0].stack_index = 77;
    let exported = export.exported(&Limits::default());
    assert_eq!(exported[0].place, "resource_profiles[0].scope_profiles[0].profiles[0]");
    assert!(exported[0].profiles.is_err());
    assert_eq!(frames(&exported[1].profiles.as_ref().unwrap()[0], 0), ["good"]);
}

#[test]
fn tables_may_be_empty_where_nothing_refers_to_them() {
    let mut export = Export::new().sample(&["main"], &[1], &[]);
    export.dictionary().link_table.clear();
    export.dictionary().mapping_table.clear();
    assert_eq!(export.decoded().len(), 1);
    assert_eq!(decode(&[], &Limits::default(), &mut Budget::new(&Limits::default()), 0).unwrap().len(), 0);
}

#[test]
fn limits_are_named_and_one_profile_over_them_leaves_its_neighbours() {
    let export = Export::new()
        .sample(&["a", "b", "c"], &[1], &[("x", text("1")), ("y", text("2"))])
        .cpu()
        .sample(&["a"], &[1], &[]);
    let refused = |limits: Limits| {
        let exported = export.exported(&limits);
        assert!(exported[1].profiles.is_ok() || limits.max_profiles_per_push == 1);
        let refused = exported.into_iter().find_map(|exported| exported.profiles.err());
        refused.expect("one is refused").to_string()
    };
    let limits = Limits { max_labels_per_sample: 1, ..Limits::default() };
    assert!(
        refused(limits)
            .contains("samples[0].attribute_indices: 2 is over the limit max_labels_per_sample of 1")
    );
    let limits = Limits { max_label_name_bytes: 0, max_label_value_bytes: 0, ..Limits::default() };
    let error = export.exported(&limits).remove(0).profiles.unwrap_err().to_string();
    assert!(error.contains("max_label_name_bytes of 0"), "{error}");
    let limits = Limits { max_profiles_per_push: 1, ..Limits::default() };
    assert!(refused(limits).contains("max_profiles_per_push of 1"));
    let limits = Limits { max_stack_depth: 2, ..Limits::default() };
    let exported = export.exported(&limits);
    assert_eq!(frames(&exported[0].profiles.as_ref().unwrap()[0], 0), ["a", "b"]);
    let limits = Limits { max_decoded_bytes: 100, ..Limits::default() };
    let message = export.request.encode_to_vec();
    let error = decode(&message, &limits, &mut Budget::new(&limits), RECEIVED_MS).unwrap_err().to_string();
    assert!(error.starts_with("body: ") && error.contains("max_decoded_bytes"), "{error}");
    let limits = Limits { max_push_bytes: 10, ..Limits::default() };
    assert!(export.exported(&limits).iter().all(|exported| exported.profiles.is_err()));
}

#[test]
fn what_many_frames_name_is_counted() {
    let long = "x".repeat(60_000);
    let mut export = Export::new();
    for _ in 0..40 {
        export = export.sample(&[&long], &[1], &[]);
    }
    let limits = Limits { max_decoded_bytes: 1 << 20, ..Limits::default() };
    let error = export.exported(&limits).remove(0).profiles.unwrap_err().to_string();
    assert!(error.starts_with("stack traces: ") && error.contains("max_decoded_bytes of 1048576"), "{error}");
}

#[test]
fn json_says_the_same_with_ids_in_either_form() {
    let (span, trace) = (
        &0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
        &TRACE.parse::<crate::model::TraceId>().unwrap().get().to_be_bytes(),
    );
    let export = Export::new().sample(&["main"], &[3], &[("a", text("b"))]).linked(span, trace);
    let expected = without_ids(export.decoded());
    let json = serde_json::to_string(&export.request).unwrap();
    assert!(json.contains(&STANDARD.encode(span)) && json.contains(r#""timeUnixNano":"17672256"#), "{json}");
    let hex =
        json.replace(&STANDARD.encode(span), SPAN).replace(&STANDARD.encode(trace), &TRACE.to_uppercase());
    let loose = hex.replace(r#""values":["3"]"#, r#""values":[3],"unknownField":{"a":[1]}"#);
    assert_ne!(loose, hex);
    for body in [json, hex, loose] {
        let message = to_protobuf(body.as_bytes(), &Limits::default()).unwrap();
        let limits = Limits::default();
        let exported = decode(&message, &limits, &mut Budget::new(&limits), RECEIVED_MS).unwrap();
        let profiles: Vec<Profile> =
            exported.into_iter().flat_map(|exported| exported.profiles.unwrap()).collect();
        assert_eq!(without_ids(profiles), expected, "{body}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let limits = Limits::default();
        let _ = decode(&bytes, &limits, &mut Budget::new(&limits), RECEIVED_MS);
        let _ = to_protobuf(&bytes, &limits);
    }

    #[test]
    fn arbitrary_references_are_taken_or_named(
        indices in proptest::collection::vec(-1..5_i32, 16),
        values in proptest::collection::vec(any::<i64>(), 0..3),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut export = Export::new()
            .sample(&["main", "work"], &values, &[("service.name", text("x")), ("b", Value::BoolValue(false))])
            .linked(&[1; 8], &[2; 16]);
        let mut index = indices.iter().copied();
        let mut next = move || index.next().unwrap_or(0);
        let sample = &mut export.last().samples[0];
        (sample.stack_index, sample.link_index) = (next(), next());
        sample.attribute_indices.push(next());
        let dictionary = export.dictionary();
        dictionary.stack_table[1].location_indices.push(next());
        dictionary.location_table[1].mapping_index = next();
        dictionary.location_table[1].lines[0].function_index = next();
        dictionary.function_table[1].name_strindex = next();
        dictionary.attribute_table[1].key_strindex = next();
        dictionary.mapping_table[0].attribute_indices = vec![next()];
        let mut message = export.request.encode_to_vec();
        for (place, byte) in changes {
            let place = place.index(message.len());
            message[place] = byte;
        }
        let limits = Limits::default();
        for exported in decode(&message, &limits, &mut Budget::new(&limits), RECEIVED_MS).unwrap_or_default() {
            match exported.profiles {
                Ok(profiles) => prop_assert!(profiles.iter().all(|p| p.values.iter().all(|value| *value >= 0))),
                Err(error) => prop_assert!(error.to_string().contains(": ")),
            }
        }
    }
}
