//! Entries and checkpoints that nobody needs any more.

use std::io::ErrorKind;

use super::{CHECKPOINTS, Checkpoint, ENTRIES, KEPT_MS, number, unframe};
use crate::store::StoreError;
use crate::store::objects::Objects;

/// Removes what a checkpoint of more than an hour ago stands for, while `go_on` says so: `most` objects at a time, as whoever
/// does it has other work. Needs nothing of what is known here, so nobody waits for it.
pub(in crate::store) fn remove_old(
    objects: &dyn Objects,
    now_ms: i64,
    most: usize,
    go_on: impl Fn() -> bool,
) -> Result<(), StoreError> {
    let list = |prefix: &str| {
        let listed = objects.list(prefix, "");
        listed.map_err(|error| StoreError::io("list", &objects.place(prefix), error))
    };
    let checkpoints = list(CHECKPOINTS)?;
    // The last may turn out damaged: the one before stays whatever its age.
    let Some((last, candidates)) = checkpoints.split_last() else { return Ok(()) };
    // Clocks of servers differ, and an hour between two of them may be a moment: where they share a bucket its own clock
    // counts, by which it is later than the last checkpoint.
    let now_ms = if objects.is_shared() {
        let created = objects.modified_ms(last);
        created.map_err(|error| StoreError::io("read", &objects.place(last), error))?
    } else {
        now_ms
    };
    let (mut low, mut high) = (0, candidates.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_old(objects, &candidates[middle], now_ms)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(before) = candidates[..low].last().and_then(|name| number(name)) else { return Ok(()) };
    let needless = |name: &String| number(name).is_some_and(|number| number < before);
    // Without the checkpoints nothing leads to the entries.
    let old = checkpoints.into_iter().chain(list(ENTRIES)?).filter(needless);
    for name in old.take(most) {
        if !go_on() {
            break;
        }
        objects.remove(&name).map_err(|error| StoreError::io("remove", &objects.place(&name), error))?;
    }
    Ok(())
}

fn is_old(objects: &dyn Objects, name: &str, now_ms: i64) -> Result<bool, StoreError> {
    let read = || -> std::io::Result<bool> {
        // One that is damaged stands for nothing.
        let Ok(checkpoint) = unframe::<Checkpoint>(name, &objects.get(name)?) else { return Ok(false) };
        let ms = if objects.is_shared() { objects.modified_ms(name)? } else { checkpoint.at_ms };
        Ok(now_ms.saturating_sub(ms) >= KEPT_MS)
    };
    match read() {
        // Another server has found it old.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        read => read.map_err(|error| StoreError::io("read", &objects.place(name), error)),
    }
}
