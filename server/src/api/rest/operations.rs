//! Operations: what the spans of each name cost, and how long they lasted.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::params::{self, Params};
use super::told;
use crate::api::App;
use crate::api::access::Access;
use crate::api::error::ApiError;
use crate::query::OperationCpu;
use crate::traces::{OperationDurations, Spread, SpreadQuery};

/// Operations of one answer when the client names no number, and at most.
const DEFAULT_OPERATIONS: usize = 500;
const MAX_OPERATIONS: usize = 10_000;
/// Columns and rows of durations over time, by default and at most.
const DEFAULT_COLUMNS: usize = 120;
const DEFAULT_ROWS: usize = 30;
const MAX_COLUMNS: usize = 1000;
const MAX_ROWS: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationsParams {
    service: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Operations {
    /// Of everything that is asked for.
    cpu_nanos: i64,
    services: Vec<Service>,
    operations: Vec<Operation>,
    operation_count: usize,
    /// Whether the server has any traces at all.
    traces_known: bool,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Service {
    service: String,
    cpu_nanos: i64,
    samples: u64,
    share: f64,
    /// In no span.
    outside_cpu_nanos: i64,
    outside_samples: u64,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Operation {
    service: String,
    /// None for spans whose names are too many to be told apart.
    name: Option<String>,
    cpu_nanos: i64,
    samples: u64,
    share: f64,
    /// Spans with samples.
    sampled_spans: u64,
    /// CPU time of one request, on average: of those that traces tell of or those with samples, whichever are more.
    cpu_nanos_per_request: Option<f64>,
    /// From traces.
    traced: Option<Durations>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Durations {
    count: u64,
    error_count: u64,
    total_nanos: u64,
    p50_nanos: u64,
    p95_nanos: u64,
    p99_nanos: u64,
    max_nanos: u64,
}

impl From<&OperationDurations> for Durations {
    fn from(of: &OperationDurations) -> Self {
        let [p50_nanos, p95_nanos, p99_nanos] = of.percentiles;
        Self {
            count: of.count,
            error_count: of.errors,
            total_nanos: of.total,
            p50_nanos,
            p95_nanos,
            p99_nanos,
            max_nanos: of.longest,
        }
    }
}

pub(super) async fn operations(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(params): Params<OperationsParams>,
) -> Result<Json<Operations>, ApiError> {
    let limit = params.limit.unwrap_or(DEFAULT_OPERATIONS);
    if limit > MAX_OPERATIONS {
        return Err(ApiError::invalid_argument(format!(
            "limit: expected 0 to {MAX_OPERATIONS}, got {limit}"
        )));
    }
    let range = params::seen(params::range(params.from, params.until)?)?;
    let found = app.compute(move |app| {
        let (tenants, service) = (access.readable(), params.service.as_deref());
        let durations = told::where_known(app.traces.operations(&tenants, service, range))?;
        let cpu = app.engine(&access).operations(service, range)?;
        Ok::<_, ApiError>((cpu, durations, app.traces.has_any(&tenants)))
    });
    let (cpu, durations, traces_known) = found.await?;
    Ok(Json(joined(cpu, &durations, limit, traces_known)))
}

/// What is known of operations from profiles and from traces, those with most CPU time first, then those with most time.
fn joined(
    cpu: Vec<OperationCpu>,
    durations: &[OperationDurations],
    limit: usize,
    traces_known: bool,
) -> Operations {
    let all: i64 = cpu.iter().fold(0, |sum: i64, of| sum.saturating_add(of.cpu_nanos));
    let share = |nanos: i64| if all > 0 { nanos as f64 / all as f64 } else { 0.0 };
    let mut services: HashMap<String, Service> = HashMap::new();
    let mut operations = Vec::new();
    let mut by_name: HashMap<(&str, Option<&str>), &OperationDurations> =
        durations.iter().map(|of| ((of.service.as_str(), of.name.as_deref()), of)).collect();
    for of in &cpu {
        let service = services.entry(of.service.clone()).or_default();
        service.cpu_nanos = service.cpu_nanos.saturating_add(of.cpu_nanos);
        service.samples += of.samples;
        let Some(name) = &of.name else {
            service.outside_cpu_nanos = of.cpu_nanos;
            service.outside_samples = of.samples;
            continue;
        };
        let traced = by_name.remove(&(of.service.as_str(), Some(name.as_str())));
        // Where tracers sample traces tell of some of the requests: there were no fewer than have samples.
        let requests = traced.map_or(0, |traced| traced.count).max(of.spans);
        operations.push(Operation {
            service: of.service.clone(),
            name: Some(name.clone()),
            cpu_nanos: of.cpu_nanos,
            samples: of.samples,
            share: share(of.cpu_nanos),
            sampled_spans: of.spans,
            cpu_nanos_per_request: (requests > 0).then(|| of.cpu_nanos as f64 / requests as f64),
            traced: traced.map(Durations::from),
        });
    }
    // Those without samples, in the order in which they came.
    for of in durations.iter().filter(|of| by_name.contains_key(&(of.service.as_str(), of.name.as_deref()))) {
        services.entry(of.service.clone()).or_default();
        operations.push(Operation {
            service: of.service.clone(),
            name: of.name.clone(),
            cpu_nanos_per_request: of.name.is_some().then_some(0.0),
            traced: Some(of.into()),
            ..Operation::default()
        });
    }
    let mut services: Vec<Service> = services
        .into_iter()
        .map(|(service, of)| Service { service, share: share(of.cpu_nanos), ..of })
        .collect();
    services.sort_by(|a, b| (b.cpu_nanos, &a.service).cmp(&(a.cpu_nanos, &b.service)));
    let operation_count = operations.len();
    operations.truncate(limit);
    Operations { cpu_nanos: all, services, operations, operation_count, traces_known }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DurationsParams {
    service: String,
    name: String,
    from: i64,
    until: i64,
    columns: Option<usize>,
    rows: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct DurationsOverTime {
    from: i64,
    until: i64,
    /// Where rows begin and the last one ends, in nanoseconds.
    edges: Vec<u64>,
    columns: Vec<Vec<u64>>,
    count: u64,
}

pub(super) async fn durations(
    State(app): State<Arc<App>>,
    Extension(access): Extension<Access>,
    Params(params): Params<DurationsParams>,
) -> Result<Json<DurationsOverTime>, ApiError> {
    let DurationsParams { service, name, from, until, columns, rows } = params;
    let within = |field: &str, number: Option<usize>, default: usize, most: usize| match number {
        None => Ok(default),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(number) => {
            Err(ApiError::invalid_argument(format!("{field}: expected 1 to {most}, got {number}")))
        }
    };
    let columns = within("columns", columns, DEFAULT_COLUMNS, MAX_COLUMNS)?;
    let rows = within("rows", rows, DEFAULT_ROWS, MAX_ROWS)?;
    let range = params::range(Some(from), Some(until))?;
    let range = range.ok_or_else(|| ApiError::invalid_argument("from, until: expected both"))?;
    // The columns are those of the time that was asked for, also where less is seen of it.
    let seen = params::seen(Some(range))?.unwrap_or(range);
    let query = SpreadQuery { service, name, range, seen, columns, rows };
    let spread: Spread = app.compute(move |app| app.traces.spread(&access.readable(), &query)).await?;
    Ok(Json(DurationsOverTime {
        from: spread.range.start_ms,
        until: spread.range.end_ms,
        edges: spread.edges,
        columns: spread.columns,
        count: spread.count,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_costs_no_more_than_the_sampled_ones_did() {
        let cpu = OperationCpu {
            service: "checkout".to_owned(),
            name: Some("GET /pay".to_owned()),
            cpu_nanos: 1000,
            samples: 100,
            spans: 50,
        };
        let cost = |count| {
            let traced = OperationDurations {
                service: "checkout".to_owned(),
                name: Some("GET /pay".to_owned()),
                count,
                errors: 0,
                percentiles: [1; 3],
                longest: 1,
                total: count,
            };
            joined(vec![cpu.clone()], &[traced], 10, true).operations[0].cpu_nanos_per_request
        };
        assert_eq!(cost(200), Some(5.0), "three of four had no sample");
        assert_eq!(cost(2), Some(20.0), "of most the traces were not kept");
    }
}
