//! One thread's ring of samples: written by its signal handler, read by the collector.
//!
//! Records are reserved at full size, written in place and committed at the size they turned out to have. A record
//! never wraps: what is left at the end is skipped. Single producer, single consumer, no waiting.

use std::sync::OnceLock;

use crate::sync::{AtomicU64, Ordering, constructor};
use crate::sys::pages;

/// 64 KiB: twice what a thread can be sent between drains, which are the closer the more that is.
pub(super) const WORDS: usize = crate::sync::RING_WORDS;

/// Marks a header as covering unused words only.
const SKIP: u64 = 1 << 63;

/// A record's header holds its length in words in the low half and the producer's tag in the high half.
#[derive(Default)]
pub(super) struct Ring {
    words: OnceLock<&'static [AtomicU64; WORDS]>,
    /// Words ever committed. Written by the producer.
    head: AtomicU64,
    /// Words ever consumed. Written by the consumer.
    tail: AtomicU64,
}

impl Ring {
    constructor! {
        pub(super) fn new() -> Self {
            Self { words: OnceLock::new(), head: AtomicU64::new(0), tail: AtomicU64::new(0) }
        }
    }

    /// Gives the ring its memory, if it has none. `false` when the system is out of it.
    pub(super) fn allocate(&self) -> bool {
        // Whoever gives rings out holds a lock.
        if self.words.get().is_some() {
            return true;
        }
        let words = pages::words(WORDS).and_then(|words| words.try_into().ok());
        words.is_some_and(|words| self.words.set(words).is_ok())
    }

    /// Producer: room for `len` words in one piece, or `None` when the ring is full.
    #[inline]
    pub(super) fn reserve(&self, len: u16) -> Option<Reservation<'_>> {
        let len = usize::from(len);
        let words: &[AtomicU64; WORDS] = self.words.get()?;
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Acquire);
        let at = head as usize & (WORDS - 1);
        let Some(record) = words.get(at..at.wrapping_add(len).wrapping_add(1)) else {
            return self.reserve_from_start(words, head, tail, len);
        };
        self.reservation(record, head, tail, 0, len)
    }

    /// The same, leaving out what is left at the end.
    #[cold]
    #[inline(never)]
    fn reserve_from_start<'a>(
        &'a self,
        words: &'a [AtomicU64; WORDS],
        head: u64,
        tail: u64,
        len: usize,
    ) -> Option<Reservation<'a>> {
        let at = head as usize & (WORDS - 1);
        let skipped = WORDS.wrapping_sub(at);
        let record = words.get(..len.wrapping_add(1))?;
        let reservation = self.reservation(record, head, tail, skipped, len)?;
        words.get(at)?.store(SKIP | skipped as u64, Ordering::Relaxed);
        Some(reservation)
    }

    /// `None` if what is not consumed yet lies in `record`.
    #[inline]
    fn reservation<'a>(
        &'a self,
        record: &'a [AtomicU64],
        head: u64,
        tail: u64,
        skipped: usize,
        len: usize,
    ) -> Option<Reservation<'a>> {
        let start = head.wrapping_add(skipped as u64);
        if start.wrapping_sub(tail).wrapping_add(len as u64) >= WORDS as u64 {
            return None;
        }
        let (header, words) = record.split_first()?;
        Some(Reservation { ring: self, start, header, words })
    }

    /// Consumer: the oldest record's tag, with its words in `buffer`; `None` when the ring is empty.
    pub(super) fn pop(&self, buffer: &mut Vec<u64>) -> Option<u32> {
        let words: &[AtomicU64; WORDS] = self.words.get()?;
        let mask = WORDS - 1;
        let mut tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let mut header = words[tail as usize & mask].load(Ordering::Relaxed);
        if header & SKIP != 0 {
            // Skipped words are committed with the record after them.
            tail += header & !SKIP;
            header = words[tail as usize & mask].load(Ordering::Relaxed);
        }
        let len = header as u32 as usize;
        let first = (tail as usize & mask) + 1;
        buffer.clear();
        buffer.extend(words[first..first + len].iter().map(|word| word.load(Ordering::Relaxed)));
        self.tail.store(tail + 1 + len as u64, Ordering::Release);
        Some((header >> 32) as u32)
    }

    /// Consumer: drops every record.
    pub(super) fn clear(&self) {
        self.tail.store(self.head.load(Ordering::Acquire), Ordering::Release);
    }

    /// Consumer, once the producer is gone: drops every record and gives the memory behind them back.
    pub(super) fn retire(&self) {
        self.clear();
        if let Some(words) = self.words.get() {
            pages::forget(*words);
        }
    }
}

