//! Settings: what the code says beats what the environment says beats the default. Reads the environment through
//! a function, so that nothing here depends on, or changes, the process's own.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use opentelemetry_sdk::Resource;

use crate::error::ConfigError;
use crate::export::ProfileExporter;
use crate::labels;
use crate::spans::{LabelKey, Source};

mod parse;
#[cfg(test)]
mod tests;

/// Where profiles go unless told otherwise: Pyroscope's and Spanflame's own port on this machine.
pub(crate) const DEFAULT_SERVER_ADDRESS: &str = "http://127.0.0.1:4040";

/// Which spans carry `pyroscope.profile.id` and so have a profile of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// [`All`](Self::All) when the server says that it is Spanflame, which adds children up into their parents;
    /// [`Root`](Self::Root) for every other one, and until the server has been heard.
    #[default]
    Auto,
    /// Local roots: spans without a parent in this process. Samples of their descendants count for them. What
    /// Pyroscope's integrations for other languages do.
    Root,
    /// Every sampled span. A sample counts for the innermost span that was active.
    All,
}

/// Which span's name is on a sample, whatever span's id is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpanNames {
    /// The name goes with the id: that of the span which the sample counts for by its [`Scope`].
    #[default]
    Auto = 0,
    /// The local root's. On a server that makes a series of each name, these are the fewest: one per endpoint.
    Root = 1,
    /// The innermost active span's.
    All = 2,
    /// None.
    Off = 3,
}

/// Turns a span's name into the one that samples carry.
pub(crate) type Normalizer = Box<dyn Fn(&str) -> Cow<'_, str> + Send + Sync>;

/// How stacks are walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unwinder {
    /// By unwind rules that are compiled ahead from each module's `.eh_frame`: right for every build, and for libraries
    /// that keep no frame pointers, as libc mostly does not.
    #[default]
    Tables,
    /// Along frame pointers: cheaper still, and through generated code, but only as good as the build. Every crate has
    /// to be compiled with `-C force-frame-pointers=yes`; the callers of code without them are lost.
    FramePointers,
}

/// As `SPANFLAME_UNWINDER` has it.
impl fmt::Display for Unwinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tables => "tables",
            Self::FramePointers => "frame-pointers",
        })
    }
}

/// Whether samples carry their trace id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TraceIdLabel {
    /// When the server keeps it out of series labels: Spanflame, and Pyroscope from 2.1 on. Elsewhere each trace
    /// would become a series.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What makes threads be sampled. A clock that the kernel refuses is replaced by the next best, which the log and
/// [`Stats::clock`](crate::Stats::clock) say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Clock {
    /// [`ThreadTimers`](Self::ThreadTimers) at rates up to the kernel's tick (often 250 Hz). Above it
    /// [`Perf`](Self::Perf) if that is permitted and, as measured at the start, fits the CPU budget.
    #[default]
    Auto,
    /// A POSIX timer on each thread's CPU clock. Needs no permission and costs no interrupt of its own. Above the
    /// kernel's tick samples do not get more frequent, each counts for more.
    ThreadTimers,
    /// A perf event on each thread's CPU clock (`perf_event_open`): true rates above the tick. An interrupt for each
    /// sample, which is dear in virtual machines; an open file for each thread, at most a quarter of `RLIMIT_NOFILE`.
    /// Often forbidden in containers.
    Perf,
    /// One timer on the process's CPU clock: the last resort where threads can have no timer of their own. CPU time is
    /// charged to the right threads, with fewer samples for each than asked for. Before Linux 6.4, or where
    /// `timer_create` is forbidden, this is `ITIMER_PROF`, which outlives an `exec` without a fork and would end the
    /// new program.
    ProcessTimer,
}

