//! Requests for series and heatmaps: what they may ask, and how their answers are written.

use connectrpc::ConnectError;
use spanflame_wire::querier::v1::{SelectHeatmapRequest, SelectSeriesRequest};
use spanflame_wire::types::v1::{
    Exemplar, ExemplarType, HeatmapSeries, HeatmapSlot, LabelPair, Point, Series,
};

use super::flame;
use super::stack_selector::stack_filter;
use crate::model::{ProfileType, TimeRange};
use crate::query::{self, Aggregation, Engine, Grain, QueryError, StackFilter, TimeQuery};
use crate::selector::LabelSelector;

/// The most points that one time series may have.
const MAX_POINTS: f64 = 50_000.0;
/// The most labels or matchers that one request may name.
const MAX_NAMES: usize = 100;

/// What series and heatmaps are asked alike.
struct OverTime {
    kind: ProfileType,
    selector: LabelSelector,
    stacks: StackFilter,
    range: TimeRange,
    step_ms: i64,
    group_by: Vec<String>,
    limit: usize,
}

impl OverTime {
    fn query(&self) -> TimeQuery<'_> {
        TimeQuery {
            kind: &self.kind,
            selector: &self.selector,
            stacks: &self.stacks,
            range: self.range,
            step_ms: self.step_ms,
            group_by: &self.group_by,
            limit: self.limit,
        }
    }
}

/// A `SelectSeries` request that was found good.
pub(super) struct SeriesQuery {
    over_time: OverTime,
    aggregation: Aggregation,
    exemplars: Option<Grain>,
}

impl SeriesQuery {
    pub(super) fn new(request: &SelectSeriesRequest) -> Result<Self, ConnectError> {
        let kind = flame::profile_type(&request.profile_typeID)?;
        let selector = flame::selector("label_selector", &request.label_selector)?;
        at_most_max_names("group_by", &request.group_by)?;
        let range = time_range(request.start, request.end)?;
        let over_time = OverTime {
            kind,
            selector,
            stacks: stack_filter(request.stack_trace_selector.as_option())?,
            range,
            step_ms: step_ms(request.step, range)?,
            group_by: request.group_by.clone(),
            limit: limit(request.limit)?,
        };
        let aggregation = match request.aggregation.map(|kind| kind.to_i32()) {
            None | Some(0) => Aggregation::Sum,
            Some(1) => Aggregation::Average,
            Some(other) => return Err(unknown("aggregation", "0 (sum) or 1 (average)", other)),
        };
        Ok(Self { over_time, aggregation, exemplars: exemplars(request.exemplar_type)? })
    }

    pub(super) fn answer(&self, engine: &Engine) -> Result<Vec<Series>, QueryError> {
        let series = engine.select_series(&self.over_time.query(), self.aggregation, self.exemplars)?;
        let point = |point: query::Point| Point {
            value: point.value,
            timestamp: point.at_ms,
            exemplars: point.exemplar.into_iter().map(exemplar).collect(),
            ..Default::default()
        };
        let series = series.into_iter().map(|series| Series {
            labels: pairs(series.labels),
            points: series.points.into_iter().map(point).collect(),
            ..Default::default()
        });
        Ok(series.collect())
    }
}

/// A `SelectHeatmap` request that was found good.
pub(super) struct HeatmapQuery {
    over_time: OverTime,
    grain: Grain,
    exemplars: bool,
}

impl HeatmapQuery {
    pub(super) fn new(request: &SelectHeatmapRequest) -> Result<Self, ConnectError> {
        let kind = flame::profile_type(&request.profile_typeID)?;
        let selector = flame::selector("label_selector", &request.label_selector)?;
        at_most_max_names("group_by", &request.group_by)?;
        let range = time_range(request.start, request.end)?;
        if range.start_ms == range.end_ms {
            let at = range.start_ms;
            return Err(ConnectError::invalid_argument(format!(
                "start, end: expected start < end, got {at} for both"
            )));
        }
        let grain = match request.query_type.to_i32() {
            1 => Grain::Profile,
            2 => Grain::Span,
            other => return Err(unknown("query_type", "1 (individual profiles) or 2 (spans)", other)),
        };
        let exemplars = exemplars(request.exemplar_type)?;
        if exemplars.is_some_and(|exemplars| exemplars != grain) {
            return Err(ConnectError::invalid_argument(
                "exemplar_type: expected none, or what query_type counts: individual profiles or spans",
            ));
        }
        let over_time = OverTime {
            kind,
            selector,
            stacks: StackFilter::default(),
            range,
            step_ms: step_ms(request.step, range)?,
            group_by: request.group_by.clone(),
            limit: limit(request.limit)?,
        };
        Ok(Self { over_time, grain, exemplars: exemplars.is_some() })
    }