/// Room for one record. Dropping it without a commit leaves the ring as it was.
pub(super) struct Reservation<'a> {
    ring: &'a Ring,
    start: u64,
    header: &'a AtomicU64,
    /// To be written from the first on.
    pub(super) words: &'a [AtomicU64],
}

impl Reservation<'_> {
    /// Makes the first `len` words a record.
    #[inline]
    pub(super) fn commit(self, len: usize, tag: u32) {
        self.header.store(u64::from(tag) << 32 | len as u64, Ordering::Relaxed);
        self.ring.head.store(self.start.wrapping_add(1).wrapping_add(len as u64), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn ring() -> Ring {
        let ring = Ring::new();
        assert!(ring.allocate());
        ring
    }

    fn push(ring: &Ring, reserve: usize, record: &[u64], tag: u32) -> bool {
        let Some(reservation) = ring.reserve(reserve as u16) else { return false };
        assert_eq!(reservation.words.len(), reserve);
        for (word, value) in reservation.words.iter().zip(record) {
            word.store(*value, Ordering::Relaxed);
        }
        reservation.commit(record.len(), tag);
        true
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { reserve: usize, len: usize },
        Abandon { reserve: usize },
        Pop,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1..400usize, 0..=400usize).prop_map(|(reserve, len)| Step::Push { reserve, len: len.min(reserve) }),
            1 => (1..400usize).prop_map(|reserve| Step::Abandon { reserve }),
            6 => Just(Step::Pop),
            1 => prop_oneof![9 => Just(Step::Pop), 1 => Just(Step::Clear)],
        ]
    }

    proptest! {
        #[test]
        fn the_ring_is_a_bounded_queue(steps in proptest::collection::vec(step(), 1..600)) {
            let ring = ring();
            let mut model = VecDeque::new();
            let mut buffer = Vec::new();
            for (i, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push { reserve, len } => {
                        let record: Vec<u64> = (0..len).map(|word| (i * 1000 + word) as u64).collect();
                        let queued: usize = model.iter().map(|(record, _): &(Vec<u64>, u32)| record.len() + 1).sum();
                        let pushed = push(&ring, reserve, &record, i as u32);
                        // At most one lap's end is skipped at a time, and it is shorter than a record.
                        prop_assert!(pushed || queued + 2 * (reserve + 1) + 400 >= WORDS);
                        if pushed {
                            model.push_back((record, i as u32));
                        }
                    }
                    Step::Abandon { reserve } => drop(ring.reserve(reserve as u16)),
                    Step::Pop => {
                        let popped = ring.pop(&mut buffer).map(|tag| (buffer.clone(), tag));
                        prop_assert_eq!(popped, model.pop_front());
                    }
                    Step::Clear => {
                        ring.clear();
                        model.clear();
                    }
                }
            }
            while let Some(expected) = model.pop_front() {
                let popped = ring.pop(&mut buffer).map(|tag| (buffer.clone(), tag));
                prop_assert_eq!(popped, Some(expected));
            }
            prop_assert_eq!(ring.pop(&mut buffer), None);
        }
    }

    #[test]
    fn two_threads_pass_whole_records_in_order() {
        const RECORDS: u64 = 200_000;
        let ring = ring();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = 0;
                while next < RECORDS {
                    let len = 1 + (next % 97) as usize;
                    let record: Vec<u64> = (0..len as u64).map(|word| next ^ word << 32).collect();
                    if push(&ring, 100, &record, next as u32) {
                        next += 1;
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let mut buffer = Vec::new();
            let mut expected = 0;
            while expected < RECORDS {
                let Some(tag) = ring.pop(&mut buffer) else {
                    std::thread::yield_now();
                    continue;
                };
                assert_eq!(tag, expected as u32);
                assert_eq!(buffer.len(), 1 + (expected % 97) as usize);
                assert!(buffer.iter().enumerate().all(|(i, word)| *word == expected ^ (i as u64) << 32));
                expected += 1;
            }
        });
    }

    #[test]
    fn a_retired_ring_is_empty_and_usable() {
        let ring = ring();
        let mut buffer = Vec::new();
        for _ in 0..3 {
            assert!(push(&ring, 300, &[1; 300], 7));
            ring.retire();
            assert_eq!(ring.pop(&mut buffer), None);
            assert!(push(&ring, 300, &[2; 300], 8));
            assert_eq!(ring.pop(&mut buffer), Some(8));
            assert_eq!(buffer, [2; 300]);
        }
    }
}
