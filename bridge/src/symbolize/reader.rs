//! Reads symbols and debug information from the files of the running process's modules.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolizer};

use super::Call;

/// Keeps much of what it reads in memory.
pub(super) struct Reader(Symbolizer);

impl Reader {
    pub(super) fn new() -> Self {
        // A module's file is not expected to change; if it does, the running code is still the old one.
        Self(Symbolizer::builder().enable_auto_reload(false).build())
    }

    /// The calls at each offset of a module, in its file's own numbering, innermost first. `None` for an offset
    /// without a symbol.
    pub(super) fn read(&self, module: &Path, offsets: &[u64]) -> Vec<Option<Vec<Call>>> {
        let mut elf = Elf::new(readable_path(module));
        let found =
            self.0.symbolize(&Source::Elf(elf.clone()), Input::VirtOffset(offsets)).unwrap_or_default();
        let mut found: Vec<_> =
            found.into_iter().map(|symbol| symbol.into_sym().map(|symbol| calls(&symbol))).collect();
        found.resize(offsets.len(), None);

        // Where there are line tables only, debug information has names without their paths. The symbol table has
        // the path of the function that the others are inlined into.
        elf.debug_syms = false;
        let symbols = self.0.symbolize(&Source::Elf(elf), Input::VirtOffset(offsets)).unwrap_or_default();
        for (calls, symbol) in found.iter_mut().zip(symbols) {
            let outermost = calls.as_mut().and_then(|calls| calls.last_mut());
            if let (Some(call), Some(symbol)) = (outermost, symbol.into_sym())
                && !call.name.contains("::")
            {
                call.name = symbol.name.into_owned();
            }
        }
        found
    }
}

fn calls(symbol: &Sym<'_>) -> Vec<Call> {
    let call = |name: &str, code: Option<&CodeInfo<'_>>| Call {
        name: name.to_owned(),
        file: code.map(|code| code.to_path().to_string_lossy().into_owned()).unwrap_or_default(),
        line: code.and_then(|code| code.line).unwrap_or(0),
    };
    let inlined = symbol.inlined.iter().rev().map(|inlined| call(&inlined.name, inlined.code_info.as_ref()));
    inlined.chain([call(&symbol.name, symbol.code_info.as_deref())]).collect()
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
