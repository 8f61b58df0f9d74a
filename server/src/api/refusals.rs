//! The refused profiles or spans of one request: counted, logged, and told to its sender.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{App, intake};
use crate::ingest::IngestError;
use crate::store::StoreError;

/// How many refused profiles an error text lists.
const MAX_LISTED: usize = 20;

/// What a request is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Parts {
    #[default]
    Profiles,
    Spans,
}

impl Parts {
    fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profiles",
            Self::Spans => "spans",
        }
    }

    /// Under which name an error about one of them is counted.
    pub(super) fn reason(self, error: &IngestError) -> &'static str {
        match (self, error) {
            (Self::Spans, IngestError::Invalid { .. }) => "invalid_span",
            _ => error.reason(),
        }
    }
}

/// What was refused of a request.
#[derive(Default)]
pub(super) struct Refusals {
    parts: Parts,
    /// How many, by the name under which they are counted.
    counts: BTreeMap<&'static str, u64>,
    /// The first of them, named.
    listed: Vec<String>,
}

impl Refusals {
    /// Of a request of these.
    pub(super) fn of(parts: Parts) -> Self {
        Self { parts, ..Self::default() }
    }

    /// Adds a part that could not be read.
    pub(super) fn add(&mut self, place: &dyn Display, error: &IngestError) {
        *self.counts.entry(self.parts.reason(error)).or_default() += 1;
        self.list(place, error);
    }

    /// Adds profiles that the store does not take.
    pub(super) fn add_unstored<P: Display>(&mut self, places: &[P], error: &StoreError) {
        *self.counts.entry(intake::UNSTORABLE).or_default() += places.len() as u64;
        places.iter().for_each(|place| self.list(place, error));
    }

    /// Names what was refused: where it stands, whose it is, which field is wrong and what would be right.
    fn list(&mut self, place: &dyn Display, error: &dyn Display) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(format!("{place}: {error}"));
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Counts and logs the refusals of a request of so many parts, and says what to tell its sender; nothing if there
    /// are none.
    pub(super) fn report(&self, app: &App, total: usize) -> Option<String> {
        if self.count() == 0 {
            return None;
        }
        let message = self.explain(total);
        tracing::info!(refused = self.count(), of = total, reason = message, "{} refused", self.parts.name());
        self.counts.iter().for_each(|(reason, count)| app.metrics.refuse_many(reason, *count));
        Some(message)
    }

    fn explain(&self, total: usize) -> String {
        let count = self.count();
        let stored = if count == total as u64 { "" } else { ", the others are stored" };
        let mut text = format!("{count} of {total} {} refused{stored}", self.parts.name());
        for listed in &self.listed {
            text.push_str("; ");
            text.push_str(listed);
        }
        match count - self.listed.len() as u64 {
            0 => text,
            more => format!("{text}; and {more} more"),
        }
    }
}
