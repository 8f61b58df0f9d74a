//! How much the current query may ask for: found out once for each request, and read where its range and the size of its
//! answer are read.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use connectrpc::ConnectError;

use super::App;
use crate::ingest::Limits;
use crate::model::TimeRange;

/// Later than any profile, whose times are nanoseconds; arithmetic with it is far from overflowing.
const NEVER_MS: i64 = i64::MAX / 4;

/// A range of which both ends are open, and whose ends stand for open ones.
pub(super) const OPEN: TimeRange = TimeRange { start_ms: i64::MIN, end_ms: i64::MAX };

/// What a query may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The longest range, in milliseconds; 0 for any.
    length_ms: u64,
    /// How far back it sees, in milliseconds; 0 for all that is kept.
    lookback_ms: u64,
    default_nodes: usize,
    most_nodes: usize,
}

tokio::task_local! {
    static CURRENT: Bounds;
    /// What counts refusals.
    static COUNTING: Arc<App>;
}

impl Default for Bounds {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

impl Bounds {
    /// What a tenant's limits say.
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            length_ms: limits.max_query_length_ms,
            lookback_ms: limits.max_query_lookback_ms,
            default_nodes: limits.default_flamegraph_nodes,
            most_nodes: limits.max_flamegraph_nodes,
        }
    }

    /// What both allow: a query of several tenants keeps to the limits of each.
    pub(super) fn and(self, other: Self) -> Self {
        let least = |a: u64, b: u64| if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
        Self {
            length_ms: least(self.length_ms, other.length_ms),
            lookback_ms: least(self.lookback_ms, other.lookback_ms),
            default_nodes: self.default_nodes.min(other.default_nodes),
            most_nodes: self.most_nodes.min(other.most_nodes),
        }
    }

    /// Does a request's work within them.
    pub(super) async fn within<T>(self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self, work).await
    }

    /// Those of the request that the current task is about.
    fn current() -> Self {
        CURRENT.try_with(|bounds| *bounds).unwrap_or_default()
    }

    /// The instant from which on anything is seen.
    fn since(self, now_ms: i64) -> Option<i64> {
        (self.lookback_ms > 0).then(|| now_ms.saturating_sub(signed(self.lookback_ms)))
    }

    /// What is seen of the range that a query names, or why it may not name it. An open end is the present, an open
    /// beginning as long before the end as may be; without either it sees all it may.
    fn range(self, named: Option<TimeRange>, now_ms: i64) -> Result<Option<TimeRange>, ConnectError> {
        let length = signed(self.length_ms);
        let range = named.unwrap_or(OPEN);
        let until = if range.end_ms == OPEN.end_ms { now_ms } else { range.end_ms };
        let start_ms = match range.start_ms {
            ms if ms == OPEN.start_ms && length > 0 => until.saturating_sub(length),
            ms => ms,
        };
        let got = until.saturating_sub(start_ms);
        if length > 0 && got > length {
            refuse("max_query_length_ms");
            return Err(ConnectError::invalid_argument(format!(
                "start, end: a range of {got} ms is over the limit max_query_length_ms of {length}; ask for less, or \
                 raise the limit"
            )));
        }
        let start_ms = start_ms.max(self.since(now_ms).unwrap_or(i64::MIN));
        if start_ms == OPEN.start_ms && named.is_none() {
            return Ok(None);
        }
        let end_ms = range.end_ms.min(NEVER_MS);
        if start_ms <= end_ms {
            return Ok(Some(TimeRange { start_ms, end_ms }));
        }
        // All of it is too long ago: nothing is seen, which is no mistake.
        Ok(Some(TimeRange { start_ms: NEVER_MS, end_ms: NEVER_MS }))
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// What the current query sees of the range that it names.
pub(super) fn range(named: Option<TimeRange>) -> Result<Option<TimeRange>, ConnectError> {
    Bounds::current().range(named, now_ms())
}

/// The same for a query that looks spans or traces up by their ids: it reads no others, however long the range is, so that
/// only how far back it sees counts.
pub(super) fn range_by_id(named: Option<TimeRange>) -> Result<Option<TimeRange>, ConnectError> {
    Bounds { length_ms: 0, ..Bounds::current() }.range(named, now_ms())
}

/// The instant from which on the current query sees anything, in Unix milliseconds; none if it sees all that is kept.
pub(super) fn since() -> Option<i64> {
    Bounds::current().since(now_ms())
}

/// Does a request's work such that refusals are counted.
pub(super) async fn counted<T>(app: Arc<App>, work: impl Future<Output = T>) -> T {
    COUNTING.scope(app, work).await
}

/// Does work elsewhere within the bounds of the current request.
pub(super) fn carry<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (bounds, app) = (Bounds::current(), COUNTING.try_with(Arc::clone).ok());
    let work = move || CURRENT.sync_scope(bounds, work);
    move || match app {
        Some(app) => COUNTING.sync_scope(app, work),
        None => work(),
    }
}

/// Counts a query that is refused for a limit of this name.
fn refuse(limit: &'static str) {
    let _ = COUNTING.try_with(|app| app.metrics.refuse(limit));
}

/// How many nodes a flame graph has if the current query names no number.
pub(super) fn default_nodes() -> usize {
    Bounds::current().default_nodes
}

