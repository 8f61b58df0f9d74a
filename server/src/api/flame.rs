//! Flame-graph queries of every route: what they may ask, and why an answer is empty.
//!
//! Grafana shows nothing at all for an empty span, so that the server's log and metrics are where the reason is found.

use std::str::FromStr;

use connectrpc::ConnectError;
use spanflame_wire::querier::v1 as wire;
use spanflame_wire::types::v1::StackTraceSelector;

use super::{App, bounds};
use crate::model::{ProfileType, TimeRange};
use crate::query::{EmptyReason, Engine, FlameGraph, QueryError, SpanFilter};
use crate::selector::LabelSelector;
use crate::telemetry::SpanOutcome;

/// Ids that one query may name.
const MAX_IDS: usize = 10_000;

/// A flame graph to compute.
pub(super) struct FlameQuery {
    pub(super) profile_type: ProfileType,
    pub(super) selector: LabelSelector,
    /// The selector as it was sent, for the log.
    pub(super) selector_text: String,
    pub(super) range: Option<TimeRange>,
    pub(super) spans: SpanFilter,
    pub(super) call_site: Vec<String>,
    pub(super) max_nodes: usize,
}

impl FlameQuery {
    /// Checks a `SelectMergeStacktraces` request, the profile type before all else: a client may not survive a good
    /// answer to a malformed one.
    pub(super) fn from_stacktraces(
        request: &wire::SelectMergeStacktracesRequest,
    ) -> Result<Self, ConnectError> {
        let profile_type = profile_type(&request.profile_typeID)?;
        if !request.profile_id_selector.is_empty() {
            return Err(ConnectError::unimplemented(
                "profile_id_selector: this server does not keep profile ids",
            ));
        }
        if !request.span_selector.is_empty() && !request.trace_id_selector.is_empty() {
            return Err(ConnectError::invalid_argument(
                "span_selector, trace_id_selector: expected one of them, got both",
            ));
        }
        flame_format(request.format)?;
        Ok(Self {
            profile_type,
            selector: selector("label_selector", &request.label_selector)?,
            selector_text: request.label_selector.clone(),
            range: range(request.start, request.end)?,
            spans: SpanFilter {
                span_ids: ids("span_selector", &request.span_selector)?,
                trace_ids: ids("trace_id_selector", &request.trace_id_selector)?,
                ..Default::default()
            },
            call_site: call_site(request.stack_trace_selector.as_option()),
            max_nodes: max_nodes(request.max_nodes)?,
        })
    }

    /// Checks a `SelectMergeSpanProfile` request.
    pub(super) fn from_span_profile(
        request: &wire::SelectMergeSpanProfileRequest,
    ) -> Result<Self, ConnectError> {
        Self::from_stacktraces(&wire::SelectMergeStacktracesRequest {
            profile_typeID: request.profile_typeID.clone(),
            label_selector: request.label_selector.clone(),
            span_selector: request.span_selector.clone(),
            start: request.start,
            end: request.end,
            max_nodes: request.max_nodes,
            format: request.format,
            ..Default::default()
        })
    }

    /// Computes the graph as Grafana knows it.
    pub(super) fn answer(&self, app: &App, engine: &Engine) -> Result<wire::FlameGraph, QueryError> {
        Ok(wire_graph(self.graph(app, engine)?))
    }

    /// Computes the graph; counts and, when it is empty, logs how a query for spans ended.
    pub(super) fn graph(&self, app: &App, engine: &Engine) -> Result<FlameGraph, QueryError> {
        let Self { profile_type, selector, range, spans, call_site, max_nodes, .. } = self;
        let graph = engine.flamegraph(profile_type, selector, *range, spans, call_site, *max_nodes)?;
        if !spans.is_empty() {
            let outcome = if graph.total > 0 {
                SpanOutcome::Hit
            } else {
                engine.why_empty(profile_type, selector, *range, spans)?.into()
            };
            self.report(app, outcome);
        }
        Ok(graph)
    }

    fn report(&self, app: &App, outcome: SpanOutcome) {
        app.metrics.span_query(outcome);
        if outcome == SpanOutcome::Hit {
            return;
        }
        tracing::info!(
            reason = outcome.as_str(),
            spans = list(&self.spans.span_ids),
            traces = list(&self.spans.trace_ids),
            profile_type = %self.profile_type,
            selector = self.selector_text,
            start = self.range.map(|range| range.start_ms),
            end = self.range.map(|range| range.end_ms),
            "span query found no samples"
        );
    }
}

impl From<Option<EmptyReason>> for SpanOutcome {
    /// Without a reason the spans do have samples, so that only the call site is left to have excluded them.
    fn from(reason: Option<EmptyReason>) -> Self {
        match reason {
            Some(EmptyReason::UnknownSpan) => Self::UnknownSpan,
            Some(EmptyReason::NoSamplesOfType) => Self::NoSamplesOfType,
            Some(EmptyReason::SelectorMismatch) => Self::SelectorMismatch,
            Some(EmptyReason::OutsideWindow) => Self::OutsideWindow,
            None => Self::CallSiteMismatch,
        }
    }
}

/// The graph as Pyroscope's message.
pub(super) fn wire_graph(graph: FlameGraph) -> wire::FlameGraph {
    wire::FlameGraph {
        names: graph.names,
        levels: graph.levels.into_iter().map(|values| wire::Level { values, ..Default::default() }).collect(),
        total: graph.total,
        max_self: graph.max_self,
        ..Default::default()
    }
}

