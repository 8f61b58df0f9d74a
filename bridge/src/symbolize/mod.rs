//! From addresses to functions, files and lines, inlined calls included. Used by the exporter's thread only; asks for
//! each address once, on a thread that reads files and lives only as long as there is something to read, and keeps the
//! answers within bounds. A window does not wait for debug information for long: what comes too late is named by the
//! symbol table this time, and in full from the next window on.

mod background;
mod cache;
mod names;
#[cfg(target_os = "linux")]
mod reader;
#[cfg(not(target_os = "linux"))]
#[path = "no_reader.rs"]
mod reader;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;

use self::background::{Answers, Background, Found, Request};
use self::cache::{Answer, Cache, Limits, Place};
use crate::sampler::Module;
use crate::stats::Counters;

/// How long a window waits for debug information: below the distance of two windows, so that none is late.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for names alone, which take milliseconds unless the machine has no time for them at all.
const PATIENCE_FOR_NAMES: Duration = Duration::from_secs(30);
/// How often somebody who waits looks whether the profiler was asked to stop.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Addresses that may be asked for and not answered yet.
const MAX_ASKED: usize = 64 * 1024;
/// Files that are told apart before all is forgotten.
const MAX_FILES: usize = 4096;
/// Threads that a file may be the end of, by a panic in what reads it, before no file is read any more.
const MAX_DEATHS: u32 = 3;

/// A function as a profile shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Function {
    pub(crate) name: Box<str>,
    /// Empty when unknown.
    pub(crate) file: Box<str>,
}

/// One function at an address; several where calls were inlined, the innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) function: Arc<Function>,
    /// Zero when unknown.
    pub(crate) line: u32,
}

/// A call as the files tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    name: String,
    file: String,
    line: u32,
}

/// What is known of an address.
#[derive(Clone, Debug)]
pub(crate) struct Location {
    /// Index among the window's modules.
    pub(crate) module: Option<usize>,
    pub(crate) lines: Arc<[Line]>,
    /// Whether there was a symbol: if not, the only line says which module and where.
    pub(crate) named: bool,
}

/// The address to look up for the frame at `depth`, counted from the innermost: there, the instruction itself;
/// further out, the call that is returned from, which may be the last one of its function.
pub(crate) fn lookup_address(frame: u64, depth: usize) -> u64 {
    if depth == 0 { frame } else { frame.wrapping_sub(1) }
}

/// A module's file, whatever address it is loaded at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModuleFile {
    path: Arc<Path>,
    build_id: Arc<[u8]>,
}

pub(crate) struct Symbolizer {
    cache: Cache,
    files: HashMap<ModuleFile, u32>,
    /// Never given out twice, lest a late answer be taken for another file's.
    next_file: u32,
    background: Option<Background>,
    /// Asked for, and not answered in full yet.
    asked: Set<Place>,
    /// How often a file was the end of the thread that read it.
    deaths: u32,
    patience: Duration,
    patience_for_names: Duration,
    most_asked: usize,
    unknown: Arc<[Line]>,
    /// Where the CPU time of reading is counted, and where it is known by when all must be done.
    counters: Arc<Counters>,
}

type Set<T> = HashSet<T, DefaultHashBuilder>;

/// The addresses of one window.
#[derive(Default)]
struct Wanted {
    /// Kept apart from the cache, whose bounds may be tighter than a window.
    known: HashMap<Place, Answer, DefaultHashBuilder>,
    /// Seen for the first time and not answered in full yet.
    awaited: Set<Place>,
    /// Those of them without a name so far.
    nameless: Set<Place>,
}

impl Symbolizer {
    /// For whoever counts nothing and never stops.
    #[cfg(any(test, feature = "bench-internals"))]
    pub(crate) fn new() -> Self {
        Self::counted(Arc::default())
    }

    /// A running profiler's.
    pub(crate) fn counted(counters: Arc<Counters>) -> Self {
        Self { counters, ..Self::with(Limits::default(), PATIENCE) }
    }