/// Settings of a [`Profiler`](crate::Profiler). What is not set here is taken from the environment.
///
/// | method | variable | default | range |
/// |---|---|---|---|
/// | [`server_address`](Self::server_address) | `PYROSCOPE_SERVER_ADDRESS` | `http://127.0.0.1:4040` | an `http` or `https` URL |
/// | [`service_name`](Self::service_name) | `PYROSCOPE_APPLICATION_NAME` | see the method | not empty |
/// | [`label`](Self::label) | `PYROSCOPE_LABELS` (`k=v,k=v`) | none | at most 16 |
/// | [`basic_auth`](Self::basic_auth) | `PYROSCOPE_BASIC_AUTH_USER`, `PYROSCOPE_BASIC_AUTH_PASSWORD` | none | |
/// | [`tenant_id`](Self::tenant_id) | `PYROSCOPE_TENANT_ID` | none | |
/// | [`frequency`](Self::frequency) | `SPANFLAME_FREQUENCY` | 100 Hz | 1 to 1000 |
/// | [`clock`](Self::clock) | `SPANFLAME_CLOCK` | `auto` | `auto`, `thread-timers`, `perf`, `process-timer` |
/// | [`cpu_budget`](Self::cpu_budget) | `SPANFLAME_CPU_BUDGET` (percent) | 1 % | 0.01 to 100, or `off` |
/// | [`unwinder`](Self::unwinder) | `SPANFLAME_UNWINDER` | `tables` | `tables`, `frame-pointers` |
/// | [`upload_interval`](Self::upload_interval) | `SPANFLAME_UPLOAD_INTERVAL` (seconds) | 10 s | 1 to 15 s |
/// | [`scope`](Self::scope) | `SPANFLAME_SCOPE` | `auto` | `auto`, `root`, `all` |
/// | [`span_names`](Self::span_names) | `SPANFLAME_SPAN_NAMES` | `auto` | `auto`, `root`, `all`, `off` |
/// | [`max_span_names`](Self::max_span_names) | `SPANFLAME_MAX_SPAN_NAMES` | 1000 per profile | 1 to 100000 |
/// | [`span_name_normalizer`](Self::span_name_normalizer) | – | none | |
/// | [`attribute_label`](Self::attribute_label) | `SPANFLAME_ATTRIBUTE_LABELS` (`name,name`) | none | at most 8, baggage included |
/// | [`baggage_label`](Self::baggage_label) | `SPANFLAME_BAGGAGE_LABELS` (`name,name`) | none | at most 8, attributes included |
/// | [`trace_ids`](Self::trace_ids) | `SPANFLAME_TRACE_IDS` | `auto` | `auto`, `always`, `never` |
/// | [`label_at_start`](Self::label_at_start) | `SPANFLAME_LABEL_AT_START` | `false` | `true`, `false` |
/// | [`exporter`](Self::exporter) | `SPANFLAME_PROFILE_DIR` (writes files) | push | a directory |
/// | [`enabled`](Self::enabled) | `SPANFLAME_ENABLED` | `true` | `true`, `false` |
#[must_use = "a builder does nothing until `start` is called"]
#[derive(Default)]
pub struct ProfilerBuilder {
    server_address: Option<String>,
    service_name: Option<String>,
    resource: Option<Resource>,
    labels: Vec<(String, String)>,
    basic_auth: Option<(String, String)>,
    tenant_id: Option<String>,
    frequency: Option<u32>,
    clock: Option<Clock>,
    cpu_budget: Option<CpuBudget>,
    unwinder: Option<Unwinder>,
    upload_interval: Option<Duration>,
    scope: Option<Scope>,
    span_names: Option<SpanNames>,
    max_span_names: Option<usize>,
    span_name_normalizer: Option<Normalizer>,
    label_keys: Vec<(Source, String)>,
    trace_ids: Option<TraceIdLabel>,
    label_at_start: Option<bool>,
    exporter: Option<Box<dyn ProfileExporter>>,
    enabled: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
enum CpuBudget {
    Off,
    Percent(f64),
}

impl ProfilerBuilder {
    /// The server that receives profiles: a Spanflame or Pyroscope server, as an `http` or `https` URL. A path
    /// in it is kept as a prefix.
    pub fn server_address(mut self, url: impl Into<String>) -> Self {
        self.server_address = Some(url.into());
        self
    }

    /// The `service_name` label. Grafana looks profiles up by the traces' `service.name`, so the two must agree.
    ///
    /// Default: `PYROSCOPE_APPLICATION_NAME`, else `service.name` of the [`Resource`] given to
    /// [`resource`](Self::resource) or learnt from the tracer provider, else `OTEL_SERVICE_NAME`, else
    /// `service.name` in `OTEL_RESOURCE_ATTRIBUTES`, else `unknown_service:` and the executable's name.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = Some(name.into());
        self
    }

    /// The [`Resource`] of the tracer provider. Not needed when the provider carries one of the profiler's span
    /// processors, which learns it.
    pub fn resource(mut self, resource: &Resource) -> Self {
        self.resource = Some(resource.clone());
        self
    }