fn list<T: ToString>(ids: &[T]) -> String {
    ids.iter().take(10).map(T::to_string).collect::<Vec<_>>().join(",")
}

fn flame_format(format: buffa::EnumValue<wire::ProfileFormat>) -> Result<(), ConnectError> {
    match format.to_i32() {
        0 | 1 => Ok(()),
        other => Err(ConnectError::unimplemented(format!(
            "format: this server answers flame graphs (0 or 1), got {other}"
        ))),
    }
}

/// Reads a profile type id.
pub(super) fn profile_type(text: &str) -> Result<ProfileType, ConnectError> {
    text.parse().map_err(|error| ConnectError::invalid_argument(format!("profile_typeID: {error}")))
}

/// Reads a label selector; the empty text selects everything.
pub(super) fn selector(field: &str, text: &str) -> Result<LabelSelector, ConnectError> {
    LabelSelector::parse(text).map_err(|error| ConnectError::invalid_argument(format!("{field}: {error}")))
}

/// Reads a range of Unix milliseconds. Clients that know no range send zeros: that is all there is.
pub(super) fn range(start: i64, end: i64) -> Result<Option<TimeRange>, ConnectError> {
    if start == 0 && end == 0 {
        return bounds::range(None);
    }
    let range = TimeRange::new(start, end).ok_or_else(|| {
        ConnectError::invalid_argument(format!("start, end: expected start <= end, got {start} and {end}"))
    })?;
    bounds::range(Some(range))
}

/// Reads a number of nodes, zero and none meaning the default.
pub(super) fn max_nodes(asked: Option<i64>) -> Result<usize, ConnectError> {
    let nodes = asked.unwrap_or(0);
    let most = bounds::most_nodes();
    match usize::try_from(nodes) {
        Ok(0) => Ok(bounds::default_nodes()),
        Ok(nodes) if nodes <= most => Ok(nodes),
        _ => Err(ConnectError::invalid_argument(format!(
            "max_nodes: expected 0 to {most} (max_flamegraph_nodes), got {nodes}"
        ))),
    }
}

/// Function names of a call site, root first.
pub(super) fn call_site(selector: Option<&StackTraceSelector>) -> Vec<String> {
    selector
        .map(|selector| selector.call_site.iter().map(|location| location.name.clone()).collect())
        .unwrap_or_default()
}

fn ids<T: FromStr<Err = impl std::fmt::Display>>(
    field: &str,
    texts: &[String],
) -> Result<Vec<T>, ConnectError> {
    if texts.len() > MAX_IDS {
        return Err(ConnectError::invalid_argument(format!(
            "{field}: expected at most {MAX_IDS} ids, got {}",
            texts.len()
        )));
    }
    texts
        .iter()
        .enumerate()
        .map(|(at, text)| {
            text.parse().map_err(|error| {
                let hint = template_hint(text);
                ConnectError::invalid_argument(format!("{field}[{at}]: {error}{hint}"))
            })
        })
        .collect()
}

/// Grafana sends its template as it stands when the span lacks the attribute.
pub(super) fn template_hint(text: &str) -> &'static str {
    if text.contains("${") {
        "; this is a template that Grafana could not fill in: the span has no attribute pyroscope.profile.id, so it \
         was not profiled or its service does not set the attribute"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> wire::SelectMergeStacktracesRequest {
        wire::SelectMergeStacktracesRequest {
            profile_typeID: "process_cpu:cpu:nanoseconds:cpu:nanoseconds".into(),
            label_selector: "{}".into(),
            ..Default::default()
        }
    }

    fn refusal(request: &wire::SelectMergeStacktracesRequest) -> String {
        FlameQuery::from_stacktraces(request).err().and_then(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn the_profile_type_is_checked_first() {
        let bad = wire::SelectMergeStacktracesRequest {
            profile_typeID: "cpu".into(),
            label_selector: "{".into(),
            span_selector: vec!["abc".into()],
            ..request()
        };
        assert!(refusal(&bad).starts_with("profile_typeID: "), "{}", refusal(&bad));
    }

    #[test]
    fn ids_are_named_by_field_and_index() {
        let bad = wire::SelectMergeStacktracesRequest {
            span_selector: vec!["00f067aa0ba902b7".into(), "abc".into()],
            ..request()
        };
        assert_eq!(refusal(&bad), r#"span_selector[1]: expected 16 hex characters, got "abc""#);
        let trace =
            wire::SelectMergeStacktracesRequest { trace_id_selector: vec!["abc".into()], ..request() };
        assert!(refusal(&trace).starts_with("trace_id_selector[0]: expected 32 hex characters"));
        let template = wire::SelectMergeStacktracesRequest {
            span_selector: vec![r#"${__span.tags["pyroscope.profile.id"]}"#.into()],
            ..request()
        };
        assert!(refusal(&template).contains("the span has no attribute pyroscope.profile.id"));
    }

    #[test]
    fn nodes_and_ranges_are_bounded() {
        assert_eq!(max_nodes(None).ok(), Some(8192));
        assert_eq!(max_nodes(Some(0)).ok(), Some(8192));
        assert!(max_nodes(Some(-1)).is_err() && max_nodes(Some(1_048_577)).is_err());
        assert_eq!(range(0, 0).ok(), Some(None));
        assert!(range(2, 1).is_err());
    }
}
