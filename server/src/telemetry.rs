//! What the server tells about itself: log lines and metrics. Nothing here changes what it does.

use std::collections::HashSet;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::error::ServeError;
use crate::ingest::Dropped;
use crate::model::TenantId;
use crate::store::{Store, StoreStatus};
use crate::traces::{TraceStatus, TraceStore};

/// Sends log lines to standard error from here on.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logging(config: &Config) -> Result<(), ServeError> {
    let filter = log_filter(config)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as by several servers in one test process, keeps the first subscriber.
    let _ = match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// What the setting `log` says.
///
/// # Errors
/// When it cannot be read.
pub fn log_filter(config: &Config) -> Result<EnvFilter, ServeError> {
    EnvFilter::try_new(&config.log)
        .map_err(|error| ServeError::LogFilter { value: config.log.clone(), message: error.to_string() })
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

/// Label of [`Metrics::dropped_of_spans`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartLabel {
    /// `attributes`, `events` or `links`.
    pub part: &'static str,
}

/// Labels of [`Metrics::tenant_refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantReasonLabels {
    /// The tenant, or `(other)`.
    pub tenant: String,
    /// A short fixed name.
    pub reason: &'static str,
}

/// How many tenants are counted by name: anyone may make names up.
const MAX_TENANTS: usize = 1000;
/// The name under which the others are counted, which no tenant can have.
const OTHER_TENANTS: &str = "(other)";

tokio::task_local! {
    /// The tenant that the current request is about, where tenants are kept apart.
    static TENANT: TenantId;
}

/// Runs what is done for a tenant, so that refusals in it count as the tenant's.
pub(crate) async fn for_tenant<T>(tenant: Option<TenantId>, work: impl Future<Output = T>) -> T {
    match tenant {
        Some(tenant) => TENANT.scope(tenant, work).await,
        None => work.await,
    }
}

