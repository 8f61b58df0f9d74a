//! The profile of a span or a trace, as a flame graph or in the format of another tool.

use std::io::Read;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use buffa::Message;
use flate2::Compression;
use flate2::read::GzEncoder;
use serde::Deserialize;
use spanflame_wire::querier::v1::SelectMergeStacktracesResponse;

use super::causes;
use super::format::{self, Drawn, TooLong};
use super::params::{self, Params, SpanPath, TracePath};
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::api::flame::{self, FlameQuery};
use crate::api::flame_json::{self, HasGraph};
use crate::api::{App, bounds};
use crate::model::ProfileType;
use crate::query::{Engine, FlameGraph, MergedProfile, Selection, SpanFilter, TypeTotal};
use crate::telemetry::SpanOutcome;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProfileParams {
    #[serde(rename = "type")]
    profile_type: Option<String>,
    max_nodes: Option<i64>,
    format: Option<String>,
    roll_up: Option<bool>,
}

/// What a profile is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Flamegraph,
    Pprof,
    Folded,
    Speedscope,
    Svg,
    Json,
}

const FORMATS: [(&str, Format); 6] = [
    ("flamegraph", Format::Flamegraph),
    ("pprof", Format::Pprof),
    ("folded", Format::Folded),
    ("speedscope", Format::Speedscope),
    ("svg", Format::Svg),
    ("json", Format::Json),
];

impl Format {
    fn read(asked: Option<&str>) -> Result<Self, ApiError> {
        let Some(asked) = asked else { return Ok(Self::Flamegraph) };
        let known = FORMATS.into_iter().find(|(name, _)| *name == asked);
        known.map(|(_, format)| format).ok_or_else(|| {
            let names = FORMATS.map(|(name, _)| name).join(", ");
            ApiError::invalid_argument(format!("format: expected one of {names}, got {asked:?}"))
        })
    }

    /// Whether it goes to another tool, which gets all nodes unless it wants fewer, and a file.
    fn is_export(self) -> bool {
        matches!(self, Self::Pprof | Self::Folded | Self::Speedscope)
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Flamegraph | Self::Json | Self::Speedscope => "application/json",
            Self::Pprof => "application/octet-stream",
            Self::Folded => "text/plain; charset=utf-8",
            Self::Svg => "image/svg+xml",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Flamegraph => "flamegraph.json",
            Self::Pprof => "pb.gz",
            Self::Folded => "folded.txt",
            Self::Speedscope => "speedscope.json",
            Self::Svg => "svg",
            Self::Json => "json",
        }
    }

    /// Merges what the query selects and writes it.
    fn answer(
        self,
        title: &str,
        query: &FlameQuery,
        app: &App,
        engine: &Engine,
    ) -> Result<Vec<u8>, ApiError> {
        let graph = || Ok::<_, ApiError>(query.merge(app, engine)?.flame_graph(query.graph_nodes));
        let drawn = |write: fn(&Drawn<'_>) -> Result<Vec<u8>, TooLong>| {
            Ok(write(&Drawn { title, kind: &query.selection.kind, graph: &graph()? })?)
        };
        match self {
            Self::Flamegraph => Ok(as_grafana_gets_it(graph()?)),
            Self::Pprof => Ok(gzip(&query.merge_profile(app, engine)?, query.graph_nodes)),
            Self::Folded => drawn(|drawn| format::folded(drawn).map(String::into_bytes)),
            Self::Speedscope => drawn(format::speedscope),
            Self::Svg => drawn(|drawn| format::svg(drawn).map(String::into_bytes)),
            Self::Json => drawn(format::nodes),
        }
    }
}

fn as_grafana_gets_it(graph: FlameGraph) -> Vec<u8> {
    let flamegraph = flame::wire_graph(graph).into();
    let answer = SelectMergeStacktracesResponse { flamegraph, ..Default::default() };
    answer.graph().map(|graph| flame_json::json(&graph)).expect("it is nothing but a graph")
}

/// The profile as files of pprof are: gzipped.
fn gzip(profile: &MergedProfile, max_nodes: usize) -> Vec<u8> {
    let message = profile.pprof(max_nodes).encode_to_vec();
    let mut bytes = Vec::new();
    GzEncoder::new(&*message, Compression::fast()).read_to_end(&mut bytes).expect("memory can be read");
    bytes
}

