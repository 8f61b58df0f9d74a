//! `querier.v1.QuerierService`: what Grafana's data source and Profiles Drilldown ask.

use std::sync::Arc;

use connectrpc::{ConnectError, Encodable, RequestContext, Response, ServiceRequest, ServiceResult};
use spanflame_wire::google::v1::Profile;
use spanflame_wire::querier::v1::{
    AnalyzeQueryRequest, AnalyzeQueryResponse, DiffRequest, DiffResponse, ProfileTypesRequest,
    ProfileTypesResponse, QuerierService, SelectHeatmapRequest, SelectHeatmapResponse,
    SelectMergeProfileRequest, SelectMergeSpanProfileRequest, SelectMergeSpanProfileResponse,
    SelectMergeStacktracesRequest, SelectMergeStacktracesResponse, SelectSeriesRequest, SelectSeriesResponse,
    SeriesRequest, SeriesResponse,
};
use spanflame_wire::types::v1::{
    ExemplarType, GetProfileStatsRequest, GetProfileStatsResponse, LabelNamesRequest, LabelNamesResponse,
    LabelPair, LabelValuesRequest, LabelValuesResponse, Labels, Point, ProfileType, Series,
    TimeSeriesAggregationType,
};

use super::App;
use super::access::Access;
use super::flame::{self, FlameQuery};
use crate::model;
use crate::model::TimeRange;
use crate::query::{Engine, QueryError, SeriesQuery, TimeSeries};
use crate::selector::LabelSelector;

/// The most points that one time series may have.
const MAX_POINTS: f64 = 50_000.0;

/// The most labels or matchers that one request may name.
const MAX_NAMES: usize = 100;

pub(super) struct Querier(pub(super) Arc<App>);

impl Querier {
    fn engine(&self, context: &RequestContext) -> Engine {
        self.0.engine(Access::of(context.extensions()))
    }
}

impl QuerierService for Querier {
    async fn profile_types<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, ProfileTypesRequest>,
    ) -> ServiceResult<impl Encodable<ProfileTypesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let range = flame::range(request.start, request.end)?;
        let types = self.0.compute(move |_| engine.profile_types(range)).await.map_err(failed)?;
        let profile_types = types
            .iter()
            .map(|profile_type| ProfileType {
                ID: profile_type.to_string(),
                name: profile_type.name.to_string(),
                sample_type: profile_type.sample_type.to_string(),
                sample_unit: profile_type.sample_unit.to_string(),
                period_type: profile_type.period_type.to_string(),
                period_unit: profile_type.period_unit.to_string(),
                ..Default::default()
            })
            .collect();
        Response::ok(ProfileTypesResponse { profile_types, ..Default::default() })
    }

    async fn label_values<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, LabelValuesRequest>,
    ) -> ServiceResult<impl Encodable<LabelValuesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        if request.name.is_empty() {
            return Err(ConnectError::invalid_argument(
                "name: expected the label whose values to list, got \"\"",
            ));
        }
        let selector = matchers(&request.matchers)?;
        let range = flame::range(request.start, request.end)?;
        let names = self
            .0
            .compute(move |_| engine.label_values(&request.name, &selector, range))
            .await
            .map_err(failed)?;
        Response::ok(LabelValuesResponse { names, ..Default::default() })
    }

    async fn label_names<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, LabelNamesRequest>,
    ) -> ServiceResult<impl Encodable<LabelNamesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let selector = matchers(&request.matchers)?;
        let range = flame::range(request.start, request.end)?;
        let names = self.0.compute(move |_| engine.label_names(&selector, range)).await.map_err(failed)?;
        Response::ok(LabelNamesResponse { names, ..Default::default() })
    }

    async fn series<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SeriesRequest>,
    ) -> ServiceResult<impl Encodable<SeriesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        at_most_max_names("label_names", &request.label_names)?;
        let selector = matchers(&request.matchers)?;
        let range = flame::range(request.start, request.end)?;
        let sets = self
            .0
            .compute(move |_| engine.series(&request.label_names, &selector, range))
            .await
            .map_err(failed)?;
        let labels_set =
            sets.into_iter().map(|set| Labels { labels: pairs(set), ..Default::default() }).collect();
        Response::ok(SeriesResponse { labels_set, ..Default::default() })
    }

    async fn select_merge_stacktraces<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectMergeStacktracesRequest>,
    ) -> ServiceResult<impl Encodable<SelectMergeStacktracesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let query = FlameQuery::from_stacktraces(&request.to_owned_message())?;
        let flamegraph = self.0.compute(move |app| query.answer(app, &engine)).await.map_err(failed)?.into();
        Response::ok(SelectMergeStacktracesResponse { flamegraph, ..Default::default() })
    }

    async fn select_merge_span_profile<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectMergeSpanProfileRequest>,
    ) -> ServiceResult<impl Encodable<SelectMergeSpanProfileResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let query = FlameQuery::from_span_profile(&request.to_owned_message())?;
        let flamegraph = self.0.compute(move |app| query.answer(app, &engine)).await.map_err(failed)?.into();
        Response::ok(SelectMergeSpanProfileResponse { flamegraph, ..Default::default() })
    }

    async fn select_series<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectSeriesRequest>,
    ) -> ServiceResult<impl Encodable<SelectSeriesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let query = Totals::new(&request)?;
        let found = self.0.compute(move |_| query.answer(&engine)).await.map_err(failed)?;
        let series = found
            .into_iter()
            .map(|series| Series {
                labels: pairs(series.labels),
                points: series.points.into_iter().map(point).collect(),
                ..Default::default()
            })
            .collect();
        Response::ok(SelectSeriesResponse { series, ..Default::default() })
    }

    async fn get_profile_stats<'a>(
        &'a self,
        context: RequestContext,
        _: ServiceRequest<'_, GetProfileStatsRequest>,
    ) -> ServiceResult<impl Encodable<GetProfileStatsResponse> + Send + use<'a>> {
        Access::of(context.extensions()).single()?;
        let engine = self.engine(&context);
        let stats = self.0.compute(move |_| engine.stats()).await;
        Response::ok(GetProfileStatsResponse {
            data_ingested: stats.profiles > 0,
            oldest_profile_time: stats.oldest_ms.unwrap_or_default(),
            newest_profile_time: stats.newest_ms.unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn select_merge_profile<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, SelectMergeProfileRequest>,
    ) -> ServiceResult<impl Encodable<Profile> + Send + use<'a>> {
        unimplemented::<Profile>("SelectMergeProfile")
    }

    async fn select_heatmap<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, SelectHeatmapRequest>,
    ) -> ServiceResult<impl Encodable<SelectHeatmapResponse> + Send + use<'a>> {
        unimplemented::<SelectHeatmapResponse>("SelectHeatmap")
    }

    async fn diff<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, DiffRequest>,
    ) -> ServiceResult<impl Encodable<DiffResponse> + Send + use<'a>> {
        unimplemented::<DiffResponse>("Diff")
    }

    async fn analyze_query<'a>(
        &'a self,
        _: RequestContext,
        _: ServiceRequest<'_, AnalyzeQueryRequest>,
    ) -> ServiceResult<impl Encodable<AnalyzeQueryResponse> + Send + use<'a>> {
        unimplemented::<AnalyzeQueryResponse>("AnalyzeQuery")
    }
}

