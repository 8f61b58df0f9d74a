//! What the world does to a disk: errors, delays, a power failure in the middle of something.

use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::fake_disk::{Failure, Operation, Weather};
use super::chance::Chance;

/// How things stand between the disk and the world.
pub(super) struct Sky {
    chance: Chance,
    /// Virtual time, in Unix milliseconds.
    pub(super) now_ms: i64,
    /// Of a thousand operations so many fail.
    pub(super) errors: u64,
    /// Of a thousand so many take their time.
    pub(super) delays: u64,
    /// Operations until the power fails.
    pub(super) fuse: Option<u64>,
    /// The power failed: nothing works any more.
    pub(super) dead: bool,
    /// Nothing goes wrong.
    pub(super) calm: bool,
    /// Operations that went wrong.
    pub(super) faults: u64,
    /// Operations.
    pub(super) operations: u64,
    /// A sum of all that was asked of the disk, in its order.
    pub(super) digest: u64,
}

impl Sky {
    pub(super) fn new(chance: Chance, now_ms: i64) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            chance,
            now_ms,
            errors: 0,
            delays: 0,
            fuse: None,
            dead: false,
            calm: true,
            faults: 0,
            operations: 0,
            digest: 0,
        }))
    }

    fn ask(&mut self, operation: Operation) -> Option<Failure> {
        self.operations += 1;
        let mut hasher = std::hash::DefaultHasher::new();
        (operation, self.digest).hash(&mut hasher);
        self.digest = hasher.finish();
        // What a look at how things stand reads was read before.
        if self.dead && !(self.calm && operation == Operation::Read) {
            return Some(Failure { kind: ErrorKind::Other, done: 0 });
        }
        if self.calm {
            return None;
        }
        if self.chance.below(1000) < self.delays {
            self.now_ms += self.chance.below(20_000) as i64;
        }
        if operation != Operation::Read
            && let Some(left) = &mut self.fuse
        {
            if *left == 0 {
                self.dead = true;
                self.faults += 1;
                return Some(self.failure(operation, ErrorKind::Other));
            }
            *left -= 1;
        }
        if self.chance.below(1000) >= self.errors {
            return None;
        }
        self.faults += 1;
        let kinds =
            [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::TimedOut, ErrorKind::PermissionDenied];
        let kind = *self.chance.pick(&kinds);
        Some(self.failure(operation, kind))
    }

    /// Half done, or done and told as an error, or neither.
    fn failure(&mut self, operation: Operation, kind: ErrorKind) -> Failure {
        let done = match operation {
            Operation::Append(bytes) => self.chance.index(bytes + 1),
            _ => self.chance.index(2),
        };
        Failure { kind, done }
    }
}

/// The sky as a disk asks it; `meanwhile` runs now and then in the middle of an operation.
pub(super) fn weather(sky: &Arc<Mutex<Sky>>, meanwhile: fn()) -> Weather {
    let sky = Arc::clone(sky);
    Arc::new(move |operation| {
        let (failure, look) = {
            let mut sky = sky.lock();
            let failure = sky.ask(operation);
            let look = operation != Operation::Read && !sky.calm && sky.chance.one_in(25);
            (failure, look)
        };
        if look {
            let was = std::mem::replace(&mut sky.lock().calm, true);
            meanwhile();
            sky.lock().calm = was;
        }
        failure
    })
}
