//! A thread's ring: its signal handler writes, the collector reads.

use std::sync::Arc;

use loom::thread;

use crate::check;
use crate::ring::Ring;
use crate::sync::Ordering;

/// A record whose words and tag follow from its number.
fn push(ring: &Ring, number: u64, len: u16) -> bool {
    let Some(reservation) = ring.reserve(len) else { return false };
    for (i, word) in reservation.words.iter().enumerate() {
        word.store(number * 10 + i as u64, Ordering::Relaxed);
    }
    reservation.commit(usize::from(len), number as u32);
    true
}

/// The number of the oldest record, which must be whole.
fn pop(ring: &Ring, buffer: &mut Vec<u64>) -> Option<u64> {
    let number = u64::from(ring.pop(buffer)?);
    let expected: Vec<u64> = (0..buffer.len() as u64).map(|i| number * 10 + i).collect();
    assert!(!buffer.is_empty() && *buffer == expected, "{number}: {buffer:?}");
    Some(number)
}

fn ring() -> Arc<Ring> {
    let ring = Ring::new();
    assert!(ring.allocate());
    Arc::new(ring)
}

/// The records that a consumer finds in `tries` looks.
fn consume(ring: &Ring, tries: usize) -> Vec<u64> {
    let mut buffer = Vec::new();
    (0..tries).filter_map(|_| pop(ring, &mut buffer)).collect()
}

// The consumer is the thread that is started: loom's reduction takes a thread's own look at what it then writes for the
// last look of all, so it would not let a producer that is started run in between.

pub(crate) fn check_all() {
    check("ring: records of several words arrive whole, in order, across the end", || {
        let ring = ring();
        // The next but one does not fit before the end.
        assert!(push(&ring, 1, 2));
        assert_eq!(consume(&ring, 1), [1]);
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || consume(&ring, 3))
        };
        let pushed: Vec<u64> = (2..=5).filter(|number| push(&ring, *number, 2)).collect();
        let mut popped = consumer.join().expect("it ends");
        popped.extend(consume(&ring, 4));
        assert_eq!(popped, pushed);
        assert!(pushed.len() >= 2, "there was room for two");
    });

    check("ring: what is cleared is gone and the rest is whole", || {
        let ring = ring();
        assert!(push(&ring, 1, 2));
        let consumer = {
            let ring = ring.clone();
            thread::spawn(move || {
                ring.clear();
                consume(&ring, 2)
            })
        };
        assert!(push(&ring, 2, 2));
        let mut popped = consumer.join().expect("it ends");
        assert!(matches!(popped[..], [] | [2]), "{popped:?}");
        assert!(push(&ring, 3, 2));
        popped = consume(&ring, 2);
        assert!(popped.ends_with(&[3]), "{popped:?}");
        ring.retire();
        assert_eq!(consume(&ring, 1), []);
    });
}
