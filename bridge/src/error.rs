//! What can go wrong, said so that the reader knows which setting to change. Nothing here is ever raised on a
//! sampled thread.

use std::time::Duration;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: expected {expected}, got {value}")]
pub struct ConfigError {
    /// The environment variable or builder method at fault.
    pub setting: String,
    /// What it may hold.
    pub expected: String,
    /// What it held; secrets are not repeated.
    pub value: String,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<String>, expected: impl Into<String>, value: &str) -> Self {
        Self { setting: setting.into(), expected: expected.into(), value: format!("{value:?}") }
    }
}

/// Why a profiler did not start. The service can carry on: spans flow without it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range or malformed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This process already has a running profiler, or one whose shutdown is still under way. Signals and timers belong to the process, so there is one.
    #[error("a profiler is already running in this process; share it instead of starting a second one")]
    AlreadyRunning,
    /// Sampling is not available on this platform.
    #[error("span profiles need Linux on x86-64 or aarch64, this is {os} on {arch}; spans are not affected")]
    Unsupported {
        /// The operating system.
        os: &'static str,
        /// The processor architecture.
        arch: &'static str,
    },
    /// The sampler refused to start.
    #[error("the sampler did not start: {0}")]
    Sampler(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A background thread could not be created.
    #[error("a background thread did not start")]
    Thread(#[source] std::io::Error),
}

/// Why a flush or a shutdown did not deliver everything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// Not done in time. Delivery goes on in the background; after a shutdown, until the process exits.
    #[error("profiles were not delivered within {0:?}")]
    TimedOut(Duration),
    /// The receiver could not be reached or refused the profiles.
    #[error("profiles were not delivered: {0}")]
    Export(String),
    /// The profiler has stopped, or one of its threads has ended by a panic.
    #[error("the profiler has stopped")]
    Stopped,
}
