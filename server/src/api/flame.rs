//! Queries for merged samples, of every route: what they may ask, and why an answer is empty.
//!
//! Grafana shows nothing at all for an empty span, so that the server's log and metrics are where the reason is found.

use std::str::FromStr;

use connectrpc::ConnectError;
use http::HeaderMap;
use spanflame_wire::querier::v1 as wire;

use super::bounds::OPEN;
use super::stack_selector::stack_filter;
use super::{App, bounds};
use crate::model::{ProfileId, ProfileType, TimeRange};
use crate::query::{
    EmptyReason, Engine, FlameGraphDiff, MergedProfile, MergedStacks, QueryError, Selection, SpanFilter,
};
use crate::selector::LabelSelector;
use crate::telemetry::SpanOutcome;

/// Ids that one query may name.
const MAX_IDS: usize = 10_000;
/// Switches the roll-up of descendants into their spans: on unless it says `false` or `0`.
const ROLL_UP: &str = "x-spanflame-roll-up";

/// Samples to merge.
pub(super) struct FlameQuery {
    pub(super) selection: Selection,
    /// The selector as it was sent, for the log.
    pub(super) selector_text: String,
    /// The most nodes, none where the client named no number.
    pub(super) max_nodes: Option<usize>,
    /// The most nodes of a graph.
    pub(super) graph_nodes: usize,
}

impl FlameQuery {
    /// A query with as many nodes as the client asked for.
    pub(super) fn new(
        selection: Selection,
        selector_text: String,
        max_nodes: Option<i64>,
    ) -> Result<Self, ConnectError> {
        let max_nodes = named_max_nodes(max_nodes)?;
        let graph_nodes = max_nodes.unwrap_or_else(bounds::default_nodes);
        Ok(Self { selection, selector_text, max_nodes, graph_nodes })
    }

    /// Checks a `SelectMergeStacktraces` request, the profile type before all else: a client may not survive a good
    /// answer to a malformed one.
    pub(super) fn from_stacktraces(
        request: &wire::SelectMergeStacktracesRequest,
        headers: &HeaderMap,
    ) -> Result<Self, ConnectError> {
        let kind = profile_type(&request.profile_typeID)?;
        if !request.span_selector.is_empty() && !request.trace_id_selector.is_empty() {
            return Err(ConnectError::invalid_argument(
                "span_selector, trace_id_selector: expected one of them, got both",
            ));
        }
        let selector = selector("label_selector", &request.label_selector)?;
        let named = named_range(request.start, request.end)?;
        let spans = SpanFilter {
            span_ids: ids("span_selector", &request.span_selector)?,
            trace_ids: ids("trace_id_selector", &request.trace_id_selector)?,
            roll_up: roll_up(headers)?,
        };
        let selection = Selection {
            kind,
            selector,
            range: if spans.is_empty() { bounds::range(named)? } else { bounds::range_by_id(named)? },
            spans,
            profiles: ids::<ProfileId>("profile_id_selector", &request.profile_id_selector)?
                .into_iter()
                .collect(),
            stacks: stack_filter(request.stack_trace_selector.as_option())?,
        };
        Self::new(selection, request.label_selector.clone(), request.max_nodes)
    }

    /// Checks a `SelectMergeSpanProfile` request.
    pub(super) fn from_span_profile(
        request: &wire::SelectMergeSpanProfileRequest,
        headers: &HeaderMap,
    ) -> Result<Self, ConnectError> {
        let request = wire::SelectMergeStacktracesRequest {
            profile_typeID: request.profile_typeID.clone(),
            label_selector: request.label_selector.clone(),
            span_selector: request.span_selector.clone(),
            start: request.start,
            end: request.end,
            max_nodes: request.max_nodes,
            ..Default::default()
        };
        Self::from_stacktraces(&request, headers)
    }

    /// Checks a `SelectMergeProfile` request.
    pub(super) fn from_profile(
        request: &wire::SelectMergeProfileRequest,
        headers: &HeaderMap,
    ) -> Result<Self, ConnectError> {
        let request = wire::SelectMergeStacktracesRequest {
            profile_typeID: request.profile_typeID.clone(),
            label_selector: request.label_selector.clone(),
            start: request.start,
            end: request.end,
            max_nodes: request.max_nodes,
            stack_trace_selector: request.stack_trace_selector.clone(),
            profile_id_selector: request.profile_id_selector.clone(),
            trace_id_selector: request.trace_id_selector.clone(),
            ..Default::default()
        };
        Self::from_stacktraces(&request, headers)
    }

    /// Merges by the names of frames; counts and, when nothing is found, logs how a query for spans ended.
    pub(super) fn merge(&self, app: &App, engine: &Engine) -> Result<MergedStacks, QueryError> {
        let merged = engine.merge(&self.selection)?;
        self.report(app, engine, merged.total())?;
        Ok(merged)
    }

