//! A file system in memory that knows what is written and what is durable, and can lose the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, DiskLock};
use super::objects::Objects;

/// What a power failure does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it is gone.
    Everything,
    /// Nothing is gone: only the process died.
    Nothing,
    /// Names are there, half of the bytes are.
    HalfOfData,
    /// Names and lengths are there, the bytes are zeros.
    Zeros,
    /// Data is there, the names are not.
    Names,
}

pub(super) const LOSSES: [Loss; 5] =
    [Loss::Everything, Loss::Nothing, Loss::HalfOfData, Loss::Zeros, Loss::Names];

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes in the middle of it: nothing works any more.
    PowerFailure,
    /// It fails, half done, and what comes after works.
    Once(io::ErrorKind),
    /// It and so many after it fail.
    For(usize, io::ErrorKind),
}

/// Something that a disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// Appending so many bytes.
    Append(usize),
    /// Making bytes or names durable.
    Sync,
    /// Changing a name or the length of a file.
    Change,
    /// Reading an object.
    Read,
}

/// An operation that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) kind: io::ErrorKind,
    /// Of an append, the bytes that are written nevertheless; of others, whether they are done is whether it is more than 0.
    pub(super) done: usize,
}

/// Asked before every operation what becomes of it.
pub(super) type Weather = Arc<dyn Fn(Operation) -> Option<Failure> + Send + Sync>;

#[derive(Debug, Clone, Default)]
struct Inode {
    written: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    /// Nothing can be created below this.
    refused: Option<(PathBuf, io::ErrorKind)>,
    /// A file that cannot be read.
    unreadable: Option<PathBuf>,
    /// Bytes that it has room for; none for any number.
    capacity: Option<usize>,
    weather: Option<Weather>,
}

impl Inode {
    fn after_power_failure(&self, below: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let Self { written, durable } = self;
        if written == durable {
            return durable.clone();
        }
        if !written.starts_with(durable) {
            // Cut off and perhaps written again, not yet synced.
            return if below(2) == 0 { durable.clone() } else { written.clone() };
        }
        let torn = durable.len() + below(written.len() - durable.len() + 1);
        let mut left = written[..torn].to_vec();
        match below(4) {
            0 => left.truncate(durable.len()),
            1 => {}
            // The length is there before the bytes: what lay on the disk before is seen in their place.
            2 => left.resize(written.len(), 0),
            _ => left.extend((torn..written.len()).map(|at| (at as u8).wrapping_mul(167))),
        }
        left
    }
}

impl State {
    /// Counts a step and tells whether it fails, and how.
    fn step(&mut self) -> Option<io::Error> {
        let step = self.steps;
        self.steps += 1;
        let (at, fault) = self.fault?;
        let fails = match fault {
            Fault::PowerFailure => (step >= at).then_some(io::ErrorKind::Other),
            Fault::Once(kind) => (step == at).then_some(kind),
            Fault::For(count, kind) => (at..at + count).contains(&step).then_some(kind),
        };
        fails.map(io::Error::from)
    }

    fn used(&self) -> usize {
        let inodes: BTreeSet<usize> = self.names.values().copied().collect();
        inodes.into_iter().map(|inode| self.inodes[inode].written.len()).sum()
    }

    /// Bytes that fit.
    fn room(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn is_first_failure(&self) -> bool {
        self.fault.is_some_and(|(at, _)| self.steps == at + 1)
    }
}

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub(super) struct FakeDisk {
    state: Arc<Mutex<State>>,
}

impl FakeDisk {
    /// One on which `fault` happens at a step, counted from 0.
    pub(super) fn with_fault(self, step: usize, fault: Fault) -> Self {
        self.state.lock().fault = Some((step, fault));
        self
    }

    /// Refuses to create files below a directory.
    pub(super) fn refuse_below(&self, dir: &str, kind: io::ErrorKind) {
        self.state.lock().refused = Some((dir.into(), kind));
    }

    /// Refuses nothing any more.
    pub(super) fn refuse_nothing(&self) {
        self.state.lock().refused = None;
    }

    /// Fails to read a file from now on.
    pub(super) fn refuse_to_read(&self, path: &Path) {
        self.state.lock().unreadable = Some(path.to_owned());
    }

