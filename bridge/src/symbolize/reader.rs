//! Reads symbols and debug information from the files of the running process's modules: its own file, a `.dwp` beside
//! it, and a separate `.debug` file found by its link or by the build id.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

use super::{Call, ModuleFile, names};

/// Where distributions keep separate debug information.
const DEBUG_DIRECTORIES: [&str; 2] = ["/usr/lib/debug", "/lib/debug"];

/// Keeps much of what it reads in memory.
pub(super) struct Reader {
    symbolizer: Symbolizer,
    debug_directories: Vec<PathBuf>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self::with_debug_directories(DEBUG_DIRECTORIES.map(PathBuf::from).to_vec())
    }

    pub(super) fn with_debug_directories(debug_directories: Vec<PathBuf>) -> Self {
        let builder = Symbolizer::builder().set_debug_dirs(Some(&debug_directories));
        // A module's file is not expected to change; if it does, the running code is still the old one.
        Self { symbolizer: builder.enable_auto_reload(false).build(), debug_directories }
    }

    /// The function that the symbol table has at each offset of a module, in its file's own numbering. Quick.
    pub(super) fn functions(&self, file: &ModuleFile, offsets: &[u64]) -> Vec<Option<String>> {
        let name = |symbol: Option<Sym<'_>>| symbol.map(|symbol| names::readable(&symbol.name).into_owned());
        let path = readable_path(&file.path);
        let found = self.symbols(&path, false, offsets);
        let mut found: Vec<_> = found.unwrap_or_default().into_iter().map(name).collect();
        found.resize(offsets.len(), None);
        found
    }

    /// The calls at each offset, inlined ones included, innermost first, with files and lines where debug information
    /// has them. `functions` is what the symbol table has there. `None` for an offset that nothing is known of.
    pub(super) fn calls(
        &self,
        file: &ModuleFile,
        offsets: &[u64],
        functions: &[Option<String>],
    ) -> Vec<Option<Vec<Call>>> {
        let path = readable_path(&file.path);
        let has_lines =
            |found: &[Option<Sym<'_>>]| found.iter().flatten().any(|symbol| symbol.code_info.is_some());
        // An error here is one of debug information that is damaged or belongs to another build.
        let own = self.symbols(&path, true, offsets).unwrap_or_default();
        let found = match self.by_build_id(&file.build_id) {
            Some(separate) if !has_lines(&own) => self.symbols(&separate, true, offsets).unwrap_or(own),
            _ => own,
        };
        let mut found = found.into_iter();
        functions
            .iter()
            .map(|function| match (found.next().flatten(), function) {
                (Some(symbol), function) => Some(calls(&symbol, function.as_deref())),
                (None, Some(name)) => Some(vec![Call { name: name.clone(), file: String::new(), line: 0 }]),
                (None, None) => None,
            })
            .collect()
    }

    /// `None` if the file cannot be read.
    fn symbols(&self, path: &Path, debug: bool, offsets: &[u64]) -> Option<Vec<Option<Sym<'_>>>> {
        let mut elf = Elf::new(path);
        elf.debug_syms = debug;
        let found = self.symbolizer.symbolize(&Source::Elf(elf), Input::VirtOffset(offsets)).ok()?;
        Some(found.into_iter().map(|symbol| symbol.into_sym()).collect())
    }

    /// blazesym follows a link only, which a file stripped of everything has not.
    fn by_build_id(&self, build_id: &[u8]) -> Option<PathBuf> {
        let (first, rest) = build_id.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!(".build-id/{first:02x}/{rest}.debug");
        self.debug_directories.iter().map(|directory| directory.join(&name)).find(|path| path.is_file())
    }
}

/// The calls that `symbol` stands for. Where debug information has line tables only, its names have no paths: the
/// outermost function's is `function`, and the others' are told by their files.
fn calls(symbol: &Sym<'_>, function: Option<&str>) -> Vec<Call> {
    let call = |name: &str, code: Option<&CodeInfo<'_>>| Call {
        name: names::readable(names::bare(name).unwrap_or(name)).into_owned(),
        file: code.map(|code| code.to_path().to_string_lossy().into_owned()).unwrap_or_default(),
        line: code.and_then(|code| code.line).unwrap_or(0),
    };
    let mut outermost = call(&symbol.name, symbol.code_info.as_deref());
    if let (Some(bare), Some(function)) = (names::bare(&outermost.name), function) {
        outermost.name = names::outermost(function, bare);
    }
    let inlined = symbol.inlined.iter().rev().map(|inlined| {
        let mut call = call(&inlined.name, inlined.code_info.as_ref());
        if let Some(bare) = names::bare(&call.name) {
            call.name = names::qualified(bare, &call.file, (&outermost.name, &outermost.file));
        }
        call
    });
    let mut calls: Vec<Call> = inlined.collect();
    calls.push(outermost);
    calls
}

/// Where the bytes of the running module are: not at its path any more if the executable was replaced, as in an
/// upgrade.
fn readable_path(path: &Path) -> PathBuf {
    let running = Path::new("/proc/self/exe");
    let same = |a: &Path, b: &Path| match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    };
    let is_executable = std::fs::read_link(running).is_ok_and(|target| {
        target.to_string_lossy().trim_end_matches(" (deleted)") == path.to_string_lossy()
    });
    if is_executable && !same(running, path) { running.to_owned() } else { path.to_owned() }
}