    /// Adds a label to every profile. The last value given for a name counts.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Credentials for the server.
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.basic_auth = Some((user.into(), password.into()));
        self
    }

    /// The tenant, sent as `X-Scope-OrgID`.
    pub fn tenant_id(mut self, tenant: impl Into<String>) -> Self {
        self.tenant_id = Some(tenant.into());
        self
    }

    /// Samples per second of CPU time, 1 to 1000. The kernel's tick may allow fewer: see
    /// [`Stats::effective_frequency`](crate::Stats::effective_frequency).
    pub fn frequency(mut self, hertz: u32) -> Self {
        self.frequency = Some(hertz);
        self
    }

    /// What makes threads be sampled.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How much profiling may cost, in percent of the CPU time that the process uses, 0.01 to 100. When it costs more,
    /// the rate is lowered by whole divisors until it fits, and raised again later; each sample then counts for more.
    /// `None` lifts the limit. See [`Stats::overhead`](crate::Stats::overhead).
    pub fn cpu_budget(mut self, percent: impl Into<Option<f64>>) -> Self {
        self.cpu_budget = Some(percent.into().map_or(CpuBudget::Off, CpuBudget::Percent));
        self
    }

    /// How stacks are walked.
    pub fn unwinder(mut self, unwinder: Unwinder) -> Self {
        self.unwinder = Some(unwinder);
        self
    }

    /// How much time one profile covers, 1 to 15 seconds. Longer ones would fall outside the window in which
    /// Grafana looks for a span's profile.
    pub fn upload_interval(mut self, interval: Duration) -> Self {
        self.upload_interval = Some(interval);
        self
    }

    /// Which spans have profiles of their own.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Which span's name samples carry. Reading a name costs a copy of the span at its start, so names are read only of
    /// spans whose name may be needed.
    pub fn span_names(mut self, names: SpanNames) -> Self {
        self.span_names = Some(names);
        self
    }

    /// How many different span names to tell apart in one profile, 1 to 100,000; the rest is called `other` and counted
    /// in [`Stats::folded`](crate::Stats::folded). On a Pyroscope server each name is a series.
    pub fn max_span_names(mut self, limit: usize) -> Self {
        self.max_span_names = Some(limit);
        self
    }

    /// Has samples carry what `normalize` makes of a span's name: `GET /user/{id}` for `GET /user/17`, say. An empty
    /// result leaves the name out. The span itself keeps its name.
    ///
    /// It runs on the profiler's own thread, about once for each name in each profile, never on yours. If it panics, the
    /// name is `other`, it is not asked again for the rest of that profile, and
    /// [`Stats::folded`](crate::Stats::folded) counts it. It should not block: meanwhile no samples are collected.
    ///
    /// ```
    /// use std::borrow::Cow;
    /// let builder = spanflame::Profiler::builder()
    ///     .span_name_normalizer(|name| Cow::Borrowed(name.split('?').next().unwrap_or(name)));
    /// # drop(builder);
    /// ```
    pub fn span_name_normalizer(
        mut self,
        normalize: impl Fn(&str) -> Cow<'_, str> + Send + Sync + 'static,
    ) -> Self {
        self.span_name_normalizer = Some(Box::new(normalize));
        self
    }

    /// Has samples carry a span attribute as a label: `attribute_label("http.route")` makes the label `http_route`.
    /// Only attributes that a span has at its start count; a child has its parent's, within this process, unless it
    /// has its own. Which span's they are goes with [`span_names`](Self::span_names).
    ///
    /// A Pyroscope server makes a series of each combination of values, so choose attributes with few of them. A
    /// profile tells 1000 combinations apart; values of the rest are `other`, and a value is cut at 256 bytes. At most
    /// 8 attributes and baggage entries.
    pub fn attribute_label(mut self, key: impl Into<String>) -> Self {
        self.label_keys.push((Source::Attribute, key.into()));
        self
    }

    /// Has samples carry an entry of OpenTelemetry's baggage as a label, as [`attribute_label`](Self::attribute_label)
    /// does for an attribute. What counts is the baggage of the context that a span starts in.
    pub fn baggage_label(mut self, key: impl Into<String>) -> Self {
        self.label_keys.push((Source::Baggage, key.into()));
        self
    }

    /// Whether samples carry their trace id.
    pub fn trace_ids(mut self, trace_ids: TraceIdLabel) -> Self {
        self.trace_ids = Some(trace_ids);
        self
    }

    /// Whether a span labels the thread that starts it, until it ends there: a last resort where another component
    /// has OpenTelemetry's context observer slot, and without effect where none has.
    ///
    /// **Wrong for asynchronous code**: after an `.await`, a thread's samples count for whichever span has started
    /// there last, whoever's task it runs now, and a task that moved on takes no label along. It is what integrations
    /// that know only the start and the end of spans do. Where you can, use [`attach`](crate::attach),
    /// [`SpanProfileExt`](crate::SpanProfileExt) or `SpanProfileLayer` instead, which are exact.
    pub fn label_at_start(mut self, on: bool) -> Self {
        self.label_at_start = Some(on);
        self
    }

    /// Delivers profiles through `exporter` instead of pushing them to a server.
    pub fn exporter(mut self, exporter: impl ProfileExporter) -> Self {
        self.exporter = Some(Box::new(exporter));
        self
    }

    /// Whether to profile at all. A disabled profiler starts without error, samples nothing and leaves spans
    /// alone.
    pub fn enabled(mut self, on: bool) -> Self {
        self.enabled = Some(on);
        self
    }

    pub(crate) fn resolve(self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let env = parse::Environment::new(env);
        let enabled = match self.enabled {
            Some(on) => on,
            None => env.boolean("SPANFLAME_ENABLED")?.unwrap_or(true),
        };
        let frequency = match self.frequency {
            Some(hertz) => parse::in_range("frequency", u64::from(hertz), 1, 1000)? as u32,
            None => env.number("SPANFLAME_FREQUENCY", 1, 1000)?.unwrap_or(100) as u32,
        };
        let clock = match self.clock {
            Some(clock) => clock,
            None => env
                .choice(
                    "SPANFLAME_CLOCK",
                    &[
                        ("auto", Clock::Auto),
                        ("thread-timers", Clock::ThreadTimers),
                        ("perf", Clock::Perf),
                        ("process-timer", Clock::ProcessTimer),
                    ],
                )?
                .unwrap_or_default(),
        };
        let cpu_budget = match self.cpu_budget {
            Some(CpuBudget::Off) => None,
            Some(CpuBudget::Percent(percent)) => Some(parse::budget("cpu_budget", percent)?),
            None => env.budget("SPANFLAME_CPU_BUDGET")?.unwrap_or(Some(0.01)),
        };
        let unwinder = match self.unwinder {
            Some(unwinder) => unwinder,
            None => env
                .choice(
                    "SPANFLAME_UNWINDER",
                    &[("tables", Unwinder::Tables), ("frame-pointers", Unwinder::FramePointers)],
                )?
                .unwrap_or_default(),
        };
        let upload_interval = match self.upload_interval {
            Some(interval) => parse::interval("upload_interval", interval)?,
            None => env.seconds("SPANFLAME_UPLOAD_INTERVAL")?.unwrap_or(Duration::from_secs(10)),
        };
        let scope = match self.scope {
            Some(scope) => scope,
            None => env
                .choice(
                    "SPANFLAME_SCOPE",
                    &[("auto", Scope::Auto), ("root", Scope::Root), ("all", Scope::All)],
                )?
                .unwrap_or_default(),
        };
        let span_names = match self.span_names {
            Some(names) => names,
            None => env
                .choice(
                    "SPANFLAME_SPAN_NAMES",
                    &[
                        ("auto", SpanNames::Auto),
                        ("root", SpanNames::Root),
                        ("all", SpanNames::All),
                        ("off", SpanNames::Off),
                    ],
                )?
                .unwrap_or_default(),
        };
        let max_span_names = match self.max_span_names {
            Some(limit) => parse::in_range("max_span_names", limit as u64, 1, 100_000)?,
            None => env.number("SPANFLAME_MAX_SPAN_NAMES", 1, 100_000)?.unwrap_or(1000),
        } as usize;
        let trace_ids = match self.trace_ids {
            Some(trace_ids) => trace_ids,
            None => env
                .choice(
                    "SPANFLAME_TRACE_IDS",
                    &[
                        ("auto", TraceIdLabel::Auto),
                        ("always", TraceIdLabel::Always),
                        ("never", TraceIdLabel::Never),
                    ],
                )?
                .unwrap_or_default(),
        };
        let label_at_start = match self.label_at_start {
            Some(on) => on,
            None => env.boolean("SPANFLAME_LABEL_AT_START")?.unwrap_or(false),
        };
        let server_address = match self.server_address {
            Some(url) => parse::url("server_address", &url)?,
            None => match env.text("PYROSCOPE_SERVER_ADDRESS")? {
                Some(url) => parse::url("PYROSCOPE_SERVER_ADDRESS", &url)?,
                None => DEFAULT_SERVER_ADDRESS.to_owned(),
            },
        };
        let basic_auth = match self.basic_auth {
            Some((user, password)) => Some(parse::credentials("basic_auth", user, password)?),
            None => env.basic_auth()?,
        };
        let tenant_id = match self.tenant_id {
            Some(tenant) => Some(parse::header("tenant_id", tenant)?),
            None => match env.text("PYROSCOPE_TENANT_ID")? {
                Some(tenant) => Some(parse::header("PYROSCOPE_TENANT_ID", tenant)?),
                None => None,
            },
        };
        let profile_dir = env.text("SPANFLAME_PROFILE_DIR")?;

        let mut user_labels = Vec::new();
        for (name, value) in env.labels("PYROSCOPE_LABELS")? {
            labels::add_user_label(&mut user_labels, "PYROSCOPE_LABELS", name, value)?;
        }
        for (name, value) in self.labels {
            labels::add_user_label(&mut user_labels, "label", name, value)?;
        }
        let mut label_keys = Vec::new();
        for (setting, source) in
            [("SPANFLAME_ATTRIBUTE_LABELS", Source::Attribute), ("SPANFLAME_BAGGAGE_LABELS", Source::Baggage)]
        {
            for key in env.names(setting)? {
                labels::add_label_key(&mut label_keys, &user_labels, setting, source, key)?;
            }
        }
        for (source, key) in self.label_keys {
            let setting = match source {
                Source::Attribute => "attribute_label",
                Source::Baggage => "baggage_label",
            };
            labels::add_label_key(&mut label_keys, &user_labels, setting, source, key)?;
        }
        let fixed_name = match self.service_name {
            Some(name) => Some(parse::not_empty("service_name", name)?),
            None => env.text("PYROSCOPE_APPLICATION_NAME")?,
        };
        let attributes = env.resource_attributes()?;
        let attribute =
            |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let fallback_name = match env.text("OTEL_SERVICE_NAME")? {
            Some(name) => Some(name),
            None => attribute("service.name"),
        };
        Ok(Config {
            enabled,
            frequency,
            clock,
            cpu_budget,
            unwinder,
            upload_interval,
            scope,
            span_names,
            max_span_names,
            span_name_normalizer: self.span_name_normalizer,
            label_keys,
            trace_ids,
            label_at_start,
            destination: Destination { server_address, basic_auth, tenant_id, profile_dir },
            identity: labels::Identity {
                fixed_name,
                fallback_name: fallback_name.unwrap_or_else(labels::unknown_service),
                fallback_namespace: attribute("service.namespace"),
                user_labels,
            },
            resource: self.resource,
            exporter: self.exporter,
        })
    }
}

