//! The older HTTP routes below `/pyroscope`, which tools and exports still read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Serialize;

use super::access::Access;
use super::error::ApiError;
use super::flame::{self, FlameQuery};
use super::{App, bounds};
use crate::attime;
use crate::model::{ProfileType, TimeRange};
use crate::query::{Aggregation, Engine, QueryError, Selection, TimeQuery, TimeSeries};
use crate::selector::LabelSelector;
use crate::store::system_clock;

/// How far back a query goes that says nothing about it.
const DEFAULT_RANGE_NANOS: i64 = 3_600_000_000_000;
/// Distances of a timeline's points in seconds: the first is taken that makes about so many points at most.
const STEPS: [i64; 13] = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400];
const MAX_TIMELINE_POINTS: i64 = 1500;
/// The most points of a timeline whatever its range: beyond the longest step they lie further apart still.
const MAX_LONG_POINTS: i64 = 10_000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/pyroscope/render", get(render))
        .route("/pyroscope/render-diff", get(render_diff))
        .route("/pyroscope/label-values", get(label_values))
        .route("/pyroscope/labels", get(labels))
}

type Params = Result<Query<HashMap<String, String>>, QueryRejection>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Flamebearer {
    version: u32,
    flamebearer: Bars,
    metadata: Metadata,
    timeline: Option<Timeline>,
    groups: Option<BTreeMap<String, Timeline>>,
    heatmap: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ticks: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right_ticks: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bars {
    names: Vec<String>,
    levels: Vec<Vec<i64>>,
    num_ticks: i64,
    max_self: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    format: &'static str,
    spy_name: &'static str,
    sample_rate: u32,
    units: String,
    name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeline {
    start_time: i64,
    samples: Vec<u64>,
    duration_delta: i64,
    watermarks: Option<()>,
}

impl Metadata {
    fn of(kind: &ProfileType, format: &'static str) -> Self {
        let (units, sample_rate) = match &*kind.sample_type {
            "cpu" => ("samples", 1_000_000_000),
            "inuse_objects" | "alloc_objects" | "goroutine" | "samples" => ("objects", 100),
            _ => (&*kind.sample_unit, 100),
        };
        let name = kind.sample_type.to_string();
        Self { format, spy_name: "unknown", sample_rate, units: units.to_owned(), name }
    }
}

/// One side of a query, as its parameters say.
struct Side {
    query: FlameQuery,
    range: TimeRange,
}

impl Side {
    fn read(params: &HashMap<String, String>, names: [&str; 3]) -> Result<Self, ApiError> {
        let [query, from, until] = names;
        let text = params.get(query).map_or("", |text| text.trim());
        let bad = |message: String| ApiError::invalid_argument(format!("{query}: {message}"));
        let end = text.find('{').unwrap_or(text.len());
        let kind: ProfileType = text[..end].trim().parse().map_err(|error| bad(format!("{error}")))?;
        let selector = LabelSelector::parse(&text[end..]).map_err(|error| bad(error.to_string()))?;
        let now = system_clock()().saturating_mul(1_000_000);
        let until_nanos = instant(params, until, now)?.unwrap_or(now);
        let from_nanos =
            instant(params, from, now)?.unwrap_or(until_nanos.saturating_sub(DEFAULT_RANGE_NANOS));
        let ms = |nanos: i64| nanos.div_euclid(1_000_000);
        let range = TimeRange::new(ms(from_nanos), ms(until_nanos)).ok_or_else(|| {
            let (from_ms, until_ms) = (ms(from_nanos), ms(until_nanos));
            let message =
                format!("{from}, {until}: expected {from} <= {until}, got {from_ms} and {until_ms} ms");
            ApiError::invalid_argument(message)
        })?;
        // What is no number has always been passed over.
        let named = ["maxNodes", "max-nodes"].iter().find_map(|name| params.get(*name)?.parse().ok());
        let range = seen(range)?;
        let selection = Selection { selector, range: Some(range), ..Selection::of(kind) };
        let query = FlameQuery::new(selection, text.to_owned(), named).map_err(|error| {
            ApiError::invalid_argument(error.message.unwrap_or_default().replace("max_nodes", "max-nodes"))
        })?;
        Ok(Self { query, range })
    }
}

/// What may be seen of a range.
fn seen(range: TimeRange) -> Result<TimeRange, ApiError> {
    let seen = bounds::range(Some(range)).map_err(|error| {
        ApiError::invalid_argument(error.message.unwrap_or_default().replace("start, end", "from, until"))
    })?;
    Ok(seen.unwrap_or(range))
}

fn instant(params: &HashMap<String, String>, name: &str, now: i64) -> Result<Option<i64>, ApiError> {
    let Some(text) = params.get(name) else { return Ok(None) };
    match attime::parse(text, now) {
        Ok(0) => Err(ApiError::invalid_argument(format!(
            "{name}: expected an instant after 1970-01-01, got {text:?}"
        ))),
        Ok(nanos) => Ok(Some(nanos)),
        Err(error) => Err(ApiError::invalid_argument(format!("{name}: {error}"))),
    }
}

fn read(params: Params) -> Result<HashMap<String, String>, ApiError> {
    let Query(params) =
        params.map_err(|error| ApiError::invalid_argument(format!("query: {}", error.body_text())))?;
    Ok(params)
}

async fn render(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    params: Params,
) -> Result<Response, ApiError> {
    let params = read(params)?;
    let dot = match params.get("format").map_or("json", String::as_str) {
        "" | "json" => false,
        "dot" => true,
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(ApiError::invalid_argument(format!("format: expected json or dot, got {shown:?}")));
        }
    };
    let group_by: Vec<String> =
        params.get("groupBy").filter(|name| !name.is_empty()).cloned().into_iter().collect();
    let aggregation = if params.get("aggregation").is_some_and(|kind| kind == "avg") {
        Aggregation::Average
    } else {
        Aggregation::Sum
    };
    let engine = app.engine(&access);
    let side = move || Side::read(&params, ["query", "from", "until"]);
    if dot {
        let graph = app.compute(move |app| {
            let query = side()?.query;
            Ok::<_, ApiError>(query.merge(app, &engine)?.dot(query.max_nodes.unwrap_or_default()))
        });
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], graph.await?).into_response());
    }
    let answer =
        app.compute(move |app| Ok::<_, ApiError>(single(&side()?, app, &engine, &group_by, aggregation)?));
    Ok(Json(answer.await?).into_response())
}