    pub(super) fn answer(&self, engine: &Engine) -> Result<Vec<HeatmapSeries>, QueryError> {
        let heatmaps = engine.heatmap(&self.over_time.query(), self.grain, self.exemplars)?;
        let slot = |slot: query::HeatmapSlot| HeatmapSlot {
            timestamp: slot.at_ms,
            y_min: slot.starts,
            counts: slot.counts.into_iter().map(|count| i32::try_from(count).unwrap_or(i32::MAX)).collect(),
            exemplars: slot.exemplars.into_iter().map(exemplar).collect(),
            ..Default::default()
        };
        let series = heatmaps.into_iter().map(|heatmap| HeatmapSeries {
            labels: pairs(heatmap.labels),
            slots: heatmap.slots.into_iter().map(slot).collect(),
            ..Default::default()
        });
        Ok(series.collect())
    }
}

pub(super) fn at_most_max_names(field: &str, names: &[String]) -> Result<(), ConnectError> {
    if names.len() <= MAX_NAMES {
        return Ok(());
    }
    Err(ConnectError::invalid_argument(format!("{field}: expected at most {MAX_NAMES}, got {}", names.len())))
}

pub(super) fn pairs(labels: Vec<(String, String)>) -> Vec<LabelPair> {
    labels.into_iter().map(|(name, value)| LabelPair { name, value, ..Default::default() }).collect()
}

fn exemplar(exemplar: query::Exemplar) -> Exemplar {
    Exemplar {
        timestamp: exemplar.at_ms,
        profile_id: exemplar.profile_id.map(|id| id.to_string()).unwrap_or_default(),
        span_id: exemplar.span_id.map(|id| id.to_string()).unwrap_or_default(),
        trace_id: exemplar.trace_id.map(|id| id.to_string()).unwrap_or_default(),
        value: exemplar.value,
        labels: pairs(exemplar.labels),
        ..Default::default()
    }
}

fn exemplars(asked: buffa::EnumValue<ExemplarType>) -> Result<Option<Grain>, ConnectError> {
    match asked.to_i32() {
        0 | 1 => Ok(None),
        2 => Ok(Some(Grain::Profile)),
        3 => Ok(Some(Grain::Span)),
        other => Err(unknown("exemplar_type", "0 to 3 (none, none, individual, span)", other)),
    }
}

fn unknown(field: &str, expected: &str, got: i32) -> ConnectError {
    ConnectError::invalid_argument(format!("{field}: expected {expected}, got {got}"))
}

fn limit(asked: Option<i64>) -> Result<usize, ConnectError> {
    let limit = asked.unwrap_or(0);
    usize::try_from(limit)
        .map_err(|_| ConnectError::invalid_argument(format!("limit: expected 0 or more series, got {limit}")))
}

/// Reads a range that must be given: a time series needs its ends.
fn time_range(start: i64, end: i64) -> Result<TimeRange, ConnectError> {
    if start == 0 || end == 0 {
        return Err(ConnectError::invalid_argument(format!(
            "start, end: expected a time range in unix milliseconds, got {start} and {end}"
        )));
    }
    let range = flame::range(start, end)?;
    Ok(range.expect("neither end is zero"))
}

fn step_ms(step: f64, range: TimeRange) -> Result<i64, ConnectError> {
    let length = range.end_ms.saturating_sub(range.start_ms) as f64;
    let step_ms = step * 1000.0;
    if !(step_ms >= 1.0 && step_ms <= i64::MAX as f64 / 4.0) {
        return Err(ConnectError::invalid_argument(format!(
            "step: expected seconds, 0.001 at least, got {step}"
        )));
    }
    if length / step_ms > MAX_POINTS {
        return Err(ConnectError::invalid_argument(format!(
            "step: {step} s makes more than {MAX_POINTS} points of this range; expected a longer step"
        )));
    }
    Ok(step_ms.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_bounded() {
        let hour = TimeRange { start_ms: 1, end_ms: 3_600_001 };
        assert_eq!(step_ms(15.0, hour).ok(), Some(15_000));
        assert_eq!(step_ms(0.5, hour).ok(), Some(500));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.0001, 0.001] {
            assert!(step_ms(bad, hour).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_series_need_both_ends() {
        assert!(time_range(0, 5).is_err() && time_range(5, 0).is_err() && time_range(6, 5).is_err());
        assert!(time_range(5, 6).is_ok());
    }
}