impl fmt::Debug for ProfilerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials stay out of logs.
        f.debug_struct("ProfilerBuilder")
            .field("server_address", &self.server_address)
            .field("service_name", &self.service_name)
            .field("labels", &self.labels)
            .field("frequency", &self.frequency)
            .field("unwinder", &self.unwinder)
            .field("upload_interval", &self.upload_interval)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Every setting decided.
pub(crate) struct Config {
    pub(crate) enabled: bool,
    pub(crate) frequency: u32,
    pub(crate) clock: Clock,
    /// A share, not percent; `None` for no limit.
    pub(crate) cpu_budget: Option<f64>,
    pub(crate) unwinder: Unwinder,
    pub(crate) upload_interval: Duration,
    pub(crate) scope: Scope,
    pub(crate) span_names: SpanNames,
    pub(crate) max_span_names: usize,
    pub(crate) span_name_normalizer: Option<Normalizer>,
    pub(crate) label_keys: Vec<LabelKey>,
    pub(crate) trace_ids: TraceIdLabel,
    pub(crate) label_at_start: bool,
    pub(crate) destination: Destination,
    pub(crate) identity: labels::Identity,
    pub(crate) resource: Option<Resource>,
    pub(crate) exporter: Option<Box<dyn ProfileExporter>>,
}

/// Where profiles go when no exporter was given.
#[derive(Default, PartialEq)]
pub(crate) struct Destination {
    pub(crate) server_address: String,
    pub(crate) basic_auth: Option<(String, String)>,
    pub(crate) tenant_id: Option<String>,
    pub(crate) profile_dir: Option<String>,
}