/// What was asked for, checked.
struct Asked {
    kind: Option<ProfileType>,
    format: Format,
    max_nodes: usize,
    roll_up: bool,
}

impl ProfileParams {
    fn read(self) -> Result<Asked, ApiError> {
        let kind = self.profile_type.as_deref().map(params::profile_type).transpose()?;
        let nodes = flame::max_nodes(self.max_nodes).map_err(|error| {
            ApiError::invalid_argument(error.message.unwrap_or_default().replace("max_nodes", "maxNodes"))
        })?;
        let format = Format::read(self.format.as_deref())?;
        let all = format.is_export() && self.max_nodes.unwrap_or(0) == 0;
        let max_nodes = if all { bounds::most_nodes() } else { nodes };
        Ok(Asked { kind, format, max_nodes, roll_up: self.roll_up.unwrap_or(true) })
    }
}

pub(super) async fn of_span(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    SpanPath(id): SpanPath,
    Params(params): Params<ProfileParams>,
) -> Result<Response, ApiError> {
    let asked = params.read()?;
    let engine = app.engine(&access).since(bounds::since());
    let Some(span) = app.compute(move |_| engine.span(id)).await? else {
        return Err(causes::unknown(&app, &access, "span", id.to_string(), SpanFilter::spans([id])).await);
    };
    let spans = SpanFilter { roll_up: asked.roll_up, ..SpanFilter::spans([id]) };
    let title = match &span.name {
        Some(name) => format!("{name} (span {id})"),
        None => format!("span {id}"),
    };
    let subject = Subject { title, file: format!("span-{id}"), spans };
    answer(app, access, asked, &span.types, subject).await
}

