//! Configuration: defaults, then a TOML file, then environment and command line. Decides nothing else.
//!
//! Every setting has one name: `listen` in the file, `--listen` on the command line, `SPANFLAME_LISTEN` in the
//! environment. The command line wins over the environment, the environment over the file. Tenants and tokens are tables
//! of the file; tokens may also come from a file of their own or from `SPANFLAME_TOKENS`.

mod args;
mod check;
mod file;
mod show;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Value;

pub use self::args::{DataArgs, ServeArgs};
pub(crate) use self::check::MAX_MESSAGE_BYTES;
pub use self::show::Shown;
pub use self::source::{Source, TenantLimits};
use crate::ingest::Limits;
use crate::model::TenantId;
use crate::settings::{Kind, Setting, Settings, settings, suggest};
use crate::store::{Acknowledge, Bucket};
use crate::tokens::Tokens;

#[cfg(test)]
mod tests;

/// The variable that may hold tokens, in the form of the file that `tokens_file` names.
pub const TOKENS_VARIABLE: &str = "SPANFLAME_TOKENS";

settings! {
    /// The settings in force.
    pub struct Config {
        /// Address to listen on, host:port; port 0 lets the system choose
        listen: String = "127.0.0.1:4040".to_owned(), "ADDR";
        /// Another address to listen on, for OpenTelemetry's senders that speak HTTP, as 127.0.0.1:4318; none if empty
        otlp_http_listen: String = String::new(), "ADDR";
        /// The same for those that speak gRPC, as 127.0.0.1:4317
        otlp_grpc_listen: String = String::new(), "ADDR";
        /// Directory that keeps profiles and traces; spanflame in the user's data directory if not named
        data_dir: PathBuf = PathBuf::new(), "DIR";
        /// Path prefix below which everything is served, as /profiles
        base_path: String = String::new(), "PATH";
        /// Allow an address that other machines can reach, although nobody has to log in
        allow_unauthenticated: bool = false, "BOOL";
        /// Host names under which a server on loopback without tokens answers beside localhost, as those of a proxy
        allowed_hosts: Vec<String> = Vec::new(), "NAME,…";
        /// Origins whose pages may ask from a browser, as `https://app.example`; `*` for any
        cors_origins: Vec<String> = Vec::new(), "ORIGIN,…";
        /// Keep tenants apart: requests name theirs in X-Scope-OrgID
        multi_tenant: bool = false, "BOOL";
        /// File with the tokens that let requests in; read again when it changes
        tokens_file: Option<PathBuf> = None, "FILE";
        /// Certificate chain in PEM: the server speaks TLS; read again when it changes
        tls_cert_file: Option<PathBuf> = None, "FILE";
        /// Its private key in PEM
        tls_key_file: Option<PathBuf> = None, "FILE";
        /// Certificate authorities in PEM that clients' certificates must come from
        tls_client_ca_file: Option<PathBuf> = None, "FILE";
        /// What to log, as `level` or `target=level,…`
        log: String = "info".to_owned(), "FILTER";
        /// How to log: text or json
        log_format: LogFormat = LogFormat::Text, "FORMAT";
        /// Largest body of a query in bytes, as sent and decompressed
        max_query_bytes: usize = 1 << 20, "BYTES";
        /// Bytes of pushes that may be in memory at a time, decompressed; further ones wait
        max_inflight_bytes: usize = 512 << 20, "BYTES";
        /// Memory in bytes for profiles that are not in segments yet, and for making segments; beyond it writes wait
        max_head_bytes: usize = 1 << 30, "BYTES";
        /// Memory that profiles take in bytes when a segment is made of them; five sixty-fourths of max_head_bytes at most
        flush_bytes: usize = 64 << 20, "BYTES";
        /// Age of profiles at which a segment is made of them, in milliseconds
        flush_after_ms: u64 = 300_000, "MS";
        /// Memory that pieces of segments may take in bytes that were read lately
        max_cache_bytes: usize = 256 << 20, "BYTES";
        /// Share of one core that merging segments may take, in percent
        compaction_cpu_percent: usize = 50, "PERCENT";
        /// Bytes of all tenants' segments on disk at which the oldest go; 0 keeps all
        retention_total_bytes: Option<i64> = None, "BYTES";
        /// Bucket that has the segments in place of the data directory, as s3://bucket/prefix; any number of servers may share it
        object_store: String = String::new(), "URL";
        /// Where the object store is reached, as `https://s3.example:9000`; AWS if not named
        object_endpoint: String = String::new(), "URL";
        /// Region of the object store
        object_region: String = String::new(), "REGION";
        /// Reach the object store without TLS if the endpoint says http
        object_allow_http: bool = false, "BOOL";
        /// When a push is acknowledged where there is an object store: local, once it is in this server's log, or object, once
        /// it is in the bucket and so for every server
        acknowledge: Acknowledge = Acknowledge::Local, "WHEN";
        /// Least time between two writes of new segments to the object store, in milliseconds; flush_after_ms does not count
        /// there
        object_publish_ms: u64 = 500, "MS";
        /// Time between two looks for what other servers wrote to the object store, in milliseconds
        object_refresh_ms: u64 = 1000, "MS";
        /// How long merged and expired segments stay in the object store for servers that still read them, in milliseconds
        object_removal_ms: u64 = 600_000, "MS";
        /// Bytes of traces of all tenants on disk at which the oldest go; 0 keeps all
        traces_retention_bytes: Option<i64> = Some(4 << 30), "BYTES";
        /// Connections that there may be at a time; on further ones nothing is answered but /ready and /metrics
        max_connections: usize = 4096, "N";
        /// Requests with profiles or traces that may be under way at a time; further ones are answered 503
        max_ingest_requests: usize = 1024, "N";
        /// Queries that may be under way at a time; further ones are answered 503
        max_query_requests: usize = 256, "N";
        /// Requests for metrics, status and the page's files that may be under way at a time
        max_status_requests: usize = 64, "N";
        /// Longest that taking profiles or traces in may last, in milliseconds
        ingest_timeout_ms: u64 = 60_000, "MS";
        /// Longest that a query may last, in milliseconds
        query_timeout_ms: u64 = 60_000, "MS";
        /// Longest that an answer about the server itself may last, in milliseconds
        status_timeout_ms: u64 = 10_000, "MS";
        /// How long requests under way may take to end once the server is told to stop, in milliseconds
        shutdown_timeout_ms: u64 = 10_000, "MS";
    }
    beside {
        /// What a tenant may send and ask for that has no limits of its own.
        limits: Limits,
        /// What the tenants with limits of their own may.
        tenants: BTreeMap<TenantId, Limits>,
        /// The tokens that are in the configuration itself.
        tokens: Tokens,
        /// Where settings come from that do not have their default.
        origins: BTreeMap<&'static str, Origin>,
        /// The file that it was read from, if there was one.
        source: Option<Source>,
    }
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file, and the line in it.
    File(usize),
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Kind for LogFormat {
    const EXPECTED: &'static str = "text or json";

    fn from_text(text: &str) -> Option<Value> {
        String::from_text(text)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        Value::from(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Kind for Acknowledge {
    const EXPECTED: &'static str = "local or object";

    fn from_text(text: &str) -> Option<Value> {
        String::from_text(text)
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "local" => Some(Self::Local),
            "object" => Some(Self::Object),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        Value::from(match self {
            Self::Local => "local",
            Self::Object => "object",
        })
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Settings are unknown, are not what they should be, or do not go together.
    #[error("{}", .0.join("\n"))]
    Invalid(
        /// Each of them: place, reason, and what would be right.
        Vec<String>,
    ),
}

/// All settings, those of the server and those of a tenant.
pub fn all_settings() -> impl Iterator<Item = &'static Setting> {
    Config::ALL.iter().chain(Limits::ALL)
}

impl Config {
    /// Joins the command line and environment with the file that they name.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong with it and the settings.
    pub fn load(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let mut config = Self::join(&args, &file)?;
        config.source = Source::of(args);
        Ok(config)
    }

    fn join(args: &ServeArgs, file: &file::File) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for (name, value, line) in file.settings() {
            let set = config.assign(name, value);
            config.note(set, name, value, Origin::File(line), &file.place(line), &mut problems);
        }
        for (setting, value, origin) in &args.given {
            let set = config.assign(setting.name, value);
            let place = match origin {
                Origin::Flag => format!("--{}: ", setting.flag()),
                _ => format!("{}: ", setting.variable()),
            };
            config.note(set, setting.name, value, origin.clone(), &place, &mut problems);
        }
        for (id, table, line) in file.tenants(&mut problems) {
            match config.tenant(id, table) {
                Ok((tenant, limits)) => _ = config.tenants.insert(tenant, limits),
                Err(found) => {
                    let found = found.iter().map(|what| format!("{}tenants.{id}{what}", file.place(line)));
                    problems.extend(found);
                }
            }
        }
        config.take_tokens(file, args.tokens.as_deref(), &mut problems);
        if config.data_dir.as_os_str().is_empty() {
            config.data_dir = dirs::data_local_dir().map(|dir| dir.join("spanflame")).unwrap_or_default();
        }
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// The value of a setting of the server or of every tenant.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.get(name).or_else(|| self.limits.get(name))
    }

    /// The bucket that has the objects, none if the data directory has them.
    pub fn bucket(&self) -> Option<Bucket> {
        let named = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let (endpoint, region) = (named(&self.object_endpoint), named(&self.object_region));
        let bucket = Bucket::parse(&named(&self.object_store)?).ok()?;
        Some(Bucket { endpoint, region, allow_http: self.object_allow_http, ..bucket })
    }

    /// Whether requests have to bring a token.
    pub fn authenticates(&self) -> bool {
        self.tokens_file.is_some() || !self.tokens.is_empty()
    }

    fn assign(&mut self, name: &str, value: &Value) -> Option<Result<(), String>> {
        self.set(name, value).or_else(|| self.limits.set(name, value))
    }

    /// Remembers where a setting comes from, or what is wrong with it.
    fn note(
        &mut self,
        set: Option<Result<(), String>>,
        name: &str,
        value: &Value,
        origin: Origin,
        place: &str,
        problems: &mut Vec<String>,
    ) {
        let known = all_settings().find(|setting| setting.name == name);
        match (set, known) {
            (Some(Ok(())), Some(setting)) => _ = self.origins.insert(setting.name, origin),
            (Some(Err(what)), _) => problems.push(format!("{place}{name}: {what}")),
            _ => {
                let names = all_settings().map(|setting| setting.name).chain(["tenants", "tokens"]);
                let kind = if value.is_table() { "table" } else { "setting" };
                problems.push(format!("{place}unknown {kind} {name:?}{}", suggest(name, names)));
            }
        }
    }

    /// A tenant's limits: those of every tenant but for what its table says.
    fn tenant(&self, id: &str, table: &toml::Table) -> Result<(TenantId, Limits), Vec<String>> {
        let tenant = TenantId::new(id).map_err(|error| vec![format!(": {error}")])?;
        let mut limits = self.limits.clone();
        let mut problems = Vec::new();
        for (name, value) in table {
            match limits.set(name, value) {
                Some(Ok(())) => {}
                Some(Err(what)) => problems.push(format!(".{name}: {what}")),
                None => {
                    let names = Limits::ALL.iter().map(|setting| setting.name);
                    problems.push(format!(": unknown limit {name:?}{}", suggest(name, names)));
                }
            }
        }
        check::limits(&limits, &mut |what| problems.push(format!(".{what}")));
        if problems.is_empty() { Ok((tenant, limits)) } else { Err(problems) }
    }

    /// Tokens of the file's own table and of the environment; the latter win as a whole.
    fn take_tokens(&mut self, file: &file::File, variable: Option<&str>, problems: &mut Vec<String>) {
        let (read, place) = match (variable, file.tokens()) {
            (Some(text), _) => (Tokens::parse(text, self.multi_tenant), format!("{TOKENS_VARIABLE}: ")),
            (None, Some((Value::Table(tables), line))) if tables.is_empty() => (
                Err(vec!["tokens: there is none; name one, as [tokens.grafana]".to_owned()]),
                file.place(line),
            ),
            (None, Some((Value::Table(tables), line))) => {
                (Tokens::read(tables, self.multi_tenant), file.place(line))
            }
            (None, Some((_, line))) => {
                (Err(vec!["tokens: expected tables, as [tokens.grafana]".to_owned()]), file.place(line))
            }
            (None, None) => return,
        };
        match read {
            Ok(tokens) => self.tokens = tokens,
            Err(found) => problems.extend(found.iter().map(|what| format!("{place}{what}"))),
        }
    }
}

/// What a path setting is shown as, empty if it is not set.
fn shown(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}
