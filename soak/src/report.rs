//! What the process in the storm tells the one that watches: a line of JSON a second.

use serde::{Deserialize, Serialize};

/// How far everything has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Rounds of every actor.
    pub(crate) rounds: Vec<(String, u64)>,
    /// What an actor found that must not be.
    pub(crate) failures: Vec<String>,
    /// Samples taken, by all profilers so far.
    pub(crate) samples: u64,
    /// Those of them with a span.
    pub(crate) labelled: u64,
    /// Samples lost, whatever the cause.
    pub(crate) lost: u64,
    /// The latest profiler's own account, for people.
    pub(crate) stats: String,
    /// Everything has been stopped, and has stopped.
    pub(crate) done: bool,
}
