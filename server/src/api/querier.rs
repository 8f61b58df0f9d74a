//! `querier.v1.QuerierService`: what Grafana's data source and Profiles Drilldown ask.

use std::sync::Arc;

use connectrpc::{ConnectError, Encodable, RequestContext, Response, ServiceRequest, ServiceResult};
use spanflame_wire::google::v1::Profile;
use spanflame_wire::querier::v1::{
    AnalyzeQueryRequest, AnalyzeQueryResponse, DiffRequest, DiffResponse, FlameGraphDiff, Level,
    PprofProfile, ProfileFormat, ProfileTypesRequest, ProfileTypesResponse, QuerierService, QueryImpact,
    QueryScope, SelectHeatmapRequest, SelectHeatmapResponse, SelectMergeProfileRequest,
    SelectMergeSpanProfileRequest, SelectMergeSpanProfileResponse, SelectMergeStacktracesRequest,
    SelectMergeStacktracesResponse, SelectSeriesRequest, SelectSeriesResponse, SeriesRequest, SeriesResponse,
};
use spanflame_wire::types::v1::{
    GetProfileStatsRequest, GetProfileStatsResponse, LabelNamesRequest, LabelNamesResponse,
    LabelValuesRequest, LabelValuesResponse, Labels, ProfileType,
};

use super::App;
use super::access::Access;
use super::flame::{self, FlameQuery, wire_graph};
use super::flame_json::Graphed;
use super::over_time::{HeatmapQuery, SeriesQuery, at_most_max_names, pairs};
use crate::query::{Engine, QueryError};
use crate::selector::{LabelSelector, MAX_REGEXES};

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
        let names = self.0.compute(move |_| {
            let selector = matchers(&request.matchers)?;
            let range = flame::range(request.start, request.end)?;
            engine.label_values(&request.name, &selector, range).map_err(failed)
        });
        let names = names.await?;
        Response::ok(LabelValuesResponse { names, ..Default::default() })
    }

    async fn label_names<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, LabelNamesRequest>,
    ) -> ServiceResult<impl Encodable<LabelNamesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let names = self.0.compute(move |_| {
            let selector = matchers(&request.matchers)?;
            let range = flame::range(request.start, request.end)?;
            engine.label_names(&selector, range).map_err(failed)
        });
        let names = names.await?;
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
        let sets = self.0.compute(move |_| {
            let selector = matchers(&request.matchers)?;
            let range = flame::range(request.start, request.end)?;
            engine.series(&request.label_names, &selector, range).map_err(failed)
        });
        let labels_set =
            sets.await?.into_iter().map(|set| Labels { labels: pairs(set), ..Default::default() }).collect();
        Response::ok(SeriesResponse { labels_set, ..Default::default() })
    }

    async fn select_merge_stacktraces<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectMergeStacktracesRequest>,
    ) -> ServiceResult<impl Encodable<SelectMergeStacktracesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let headers = context.headers().clone();
        let form = Form::of(request.format)?;
        let answer = self.0.compute(move |app| {
            let query = FlameQuery::from_stacktraces(&request, &headers)?;
            form.answer(&query, app, &engine).map_err(failed)
        });
        Response::ok(Graphed(answer.await?))
    }

    async fn select_merge_span_profile<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectMergeSpanProfileRequest>,
    ) -> ServiceResult<impl Encodable<SelectMergeSpanProfileResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let headers = context.headers().clone();
        // Of the other forms this answer has no field.
        let tree = request.format == ProfileFormat::PROFILE_FORMAT_TREE;
        let form = if tree { Form::Tree } else { Form::FlameGraph };
        let answer = self.0.compute(move |app| {
            let query = FlameQuery::from_span_profile(&request, &headers)?;
            form.answer(&query, app, &engine).map_err(failed)
        });
        let SelectMergeStacktracesResponse { flamegraph, tree, .. } = answer.await?;
        Response::ok(Graphed(SelectMergeSpanProfileResponse { flamegraph, tree, ..Default::default() }))
    }

    async fn select_merge_profile<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectMergeProfileRequest>,
    ) -> ServiceResult<impl Encodable<Profile> + Send + use<'a>> {
        let engine = self.engine(&context);
        let (request, headers) = (request.to_owned_message(), context.headers().clone());
        let pprof = self.0.compute(move |app| {
            let query = FlameQuery::from_profile(&request, &headers)?;
            let profile = query.merge_profile(app, &engine).map_err(failed)?;
            Ok::<_, ConnectError>(profile.pprof(query.max_nodes.unwrap_or_default()))
        });
        Response::ok(pprof.await?)
    }

    async fn select_series<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectSeriesRequest>,
    ) -> ServiceResult<impl Encodable<SelectSeriesResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let series =
            self.0.compute(move |_| SeriesQuery::new(&request)?.answer(&engine).map_err(failed)).await?;
        Response::ok(SelectSeriesResponse { series, ..Default::default() })
    }

    async fn select_heatmap<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, SelectHeatmapRequest>,
    ) -> ServiceResult<impl Encodable<SelectHeatmapResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let series =
            self.0.compute(move |_| HeatmapQuery::new(&request)?.answer(&engine).map_err(failed)).await?;
        Response::ok(SelectHeatmapResponse { series, ..Default::default() })
    }

    async fn diff<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, DiffRequest>,
    ) -> ServiceResult<impl Encodable<DiffResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let headers = context.headers().clone();
        let answer = self.0.compute(move |_| {
            let side = |name: &str, side: Option<&SelectMergeStacktracesRequest>| {
                let missing = || ConnectError::invalid_argument(format!("{name}: expected what to compare"));
                FlameQuery::from_stacktraces(side.ok_or_else(missing)?, &headers)
                    .map_err(|error| flame::within(name, error))
            };
            let left = side("left", request.left.as_option())?;
            let right = side("right", request.right.as_option())?;
            flame::comparable(&left, &right)?;
            flame::diff(&engine, &left, &right).map_err(failed)
        });
        let answer = answer.await?;
        let level = |values| Level { values, ..Default::default() };
        let flamegraph = FlameGraphDiff {
            names: answer.names,
            levels: answer.levels.into_iter().map(level).collect(),
            total: answer.total,
            max_self: answer.max_self,
            leftTicks: answer.left,
            rightTicks: answer.right,
            ..Default::default()
        };
        Response::ok(Graphed(DiffResponse { flamegraph: flamegraph.into(), ..Default::default() }))
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

    async fn analyze_query<'a>(
        &'a self,
        context: RequestContext,
        request: ServiceRequest<'_, AnalyzeQueryRequest>,
    ) -> ServiceResult<impl Encodable<AnalyzeQueryResponse> + Send + use<'a>> {
        let engine = self.engine(&context);
        let request = request.to_owned_message();
        let found = self.0.compute(move |_| {
            let selector = flame::selector("query", &request.query)?;
            let range = flame::range(request.start, request.end)?;
            engine.analyze(&selector, range).map_err(failed)
        });
        let found = found.await?;
        let scope = QueryScope {
            component_type: "store".to_owned(),
            component_count: 1,
            block_count: found.parts,
            series_count: found.series,
            profile_count: found.profiles,
            sample_count: found.samples,
            index_bytes: found.index_bytes,
            profile_bytes: found.profile_bytes,
            symbol_bytes: found.symbol_bytes,
            ..Default::default()
        };
        let impact = QueryImpact {
            total_bytes_in_time_range: found.index_bytes + found.profile_bytes + found.symbol_bytes,
            total_queried_series: found.series,
            ..Default::default()
        };
        Response::ok(AnalyzeQueryResponse {
            query_scopes: vec![scope],
            query_impact: impact.into(),
            ..Default::default()
        })
    }
}

