//! From addresses to functions, files and lines, inlined calls included. Runs on the exporter's thread only, asks
//! for each address once and keeps the answers, within bounds.

mod names;
#[cfg(target_os = "linux")]
mod reader;
#[cfg(not(target_os = "linux"))]
#[path = "no_reader.rs"]
mod reader;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use self::reader::Reader;
use crate::sampler::Module;

/// Addresses whose answers are kept: about 10 MB. Past it, the ones kept longest go first.
const MAX_ANSWERS: usize = 64 * 1024;
/// Distinct functions whose names are kept.
const MAX_FUNCTIONS: usize = 64 * 1024;

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

pub(crate) struct Symbolizer {
    /// Reads files and keeps much of them in memory, so it is let go when there is nothing new to look up.
    reader: Option<Reader>,
    files: HashMap<FileId, u32>,
    /// By file and offset in it.
    answers: HashMap<(u32, u64), Answer, DefaultHashBuilder>,
    functions: HashMap<Arc<Function>, (), DefaultHashBuilder>,
    unknown: Arc<[Line]>,
}

struct Answer {
    lines: Arc<[Line]>,
    named: bool,
}

/// A module, whatever address it is loaded at.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FileId {
    path: Arc<Path>,
    build_id: Arc<[u8]>,
}

impl Symbolizer {
    pub(crate) fn new() -> Self {
        let unknown = Function { name: "[unknown]".into(), file: "".into() };
        Self {
            reader: None,
            files: HashMap::new(),
            answers: HashMap::default(),
            functions: HashMap::default(),
            unknown: Arc::from([Line { function: Arc::new(unknown), line: 0 }]),
        }
    }

    /// Distinct addresses kept.
    pub(crate) fn kept(&self) -> usize {
        self.answers.len()
    }

    /// Looks up `addresses`, in their order.
    pub(crate) fn symbolize(&mut self, modules: &[Module], addresses: &[u64]) -> Vec<Location> {
        if self.answers.len() + addresses.len() > MAX_ANSWERS || self.functions.len() > MAX_FUNCTIONS {
            // Starting over now and then is cheaper than keeping the order of use of every address.
            self.answers.clear();
            self.functions.clear();
            // Every file has an answer, so this bounds them, too.
            self.files.clear();
        }
        let placed: Vec<Option<(usize, u32, u64)>> = addresses
            .iter()
            .map(|address| {
                let index = modules.iter().position(|module| (module.start..module.end).contains(address))?;
                let module = &modules[index];
                Some((index, self.file(module), address.wrapping_sub(module.bias)))
            })
            .collect();

        let mut missing: HashMap<usize, Vec<u64>> = HashMap::new();
        for (module, file, offset) in placed.iter().flatten() {
            if !self.answers.contains_key(&(*file, *offset)) {
                missing.entry(*module).or_default().push(*offset);
            }
        }
        if missing.is_empty() {
            self.reader = None;
        }
        for (module, mut offsets) in missing {
            offsets.sort_unstable();
            offsets.dedup();
            self.read(&modules[module], &offsets);
        }

        placed
            .into_iter()
            .map(|place| {
                let Some((module, file, offset)) = place else {
                    return Location { module: None, lines: self.unknown.clone(), named: false };
                };
                let Answer { lines, named } = &self.answers[&(file, offset)];
                Location { module: Some(module), lines: lines.clone(), named: *named }
            })
            .collect()
    }

    fn file(&mut self, module: &Module) -> u32 {
        let next = self.files.len() as u32;
        let id = FileId { path: module.path.clone(), build_id: module.build_id.clone() };
        *self.files.entry(id).or_insert(next)
    }

    /// Looks up offsets in a module's own numbering and keeps what was found for each.
    fn read(&mut self, module: &Module, offsets: &[u64]) {
        let reader = self.reader.take().unwrap_or_else(Reader::new);
        let found = reader.read(&module.path, offsets);
        self.reader = Some(reader);
        let file = self.file(module);
        for (offset, calls) in offsets.iter().zip(found) {
            let named = calls.is_some();
            let lines = match calls {
                Some(calls) => self.lines(calls),
                None => self.placeholder(module, *offset),
            };
            self.answers.insert((file, *offset), Answer { lines, named });
        }
    }

    fn lines(&mut self, calls: Vec<Call>) -> Arc<[Line]> {
        calls
            .into_iter()
            .map(|Call { name, file, line }| {
                let name = names::readable(&name).into();
                Line { function: self.intern(Function { name, file: file.into() }), line }
            })
            .collect()
    }

    fn placeholder(&mut self, module: &Module, offset: u64) -> Arc<[Line]> {
        let file = module.path.file_name().unwrap_or(module.path.as_os_str()).to_string_lossy();
        let name = format!("{file}+{offset:#x}").into();
        Arc::from([Line { function: self.intern(Function { name, file: "".into() }), line: 0 }])
    }

    fn intern(&mut self, function: Function) -> Arc<Function> {
        if let Some((known, ())) = self.functions.get_key_value(&function) {
            return known.clone();
        }
        let function = Arc::new(function);
        self.functions.insert(function.clone(), ());
        function
    }
}
