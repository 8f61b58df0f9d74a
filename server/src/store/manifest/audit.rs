//! Looking at every object of the manifest, whether it is still needed or not.

use std::collections::BTreeMap;
use std::io;

use serde::de::DeserializeOwned;

use super::{CHECKPOINTS, Checkpoint, ENTRIES, Entry, State, number, object, unframe};
use crate::store::StoreError;
use crate::store::objects::Objects;

/// What there is of a manifest.
#[derive(Debug, Default)]
pub(in crate::store) struct Audit {
    /// Numbers of the entries.
    pub(in crate::store) entries: Vec<u64>,
    /// Numbers of the checkpoints.
    pub(in crate::store) checkpoints: Vec<u64>,
    /// Bytes that were read.
    pub(in crate::store) bytes: u64,
}

/// What it costs that an object is damaged.
const NEEDED: &str = "a server does not start if it needs it";
const NEEDLESS: &str = "a server starts without it, as what it stands for is there in other objects";

/// Told of each object that is not what was written: its name, what is wrong, and what that costs.
type Tell<'a> = dyn FnMut(&str, String, &'static str) + 'a;

/// Reads every entry and checkpoint, and compares each checkpoint with what the entries before it come to. Those that went
/// meanwhile are no damage.
///
/// # Errors
/// When the objects cannot be listed, or one is of a version that is not known.
pub(in crate::store) fn audit(objects: &dyn Objects, damaged: &mut Tell<'_>) -> Result<Audit, StoreError> {
    let list = |prefix: &str| -> Result<Vec<u64>, StoreError> {
        let names = objects.list(prefix, "");
        let names = names.map_err(|error| StoreError::io("list", &objects.place(prefix), error))?;
        Ok(names.iter().filter_map(|name| number(name)).collect())
    };
    // In this order: every entry before a checkpoint is older than that.
    let checkpoints = list(CHECKPOINTS)?;
    let mut audit = Audit { checkpoints, entries: list(ENTRIES)?, bytes: 0 };
    let mut states: BTreeMap<u64, State> = BTreeMap::new();
    let mut broken = Vec::new();
    for &number in &audit.checkpoints {
        let mut tell = |name: &str, what, _| broken.push((name.to_owned(), what));
        let read = read::<Checkpoint>(objects, &object(CHECKPOINTS, number), &mut audit.bytes, &mut tell)?;
        states.extend(read.map(|checkpoint| (number, checkpoint.state)));
    }
    // Others lead to the same, or all the entries do.
    let means = if states.is_empty() && audit.entries.first() != Some(&1) { NEEDED } else { NEEDLESS };
    broken.into_iter().for_each(|(name, what)| damaged(&name, what, means));
    let from = states.last_key_value().map_or(1, |(number, _)| *number);
    // What is known of the state before the entry that is looked at.
    let mut state = (audit.entries.first() == Some(&1)).then(State::default);
    let mut next = audit.entries.first().copied().unwrap_or(from);
    for &number in &audit.entries {
        for missing in next.max(from)..number {
            damaged(&object(ENTRIES, missing), format!("it is missing, while there is {number}"), NEEDED);
        }
        if number > next {
            state = None;
        }
        check(&mut state, &states, number, damaged);
        next = number + 1;
        let entry = read::<Entry>(objects, &object(ENTRIES, number), &mut audit.bytes, damaged)?;
        state = state.zip(entry).map(|(mut state, entry)| {
            state.apply(entry);
            state
        });
    }
    check(&mut state, &states, next, damaged);
    Ok(audit)
}

/// Compares a state with the checkpoint that says what it should be, and goes on with the latter.
fn check(state: &mut Option<State>, states: &BTreeMap<u64, State>, number: u64, damaged: &mut Tell<'_>) {
    let Some(said) = states.get(&number) else { return };
    // Earlier versions of the server did not keep `logs_from`, and forgot nobody.
    let same_logs = |state: &State| {
        state.logs.iter().all(|(server, logs)| said.logs.get(server).is_none_or(|said| said == logs))
    };
    let same = |state: &State| state.segments == said.segments && same_logs(state);
    if state.as_ref().is_some_and(|state| !same(state)) {
        let what = "it is not what the entries before it come to".to_owned();
        damaged(&object(CHECKPOINTS, number), what, NEEDED);
    }
    *state = Some(said.clone());
}

fn read<T: DeserializeOwned>(
    objects: &dyn Objects,
    name: &str,
    bytes: &mut u64,
    damaged: &mut Tell<'_>,
) -> Result<Option<T>, StoreError> {
    let got = match objects.get(name) {
        Ok(got) => got,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            damaged(name, format!("it cannot be read: {error}"), NEEDED);
            return Ok(None);
        }
    };
    *bytes += got.len() as u64;
    match unframe(name, &got) {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Damaged { why, .. }) => {
            damaged(name, why, NEEDED);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
