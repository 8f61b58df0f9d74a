//! Questions about profiles, answered from the store.
//!
//! Plain synchronous functions: whoever calls from asynchronous code hands them to a blocking thread. No transport and
//! no input format may appear here; of output formats, those that a merged selection is written in.

mod analyze;
mod dot;
mod flame;
mod heatmap;
mod labels;
mod merge;
mod names;
mod parts;
mod points;
mod pprof;
mod select;
mod series;
mod spans;
mod stacks;
mod tree;
mod tree_bytes;

use std::sync::Arc;

pub use self::analyze::Analysis;
pub use self::flame::{FlameGraph, FlameGraphDiff};
pub use self::heatmap::{Heatmap, HeatmapSlot};
pub use self::merge::{MergedProfile, MergedStacks};
pub use self::points::{Exemplar, Grain, TimeQuery};
pub use self::select::Selection;
pub use self::series::{Aggregation, Point, TimeSeries};
pub use self::spans::{
    EmptyReason, ExplainQuery, Explanation, KnownSpan, MatcherFinding, OperationCpu, SpanCursor,
    SpanListFilter, SpanListItem, SpanOrder, SpanSeries, SpanSummary, SpanTotals, SpanUnder, Stages,
    TraceSummary, TreeSpan, TypeTotal,
};
pub use self::stacks::StackFilter;
use crate::cancel::Cancelled;
use crate::model::{SpanId, TenantId, TraceId};
use crate::store::{Source, Store, StoreError};

#[cfg(test)]
mod tests;

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody waits for the answer any more.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Points of a time series must be apart.
    #[error("step: expected at least 0.001 seconds, got {} seconds", *.step_ms as f64 / 1000.0)]
    Step {
        /// What was asked for, in milliseconds.
        step_ms: i64,
    },
    /// The question would take too long, or too much memory, to answer.
    #[error("the question is about more than {max} {what}: {fix}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        max: usize,
        /// What to ask instead.
        fix: &'static str,
    },
}

/// Narrows a question to samples of some spans. Empty, it lets everything through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanFilter {
    /// Samples of any of these spans.
    pub span_ids: Vec<SpanId>,
    /// Samples of any span of these traces.
    pub trace_ids: Vec<TraceId>,
    /// Samples of a wanted span's descendants too, as far as the samples tell parents and local roots. Descendants in
    /// other processes are not followed.
    pub roll_up: bool,
}

impl Default for SpanFilter {
    fn default() -> Self {
        Self { span_ids: Vec::new(), trace_ids: Vec::new(), roll_up: true }
    }
}

impl SpanFilter {
    /// Samples of these spans and their descendants.
    pub fn spans(ids: impl IntoIterator<Item = SpanId>) -> Self {
        Self { span_ids: ids.into_iter().collect(), ..Self::default() }
    }

    /// Samples of these traces.
    pub fn traces(ids: impl IntoIterator<Item = TraceId>) -> Self {
        Self { trace_ids: ids.into_iter().collect(), ..Self::default() }
    }

    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.span_ids.is_empty() && self.trace_ids.is_empty()
    }
}

/// What there is of some tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Profiles stored.
    pub profiles: u64,
    /// Distinct spans with samples; one whose samples are in several parts of the store counts in each.
    pub spans: u64,
    /// When the oldest profile began, in Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// When the newest profile ended, in Unix milliseconds.
    pub newest_ms: Option<i64>,
}

/// Answers questions about some tenants' profiles. A profile is seen from the moment its append is acknowledged.
#[derive(Clone)]
pub struct Engine {
    store: Arc<Store>,
    tenants: Arc<[TenantId]>,
    /// Spans whose last profile ended before are not there, in Unix milliseconds.
    since_ms: Option<i64>,
}

impl Engine {
    /// An engine over what this store has of these tenants, each of them named once.
    pub fn new(store: Arc<Store>, tenants: Arc<[TenantId]>) -> Self {
        Self { store, tenants, since_ms: None }
    }

    /// The same, but in answers about spans and traces those are not there whose last profile ended before this instant, in
    /// Unix milliseconds. Questions that name a time see what they name.
    pub fn since(self, since_ms: Option<i64>) -> Self {
        Self { since_ms, ..self }
    }

    /// What a question is answered from.
    fn sources(&self) -> Vec<Arc<dyn Source>> {
        self.tenants.iter().for_each(|tenant| self.store.read_ahead(tenant));
        self.unread_sources()
    }

    /// The same, for who reads nothing of them.
    fn unread_sources(&self) -> Vec<Arc<dyn Source>> {
        self.tenants.iter().flat_map(|tenant| self.store.snapshot(tenant)).collect()
    }

    /// What there is.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for source in self.unread_sources() {
            stats.profiles += source.profiles();
            stats.spans += source.span_count();
            if let Some(bounds) = source.bounds() {
                stats.oldest_ms = Some(stats.oldest_ms.map_or(bounds.start_ms, |ms| ms.min(bounds.start_ms)));
                stats.newest_ms = Some(stats.newest_ms.map_or(bounds.end_ms, |ms| ms.max(bounds.end_ms)));
            }
        }
        stats
    }
}