    /// Steps taken so far.
    pub(super) fn steps(&self) -> usize {
        self.state.lock().steps
    }

    /// What is found after the power comes back.
    pub(super) fn after(&self, loss: Loss) -> Self {
        let state = self.state.lock();
        let inodes = state.inodes.iter().map(|inode| {
            let left = match loss {
                Loss::Everything => inode.durable.clone(),
                Loss::Nothing | Loss::Names => inode.written.clone(),
                Loss::HalfOfData | Loss::Zeros if !inode.written.starts_with(&inode.durable) => {
                    // Cut off and perhaps written again, not yet synced: the old bytes come back.
                    inode.durable.clone()
                }
                Loss::HalfOfData => {
                    let end = inode.durable.len() + (inode.written.len() - inode.durable.len()) / 2;
                    inode.written[..end].to_vec()
                }
                Loss::Zeros => {
                    let mut bytes = inode.durable.clone();
                    bytes.resize(inode.written.len(), 0);
                    bytes
                }
            };
            Inode { written: left.clone(), durable: left }
        });
        let names = match loss {
            Loss::Everything | Loss::Names => state.durable_names.clone(),
            _ => state.names.clone(),
        };
        let after = State {
            inodes: inodes.collect(),
            names: names.clone(),
            durable_names: names,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// Has `weather` asked from now on.
    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = Some(weather);
    }

    /// Gives it room for so many bytes beyond those that it has; none for any number.
    pub(super) fn set_room(&self, room: Option<usize>) {
        let mut state = self.state.lock();
        state.capacity = room.map(|room| state.used() + room);
    }

    /// Whether it has less room than anything takes.
    pub(super) fn is_full(&self) -> bool {
        self.state.lock().capacity.is_some()
    }

    /// The bytes of a file that is there.
    pub(super) fn bytes_of(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).map(|inode| state.inodes[*inode].written.clone())
    }

    /// What is found after the power comes back, where `below` says what became of each unsynced byte and name: it gives a
    /// number below the one that it is asked for. Any part of what was written may have come to the disk, in any order.
    pub(super) fn after_power_failure(&self, below: &mut dyn FnMut(usize) -> usize) -> Self {
        let state = self.state.lock();
        let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let paths: BTreeSet<&PathBuf> = state.names.keys().chain(state.durable_names.keys()).collect();
        for path in paths {
            let (now, durable) = (state.names.get(path), state.durable_names.get(path));
            let left = if now == durable || below(2) == 0 { now } else { durable };
            left.map(|inode| names.insert(path.clone(), *inode));
        }
        let mut inodes = Vec::new();
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        for inode in names.values_mut() {
            let number = *numbers.entry(*inode).or_insert_with(|| {
                let left = state.inodes[*inode].after_power_failure(below);
                inodes.push(Inode { written: left.clone(), durable: left });
                inodes.len() - 1
            });
            *inode = number;
        }
        let after = State { inodes, names: names.clone(), durable_names: names, ..State::default() };
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// What is found after the process died: all that it wrote, durable or not.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.state.lock();
        let after = State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// Asks the weather. Not under the lock: it may want to look at the disk.
    fn ask(&self, operation: Operation) -> Option<Failure> {
        let weather = self.state.lock().weather.clone();
        weather.and_then(|weather| weather(operation))
    }

    /// Changes the bytes of a file as bit rot does.
    pub(super) fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let inode = state.names[path];
        change(&mut state.inodes[inode].written);
        state.inodes[inode].durable = state.inodes[inode].written.clone();
    }

    /// The paths of all files.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// Gives a file a second name unless another file has it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<bool> {
        self.change(|state| {
            if state.names.contains_key(to) {
                return Ok(false);
            }
            let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), inode);
            Ok(true)
        })
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.state.lock().names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Runs a step that changes names, or fails before or after it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.run(Operation::Change, change)
    }

    fn run<T>(
        &self,
        operation: Operation,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let failure = self.ask(operation);
        let mut state = self.state.lock();
        match (state.step(), failure) {
            (Some(error), _) => Err(error),
            (None, None) => change(&mut state),
            (None, Some(failure)) => {
                if failure.done > 0 {
                    let _ = change(&mut state);
                }
                Err(failure.kind.into())
            }
        }
    }
}

