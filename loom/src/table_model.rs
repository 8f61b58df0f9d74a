//! The table of live spans: one reader, as a signal handler is, beside those who start and end spans.

use std::sync::Arc;

use loom::thread;

use crate::check;
use crate::spans::{LabelSetId, SpanId, SpanKey, SpanRecord, SpanTable, TraceId};

/// Every field follows from the id, so that a mixed record shows.
fn record(id: u64) -> SpanRecord {
    SpanRecord {
        span_id: SpanId(id),
        parent: SpanId(id ^ 1),
        local_root: SpanId(id ^ 2),
        trace_id: TraceId(u128::from(id) << 64 | u128::from(!id)),
        labels: LabelSetId(id as u32),
        root_labels: LabelSetId((id >> 32) as u32),
        tagged: id & 1 == 1,
    }
}

fn table() -> Arc<SpanTable> {
    Arc::new(SpanTable::new(0))
}

fn insert(table: &SpanTable, id: u64) -> SpanKey {
    table.insert(&record(id)).expect("room")
}

/// The first ids of one bucket.
fn neighbours(count: usize) -> Vec<u64> {
    // The table's own hash, for its smallest size: the highest bit chooses one of two buckets.
    (1..).filter(|id: &u64| id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 0).take(count).collect()
}

/// Reads `key` once: the whole record of `id`, or nothing.
fn read(table: &SpanTable, key: SpanKey, id: u64) -> bool {
    let found = table.read(key);
    assert!(found.is_none_or(|found| found == record(id)), "{found:?} under the key of {id}");
    found.is_some()
}

pub(crate) fn check_all() {
    check("table: a span ends and its entry has a new tenant", || {
        let table = table();
        let [old, new] = neighbours(2)[..] else { unreachable!("two ids") };
        let key = insert(&table, old);
        let reader = {
            let table = table.clone();
            thread::spawn(move || read(&table, key, old))
        };
        table.remove(SpanId(old));
        let next = insert(&table, new);
        reader.join().expect("the reader ends");
        assert!(!read(&table, key, old), "an ended span");
        assert!(read(&table, next, new));
    });

    check("table: a full bucket gives an entry away", || {
        let table = table();
        let ids = neighbours(9);
        let keys: Vec<SpanKey> = ids[..8]
            .iter()
            .map(|id| {
                table.advance();
                insert(&table, *id)
            })
            .collect();
        table.advance();
        let reader = {
            let (table, key, id) = (table.clone(), keys[0], ids[0]);
            thread::spawn(move || read(&table, key, id))
        };
        let newest = insert(&table, ids[8]);
        reader.join().expect("the reader ends");
        assert!(!read(&table, keys[0], ids[0]), "the oldest is gone");
        assert!(read(&table, newest, ids[8]) && read(&table, keys[7], ids[7]));
        assert_eq!(table.evicted(), 1);
    });

    check("table: two spans start at once, and each is found", || {
        let table = table();
        let [first, second] = neighbours(2)[..] else { unreachable!("two ids") };
        let other = {
            let table = table.clone();
            thread::spawn(move || insert(&table, first))
        };
        let key = insert(&table, second);
        let other = other.join().expect("it ends");
        assert!(read(&table, key, second) && read(&table, other, first));
        assert_eq!(table.find(SpanId(first)), Some((other, record(first))));
    });

    check("table: a removal beside an eviction spares the next tenant", || {
        let table = table();
        let ids = neighbours(9);
        for id in &ids[..8] {
            table.advance();
            insert(&table, *id);
        }
        let oldest = ids[0];
        let remover = {
            let table = table.clone();
            thread::spawn(move || table.remove(SpanId(oldest)))
        };
        // Either a free entry is found or one is given away.
        let newest = insert(&table, ids[8]);
        remover.join().expect("it ends");
        assert!(read(&table, newest, ids[8]), "removed along with the span before it");
        assert_eq!(table.find(SpanId(oldest)), None);
    });
}