/// The most groups that an answer has, the largest: each has a whole timeline.
const MAX_GROUPS: usize = 100;

fn single(
    side: &Side,
    app: &App,
    engine: &Engine,
    group_by: &[String],
    aggregation: Aggregation,
) -> Result<Flamebearer, QueryError> {
    let Selection { kind, selector, stacks, .. } = &side.query.selection;
    let graph = side.query.merge(app, engine)?.flame_graph(side.query.graph_nodes);
    let step_ms = step_ms(side.range);
    let query = |group_by| TimeQuery {
        kind,
        selector,
        stacks,
        range: side.range,
        step_ms,
        group_by,
        limit: MAX_GROUPS,
    };
    let whole = engine.select_series(&query(&[]), aggregation, None)?;
    let timeline = |series: Option<&TimeSeries>| timeline(series, side.range, step_ms);
    let groups = if group_by.is_empty() {
        None
    } else {
        let groups = engine.select_series(&query(group_by), aggregation, None)?;
        // What has no such label goes under a star.
        let name =
            |series: &TimeSeries| series.labels.first().map_or("*".to_owned(), |(_, value)| value.clone());
        Some(groups.iter().map(|series| (name(series), timeline(Some(series)))).collect())
    };
    Ok(Flamebearer {
        version: 1,
        flamebearer: Bars {
            names: graph.names,
            levels: graph.levels,
            num_ticks: graph.total,
            max_self: graph.max_self,
        },
        metadata: Metadata::of(kind, "single"),
        timeline: Some(timeline(whole.first())),
        groups,
        heatmap: None,
        left_ticks: None,
        right_ticks: None,
    })
}