impl Disk for FakeDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn read_into(&self, path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
        let inode = self.inode(path)?;
        let state = self.state.lock();
        if state.unreadable.as_deref() == Some(path) {
            return Err(io::ErrorKind::Other.into());
        }
        state.inodes[inode].written.clone_into(bytes);
        Ok(())
    }

    fn beginning(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let mut all = self.read(path)?;
        all.truncate(bytes);
        Ok(all)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.change(|state| {
            if let Some((dir, kind)) = &state.refused
                && path.starts_with(dir)
            {
                return Err((*kind).into());
            }
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if state.room() == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.inodes.push(Inode::default());
            state.names.insert(path.to_owned(), state.inodes.len() - 1);
            Ok(state.inodes.len() - 1)
        })?;
        Ok(Box::new(FakeFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FakeFile { disk: self.clone(), inode: self.inode(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.insert(to.to_owned(), inode);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| state.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::Sync, |state| {
            let State { names, durable_names, .. } = state;
            let inside = |path: &PathBuf| path.parent() == Some(dir);
            durable_names.retain(|path, _| !inside(path));
            let now = names.iter().filter(|(path, _)| inside(path));
            durable_names.extend(now.map(|(path, inode)| (path.clone(), *inode)));
            Ok(())
        })
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<DiskLock>> {
        Ok(Some(Box::new(())))
    }
}

struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

impl DiskFile for FakeFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let weather = self.disk.ask(Operation::Append(bytes.len()));
        let mut state = self.disk.state.lock();
        let failure = state.step();
        let (mut count, mut failure) = match (failure, weather) {
            (None, None) => (bytes.len(), None),
            (None, Some(Failure { kind, done })) => (done.min(bytes.len()), Some(kind.into())),
            (Some(error), _) if state.is_first_failure() => (bytes.len() / 2, Some(error)),
            (Some(error), _) => (0, Some(error)),
        };
        let room = state.room();
        if count > room {
            (count, failure) = (room, Some(io::ErrorKind::StorageFull.into()));
        }
        state.inodes[self.inode].written.extend_from_slice(&bytes[..count]);
        failure.map_or(Ok(()), Err)
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.disk.run(Operation::Sync, |state| {
            state.inodes[inode].durable = state.inodes[inode].written.clone();
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
            state.inodes[inode].written.truncate(len as usize);
            Ok(())
        })
    }
}

/// Objects in a directory of a [`FakeDisk`], kept in the steps in which the local file system of `object_store` keeps them.
pub(super) struct FakeObjects {
    pub(super) disk: FakeDisk,
    pub(super) root: PathBuf,
}

impl Objects for FakeObjects {
    fn create(&self, name: &str, bytes: Vec<u8>) -> io::Result<bool> {
        let path = self.root.join(name);
        let staged = PathBuf::from(format!("{}#1", path.display()));
        if self.disk.inode(&staged).is_ok() {
            self.disk.remove(&staged)?;
        }
        let written = self.disk.create(&staged).and_then(|mut file| {
            file.append(&bytes)?;
            file.sync()
        });
        let created = written.and_then(|()| self.disk.link(&staged, &path));
        // It is tidied up as far as the disk lets it.
        let dir = path.parent().unwrap_or(&self.root);
        let tidied = created.and_then(|created| self.disk.sync_dir(dir).map(|()| created));
        let _ = self.disk.remove(&staged);
        tidied
    }

    fn read(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = self.get(name)?;
        let range = range.start as usize..range.end as usize;
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
        if let Some(failure) = self.disk.ask(Operation::Read) {
            return Err(failure.kind.into());
        }
        self.disk.read(&self.root.join(name))
    }

    fn list(&self, prefix: &str, after: &str) -> io::Result<Vec<String>> {
        let names = self.disk.list(&self.root.join(prefix))?.into_iter();
        let named = names.filter(|name| !name.contains('#')).map(|name| format!("{prefix}/{name}"));
        let mut names: Vec<String> = named.filter(|name| name.as_str() > after).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn modified_ms(&self, name: &str) -> io::Result<i64> {
        self.get(name).map(|_| 0)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn settle(&self, prefix: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.root.join(prefix))
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}