/// How many nodes the current query may name.
pub(super) fn most_nodes() -> usize {
    Bounds::current().most_nodes
}

/// A number of nodes that the current query names, if it may.
pub(super) fn nodes(named: i64) -> Result<usize, ConnectError> {
    let most = most_nodes();
    match usize::try_from(named) {
        Ok(nodes) if nodes <= most => Ok(nodes),
        beyond => {
            if beyond.is_ok() {
                refuse("max_flamegraph_nodes");
            }
            Err(ConnectError::invalid_argument(format!(
                "max_nodes: expected 0 to {most} (max_flamegraph_nodes), got {named}; ask for fewer, or raise the limit"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn range(start_ms: i64, end_ms: i64) -> TimeRange {
        TimeRange { start_ms, end_ms }
    }

    #[test]
    fn without_limits_everything_is_seen() {
        let bounds = Bounds::default();
        assert_eq!(bounds.range(None, NOW).unwrap(), None);
        assert_eq!(bounds.range(Some(range(1000, 4000)), NOW).unwrap(), Some(range(1000, 4000)));
        assert_eq!((bounds.default_nodes, bounds.most_nodes), (8192, 1 << 20));
    }

    #[test]
    fn what_is_too_long_is_refused_and_what_is_too_long_ago_is_not_seen() {
        let bounds = Bounds { length_ms: 100, lookback_ms: 1000, ..Bounds::default() };
        assert_eq!(bounds.range(Some(range(NOW - 100, NOW)), NOW).unwrap(), Some(range(NOW - 100, NOW)));
        let error = bounds.range(Some(range(NOW - 101, NOW)), NOW).unwrap_err().message.unwrap();
        assert!(error.contains("101 ms is over the limit max_query_length_ms of 100"), "{error}");
        assert!(bounds.range(Some(range(i64::MIN + 1, i64::MAX)), NOW).is_err());
        let seen = bounds.range(Some(range(NOW - 1050, NOW - 950)), NOW).unwrap();
        assert_eq!(seen, Some(range(NOW - 1000, NOW - 950)));
        let seen = bounds.range(Some(range(1000, 1100)), NOW).unwrap();
        assert_eq!(seen, Some(range(NEVER_MS, NEVER_MS)), "no error: clients check their connection so");
        assert_eq!(bounds.range(None, NOW).unwrap(), Some(range(NOW - 100, NEVER_MS)));
    }

    #[test]
    fn an_open_end_is_now_and_an_open_beginning_as_long_before_the_end_as_may_be() {
        let bounds = Bounds { length_ms: 100, ..Bounds::default() };
        let seen = |start, end| bounds.range(Some(range(start, end)), NOW).map(Option::unwrap);
        assert_eq!(seen(NOW - 100, i64::MAX).unwrap(), range(NOW - 100, NEVER_MS));
        assert!(seen(NOW - 101, i64::MAX).is_err());
        assert_eq!(seen(i64::MIN, 5000).unwrap(), range(4900, 5000));
        assert_eq!(seen(i64::MIN, i64::MAX).unwrap(), range(NOW - 100, NEVER_MS));
        assert_eq!(seen(NOW + 5, i64::MAX).unwrap(), range(NOW + 5, NEVER_MS));
        let free = Bounds::default();
        assert_eq!(free.range(Some(range(i64::MIN, 5)), NOW).unwrap(), Some(range(i64::MIN, 5)));
        let both = Bounds { lookback_ms: 50, ..bounds };
        assert_eq!(both.range(Some(range(i64::MIN, NOW)), NOW).unwrap(), Some(range(NOW - 50, NOW)));
    }

    #[tokio::test]
    async fn look_ups_by_id_have_no_longest_range_but_a_farthest_instant() {
        let bounds = Bounds { length_ms: 100, ..Bounds::default() };
        bounds
            .within(async {
                assert_eq!(range_by_id(None).unwrap(), None);
                assert_eq!(range_by_id(Some(range(1, 5000))).unwrap(), Some(range(1, 5000)));
                assert_eq!(since(), None);
            })
            .await;
        let bounds = Bounds { lookback_ms: 1000, ..bounds };
        bounds
            .within(async {
                let first = range_by_id(None).unwrap().unwrap().start_ms;
                assert!(first > 1000 && since().unwrap() >= first);
            })
            .await;
    }

    #[test]
    fn several_tenants_have_the_limits_of_each() {
        let a = Bounds { length_ms: 5, lookback_ms: 0, default_nodes: 10, most_nodes: 20 };
        let b = Bounds { length_ms: 0, lookback_ms: 7, default_nodes: 5, most_nodes: 30 };
        let both = Bounds { length_ms: 5, lookback_ms: 7, default_nodes: 5, most_nodes: 20 };
        assert_eq!((a.and(b), b.and(a)), (both, both));
        assert_eq!(a.and(a), a);
    }

    #[tokio::test]
    async fn the_current_request_has_its_own() {
        assert_eq!(most_nodes(), 1 << 20);
        let few = Bounds { most_nodes: 3, default_nodes: 2, ..Bounds::default() };
        assert_eq!(few.within(async { (default_nodes(), most_nodes()) }).await, (2, 3));
        let carried = few.within(async { tokio::task::spawn_blocking(carry(most_nodes)).await }).await;
        assert_eq!(carried.expect("no panic"), 3);
    }
}
