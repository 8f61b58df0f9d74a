//! From a window to whoever keeps profiles: encoding, a bounded queue, and the exporters. Everything here runs on the
//! exporter's thread; nothing here can hold up sampling.

pub(crate) mod encoder;
pub(crate) mod file;
pub(crate) mod pprof;
#[cfg(feature = "push")]
pub(crate) mod push;
#[cfg(feature = "pyroscope")]
pub(crate) mod pyroscope;
pub(crate) mod unlabelled;
pub(crate) mod worker;

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::labels::Labels;

/// A profile on its way out: one window of one process, or a part of it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Profile {
    /// The profile in pprof format, compressed with gzip.
    pub pprof: Vec<u8>,
    /// What it is a profile of: `__name__` (`process_cpu`), `service_name` and so on, as pairs of name and value.
    pub labels: Labels,
    /// When it starts.
    pub start: SystemTime,
    /// How long it lasts.
    pub duration: Duration,
    /// Samples that it holds.
    pub samples: u64,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("bytes", &self.pprof.len())
            .field("labels", &self.labels)
            .field("start", &self.start)
            .field("duration", &self.duration)
            .field("samples", &self.samples)
            .finish()
    }
}

/// What the receiving end makes of span labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receiver {
    /// It adds the samples of child spans up into their parents, so that every span may have its own.
    pub nested_spans: bool,
    /// It keeps trace ids out of series labels.
    pub trace_ids: bool,
    /// What it calls itself, for the log.
    pub name: String,
}

impl Receiver {
    /// A receiver that calls itself `name` and is as able as any can be.
    pub fn full(name: impl Into<String>) -> Self {
        Self { nested_spans: true, trace_ids: true, name: name.into() }
    }

    /// A receiver that calls itself `name` and takes what every Pyroscope server takes.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Delivers profiles.
///
/// Called on a thread of its own, one call at a time. A call may block: windows wait meanwhile, within bounds, and
/// sampling goes on. A call should not take longer than about ten seconds, as a shutdown cannot interrupt it.
///
/// ```
/// use spanflame::{ExportError, Profile, ProfileExporter};
///
/// struct Discard;
///
/// impl ProfileExporter for Discard {
///     fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
///         println!("{} samples in {} bytes", profile.samples, profile.pprof.len());
///         Ok(())
///     }
/// }
/// ```
pub trait ProfileExporter: Send + 'static {
    /// Delivers one profile.
    ///
    /// # Errors
    /// A [retryable](ExportError::retryable) error has the same profile offered again later, with growing pauses; a
    /// [permanent](ExportError::permanent) one drops it.
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError>;

    /// Asks the receiving end what it is. `None` while it cannot be reached: it is asked again then. Asked before
    /// the first profile and after failures.
    fn receiver(&mut self) -> Option<Receiver> {
        Some(Receiver::plain("custom exporter"))
    }
}

impl<E: ProfileExporter + ?Sized> ProfileExporter for Box<E> {
    fn export(&mut self, profile: &Profile) -> Result<(), ExportError> {
        (**self).export(profile)
    }

    fn receiver(&mut self) -> Option<Receiver> {
        (**self).receiver()
    }
}

/// Why a profile was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExportError {
    message: String,
    retry: bool,
    after: Option<Duration>,
}

impl ExportError {
    /// It may work later: the receiving end is away, busy or broken.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry: true, after: None }
    }

    /// The receiving end wants to be left alone for so long. Up to two minutes of that are respected.
    #[must_use]
    pub fn after(mut self, pause: Duration) -> Self {
        self.after = Some(pause);
        self
    }

    /// It will not work, however often it is tried: the profile or the credentials are refused.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), retry: false, after: None }
    }

    /// Whether to try again.
    pub fn is_retryable(&self) -> bool {
        self.retry
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}
