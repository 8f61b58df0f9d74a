//! Why an input was refused.

use super::Limits;

/// An input that cannot be taken. The message names the field, what was seen and what to change; the same bytes will
/// be refused again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The input breaks a rule of its format.
    #[error("{field}: {message}")]
    Invalid {
        /// The offending field, as `sample[3].value`.
        field: String,
        /// What was seen and what is expected.
        message: String,
    },
    /// The input is larger than a limit allows.
    #[error(
        "{field}: {got} is over the limit {limit} of {max} (send less, or raise {limit} in the server's configuration)"
    )]
    OverLimit {
        /// The offending field.
        field: String,
        /// The limit's name in the configuration.
        limit: &'static str,
        /// What it allows.
        max: i64,
        /// What was seen: the amount, or as far as it was counted.
        got: i64,
    },
}

impl IngestError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    /// Under which name such refusals are counted: that of the limit, if it is one.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_profile",
            Self::OverLimit { limit, .. } => limit,
        }
    }

    /// The same about a field that is a part of this one.
    pub(super) fn within(mut self, outer: &str) -> Self {
        let (Self::Invalid { field, .. } | Self::OverLimit { field, .. }) = &mut self;
        *field = format!("{outer}.{field}");
        self
    }

    /// A push has more profiles than it may; this is one of those beyond.
    pub(crate) fn too_many_profiles(limits: &Limits, got: usize) -> Self {
        Self::over(
            "raw_profile: number in this push",
            "max_profiles_per_push",
            limits.max_profiles_per_push,
            got,
        )
    }

    pub(super) fn over(field: impl Into<String>, limit: &'static str, max: usize, got: usize) -> Self {
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Self::OverLimit { field: field.into(), limit, max: signed(max), got: signed(got) }
    }
}
