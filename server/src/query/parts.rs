//! One question on several threads.

use std::thread;

use super::QueryError;
use crate::{cancel, telemetry};

/// The fewest things asked about that are worth a thread: starting one takes as long as some of them.
const LEAST: usize = 64;
/// The most threads that one question takes; other questions need some too.
const MOST: usize = 4;

/// Asks about parts of `items` side by side, as many as there are processors. `ask` has an answer for each of its part, in
/// their order; so have the answers to all.
///
/// # Errors
/// That of the first part that has one. The others are finished nevertheless.
pub(super) fn in_parts<Item: Sync, Answer: Send>(
    items: &[Item],
    ask: impl Fn(&[Item]) -> Result<Vec<Answer>, QueryError> + Sync,
) -> Result<Vec<Answer>, QueryError> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    in_so_many(processors.min(MOST).min(items.len() / LEAST), items, ask)
}

fn in_so_many<Item: Sync, Answer: Send>(
    parts: usize,
    items: &[Item],
    ask: impl Fn(&[Item]) -> Result<Vec<Answer>, QueryError> + Sync,
) -> Result<Vec<Answer>, QueryError> {
    if parts < 2 {
        return ask(items);
    }
    let (here, elsewhere) = items.split_at(items.len().div_ceil(parts));
    thread::scope(|scope| {
        let ask = &ask;
        let spawn = |part| scope.spawn(cancel::carry(telemetry::carry(move || ask(part))));
        let asked: Vec<_> = elsewhere.chunks(here.len()).map(spawn).collect();
        let mut answers = ask(here)?;
        for part in asked {
            answers.extend(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(answers)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::{Cancel, Cancelled};

    #[test]
    fn answers_are_in_the_order_of_what_was_asked() {
        let items: Vec<usize> = (0..1000).collect();
        for parts in [0, 1, 2, 3, 7, 999, 1000] {
            let answers = in_so_many(parts, &items, |part| Ok(part.iter().map(|item| item * 2).collect()));
            assert!(answers.unwrap().into_iter().eq((0..1000).map(|item| item * 2)), "{parts} parts");
        }
        assert_eq!(in_parts(&[0; 0], |part| Ok(part.to_vec())).unwrap(), [0; 0]);
        assert_eq!(in_parts(&items, |part| Ok(part.to_vec())).unwrap(), items);
    }

    #[test]
    fn every_part_is_told_to_stop_and_an_error_is_everybodys() {
        let cancel = Cancel::default();
        drop(cancel.on_drop());
        let stopped = |part: &[usize]| match part {
            // What is asked here would hear of it anyhow.
            [0, ..] => Ok(vec![()]),
            _ => cancel::check().map(|()| vec![()]).map_err(QueryError::from),
        };
        let found = in_so_many(2, &[0, 1], stopped);
        assert_eq!(found.unwrap(), [(); 2], "nobody gave up");
        let found = cancel.within(|| in_so_many(2, &[0, 1], stopped));
        assert!(matches!(found, Err(QueryError::Cancelled(Cancelled))));
    }
}