/// Does work elsewhere for the tenant that the current request is about.
pub(crate) fn carry<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let tenant = TENANT.try_with(Clone::clone).ok();
    move || match tenant {
        Some(tenant) => TENANT.sync_scope(tenant, work),
        None => work(),
    }
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
    /// Bytes of traces as they were sent, stored or not.
    pub trace_bytes: Counter,
    /// Parts of spans that were not kept.
    pub dropped_of_spans: Family<PartLabel, Counter>,
    /// Requests, profiles and spans refused.
    pub refusals: Family<ReasonLabel, Counter>,
    /// The same of requests that are about one tenant, where tenants are kept apart.
    pub tenant_refusals: Family<TenantReasonLabels, Counter>,
    /// Tenants that are counted by name.
    counted_tenants: Mutex<HashSet<TenantId>>,
    /// Queries that named spans or traces.
    pub span_queries: Family<OutcomeLabel, Counter>,
    /// Time from request head to response head.
    pub request_seconds: Family<RequestLabels, Histogram, SecondsBuckets>,
    /// Profiles in the store, set when asked for.
    pub stored_profiles: Gauge<u64, AtomicU64>,
    /// Distinct spans in the store, set when asked for.
    pub stored_spans: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Metrics of a server over this store, all at zero but for what the store has counted.
    pub fn new(store: Arc<Store>) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("spanflame"),
            pushes: Counter::default(),
            profiles: Counter::default(),
            samples: Counter::default(),
            profile_bytes: Counter::default(),
            trace_bytes: Counter::default(),
            dropped_of_spans: Family::default(),
            refusals: Family::default(),
            tenant_refusals: Family::default(),
            counted_tenants: Mutex::default(),
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
        registry.register(
            "received_trace_bytes",
            "Bytes of traces as they were sent",
            metrics.trace_bytes.clone(),
        );
        registry.register(
            "traces_dropped",
            "Parts of spans that were over a limit and not kept",
            metrics.dropped_of_spans.clone(),
        );
        registry.register("refusals", "Requests, profiles and spans refused", metrics.refusals.clone());
        registry.register(
            "tenant_refusals",
            "Requests, profiles and spans refused, by tenant where tenants are kept apart",
            metrics.tenant_refusals.clone(),
        );
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
        registry.register_collector(Box::new(StoreMetrics(store)));
        metrics
    }

    /// The same with what this store of traces has counted.
    pub fn with_traces(mut self, traces: Arc<TraceStore>) -> Self {
        self.registry.register_collector(Box::new(TraceMetrics(traces)));
        self
    }

    /// Counts what of spans was not kept.
    pub fn drop_of_spans(&self, dropped: Dropped) {
        let Dropped { attributes, events, links } = dropped;
        for (part, count) in [("attributes", attributes), ("events", events), ("links", links)] {
            if count > 0 {
                self.dropped_of_spans.get_or_create(&PartLabel { part }).inc_by(count);
            }
        }
    }

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
        self.refuse_many(reason, 1);
    }

    /// Counts refusals; the reason is not shown before there is one.
    pub fn refuse_many(&self, reason: &'static str, count: u64) {
        if count == 0 {
            return;
        }
        self.refusals.get_or_create(&ReasonLabel { reason }).inc_by(count);
        if let Ok(tenant) = TENANT.try_with(|tenant| self.counted_name(tenant)) {
            self.tenant_refusals.get_or_create(&TenantReasonLabels { tenant, reason }).inc_by(count);
        }
    }

    /// How many were refused for this reason: of these tenants, or of all.
    pub fn refused(&self, reason: &'static str, of: Option<&[TenantId]>) -> u64 {
        let Some(tenants) = of else {
            return self.refusals.get(&ReasonLabel { reason }).map_or(0, |count| count.get());
        };
        let of_tenant = |tenant: &TenantId| {
            let labels = TenantReasonLabels { tenant: tenant.to_string(), reason };
            self.tenant_refusals.get(&labels).map_or(0, |count| count.get())
        };
        tenants.iter().map(of_tenant).sum()
    }

    fn counted_name(&self, tenant: &TenantId) -> String {
        let mut counted = self.counted_tenants.lock();
        if counted.len() < MAX_TENANTS {
            counted.insert(tenant.clone());
        }
        if counted.contains(tenant) { tenant.to_string() } else { OTHER_TENANTS.to_owned() }
    }
}

/// Reads the store's own counts when asked for; the store knows nothing of metrics.
struct StoreMetrics(Arc<Store>);

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.status().fmt(f)
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Taken apart, so that what the store counts next is not forgotten here.
        let StoreStatus {
            appends,
            refused_appends,
            appended_profiles,
            log_bytes,
            syncs,
            flushes,
            failed_flushes,
            failed_refreshes,
            flushed_segments,
            segment_written_bytes,
            compactions,
            compacted_segments,
            expired_segments,
            expired_profiles,
            torn_bytes,
            damaged_bytes,
            unreadable_files,
            head_bytes,
            partitions,
            segments,
            segment_bytes,
            damaged_segments,
            cache_bytes,
            queued_bytes,
            accepts_writes,
        } = self.0.status();
        let mut write = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        for (name, help, count) in [
            ("store_appends", "Writes acknowledged", appends),
            ("store_refused_appends", "Writes that the disk did not take", refused_appends),
            ("store_appended_profiles", "Profiles acknowledged", appended_profiles),
            ("store_log_written_bytes", "Bytes written to the log", log_bytes),
            ("store_log_syncs", "Syncs of the log", syncs),
            ("store_flushes", "Log files whose profiles were moved to segments", flushes),
            ("store_failed_flushes", "Times that segments could not be written", failed_flushes),
            (
                "store_failed_refreshes",
                "Times that it could not be seen what other servers wrote",
                failed_refreshes,
            ),
            ("store_flushed_segments", "Segments made of new profiles", flushed_segments),
            ("store_segment_written_bytes", "Bytes of segments written", segment_written_bytes),
            ("store_compactions", "Times that segments were merged", compactions),
            ("store_compacted_segments", "Segments that were merged", compacted_segments),
            ("store_expired_segments", "Segments removed by retention", expired_segments),
            ("store_expired_profiles", "Profiles removed by retention", expired_profiles),
        ] {
            write(name, help, &ConstCounter::new(count))?;
        }
        for (name, help, value) in [
            ("store_torn_bytes", "Bytes of unfinished writes cut off at the start", torn_bytes),
            ("store_damaged_bytes", "Bytes of damage found at the start", damaged_bytes),
            ("store_unreadable_log_files", "Log files that could not be read at the start", unreadable_files),
            ("store_head_bytes", "Memory that profiles take that are not in segments yet", head_bytes as u64),
            ("store_log_files", "Log files whose profiles are not in segments yet", partitions as u64),
            ("store_segments", "Segments", segments),
            ("store_segment_bytes", "Bytes of segments on disk", segment_bytes),
            ("store_damaged_segments", "Segments set aside because they are damaged", damaged_segments),
            ("store_cache_bytes", "Memory that pieces of segments take", cache_bytes),
            ("store_queued_bytes", "Bytes that wait to be written", queued_bytes as u64),
            ("store_accepts_writes", "Whether the last write was taken", u64::from(accepts_writes)),
        ] {
            write(name, help, &ConstGauge::new(value))?;
        }
        Ok(())
    }
}