    fn with(limits: Limits, patience: Duration) -> Self {
        let unknown = Function { name: "[unknown]".into(), file: "".into() };
        Self {
            cache: Cache::new(limits),
            files: HashMap::new(),
            next_file: 0,
            background: None,
            asked: HashSet::default(),
            deaths: 0,
            patience,
            patience_for_names: PATIENCE_FOR_NAMES,
            most_asked: MAX_ASKED,
            unknown: Arc::from([Line { function: Arc::new(unknown), line: 0 }]),
            counters: Arc::default(),
        }
    }

    /// Distinct addresses kept.
    pub(crate) fn kept(&self) -> usize {
        self.cache.len()
    }

    /// What the symbol table alone calls each address: what a window gets that does not wait.
    #[cfg(feature = "bench-internals")]
    pub(crate) fn names_alone(modules: &[Module], addresses: &[u64]) -> usize {
        let reader = reader::Reader::new();
        let named = |module: &Module| {
            let here = addresses.iter().filter(|address| (module.start..module.end).contains(*address));
            let offsets: Vec<u64> = here.map(|address| address - module.bias).collect();
            reader.functions(&module_file(module), &offsets).iter().flatten().count()
        };
        modules.iter().map(named).sum()
    }

    /// Takes in what came too late for its window, and lets go of what reading took if all is read. Whether there is
    /// still something to come.
    pub(crate) fn rest(&mut self) -> bool {
        let mut nobody = Wanted::default();
        while !self.asked.is_empty() && self.take_answer(Instant::now(), &mut nobody) {}
        if self.asked.is_empty() && self.background.as_ref().is_some_and(Background::is_heavy) {
            self.background = None;
        }
        !self.asked.is_empty()
    }

    /// Looks up `addresses`, in their order.
    pub(crate) fn symbolize(&mut self, modules: &[Module], addresses: &[u64]) -> Vec<Location> {
        self.rest();
        if self.files.len() > MAX_FILES {
            self.files.clear();
        }
        let places: Vec<Option<(usize, Place)>> = addresses
            .iter()
            .map(|address| {
                let index = modules.iter().position(|module| (module.start..module.end).contains(address))?;
                let module = &modules[index];
                Some((index, (self.file(module), address.wrapping_sub(module.bias))))
            })
            .collect();

        let mut wanted = Wanted::default();
        self.want(modules, places.iter().flatten(), &mut wanted);
        let begun = Instant::now();
        while !wanted.awaited.is_empty() {
            let patience = if wanted.nameless.is_empty() { self.patience } else { self.patience_for_names };
            let until = self.counters.deadline.limit(begun, patience);
            let now = Instant::now();
            if !self.take_answer(until.min(now + LOOK_UP), &mut wanted)
                && (now >= until || self.background.is_none())
            {
                break;
            }
        }
        self.rest();

        places
            .into_iter()
            .map(|place| {
                let Some((module, place)) = place else {
                    return Location { module: None, lines: self.unknown.clone(), named: false };
                };
                let (lines, named) = match wanted.known.get(&place) {
                    Some(answer) => (answer.lines.clone(), answer.named),
                    None => (unnamed(&modules[module].path, place.1), false),
                };
                Location { module: Some(module), lines, named }
            })
            .collect()
    }

