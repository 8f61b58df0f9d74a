//! Reading a log of many files, damaged and whole, one at a time and several.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::*;
use crate::store::fake_disk::{FakeDisk, Loss};
use crate::store::log::LogWriter;

/// Payloads in the order in which they were taken, by the number of their file.
type Taken = Vec<(u64, Vec<Vec<u8>>)>;

/// Keeps payloads as they are, but for those that begin with `bad`.
#[derive(Default)]
struct Keep(Mutex<Taken>);

impl Replay for Keep {
    type Part = Vec<Vec<u8>>;

    fn add(&self, part: &mut Self::Part, payload: &[u8]) -> Result<(), String> {
        if payload.starts_with(b"bad") {
            return Err("turned down".into());
        }
        part.push(payload.to_vec());
        Ok(())
    }

    fn take(&self, sequence: u64, part: Self::Part) {
        self.0.lock().push((sequence, part));
    }

    fn has_room(&self, _bytes: usize) -> bool {
        true
    }
}

fn clock() -> Clock {
    Arc::new(|| 7)
}

fn dir_on(disk: &FakeDisk) -> LogDir {
    LogDir { disk: Arc::new(disk.clone()), path: "/log".into() }
}

/// A disk with so many log files, of three records each.
fn log_of(files: u64) -> FakeDisk {
    let disk = FakeDisk::default();
    for _ in 0..files {
        let next = dir_on(&disk).files().unwrap().len() as u64 + 1;
        let recovered = Recovered { next_sequence: next, ..Recovered::default() };
        let mut writer = LogWriter::new(dir_on(&disk), clock(), 1 << 20, &recovered);
        for record in 0..3 {
            writer.write([format!("file {next} record {record}").as_bytes()].into_iter()).unwrap();
        }
    }
    disk
}

#[test]
fn how_many_files_are_read_at_a_time_changes_nothing_that_is_found_told_or_left() {
    let disk = log_of(9);
    let path = |sequence| dir_on(&disk).file(sequence);
    disk.rot(&path(2), |bytes| bytes[HEADER_BYTES + 20] ^= 1);
    disk.rot(&path(4), |bytes| bytes.truncate(bytes.len() - 1));
    disk.rot(&path(5), |bytes| put_record(bytes, 5, 0, b"bad"));
    disk.rot(&path(7), |bytes| bytes.truncate(HEADER_BYTES));
    disk.rot(&path(9), |bytes| bytes.extend([0xf5; 5]));
    let read = |at_once| {
        let disk = disk.after(Loss::Nothing);
        disk.refuse_to_read(&path(6));
        let keep = Keep::default();
        let recovered = recover(&dir_on(&disk), &clock(), &Covered::default(), &keep, at_once).unwrap();
        let left: Vec<_> = disk.paths().into_iter().map(|path| (disk.bytes_of(&path), path)).collect();
        (recovered, keep.0.into_inner(), left, disk.steps())
    };
    let one_by_one = read(1);
    let (recovered, taken, left, _) = &one_by_one;
    let records: Vec<(u64, usize)> = taken.iter().map(|(sequence, part)| (*sequence, part.len())).collect();
    assert_eq!(records, [(1, 3), (2, 2), (3, 3), (4, 2), (5, 3), (7, 0), (8, 3), (9, 3)]);
    assert_eq!((recovered.next_sequence, recovered.torn_bytes, recovered.unreadable_files), (10, 5, 1));
    assert!(recovered.damaged_bytes > 0 && recovered.open_end.is_some_and(|(sequence, _)| sequence == 9));
    assert_eq!(left.len(), 8 + 3, "a file without records is gone, three damaged ones are there twice");
    for at_once in 2..12 {
        assert_eq!(read(at_once), one_by_one, "{at_once} at a time");
    }
}

/// Counts the files that are being read at a time, and has each wait until there are as many as wanted, once.
struct Meet {
    wanted: usize,
    roomy: bool,
    /// Files that are being read; the most there were.
    here: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Replay for Meet {
    type Part = usize;

    fn add(&self, records: &mut usize, _payload: &[u8]) -> Result<(), String> {
        *records += 1;
        let mut here = self.here.lock();
        if *records == 1 {
            here.0 += 1;
            here.1 = here.1.max(here.0);
            self.changed.notify_all();
        }
        let until = Instant::now() + Duration::from_secs(120);
        while here.1 < self.wanted {
            assert!(!self.changed.wait_until(&mut here, until).timed_out(), "{} at a time", here.1);
        }
        if *records == 3 {
            here.0 -= 1;
        }
        Ok(())
    }

    fn take(&self, _sequence: u64, records: usize) {
        assert_eq!(records, 3);
    }

    fn has_room(&self, _bytes: usize) -> bool {
        self.roomy
    }
}

#[test]
fn as_many_files_are_read_at_a_time_as_may_be_and_one_where_there_is_no_room() {
    for (roomy, at_once, wanted) in [(true, 4, 4), (true, 1, 1), (false, 4, 1)] {
        let disk = log_of(7);
        let meet = Meet { wanted, roomy, here: Mutex::default(), changed: Condvar::new() };
        recover(&dir_on(&disk), &clock(), &Covered::default(), &meet, at_once).unwrap();
        assert_eq!(*meet.here.lock(), (0, wanted), "{roomy}, {at_once}");
    }
}
