//! Configuration: defaults, then a TOML file, then environment and command line. Decides nothing else.
//!
//! Every setting has one name: `listen` in the file, `--listen` on the command line, `SPANFLAME_LISTEN` in the
//! environment. The command line wins over the environment, the environment over the file.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;

use crate::ingest::Limits;

/// Where the server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:4040";

/// What `spanflame serve` takes on the command line and from the environment.
#[derive(Args, Debug, Default)]
pub struct ServeArgs {
    /// Address to listen on, host:port; port 0 lets the system choose [default: 127.0.0.1:4040]
    #[arg(long, env = "SPANFLAME_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,
    /// Directory that keeps the profiles [default: spanflame in the user's data directory]
    #[arg(long, env = "SPANFLAME_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// TOML file with the same settings
    #[arg(long, env = "SPANFLAME_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Allow an address that other machines can reach, although nobody has to log in
    #[arg(
        long,
        env = "SPANFLAME_ALLOW_UNAUTHENTICATED",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub allow_unauthenticated: Option<bool>,
    /// Host names under which a server on loopback answers beside localhost, as those of a proxy in front
    #[arg(long, env = "SPANFLAME_ALLOWED_HOSTS", value_name = "NAME,…", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,
    /// What to log, as `level` or `target=level,…` [default: info]
    #[arg(long, env = "SPANFLAME_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log
    #[arg(long, env = "SPANFLAME_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Largest request body in bytes, as sent [default: 67108864]
    #[arg(long, env = "SPANFLAME_MAX_REQUEST_BYTES", value_name = "BYTES")]
    pub max_request_bytes: Option<usize>,
    /// Largest request body in bytes, decompressed [default: 134217728]
    #[arg(long, env = "SPANFLAME_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    pub max_message_bytes: Option<usize>,
    /// Bytes of request bodies that may be in memory at a time; further requests wait [default: 536870912]
    #[arg(long, env = "SPANFLAME_MAX_INFLIGHT_BYTES", value_name = "BYTES")]
    pub max_inflight_bytes: Option<usize>,
    /// Memory that profiles may take in bytes; beyond it the oldest are dropped [default: 1073741824]
    #[arg(long, env = "SPANFLAME_MAX_HEAD_BYTES", value_name = "BYTES")]
    pub max_head_bytes: Option<usize>,
    /// Largest single profile in bytes, decompressed [default: 67108864]
    #[arg(long, env = "SPANFLAME_MAX_PROFILE_BYTES", value_name = "BYTES")]
    pub max_profile_bytes: Option<usize>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings a TOML file may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    data_dir: Option<PathBuf>,
    allow_unauthenticated: Option<bool>,
    allowed_hosts: Option<Vec<String>>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    max_request_bytes: Option<usize>,
    max_message_bytes: Option<usize>,
    max_inflight_bytes: Option<usize>,
    max_head_bytes: Option<usize>,
    max_profiles_per_push: Option<usize>,
    max_push_bytes: Option<usize>,
    max_profile_bytes: Option<usize>,
    max_decoded_bytes: Option<usize>,
    max_samples: Option<usize>,
    max_labels_per_sample: Option<usize>,
    max_stack_depth: Option<usize>,
    max_string_bytes: Option<usize>,
    max_labels_per_series: Option<usize>,
    max_label_name_bytes: Option<usize>,
    max_label_value_bytes: Option<usize>,
    max_series_per_profile: Option<usize>,
    max_age_ms: Option<i64>,
    max_ahead_ms: Option<i64>,
}