/// The same for traces.
#[derive(Debug)]
struct TraceMetrics(Arc<TraceStore>);

impl Collector for TraceMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let TraceStatus {
            spans,
            commits,
            refused_appends,
            expired_files,
            damaged_files,
            unreadable_records,
            files,
            bytes,
            stored_spans,
            accepts_writes,
        } = self.0.status();
        let mut write = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        for (name, help, count) in [
            ("traces_spans", "Spans acknowledged", spans),
            ("traces_commits", "Times that spans were made durable", commits),
            ("traces_refused_appends", "Writes of spans that the disk did not take", refused_appends),
            ("traces_expired_files", "Files of traces removed by retention", expired_files),
            ("traces_unreadable_records", "Times that spans could not be read", unreadable_records),
        ] {
            write(name, help, &ConstCounter::new(count))?;
        }
        for (name, help, value) in [
            ("traces_damaged_files", "Files of traces that cannot be read", damaged_files),
            ("traces_files", "Files of traces", files),
            ("traces_bytes", "Bytes of traces on disk", bytes),
            ("traces_stored_spans", "Spans in the store of traces", stored_spans),
            ("traces_accepts_writes", "Whether the last write of spans was taken", u64::from(accepts_writes)),
        ] {
            write(name, help, &ConstGauge::new(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn refusals_count_for_their_tenant_and_names_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(Arc::new(Store::open(StoreOptions::new(dir.path().to_owned())).unwrap()));
        metrics.refuse("host");
        for n in 0..MAX_TENANTS + 5 {
            let tenant = TenantId::new(&format!("t{n}")).unwrap();
            for_tenant(Some(tenant), async { metrics.refuse_many("over_limit", 2) }).await;
        }
        for_tenant(None, async { metrics.refuse("timeout") }).await;
        let text = metrics.encode();
        for line in [
            "spanflame_refusals_total{reason=\"host\"} 1\n".to_owned(),
            format!("spanflame_refusals_total{{reason=\"over_limit\"}} {}\n", 2 * (MAX_TENANTS + 5)),
            "spanflame_tenant_refusals_total{tenant=\"t0\",reason=\"over_limit\"} 2\n".to_owned(),
            "spanflame_tenant_refusals_total{tenant=\"(other)\",reason=\"over_limit\"} 10\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}");
        }
        assert_eq!(text.matches("spanflame_tenant_refusals_total{").count(), MAX_TENANTS + 1);
    }
}
