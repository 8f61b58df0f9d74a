//! Two small profiles of one trace, from pprof's field numbers.

use prost::Message as _;
use spanflame_tests::pprof::message::{Function, Label, Line, Location, Profile, Sample, ValueType};

pub(crate) const SPAN: &str = "00f067aa0ba902b7";
pub(crate) const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CHILD: u64 = 0xc1;
const REMOTE: u64 = 0xc2;
/// 2026-01-01T00:00:00Z in Unix nanoseconds.
const START: i64 = 1_767_225_600_000_000_000;

/// The span `GET /pay` and its child `charge`.
pub(crate) fn checkout() -> Vec<u8> {
    let span = u64::from_str_radix(SPAN, 16).expect("hexadecimal");
    let mut profile = Builder::new();
    profile.sample(&["main", "handler"], 1, "GET /pay", span, 0, span);
    profile.sample(&["main", "handler", "hash"], 2, "charge", CHILD, span, span);
    profile.sample(&["main", "idle"], 4, "", 0, 0, 0);
    profile.message.encode_to_vec()
}

/// A span in another service below `charge`.
pub(crate) fn payments() -> Vec<u8> {
    let mut profile = Builder::new();
    profile.sample(&["main", "pay"], 8, "POST /charge", REMOTE, CHILD, REMOTE);
    profile.message.encode_to_vec()
}

/// What both spans and one without samples say of themselves, in OpenTelemetry's JSON.
pub(crate) fn traces() -> String {
    let span = |id: &str, parent: &str, name: &str, nanos: i64| {
        format!(
            r#"{{"traceId":"{TRACE}","spanId":"{id}","parentSpanId":"{parent}","name":"{name}","kind":2,
                "startTimeUnixNano":"{START}","endTimeUnixNano":"{}","status":{{"code":2}},
                "attributes":[{{"key":"user","value":{{"stringValue":"ada"}}}}],
                "events":[{{"timeUnixNano":"{START}","name":"began"}}]}}"#,
            START + nanos
        )
    };
    let spans = [
        span(SPAN, "", "GET /pay", 90_000_000),
        span("00000000000000c1", SPAN, "charge", 50_000_000),
        span("00000000000000c3", SPAN, "look up", 1_000_000),
    ];
    let service = r#"{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]}"#;
    let spans = spans.join(",");
    format!(r#"{{"resourceSpans":[{{"resource":{service},"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#)
}

struct Builder {
    message: Profile,
}

impl Builder {
    fn new() -> Self {
        let mut builder =
            Self { message: Profile { string_table: vec![String::new()], ..Default::default() } };
        for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
            let value_type = ValueType { kind: builder.string(kind), unit: builder.string(unit) };
            builder.message.sample_type.push(value_type);
        }
        builder.message.period_type =
            Some(ValueType { kind: builder.string("cpu"), unit: builder.string("nanoseconds") });
        builder.message.period = 10_000_000;
        builder.message.time_nanos = START;
        builder.message.duration_nanos = 10_000_000_000;
        builder
    }

    fn string(&mut self, text: &str) -> i64 {
        let strings = &mut self.message.string_table;
        let known = strings.iter().position(|string| string == text).unwrap_or_else(|| {
            strings.push(text.to_owned());
            strings.len() - 1
        });
        known as i64
    }

    /// A stack from the root that was seen so often in a span; a span, a parent or a root of 0 is none.
    fn sample(&mut self, stack: &[&str], count: i64, name: &str, span: u64, parent: u64, root: u64) {
        let location_id = stack.iter().rev().map(|function| self.location(function)).collect();
        let mut label = Vec::new();
        if span != 0 {
            for (key, text) in [("span_id", format!("{span:016x}")), ("trace_id", TRACE.to_owned())] {
                label.push(Label { key: self.string(key), str: self.string(&text), num: 0 });
            }
            label.push(Label { key: self.string("span_name"), str: self.string(name), num: 0 });
        }
        for (key, id) in [("parent_span_id", parent), ("local_root_span_id", root)] {
            if id != 0 {
                label.push(Label { key: self.string(key), str: 0, num: id as i64 });
            }
        }
        self.message.sample.push(Sample { location_id, value: vec![count, count * 10_000_000], label });
    }

    fn location(&mut self, function: &str) -> u64 {
        let name = self.string(function);
        if let Some(known) = self.message.function.iter().find(|known| known.name == name) {
            return known.id;
        }
        let id = self.message.function.len() as u64 + 1;
        self.message.function.push(Function { id, name });
        self.message.location.push(Location { id, line: vec![Line { function_id: id, line: 1 }] });
        id
    }
}
