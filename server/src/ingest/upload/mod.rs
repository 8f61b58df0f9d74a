//! What agents send to `/ingest`: profiles in formats older than Push, described by a query string.
//!
//! The description is read first and by itself, so that what is wrong with it is known before a body is looked at.

mod app_name;
mod folded;
mod jfr;
mod pprof;
mod speedscope;
mod tally;
mod trees;

use std::str::FromStr;

use bytes::Bytes;

pub use app_name::AppName;
pub(super) use pprof::profile_name;
use tally::{CPU, Rate, Tally};

use super::assemble::Header;
use super::{Budget, IngestError, Limits};
use crate::attime;
use crate::model::Profile;

#[cfg(test)]
mod tests;

/// The format of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// pprof, gzipped or not.
    Pprof,
    /// Text: a stack trace and a count a line.
    Groups,
    /// Text: a stack trace a line.
    Lines,
    /// Stack traces that share their beginnings, as text.
    Trie,
    /// Stack traces that share their callers.
    Tree,
    /// speedscope's JSON.
    Speedscope,
    /// A recording of Java Flight Recorder.
    Jfr,
}

impl Format {
    /// The format of an upload whose parameter `format` and header `Content-Type` are these. Text with counts is what
    /// nothing else is.
    pub fn of(format: &str, content_type: &str) -> Self {
        match format {
            "pprof" => Self::Pprof,
            "lines" => Self::Lines,
            "trie" => Self::Trie,
            "tree" => Self::Tree,
            "speedscope" => Self::Speedscope,
            "jfr" => Self::Jfr,
            _ => match content_type.split(';').next().unwrap_or_default().trim() {
                "binary/octet-stream+trie" => Self::Trie,
                "binary/octet-stream+tree" => Self::Tree,
                media if media.eq_ignore_ascii_case("multipart/form-data") => Self::Pprof,
                _ => Self::Groups,
            },
        }
    }

    /// Whether it is one of those that count stack traces and say nothing else.
    pub fn is_counted(self) -> bool {
        matches!(self, Self::Groups | Self::Lines | Self::Trie | Self::Tree)
    }
}

/// What a query string says of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Whose profile it is.
    pub name: AppName,
    /// When profiling began, in Unix nanoseconds.
    pub from_nanos: i64,
    /// When it ended, in Unix nanoseconds; not before it began.
    pub until_nanos: i64,
    /// The kind of agent.
    pub spy_name: String,
    /// The format.
    pub format: Format,
    rate: Rate,
    /// Whether counts are of bytes, where the application's name does not tell.
    bytes: bool,
}

/// The body of an upload.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The profile.
    pub profile: Bytes,
    /// What is said of the sample types of a pprof, as JSON.
    pub sample_type_config: Option<Bytes>,
    /// The labels of a recording's contexts.
    pub labels: Option<Bytes>,
}

impl Upload {
    /// Reads the parameters of a query string and the header `Content-Type` of a request received at this time. Of
    /// parameters with the same name the first counts, and unknown ones are passed over.
    ///
    /// # Errors
    /// When `name`, `from` or `until` is not what it should be. A `sampleRate` that is none is taken for the default.
    pub fn parse(
        parameters: &[(String, String)],
        content_type: &str,
        received_ms: i64,
    ) -> Result<Self, IngestError> {
        let get = |wanted: &str| {
            let found = parameters.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let now_nanos = received_ms.saturating_mul(1_000_000);
        let instant = |name: &str| match get(name) {
            Some(text) => {
                attime::parse(text, now_nanos).map_err(|error| IngestError::invalid(name, error.to_string()))
            }
            None => Ok(now_nanos),
        };
        let name = AppName::from_str(get("name").unwrap_or_default())?;
        let (from_nanos, until_nanos) = (instant("from")?, instant("until")?);
        if until_nanos < from_nanos {
            return Err(IngestError::invalid("until", "is before from"));
        }
        let rate = match get("sampleRate").map(str::parse) {
            None => Rate::DEFAULT,
            Some(Ok(hertz)) => Rate { hertz },
            Some(Err(_)) => {
                tracing::info!(service = name.app(), "sampleRate is no number, taking it for 100");
                Rate::DEFAULT
            }
        };
        Ok(Self {
            name,
            from_nanos,
            until_nanos,
            spy_name: get("spyName").unwrap_or("unknown").to_owned(),
            format: Format::of(get("format").unwrap_or_default(), content_type),
            rate,
            bytes: get("units") == Some("bytes"),
        })
    }

    /// Reads the profiles of a body. Any part may be gzipped.
    ///
    /// # Errors
    /// When it is not of its format, or over a limit; then nothing of it is kept.
    pub fn decode(
        &self,
        parts: &Parts,
        limits: &Limits,
        budget: &mut Budget,
        received_ms: i64,
    ) -> Result<Vec<Profile>, IngestError> {
        if self.format == Format::Pprof {
            return pprof::decode(self, parts, limits, budget, received_ms);
        }
        let header = Header {
            start_nanos: self.from_nanos,
            duration_nanos: self.until_nanos.saturating_sub(self.from_nanos),
            period: 0,
        };
        let header = header.check("from", limits, received_ms)?;
        if self.format == Format::Jfr {
            return jfr::decode(self, parts, header, limits, budget, received_ms);
        }
        let bytes = super::pprof::gunzip("profile", parts.profile.clone(), limits, budget)?;
        if self.format == Format::Speedscope {
            return speedscope::decode(&bytes, self, header, limits, budget);
        }
        let (service, kind) = tally::split(self.name.app());
        let kind = kind.unwrap_or(if self.bytes { tally::BYTES } else { CPU });
        let series = self.name.series(kind.profile, service, &self.spy_name, limits)?;
        let mut tally = Tally::new(&series, kind, self.rate, header, self.name.span(), limits);
        match self.format {
            Format::Lines => folded::individual(&bytes, &mut tally)?,
            Format::Trie => trees::trie(&bytes, limits, &mut tally)?,
            Format::Tree => trees::tree(&bytes, &mut tally)?,
            _ => folded::groups(&bytes, &mut tally)?,
        }
        tally.profiles.finish(budget)
    }
}