    /// Takes from the cache what it has and asks for the rest.
    fn want<'a>(
        &mut self,
        modules: &[Module],
        places: impl Iterator<Item = &'a (usize, Place)>,
        wanted: &mut Wanted,
    ) {
        let mut missing: HashMap<usize, Vec<u64>> = HashMap::new();
        for (module, place) in places {
            let answer = self.cache.get(*place);
            let is_complete = answer.as_ref().is_some_and(|answer| answer.complete);
            if !is_complete && self.asked.len() < self.most_asked && self.asked.insert(*place) {
                missing.entry(*module).or_default().push(place.1);
            }
            match answer {
                Some(answer) => drop(wanted.known.insert(*place, answer)),
                // What was named before is not waited for once more, and what nobody was asked for is not at all.
                None if self.asked.contains(place) => {
                    wanted.awaited.insert(*place);
                    wanted.nameless.insert(*place);
                }
                None => {}
            }
        }
        if missing.is_empty() && self.asked.is_empty() {
            self.background = None;
        }
        for (module, mut offsets) in missing {
            offsets.sort_unstable();
            let module = &modules[module];
            let file = self.file(module);
            self.ask(Request { file, module: module_file(module), offsets });
        }
    }

    fn ask(&mut self, request: Request) {
        if self.background.is_none() && self.deaths < MAX_DEATHS {
            self.background = Background::start(self.counters.clone());
        }
        // A thread that has ended is noticed by who waits for its answers.
        if let Some(background) = &mut self.background {
            background.ask(request);
        }
    }

    /// Waits for an answer. `false` if none came.
    fn take_answer(&mut self, until: Instant, wanted: &mut Wanted) -> bool {
        match self.background.as_ref().map(|background| background.answer(until)) {
            Some(Ok(found)) => {
                self.absorb(found, wanted);
                true
            }
            Some(Err(RecvTimeoutError::Timeout)) => false,
            Some(Err(RecvTimeoutError::Disconnected)) => {
                self.deaths += 1;
                tracing::warn!(
                    "symbols could not be read: some functions stay without a name or without lines"
                );
                self.give_up();
                false
            }
            None => {
                self.give_up();
                false
            }
        }
    }

    /// Nobody is left to answer: what has a name keeps to that.
    fn give_up(&mut self) {
        self.background = None;
        for place in std::mem::take(&mut self.asked) {
            if let Some(answer) = self.cache.get(place) {
                self.cache.insert(place, Answer { complete: true, ..answer });
            }
        }
    }

    /// Copies what was found: see [`background`].
    fn absorb(&mut self, found: Found, wanted: &mut Wanted) {
        let (file, module) = (found.file, &found.module);
        match &found.answers {
            Answers::Names(names) => {
                for (offset, name) in names {
                    let offset = *offset;
                    let calls = name.as_deref().map(|name| std::iter::once((name, "", 0)));
                    let answer = self.answer(module, offset, calls, false);
                    self.cache.insert((file, offset), answer.clone());
                    wanted.known.insert((file, offset), answer);
                    wanted.nameless.remove(&(file, offset));
                }
            }
            Answers::Calls(calls) => {
                for (offset, calls) in calls {
                    let place = (file, *offset);
                    let calls = calls
                        .as_ref()
                        .map(|calls| calls.iter().map(|call| (&*call.name, &*call.file, call.line)));
                    let answer = self.answer(module, *offset, calls, true);
                    self.cache.insert(place, answer.clone());
                    wanted.known.insert(place, answer);
                    wanted.awaited.remove(&place);
                    wanted.nameless.remove(&place);
                    self.asked.remove(&place);
                }
            }
        }
        if let Some(background) = &self.background {
            background.give_back(found);
        }
    }

    fn answer<'a>(
        &mut self,
        module: &ModuleFile,
        offset: u64,
        calls: Option<impl Iterator<Item = (&'a str, &'a str, u32)>>,
        complete: bool,
    ) -> Answer {
        match calls {
            Some(calls) => Answer { lines: self.lines(calls), named: true, complete },
            None => Answer { lines: unnamed(&module.path, offset), named: false, complete },
        }
    }

    /// Of names, files and lines.
    fn lines<'a>(&mut self, calls: impl Iterator<Item = (&'a str, &'a str, u32)>) -> Arc<[Line]> {
        calls.map(|(name, file, line)| Line { function: self.cache.intern(name, file), line }).collect()
    }

    fn file(&mut self, module: &Module) -> u32 {
        let next = self.next_file;
        let number = *self.files.entry(module_file(module)).or_insert(next);
        if number == next {
            self.next_file = next.wrapping_add(1);
        }
        number
    }
}

fn module_file(module: &Module) -> ModuleFile {
    ModuleFile { path: module.path.clone(), build_id: module.build_id.clone() }
}

/// The file's name and the place in it: with the build id in the profile's mapping, whoever has the symbols can name it.
/// Of no use to another address, so it is not kept beyond the answer that it is part of.
fn unnamed(path: &Path, offset: u64) -> Arc<[Line]> {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let function = Function { name: format!("{file}+{offset:#x}").into(), file: "".into() };
    Arc::from([Line { function: Arc::new(function), line: 0 }])
}
