//! Room on the disk that is kept for entries of the manifest.
//!
//! To let go of a segment takes an entry that says so, and an entry takes room: on a disk that is full to the last byte nothing
//! could ever be removed. So a file lies ready that is given up for that, and made again when there is room.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::Disk;

const NAME: &str = "reserve";
/// Bytes that are kept.
pub(super) const BYTES: usize = 1 << 20;
/// Time between attempts to make it again, in milliseconds.
const PAUSE_MS: i64 = 15_000;

/// The file.
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    /// It is there.
    Kept,
    /// It is not, and is tried again from this time on, in Unix milliseconds.
    Missing(i64),
}

impl Reserve {
    /// The reserve in this data directory, made if it is not there and there is room.
    pub(super) fn open(disk: Arc<dyn Disk>, data_dir: &Path, bytes: usize, now_ms: i64) -> Self {
        let path = data_dir.join(NAME);
        // One that was being made when the power went is shorter.
        let kept = disk.beginning(&path, bytes).is_ok_and(|beginning| beginning.len() == bytes);
        let state = Mutex::new(if kept { State::Kept } else { State::Missing(i64::MIN) });
        let reserve = Self { disk, path, bytes, state };
        reserve.keep(now_ms);
        reserve
    }

    /// Makes it again if it is gone and there is room.
    pub(super) fn keep(&self, now_ms: i64) {
        let mut state = self.state.lock();
        let State::Missing(from_ms) = *state else { return };
        if now_ms < from_ms {
            return;
        }
        // Something half made may be there.
        let _ = self.disk.remove(&self.path);
        let made = self.disk.create(&self.path).and_then(|mut file| {
            file.append(&noise(self.bytes))?;
            file.sync()
        });
        *state = match made {
            Ok(()) => State::Kept,
            Err(_) => {
                let _ = self.disk.remove(&self.path);
                State::Missing(now_ms.saturating_add(PAUSE_MS))
            }
        };
    }

    /// Gives the room up; tells whether there was any.
    pub(super) fn release(&self, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, State::Missing(_)) || self.disk.remove(&self.path).is_err() {
            return false;
        }
        tracing::warn!(path = %self.path.display(), "the disk is full: room that was kept for the manifest is used");
        *state = State::Missing(now_ms.saturating_add(PAUSE_MS));
        true
    }
}

/// Gives the room up for who opens the store; tells whether there was any.
pub(super) fn give_up(disk: &dyn Disk, data_dir: &Path) -> bool {
    disk.remove(&data_dir.join(NAME)).is_ok()
}

/// Bytes that no file system makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