/// The form in which merged samples are asked for.
#[derive(Clone, Copy)]
enum Form {
    FlameGraph,
    Tree,
    Dot,
    Pprof,
}

impl Form {
    fn of(format: buffa::EnumValue<ProfileFormat>) -> Result<Self, ConnectError> {
        match format.to_i32() {
            0 | 1 => Ok(Self::FlameGraph),
            2 => Ok(Self::Tree),
            3 => Ok(Self::Dot),
            4 => Ok(Self::Pprof),
            // Clients that know newer forms ask again for an older one.
            other => Err(ConnectError::unimplemented(format!(
                "format: this server answers flame graphs (0 or 1), trees (2), dot (3) and pprof (4), got {other}"
            ))),
        }
    }

    fn answer(
        self,
        query: &FlameQuery,
        app: &App,
        engine: &Engine,
    ) -> Result<SelectMergeStacktracesResponse, QueryError> {
        let mut answer = SelectMergeStacktracesResponse::default();
        match self {
            Self::FlameGraph => {
                answer.flamegraph =
                    wire_graph(query.merge(app, engine)?.flame_graph(query.graph_nodes)).into();
            }
            Self::Tree => answer.tree = query.merge(app, engine)?.tree_bytes(query.graph_nodes),
            Self::Dot => answer.dot = query.merge(app, engine)?.dot(query.max_nodes.unwrap_or_default()),
            Self::Pprof => {
                let profile = query.merge_profile(app, engine)?.pprof(query.max_nodes.unwrap_or_default());
                answer.pprof = PprofProfile { profile: profile.into(), ..Default::default() }.into();
            }
        }
        Ok(answer)
    }
}

/// The selector that all matchers of a request make together.
fn matchers(texts: &[String]) -> Result<LabelSelector, ConnectError> {
    at_most_max_names("matchers", texts)?;
    texts.iter().enumerate().try_fold(LabelSelector::default(), |all, (at, text)| {
        let all = all.and(flame::selector(&format!("matchers[{at}]"), text)?);
        if all.regexes() > MAX_REGEXES {
            let message =
                format!("matchers: expected at most {MAX_REGEXES} regular expressions in all of them");
            return Err(ConnectError::invalid_argument(message));
        }
        Ok(all)
    })
}

/// What a failed query is to the client.
fn failed(error: QueryError) -> ConnectError {
    super::error::query_failed(&error)
}