pub(super) async fn of_trace(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    TracePath(id): TracePath,
    Params(params): Params<ProfileParams>,
) -> Result<Response, ApiError> {
    if params.roll_up.is_some() {
        let message = "rollUp: has no meaning for a trace, whose profile is that of all its spans";
        return Err(ApiError::invalid_argument(message));
    }
    let asked = params.read()?;
    let engine = app.engine(&access).since(bounds::since());
    let Some(trace) = app.compute(move |_| engine.trace(id)).await? else {
        return Err(causes::unknown(&app, &access, "trace", id.to_string(), SpanFilter::traces([id])).await);
    };
    let subject = Subject {
        title: format!("trace {id}"),
        file: format!("trace-{id}"),
        spans: SpanFilter::traces([id]),
    };
    answer(app, access, asked, &trace.types, subject).await
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SelectionParams {
    #[serde(rename = "type")]
    profile_type: Option<String>,
    max_nodes: Option<i64>,
    format: Option<String>,
    roll_up: Option<bool>,
    selector: Option<String>,
    /// With commas between.
    spans: Option<String>,
    traces: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
}

/// Ids of spans or traces of one selection.
const MAX_IDS: usize = 1000;
/// The type of a selection that names none.
const CPU_TIME: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

pub(super) async fn of_selection(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(params): Params<SelectionParams>,
) -> Result<Response, ApiError> {
    let SelectionParams { profile_type, max_nodes, format, roll_up, selector, spans, traces, from, until } =
        params;
    let asked = ProfileParams { profile_type, max_nodes, format, roll_up }.read()?;
    let kind = asked.kind.map_or_else(|| params::profile_type(CPU_TIME), Ok)?;
    let filter = SpanFilter {
        span_ids: ids("spans", spans.as_deref(), params::span_id)?,
        trace_ids: ids("traces", traces.as_deref(), params::trace_id)?,
        roll_up: asked.roll_up,
    };
    let named = params::range(from, until)?;
    let range = if filter.is_empty() { params::seen(named)? } else { params::seen_by_id(named)? };
    let selector_text = selector.unwrap_or_default();
    let title = match (filter.span_ids.len(), filter.trace_ids.len()) {
        (0, 0) if selector_text.is_empty() => "everything".to_owned(),
        (0, 0) => selector_text.clone(),
        (1, 0) => format!("span {}", filter.span_ids[0]),
        (0, 1) => format!("trace {}", filter.trace_ids[0]),
        (spans, traces) => format!("{spans} spans, {traces} traces"),
    };
    let selector = params::selector(Some(&selector_text))?;
    let selection = Selection { selector, range, spans: filter, ..Selection::of(kind) };
    let query = FlameQuery {
        selection,
        selector_text,
        max_nodes: Some(asked.max_nodes),
        graph_nodes: asked.max_nodes,
    };
    write(app, access, asked.format, &title, "profile", query).await
}

fn ids<T>(
    field: &str,
    list: Option<&str>,
    read: fn(&str, &str) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    let ids: Vec<&str> =
        list.filter(|list| !list.is_empty()).map_or_else(Vec::new, |list| list.split(',').collect());
    if ids.len() > MAX_IDS {
        let message = format!("{field}: expected at most {MAX_IDS} ids, got {}", ids.len());
        return Err(ApiError::invalid_argument(message));
    }
    ids.into_iter().enumerate().map(|(at, id)| read(&format!("{field}[{at}]"), id)).collect()
}

/// Whose profile it is.
struct Subject {
    title: String,
    /// How its files begin.
    file: String,
    spans: SpanFilter,
}

async fn answer(
    app: Arc<App>,
    access: Access,
    asked: Asked,
    types: &[TypeTotal],
    subject: Subject,
) -> Result<Response, ApiError> {
    let Some(kind) = asked.kind.or_else(|| default_type(types)) else {
        let reason = SpanOutcome::NoSamplesOfType;
        app.metrics.span_query(reason);
        tracing::info!(reason = reason.as_str(), subject = subject.title, "span has no values");
        let message = format!("{} has samples, but no values", subject.title);
        return Err(ApiError::not_found(message).with("reason", "no_values"));
    };
    let Subject { title, file, spans } = subject;
    let Asked { format, max_nodes, .. } = asked;
    let query = FlameQuery {
        selection: Selection { range: params::seen_by_id(None)?, spans, ..Selection::of(kind) },
        selector_text: String::new(),
        max_nodes: Some(max_nodes),
        graph_nodes: max_nodes,
    };
    write(app, access, format, &title, &file, query).await
}

/// Answers what a query selects in this format.
async fn write(
    app: Arc<App>,
    access: Access,
    format: Format,
    title: &str,
    file: &str,
    query: FlameQuery,
) -> Result<Response, ApiError> {
    let name = file_name(file, &query.selection.kind, format);
    let title = title.to_owned();
    let body = app.compute(move |app| format.answer(&title, &query, app, &app.engine(&access))).await?;
    let place = if format.is_export() { "attachment" } else { "inline" };
    let disposition = HeaderValue::try_from(format!("{place}; filename=\"{name}\""))
        .expect("file names are made of plain characters");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, SAFE, body).into_response())
}

/// A picture that is opened by itself runs nothing and loads nothing.
const SAFE: [(HeaderName, HeaderValue); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

impl From<TooLong> for ApiError {
    fn from(error: TooLong) -> Self {
        Self::new(connectrpc::ErrorCode::ResourceExhausted, error.to_string())
    }
}

/// The CPU time, else whatever there is.
fn default_type(types: &[TypeTotal]) -> Option<ProfileType> {
    let kinds = || types.iter().map(|of_type| &of_type.kind);
    kinds().find(|kind| kind.is_cpu_time()).or_else(|| kinds().next()).cloned()
}

/// A name that means the same to every file system and in a header: types come from strangers.
fn file_name(file: &str, kind: &ProfileType, format: Format) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let of_type: String = kind.sample_type.chars().filter(|&c| plain(c)).take(32).collect();
    let dot = if of_type.is_empty() { "" } else { "." };
    format!("{file}{dot}{of_type}.{}", format.extension())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain() {
        let name = |sample_type: &str| {
            let kind = ProfileType {
                name: "x".into(),
                sample_type: sample_type.into(),
                sample_unit: "count".into(),
                period_type: "".into(),
                period_unit: "".into(),
            };
            file_name("span-00f067aa0ba902b7", &kind, Format::Svg)
        };
        assert_eq!(name("cpu"), "span-00f067aa0ba902b7.cpu.svg");
        assert_eq!(name("../\"a\r\nb;ä"), "span-00f067aa0ba902b7.ab.svg");
        assert_eq!(name("\""), "span-00f067aa0ba902b7.svg");
    }
}
