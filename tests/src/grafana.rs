//! Asks a server as Grafana does when somebody opens a span: the same bytes, headers, selectors and time windows.

use prost::Message;

use crate::collector::Span;
use crate::flame::{FlameGraph, Tree};
use crate::http::{Answer, send};

/// The CPU profile type, as a data source is set up with it.
pub const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/// What Grafana maps when its "tags" setting is left alone: attribute of the span or its resource, label of the profile.
pub const DEFAULT_TAGS: [(&str, &str); 2] =
    [("service.name", "service_name"), ("service.namespace", "service_namespace")];

/// Milliseconds before and after the span in the flame graph that is embedded into a trace.
const EMBEDDED: i64 = 30_000;
/// Milliseconds before and after the span behind the button "Profiles for this span".
const BUTTON: i64 = 60_000;

/// `querier.v1.SelectMergeSpanProfileRequest`: what every released Grafana asks with for a span.
#[derive(Clone, PartialEq, Message)]
struct SelectMergeSpanProfile {
    #[prost(string, tag = 1)]
    profile_type: String,
    #[prost(string, tag = 2)]
    label_selector: String,
    #[prost(string, repeated, tag = 3)]
    span_selector: Vec<String>,
    #[prost(int64, tag = 4)]
    start: i64,
    #[prost(int64, tag = 5)]
    end: i64,
}

/// `querier.v1.SelectMergeStacktracesRequest`: what the data source's newest code asks with, and for everything else.
#[derive(Clone, PartialEq, Message)]
struct SelectMergeStacktraces {
    #[prost(string, tag = 1)]
    profile_type: String,
    #[prost(string, tag = 2)]
    label_selector: String,
    #[prost(int64, tag = 3)]
    start: i64,
    #[prost(int64, tag = 4)]
    end: i64,
    #[prost(string, repeated, tag = 10)]
    trace_id_selector: Vec<String>,
    #[prost(string, repeated, tag = 11)]
    span_selector: Vec<String>,
}

/// The answer to both. The flame graph stays in bytes: two answers must not differ in any.
#[derive(Clone, PartialEq, Message)]
struct Merged {
    #[prost(bytes = "vec", optional, tag = 1)]
    flame_graph: Option<Vec<u8>>,
}

/// `querier.v1.ProfileTypesRequest`.
#[derive(Clone, PartialEq, Message)]
struct ProfileTypes {
    #[prost(int64, tag = 1)]
    start: i64,
    #[prost(int64, tag = 2)]
    end: i64,
}

/// `querier.v1.ProfileTypesResponse`.
#[derive(Clone, PartialEq, Message)]
struct ProfileTypesAnswer {
    #[prost(message, repeated, tag = 1)]
    types: Vec<ProfileType>,
}

/// `types.v1.ProfileType`.
#[derive(Clone, PartialEq, Message)]
struct ProfileType {
    #[prost(string, tag = 1)]
    id: String,
}

/// Which call asks for a span's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `SelectMergeSpanProfile`.
    Span,
    /// `SelectMergeStacktraces` with a span selector.
    Stacktraces,
}

/// What to merge.
#[derive(Clone, Debug)]
pub struct Query {
    /// The labels, as `{name="value"}`.
    pub selector: String,
    /// Start and end in Unix milliseconds.
    pub start: i64,
    /// Start and end in Unix milliseconds.
    pub end: i64,
    /// The spans, or none for all samples.
    pub spans: Vec<String>,
    /// The traces, or none for all samples.
    pub traces: Vec<String>,
}

impl Query {
    /// What the flame graph that is embedded into the trace asks for.
    ///
    /// # Panics
    /// When the span does not say under which id its profile is: Grafana then asks for nothing.
    pub fn embedded(span: &Span) -> Self {
        Self::around(span, EMBEDDED)
    }

    /// What the button "Profiles for this span" asks for.
    ///
    /// # Panics
    /// As [`Query::embedded`].
    pub fn button(span: &Span) -> Self {
        Self::around(span, BUTTON)
    }

    fn around(span: &Span, margin: i64) -> Self {
        let id = span.profile_id().unwrap_or_else(|| panic!("no pyroscope.profile.id: {span:?}"));
        Self { spans: vec![id.to_owned()], ..Self::everything(std::slice::from_ref(span), margin) }
    }

    /// Everything of a service's spans and what ran beside them, with some milliseconds before and after.
    ///
    /// # Panics
    /// When there are no spans.
    pub fn everything(spans: &[Span], margin: i64) -> Self {
        let milliseconds =
            |nanoseconds: u64| i64::try_from(nanoseconds / 1_000_000).expect("a time of our era");
        let start = spans.iter().map(|span| span.start).min().expect("there are spans");
        let end = spans.iter().map(|span| span.end).max().expect("there are spans");
        Self {
            selector: selector(&spans[0]),
            start: milliseconds(start) - margin,
            end: milliseconds(end) + margin,
            spans: Vec::new(),
            traces: Vec::new(),
        }
    }
}