/// The shortest of the usual steps that does not make too many points.
fn step_ms(range: TimeRange) -> i64 {
    let length = range.end_ms.saturating_sub(range.start_ms);
    let usual = STEPS.into_iter().map(|step| step * 1000).find(|step| length / step <= MAX_TIMELINE_POINTS);
    let longest = STEPS[STEPS.len() - 1] * 1000;
    usual.unwrap_or_else(|| longest.max((length / MAX_LONG_POINTS).saturating_add(1)))
}

/// The values of every step from the range's start on, 0 where there is nothing.
fn timeline(series: Option<&TimeSeries>, range: TimeRange, step_ms: i64) -> Timeline {
    let count = range.end_ms.saturating_sub(range.start_ms) / step_ms + 1;
    let mut samples = vec![0; usize::try_from(count).unwrap_or(0)];
    for point in series.iter().flat_map(|series| &series.points) {
        let at = usize::try_from((point.at_ms - range.start_ms) / step_ms).ok();
        if let Some(sample) = at.and_then(|at| samples.get_mut(at)) {
            *sample = point.value.max(0.0) as u64;
        }
    }
    Timeline {
        start_time: range.start_ms.div_euclid(1000),
        samples,
        duration_delta: step_ms / 1000,
        watermarks: None,
    }
}

async fn render_diff(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    params: Params,
) -> Result<Json<Flamebearer>, ApiError> {
    let params = read(params)?;
    let engine = app.engine(&access);
    let answer = app.compute(move |_| {
        let left = Side::read(&params, ["leftQuery", "leftFrom", "leftUntil"])?.query;
        let right = Side::read(&params, ["rightQuery", "rightFrom", "rightUntil"])?.query;
        let (left_kind, right_kind) = (&left.selection.kind, &right.selection.kind);
        if left_kind != right_kind {
            let message =
                format!("rightQuery: expected the profile type of leftQuery, {left_kind}, got {right_kind}");
            return Err(ApiError::invalid_argument(message));
        }
        Ok((Metadata::of(left_kind, "double"), flame::diff(&engine, &left, &right)?))
    });
    let (metadata, diff) = answer.await?;
    Ok(Json(Flamebearer {
        version: 1,
        flamebearer: Bars {
            names: diff.names,
            levels: diff.levels,
            num_ticks: diff.total,
            max_self: diff.max_self,
        },
        metadata,
        timeline: None,
        groups: None,
        heatmap: None,
        left_ticks: Some(diff.left),
        right_ticks: Some(diff.right),
    }))
}

/// The selector and the range that a list of labels is about: those that are given, else all.
fn listed(params: &HashMap<String, String>) -> Result<(LabelSelector, Option<TimeRange>), ApiError> {
    let query = params.get("query").map_or("", String::as_str);
    let selector =
        LabelSelector::parse(query).map_err(|error| ApiError::invalid_argument(format!("query: {error}")))?;
    let now = system_clock()().saturating_mul(1_000_000);
    let (from, until) = (instant(params, "from", now)?, instant(params, "until", now)?);
    if from.is_none() && until.is_none() {
        return Ok((selector, bounds::range(None)?));
    }
    let ms = |nanos: i64| nanos.div_euclid(1_000_000);
    let (start_ms, end_ms) = (from.map_or(i64::MIN, ms), ms(until.unwrap_or(now)));
    let range = TimeRange::new(start_ms, end_ms).ok_or_else(|| {
        ApiError::invalid_argument(format!(
            "from, until: expected from <= until, got {start_ms} and {end_ms} ms"
        ))
    })?;
    Ok((selector, Some(seen(range)?)))
}