fn unimplemented<T>(method: &str) -> ServiceResult<T> {
    Err(ConnectError::unimplemented(format!("this server has no RPC /querier.v1.QuerierService/{method}")))
}

fn at_most_max_names(field: &str, names: &[String]) -> Result<(), ConnectError> {
    if names.len() <= MAX_NAMES {
        return Ok(());
    }
    Err(ConnectError::invalid_argument(format!("{field}: expected at most {MAX_NAMES}, got {}", names.len())))
}

/// The selector that all matchers of a request make together.
fn matchers(texts: &[String]) -> Result<LabelSelector, ConnectError> {
    at_most_max_names("matchers", texts)?;
    texts.iter().enumerate().try_fold(LabelSelector::default(), |all, (at, text)| {
        Ok(all.and(flame::selector(&format!("matchers[{at}]"), text)?))
    })
}

fn pairs(labels: Vec<(String, String)>) -> Vec<LabelPair> {
    labels.into_iter().map(|(name, value)| LabelPair { name, value, ..Default::default() }).collect()
}

fn point((timestamp, value): (i64, i64)) -> Point {
    Point { value: value as f64, timestamp, ..Default::default() }
}

/// What a failed query is to the client.
fn failed(error: QueryError) -> ConnectError {
    super::error::query_failed(&error)
}

/// A `SelectSeries` request that was found good.
struct Totals {
    profile_type: model::ProfileType,
    selector: LabelSelector,
    range: TimeRange,
    step_ms: i64,
    group_by: Vec<String>,
    limit: usize,
}

impl Totals {
    fn new(request: &SelectSeriesRequest) -> Result<Self, ConnectError> {
        let profile_type = flame::profile_type(&request.profile_typeID)?;
        let selector = flame::selector("label_selector", &request.label_selector)?;
        at_most_max_names("group_by", &request.group_by)?;
        let range = time_range(request.start, request.end)?;
        let step_ms = step_ms(request.step, range)?;
        if !flame::call_site(request.stack_trace_selector.as_option()).is_empty() {
            return Err(ConnectError::unimplemented(
                "stack_trace_selector: time series cannot be narrowed by it yet",
            ));
        }
        let sum = TimeSeriesAggregationType::TIME_SERIES_AGGREGATION_TYPE_SUM;
        if request.aggregation.is_some_and(|kind| kind != sum) {
            return Err(ConnectError::unimplemented("aggregation: only sums are computed yet"));
        }
        // A client can do without exemplars of single profiles; a span's would be missed.
        if request.exemplar_type == ExemplarType::EXEMPLAR_TYPE_SPAN {
            return Err(ConnectError::unimplemented("exemplar_type: there are no span exemplars yet"));
        }
        let limit = request.limit.unwrap_or(0);
        let limit = usize::try_from(limit).map_err(|_| {
            ConnectError::invalid_argument(format!("limit: expected 0 or more series, got {limit}"))
        })?;
        Ok(Self { profile_type, selector, range, step_ms, group_by: request.group_by.clone(), limit })
    }

    fn answer(&self, engine: &Engine) -> Result<Vec<TimeSeries>, QueryError> {
        let query = SeriesQuery {
            kind: &self.profile_type,
            selector: &self.selector,
            range: self.range,
            step_ms: self.step_ms,
            group_by: &self.group_by,
            limit: self.limit,
        };
        engine.select_series(&query)
    }
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