    /// The same by whole locations.
    pub(super) fn merge_profile(&self, app: &App, engine: &Engine) -> Result<MergedProfile, QueryError> {
        let merged = engine.merge_profile(&self.selection)?;
        self.report(app, engine, merged.total())?;
        Ok(merged)
    }

    fn report(&self, app: &App, engine: &Engine, total: i64) -> Result<(), QueryError> {
        let Selection { kind, selector, range, spans, .. } = &self.selection;
        if spans.is_empty() {
            return Ok(());
        }
        if total > 0 {
            app.metrics.span_query(SpanOutcome::Hit);
            return Ok(());
        }
        let outcome = SpanOutcome::from(engine.why_empty(kind, selector, *range, spans)?);
        app.metrics.span_query(outcome);
        tracing::info!(
            reason = outcome.as_str(),
            spans = list(&spans.span_ids),
            traces = list(&spans.trace_ids),
            profile_type = %kind,
            selector = self.selector_text,
            start = range.map(|range| range.start_ms),
            end = range.map(|range| range.end_ms),
            "span query found no samples"
        );
        Ok(())
    }
}

/// Compares two queries; the larger number of nodes counts.
pub(super) fn diff(
    engine: &Engine,
    left: &FlameQuery,
    right: &FlameQuery,
) -> Result<FlameGraphDiff, QueryError> {
    let named = left.max_nodes.max(right.max_nodes);
    engine.diff(&left.selection, &right.selection, named.unwrap_or(left.graph_nodes))
}

/// Checks that the values of two queries can be compared.
pub(super) fn comparable(left: &FlameQuery, right: &FlameQuery) -> Result<(), ConnectError> {
    let (left, right) = (&left.selection.kind, &right.selection.kind);
    if left == right {
        return Ok(());
    }
    Err(ConnectError::invalid_argument(format!(
        "right.profile_typeID: expected the type of the left side, {left}, got {right}"
    )))
}

/// The error of a field that lies within another.
pub(super) fn within(field: &str, mut error: ConnectError) -> ConnectError {
    error.message = error.message.map(|message| format!("{field}.{message}"));
    error
}

impl From<Option<EmptyReason>> for SpanOutcome {
    /// Without a reason the spans do have samples, so that only the stack traces or profiles asked for can have excluded
    /// them.
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

pub(super) fn wire_graph(graph: crate::query::FlameGraph) -> wire::FlameGraph {
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

/// Whether spans include their descendants.
pub(super) fn roll_up(headers: &HeaderMap) -> Result<bool, ConnectError> {
    let Some(value) = headers.get(ROLL_UP) else { return Ok(true) };
    match value.as_bytes() {
        b"true" | b"1" => Ok(true),
        b"false" | b"0" => Ok(false),
        other => Err(ConnectError::invalid_argument(format!(
            "{ROLL_UP}: expected true or false, got {:?}",
            String::from_utf8_lossy(&other[..other.len().min(64)])
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

/// Reads a range of Unix milliseconds and tells what is seen of it.
pub(super) fn range(start: i64, end: i64) -> Result<Option<TimeRange>, ConnectError> {
    bounds::range(named_range(start, end)?)
}

/// Reads a range of Unix milliseconds. Clients that know no range, or not its end, send zeros: those are open.
fn named_range(start: i64, end: i64) -> Result<Option<TimeRange>, ConnectError> {
    if start == 0 && end == 0 {
        return Ok(None);
    }
    let (start_ms, end_ms) =
        (if start == 0 { OPEN.start_ms } else { start }, if end == 0 { OPEN.end_ms } else { end });
    TimeRange::new(start_ms, end_ms).map(Some).ok_or_else(|| {
        ConnectError::invalid_argument(format!("start, end: expected start <= end, got {start} and {end}"))
    })
}

/// Reads a number of nodes, zero and none meaning the default.
pub(super) fn max_nodes(asked: Option<i64>) -> Result<usize, ConnectError> {
    Ok(named_max_nodes(asked)?.unwrap_or_else(bounds::default_nodes))
}

/// Reads a number of nodes; zero is none.
pub(super) fn named_max_nodes(asked: Option<i64>) -> Result<Option<usize>, ConnectError> {
    let nodes = bounds::nodes(asked.unwrap_or(0))?;
    Ok((nodes > 0).then_some(nodes))
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
        FlameQuery::from_stacktraces(request, &HeaderMap::new())
            .err()
            .and_then(|error| error.message)
            .unwrap_or_default()
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
    fn roll_up_is_on_unless_switched_off() {
        let asked = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ROLL_UP, value.parse().unwrap());
            roll_up(&headers)
        };
        assert_eq!(roll_up(&HeaderMap::new()).ok(), Some(true));
        for (value, expected) in [("true", true), ("1", true), ("false", false), ("0", false)] {
            assert_eq!(asked(value).ok(), Some(expected), "{value}");
        }
        let refused = asked("no").err().and_then(|error| error.message).unwrap();
        assert_eq!(refused, r#"x-spanflame-roll-up: expected true or false, got "no""#);
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
