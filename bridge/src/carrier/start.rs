//! The last resort: a span labels the thread that starts it until it ends there. Right for code that never leaves its
//! thread, wrong after the first `.await`; off unless asked for.

use std::cell::RefCell;

use super::stack::{self, Entry};
use crate::live::Live;
use crate::spans::{SpanId, SpanKey};

/// Spans that one thread has started and not ended. Those that end elsewhere are let go of when this is reached.
const MAX_OPEN: usize = 1024;

thread_local! {
    static OPEN: RefCell<Vec<Started>> = const { RefCell::new(Vec::new()) };
}

struct Started {
    span_id: SpanId,
    key: SpanKey,
    _label: Entry,
}

/// A span has started on the calling thread.
pub(crate) fn started(live: &Live, span_id: SpanId, key: SpanKey) {
    with_open(|open| {
        forget_ended(live, open);
        if open.len() == MAX_OPEN {
            open.retain(|started| live.table.read(started.key).is_some());
        }
        if open.len() < MAX_OPEN
            && let Some(label) = stack::push(key)
        {
            open.push(Started { span_id, key, _label: label });
        }
    });
}

/// A span has ended on the calling thread, and is no longer in the table.
pub(crate) fn ended(live: &Live, span_id: SpanId) {
    with_open(|open| {
        if let Some(place) = open.iter().rposition(|started| started.span_id == span_id) {
            open.remove(place);
            forget_ended(live, open);
        }
    });
}

/// Lets go of the latest spans, as long as they have ended elsewhere.
fn forget_ended(live: &Live, open: &mut Vec<Started>) {
    while open.last().is_some_and(|started| live.table.read(started.key).is_none()) {
        open.pop();
    }
}

fn with_open(change: impl FnOnce(&mut Vec<Started>)) {
    // A thread past its end has no label any more.
    let _ = OPEN.try_with(|open| {
        if let Ok(mut open) = open.try_borrow_mut() {
            change(&mut open);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::SpanRecord;

    fn start(live: &Live, id: u64) {
        let span_id = SpanId(id);
        let key = live.table.insert(&SpanRecord { span_id, ..SpanRecord::default() }).expect("room");
        started(live, span_id, key);
    }

    fn open() -> Vec<u64> {
        OPEN.with_borrow(|open| open.iter().map(|started| started.span_id.0).collect())
    }

    #[test]
    fn spans_that_end_elsewhere_do_not_pile_up() {
        let _turn = crate::sampler::TURN.lock();
        let live = Live::get();
        let end = |id| {
            live.table.remove(SpanId(id));
            ended(live, SpanId(id));
        };
        for id in 1..=3 {
            start(live, id);
        }
        end(2);
        assert_eq!(open(), [1, 3], "ended out of order");
        live.table.remove(SpanId(3));
        start(live, 4);
        assert_eq!(open(), [1, 4], "ended elsewhere");
        live.table.remove(SpanId(1));
        end(4);
        assert_eq!(open(), [] as [u64; 0]);

        for id in 10..10 + 2 * MAX_OPEN as u64 {
            start(live, id);
            // The latest one lives, so that those before it stay for now.
            live.table.remove(SpanId(id - 1));
            start(live, id + 1_000_000);
            live.table.remove(SpanId(id));
            assert!(open().len() <= MAX_OPEN);
        }
        for id in open() {
            end(id);
        }
        assert_eq!(open(), [] as [u64; 0]);
    }
}