async fn label_values(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    params: Params,
) -> Result<Json<Vec<String>>, ApiError> {
    let params = read(params)?;
    let label = params.get("label").filter(|label| !label.is_empty()).cloned().ok_or_else(|| {
        ApiError::invalid_argument("label: expected the label whose values to list, got none")
    })?;
    let engine = app.engine(&access);
    // Here the name of a profile has always been its whole type.
    let label = if label == "__name__" { "__profile_type__".to_owned() } else { label };
    let values = app.compute(move |_| {
        let (selector, range) = listed(&params)?;
        Ok::<_, ApiError>(engine.label_values(&label, &selector, range)?)
    });
    Ok(Json(values.await?))
}

async fn labels(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    params: Params,
) -> Result<Json<Vec<String>>, ApiError> {
    let params = read(params)?;
    let engine = app.engine(&access);
    let names = app.compute(move |_| {
        let (selector, range) = listed(&params)?;
        Ok::<_, ApiError>(engine.label_names(&selector, range)?)
    });
    Ok(Json(names.await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Point;

    fn params(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    const NAMES: [&str; 3] = ["query", "from", "until"];
    const CPU: &str = crate::testing::CPU;

    #[test]
    fn a_side_is_a_type_with_its_selector_and_a_range() {
        let query = format!(r#"{CPU}{{service_name="a"}}"#);
        let given =
            [("query", &*query), ("from", "1767225600"), ("until", "1767225660000"), ("max-nodes", "7")];
        let side = Side::read(&params(&given), NAMES).unwrap();
        assert_eq!(side.range, TimeRange { start_ms: 1_767_225_600_000, end_ms: 1_767_225_660_000 });
        assert_eq!(side.query.selection.kind.to_string(), CPU);
        assert_eq!(side.query.max_nodes, Some(7));
        let side = Side::read(&params(&[("query", CPU), ("maxNodes", "many")]), NAMES).unwrap();
        assert_eq!(side.range.end_ms - side.range.start_ms, 3_600_000, "the last hour");
        assert_eq!(side.query.max_nodes, None);
    }

    #[test]
    fn bad_sides_name_the_parameter() {
        for (given, field) in [
            (vec![], "query: "),
            (vec![("query", "cpu{}")], "query: "),
            (vec![("query", "a:b:c:d:e{")], "query: "),
            (vec![("query", CPU), ("from", "yesterday")], "from: "),
            (vec![("query", CPU), ("from", "0")], "from: "),
            (vec![("query", CPU), ("until", "0")], "until: "),
            (vec![("query", CPU), ("from", "now"), ("until", "now-1h")], "from, until: "),
            (vec![("query", CPU), ("maxNodes", "-1")], "max-nodes: "),
        ] {
            let error = Side::read(&params(&given), NAMES).err().map(IntoResponse::into_response);
            let error = error.unwrap_or_else(|| panic!("{given:?} is taken"));
            assert_eq!(error.status(), 400, "{given:?}");
            let body = futures_body(error);
            assert!(body.contains(&format!(r#""message":"{field}"#)), "{given:?}: {body}");
        }
    }

    fn futures_body(response: Response) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = axum::body::to_bytes(response.into_body(), 10_000);
        String::from_utf8(runtime.block_on(body).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn timelines_have_a_value_for_every_step() {
        let range = TimeRange { start_ms: 1_000_000, end_ms: 1_046_000 };
        assert_eq!(step_ms(range), 15_000);
        let point = |at_ms, value| Point { at_ms, value, exemplar: None };
        let series =
            TimeSeries { labels: Vec::new(), points: vec![point(1_015_000, 5.0), point(1_045_000, 7.0)] };
        let timeline = timeline(Some(&series), range, 15_000);
        assert_eq!((timeline.start_time, timeline.duration_delta), (1000, 15));
        assert_eq!(timeline.samples, [0, 5, 0, 7]);
    }

    #[test]
    fn steps_grow_with_the_range() {
        let day = 86_400_000;
        for (length, step) in [(0, 15), (3_600_000, 15), (day, 60), (7 * day, 600), (365 * day, 21_600)] {
            assert_eq!(step_ms(TimeRange { start_ms: 5, end_ms: 5 + length }), step * 1000, "{length}");
        }
        let all = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };
        assert!(i64::MAX / step_ms(all) <= MAX_LONG_POINTS);
    }
}
