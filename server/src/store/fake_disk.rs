//! A file system in memory that knows what is written and what is durable, and can lose the difference.

use std::collections::BTreeMap;
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

#[derive(Debug, Clone, Default)]
struct Inode {
    written: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    /// Nothing can be created below this.
    refused: Option<(PathBuf, io::ErrorKind)>,
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

    fn is_first_failure(&self) -> bool {
        self.fault.is_some_and(|(at, _)| self.steps == at + 1)
    }
}

/// A file system in memory. Clones share it.
#[derive(Debug, Clone, Default)]
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

    /// Runs a step that changes names, or fails before it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        match state.step() {
            Some(error) => Err(error),
            None => change(&mut state),
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

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.inode(path)?;
        Ok(self.state.lock().inodes[inode].written.clone())
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

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change(|state| {
            state.durable_names = state.names.clone();
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
        let mut state = self.disk.state.lock();
        let failure = state.step();
        let count = match failure {
            None => bytes.len(),
            Some(_) if state.is_first_failure() => bytes.len() / 2,
            Some(_) => 0,
        };
        state.inodes[self.inode].written.extend_from_slice(&bytes[..count]);
        failure.map_or(Ok(()), Err)
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.disk.change(|state| {
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
        let tidied = created.and_then(|created| self.disk.sync_dir(&self.root).map(|()| created));
        let _ = self.disk.remove(&staged);
        tidied
    }

    fn read(&self, name: &str, range: std::ops::Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = self.get(name)?;
        let range = range.start as usize..range.end as usize;
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn get(&self, name: &str) -> io::Result<Vec<u8>> {
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

    fn settle(&self, _prefix: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.root)
    }
}
