//! How much is taken on at a time: requests under way, the time that each may last, and what a tenant may push.
//!
//! What is too much is refused at once and cheaply, with the time after which to try again: a queue would only make
//! everyone late.

mod rate;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use connectrpc::ErrorCode;
use tokio::sync::Semaphore;

use self::rate::{Bucket, Rate, Rates};
use super::App;
use super::access::Access;
use super::body;
use super::bounds::{self, Bounds};
use super::class::Class;
use super::error::ApiError;
use crate::config::Config;
use crate::ingest::Limits;
use crate::model::TenantId;

/// What is under way, and how much of it there may be.
pub(super) struct Admission {
    ingest: Gate,
    query: Gate,
    status: Gate,
    rates: Rates,
}

/// The requests of one class.
struct Gate {
    permits: Arc<Semaphore>,
    /// How many there may be, and the setting that says so.
    most: (usize, &'static str),
    /// How long each may take, and the setting that says so.
    timeout: (Duration, &'static str),
}

impl Gate {
    fn new(most: usize, most_name: &'static str, timeout_ms: u64, timeout_name: &'static str) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most)),
            most: (most, most_name),
            timeout: (Duration::from_millis(timeout_ms), timeout_name),
        }
    }
}

impl Admission {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            ingest: Gate::new(
                config.max_ingest_requests,
                "max_ingest_requests",
                config.ingest_timeout_ms,
                "ingest_timeout_ms",
            ),
            query: Gate::new(
                config.max_query_requests,
                "max_query_requests",
                config.query_timeout_ms,
                "query_timeout_ms",
            ),
            status: Gate::new(
                config.max_status_requests,
                "max_status_requests",
                config.status_timeout_ms,
                "status_timeout_ms",
            ),
            rates: Rates::default(),
        }
    }

    fn gate(&self, class: Class) -> Option<&Gate> {
        match class {
            Class::Ingest => Some(&self.ingest),
            Class::Query | Class::Admin => Some(&self.query),
            Class::Status | Class::Page | Class::Metrics => Some(&self.status),
            Class::Ready => None,
        }
    }
}

/// Lets a request go on if it is not too much, for as long as it may take.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let class = Class::of(&request);
    let Some(gate) = app.admission.gate(class) else { return next.run(request).await };
    let Ok(_permit) = Arc::clone(&gate.permits).try_acquire_owned() else {
        app.metrics.refuse(gate.most.1);
        let message = format!(
            "{} of {}: that many requests are under way; try again, or raise the limit",
            gate.most.1, gate.most.0
        );
        return refuse(request, ApiError::new(ErrorCode::Unavailable, message).retry_after(1)).await;
    };
    if class == Class::Ingest {
        // Before its body is read: what cannot pass is to cost nothing.
        let metered = match Access::of(request.extensions()).writable() {
            Ok(tenant) => meter(&app, tenant, &app.limits(tenant)).map(drop),
            Err(_) => Ok(()),
        };
        if let Err(error) = metered {
            return refuse(request, error).await;
        }
    }
    let access = Access::of(request.extensions());
    let each = access.readable().iter().map(|tenant| Bounds::of(&app.limits(tenant))).reduce(Bounds::and);
    let within = |work| bounds::counted(Arc::clone(&app), each.unwrap_or_default().within(work));
    let (timeout, name) = gate.timeout;
    match tokio::time::timeout(timeout, within(next.run(request))).await {
        Ok(response) => response,
        Err(_) => {
            app.metrics.refuse(name);
            let message =
                format!("not done within {} ms; {name} says how long it may take", timeout.as_millis());
            ApiError::new(ErrorCode::DeadlineExceeded, message).into_response()
        }
    }
}

/// Lets nothing through but what orchestrators and monitoring ask: there are too many connections.
pub(super) async fn probes_alone(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_probe = matches!(Class::of(&request), Class::Ready | Class::Metrics);
    let mut response = if is_probe {
        next.run(request).await
    } else {
        app.metrics.refuse("max_connections");
        let message = format!(
            "max_connections of {}: that many are open; try again, keep fewer open, or raise the limit",
            app.config.max_connections
        );
        refuse(request, ApiError::new(ErrorCode::Unavailable, message).retry_after(1)).await
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Charges a tenant for what it sends.
pub(super) struct Meter(Option<Arc<Bucket>>);

impl Meter {
    /// Charges for so many bytes, decompressed.
    pub(super) fn charge(&self, bytes: usize) {
        if let Self(Some(bucket)) = self {
            bucket.charge(bytes);
        }
    }
}

/// What charges a tenant with these limits, unless it has brought too much before. How much a profile is, is known only once
/// it is decoded; so it is charged then, and the next one waits until it is paid for.
pub(super) fn meter(app: &App, tenant: &TenantId, limits: &Limits) -> Result<Meter, ApiError> {
    let Some(rate) = Rate::new(limits.ingestion_rate_bytes, limits.ingestion_burst_bytes) else {
        return Ok(Meter(None));
    };
    let bucket = app.admission.rates.bucket(tenant);
    match bucket.open(rate, Instant::now()) {
        Ok(()) => Ok(Meter(Some(bucket))),
        Err(wait) => {
            app.metrics.refuse("ingestion_rate_bytes");
            Err(too_fast(tenant, rate, &bucket, wait, &app.place(Some(tenant))))
        }
    }
}

fn too_fast(tenant: &TenantId, rate: Rate, bucket: &Bucket, wait: Duration, place: &str) -> ApiError {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let message = format!(
        "ingestion_rate_bytes of {}: tenant {:?} has pushed {} bytes more than its rate and ingestion_burst_bytes of {} \
         allow; try again in {seconds} s, or raise ingestion_rate_bytes in the server's configuration{place}",
        rate.per_second(),
        tenant.as_str(),
        bucket.debt(),
        rate.burst(),
    );
    ApiError::new(ErrorCode::ResourceExhausted, message).retry_after(seconds)
}

async fn refuse(request: Request, error: ApiError) -> Response {
    body::skim(request.into_body()).await;
    error.into_response()
}
