//! What the server tells about itself: log lines and metrics. Nothing here changes what it does.

use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::error::ServeError;

/// Sends log lines to standard error from here on.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logging(config: &Config) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| ServeError::LogFilter { value: config.log.clone(), message: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as by several servers in one test process, keeps the first subscriber.
    let _ = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// How a query that named spans ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanOutcome {
    /// It found samples.
    Hit,
    /// No stored sample names any of the spans or traces.
    UnknownSpan,
    /// There are samples, but none with values of the profile type.
    NoSamplesOfType,
    /// There are samples, but in series that the label selector leaves out.
    SelectorMismatch,
    /// There are samples, but none in the time range.
    OutsideWindow,
    /// There are samples, but none below the call site.
    CallSiteMismatch,
}

impl SpanOutcome {
    /// The name in metrics, log lines and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::UnknownSpan => "unknown_span",
            Self::NoSamplesOfType => "no_samples_of_type",
            Self::SelectorMismatch => "selector_mismatch",
            Self::OutsideWindow => "outside_window",
            Self::CallSiteMismatch => "call_site_mismatch",
        }
    }
}

/// Label of [`Metrics::span_queries`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// [`SpanOutcome::as_str`].
    pub outcome: &'static str,
}

/// Label of [`Metrics::refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// A short fixed name.
    pub reason: &'static str,
}

/// Labels of [`Metrics::request_seconds`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, never the path itself.
    pub route: String,
    /// The HTTP status.
    pub status: u16,
}

/// Builds the histograms of [`Metrics::request_seconds`]: 0.5 ms to 16 s.
#[derive(Clone)]
pub struct SecondsBuckets;

impl MetricConstructor<Histogram> for SecondsBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 16))
    }
}

/// What `/metrics` shows.
pub struct Metrics {
    registry: Registry,
    /// Push requests answered, whole or in part.
    pub pushes: Counter,
    /// Profiles stored, one for each series and sample.
    pub profiles: Counter,
    /// Samples stored.
    pub samples: Counter,
    /// Bytes of profiles as they were sent, stored or not.
    pub profile_bytes: Counter,
    /// Requests and profiles refused.
    pub refusals: Family<ReasonLabel, Counter>,
    /// Queries that named spans or traces.
    pub span_queries: Family<OutcomeLabel, Counter>,
    /// Time from request head to response head.
    pub request_seconds: Family<RequestLabels, Histogram, SecondsBuckets>,
    /// Profiles in the store, set when asked for.
    pub stored_profiles: Gauge<u64, AtomicU64>,
    /// Distinct spans in the store, set when asked for.
    pub stored_spans: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("spanflame"),
            pushes: Counter::default(),
            profiles: Counter::default(),
            samples: Counter::default(),
            profile_bytes: Counter::default(),
            refusals: Family::default(),
            span_queries: Family::default(),
            request_seconds: Family::new_with_constructor(SecondsBuckets),
            stored_profiles: Gauge::default(),
            stored_spans: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("pushes", "Push requests answered, whole or in part", metrics.pushes.clone());
        registry.register("profiles", "Profiles stored", metrics.profiles.clone());
        registry.register("samples", "Samples stored", metrics.samples.clone());
        registry.register(
            "received_profile_bytes",
            "Bytes of profiles as they were sent",
            metrics.profile_bytes.clone(),
        );
        registry.register("refusals", "Requests and profiles refused", metrics.refusals.clone());
        registry.register(
            "span_queries",
            "Queries that named spans or traces, by how they ended",
            metrics.span_queries.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time from request to response head",
            metrics.request_seconds.clone(),
        );
        registry.register("store_profiles", "Profiles in the store", metrics.stored_profiles.clone());
        registry.register("store_spans", "Distinct spans in the store", metrics.stored_spans.clone());
        metrics
    }
}

impl Metrics {
    /// The media type of [`Self::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail");
        text
    }

    /// Counts one query that named spans or traces.
    pub fn span_query(&self, outcome: SpanOutcome) {
        self.span_queries.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
    }

    /// Counts one refusal.
    pub fn refuse(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }
}