/// The default tags of the span and its resource, as Grafana writes them: values as they are, absent ones left out.
pub fn selector(span: &Span) -> String {
    let tags = DEFAULT_TAGS.iter().flat_map(|(attribute, label)| {
        let values = [span.resource.get(*attribute), span.attributes.get(*attribute)];
        values.into_iter().flatten().map(move |value| format!("{label}=\"{value}\""))
    });
    format!("{{{}}}", tags.collect::<Vec<_>>().join(", "))
}

/// A flame graph as it came.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub tree: Tree,
}

/// A data source of Grafana's that points to a server.
pub struct Grafana {
    server: String,
}

impl Grafana {
    /// A data source with that address.
    pub fn new(server: &str) -> Self {
        Self { server: server.trim_end_matches('/').to_owned() }
    }

    /// "Save & test": whether the answer is what makes Grafana say that the data source works.
    pub fn works(&self) -> bool {
        self.profile_types(1_000, 4_000).is_ok()
    }

    /// The ids of the profile types within a time range, in Unix milliseconds.
    ///
    /// # Errors
    /// The error's code, when the server answers with one.
    pub fn profile_types(&self, start: i64, end: i64) -> Result<Vec<String>, String> {
        let answer: ProfileTypesAnswer = self.call("ProfileTypes", &ProfileTypes { start, end })?;
        Ok(answer.types.into_iter().map(|kind| kind.id).collect())
    }

    /// The flame graph of a query.
    ///
    /// # Errors
    /// The error's code, when the server answers with one.
    pub fn flame_graph(&self, call: Call, query: Query) -> Result<Graph, String> {
        let Query { selector: label_selector, start, end, spans: span_selector, traces: trace_id_selector } =
            query;
        let profile_type = CPU.to_owned();
        let merged: Merged = match call {
            Call::Span => {
                assert!(trace_id_selector.is_empty(), "this call knows no traces");
                let request =
                    SelectMergeSpanProfile { profile_type, label_selector, span_selector, start, end };
                self.call("SelectMergeSpanProfile", &request)?
            }
            Call::Stacktraces => self.call(
                "SelectMergeStacktraces",
                &SelectMergeStacktraces {
                    profile_type,
                    label_selector,
                    start,
                    end,
                    trace_id_selector,
                    span_selector,
                },
            )?,
        };
        let bytes = merged.flame_graph.expect("an answer always has a flame graph");
        let graph = FlameGraph::decode(bytes.as_slice()).expect("it is a flame graph");
        Ok(Graph { tree: Tree::of_graph(&graph), bytes })
    }

    /// One unary call of the Connect protocol, as connect-go makes it.
    fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, String> {
        const TYPE: &str = "application/proto";
        let url = format!("{}/querier.v1.QuerierService/{method}", self.server);
        let headers = [
            ("content-type", TYPE),
            ("connect-protocol-version", "1"),
            ("accept-encoding", "gzip"),
            ("user-agent", "connect-go/1.21.0 (go1.25.0)"),
        ];
        let answer: Answer = send("POST", &url, &headers, request.encode_to_vec())
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        if answer.status == 200 {
            assert_eq!(answer.header("content-type"), Some(TYPE), "what connect-go insists on");
            return Ok(A::decode(answer.body.as_slice()).expect("the body is the answer's message"));
        }
        assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
        Err(answer.json()["code"].as_str().expect("an error has a code").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request in the contract for a span of 2026-01-01 00:00:00 to 00:00:01.
    const GOLDEN: &str = "0a2b70726f636573735f6370753a6370753a6e616e6f7365636f6e64733a6370753a6e616e6f7365636f6e6473\
        12197b736572766963655f6e616d653d22636865636b6f7574227d1a103030663036376161306261393032623720d0e5e8b6b733\
        2898c2ecb6b733";

    #[test]
    fn the_request_is_grafanas_byte_for_byte() {
        let span = Span {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
            span_id: "00f067aa0ba902b7".to_owned(),
            parent: None,
            name: "GET /checkout".to_owned(),
            start: 1_767_225_600_000_000_000,
            end: 1_767_225_601_000_000_000,
            attributes: [("pyroscope.profile.id".to_owned(), "00f067aa0ba902b7".to_owned())].into(),
            resource: [("service.name".to_owned(), "checkout".to_owned())].into(),
        };
        let Query { selector, start, end, spans, .. } = Query::embedded(&span);
        let request = SelectMergeSpanProfile {
            profile_type: CPU.to_owned(),
            label_selector: selector,
            span_selector: spans,
            start,
            end,
        };
        let bytes: String = request.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, GOLDEN);
    }
}