impl File {
    /// What one push may hold; `max_profile_bytes` may also come from the command line.
    fn limits(&self, max_profile_bytes: Option<usize>) -> Limits {
        let default = Limits::default();
        let max_profile_bytes = max_profile_bytes.or(self.max_profile_bytes);
        Limits {
            max_profiles_per_push: self.max_profiles_per_push.unwrap_or(default.max_profiles_per_push),
            max_push_bytes: self.max_push_bytes.unwrap_or(default.max_push_bytes),
            max_profile_bytes: max_profile_bytes.unwrap_or(default.max_profile_bytes),
            max_decoded_bytes: self.max_decoded_bytes.unwrap_or(default.max_decoded_bytes),
            max_samples: self.max_samples.unwrap_or(default.max_samples),
            max_labels_per_sample: self.max_labels_per_sample.unwrap_or(default.max_labels_per_sample),
            max_stack_depth: self.max_stack_depth.unwrap_or(default.max_stack_depth),
            max_string_bytes: self.max_string_bytes.unwrap_or(default.max_string_bytes),
            max_labels_per_series: self.max_labels_per_series.unwrap_or(default.max_labels_per_series),
            max_label_name_bytes: self.max_label_name_bytes.unwrap_or(default.max_label_name_bytes),
            max_label_value_bytes: self.max_label_value_bytes.unwrap_or(default.max_label_value_bytes),
            max_series_per_profile: self.max_series_per_profile.unwrap_or(default.max_series_per_profile),
            max_age_ms: self.max_age_ms.or(default.max_age_ms),
            max_ahead_ms: self.max_ahead_ms.unwrap_or(default.max_ahead_ms),
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// host:port to listen on.
    pub listen: String,
    /// Directory that keeps the profiles.
    pub data_dir: PathBuf,
    /// Whether an address beyond loopback is acceptable.
    pub allow_unauthenticated: bool,
    /// Host names under which a server on loopback answers beside those of loopback itself.
    pub allowed_hosts: Vec<String>,
    /// Log filter, in `tracing_subscriber`'s `EnvFilter` syntax.
    pub log: String,
    /// How to log.
    pub log_format: LogFormat,
    /// Largest request body in bytes, as sent.
    pub max_request_bytes: usize,
    /// Largest request body in bytes, decompressed.
    pub max_message_bytes: usize,
    /// Bytes of request bodies that may be in memory at a time; further requests wait.
    pub max_inflight_bytes: usize,
    /// Memory that profiles may take, in bytes; beyond it the oldest are dropped.
    pub max_head_bytes: usize,
    /// What one push and each of its profiles may hold.
    pub limits: Limits,
}

/// A setting that cannot be used.
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
    /// The file is not what it should be.
    #[error("configuration file {path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        message: String,
    },
    /// The platform names no data directory.
    #[error("no data directory is known for this user; name one with --data-dir or SPANFLAME_DATA_DIR")]
    NoDataDir,
    /// A number is out of its range.
    #[error("{name} = {value}: expected {expected}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: usize,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Config {
    /// Joins the command line and environment with the file that they name.
    ///
    /// # Errors
    /// When the file cannot be read or holds an unknown or ill-typed setting, or when a value is out of range.
    pub fn load(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let limits = file.limits(args.max_profile_bytes);
        let data_dir = args
            .data_dir
            .or(file.data_dir)
            .or_else(|| dirs::data_local_dir().map(|dir| dir.join("spanflame")))
            .ok_or(ConfigError::NoDataDir)?;
        let config = Self {
            listen: args.listen.or(file.listen).unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            data_dir,
            allow_unauthenticated: args
                .allow_unauthenticated
                .or(file.allow_unauthenticated)
                .unwrap_or_default(),
            allowed_hosts: args.allowed_hosts.or(file.allowed_hosts).unwrap_or_default(),
            log: args.log.or(file.log).unwrap_or_else(|| "info".to_owned()),
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            max_request_bytes: args.max_request_bytes.or(file.max_request_bytes).unwrap_or(64 << 20),
            max_message_bytes: args.max_message_bytes.or(file.max_message_bytes).unwrap_or(128 << 20),
            max_inflight_bytes: args.max_inflight_bytes.or(file.max_inflight_bytes).unwrap_or(512 << 20),
            max_head_bytes: args.max_head_bytes.or(file.max_head_bytes).unwrap_or(1 << 30),
            limits,
        };
        config.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        for (name, value) in
            [("max_head_bytes", self.max_head_bytes), ("max_inflight_bytes", self.max_inflight_bytes)]
        {
            if value < 1 << 20 {
                return Err(ConfigError::Range { name, value, expected: "1048576 bytes or more" });
            }
        }
        for (name, value) in [
            ("max_request_bytes", self.max_request_bytes),
            ("max_message_bytes", self.max_message_bytes),
            ("max_profile_bytes", self.limits.max_profile_bytes),
            ("max_push_bytes", self.limits.max_push_bytes),
        ] {
            if !(1024..=1 << 30).contains(&value) {
                return Err(ConfigError::Range {
                    name,
                    value,
                    expected: "between 1024 and 1073741824 bytes",
                });
            }
        }
        Ok(self)
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, args: ServeArgs) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("a written file");
        Config::load(ServeArgs { config: Some(file.path().to_owned()), ..args })
    }

    #[test]
    fn command_line_wins_over_file_and_file_over_default() {
        let config = load(
            "listen = '127.0.0.1:1'\ndata_dir = '/tmp/a'\nmax_profile_bytes = 4096\nlog_format = 'json'",
            ServeArgs { listen: Some("127.0.0.1:2".into()), ..Default::default() },
        )
        .unwrap();
        assert_eq!(config.listen, "127.0.0.1:2");
        assert_eq!(config.data_dir, Path::new("/tmp/a"));
        assert_eq!(config.limits.max_profile_bytes, 4096);
        assert_eq!(config.log_format, LogFormat::Json);
        assert!(!config.allow_unauthenticated);
        assert_eq!(config.log, "info");
    }

    #[test]
    fn unknown_settings_are_named() {
        let error = load("lisen = '127.0.0.1:1'", ServeArgs::default()).unwrap_err().to_string();
        assert!(error.contains("lisen") && error.contains("listen"), "{error}");
    }

    #[test]
    fn limits_have_a_range() {
        let error = load("max_request_bytes = 1", ServeArgs::default()).unwrap_err().to_string();
        assert_eq!(error, "max_request_bytes = 1: expected between 1024 and 1073741824 bytes");
    }
}
