//! The process's modules and their unwind tables, kept up to date as libraries come and go.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};

use crate::config::Unwinder;
use crate::sampler::Module;
use crate::sys::modules::{self, Generation, Header, Loaded};
use crate::unwind::{Code, CodeMap, LoadedTable, Native, Table, compile, section_len};

/// How long an unloaded module is remembered: longer than any window of samples that may refer to it.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Unloaded modules remembered at most.
const MAX_UNLOADED: usize = 1024;
/// Tables of unloaded modules kept in case they are loaded again.
const SPARE_TABLES: usize = 64;
/// A gap between functions longer than this holds more than linkage stubs.
const MAX_GAP: usize = 1 << 20;
/// A build id longer than this is taken for damage.
const MAX_BUILD_ID: usize = 64;

/// What a table is made from: the same again wherever and whenever the same file is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    path: Arc<Path>,
    text: (u64, u64),
    build_id: Arc<[u8]>,
    /// Stands in for a build id where there is none.
    checksum: u64,
}

/// A module with what its table is made from, copied while it could not be unloaded.
struct Found {
    module: Module,
    identity: Identity,
    /// `.eh_frame` and its address in the file's numbering, unless the table exists.
    section: Option<(Vec<u8>, u64)>,
}

#[derive(Default)]
pub(super) struct Modules {
    /// What was looked at last, and for whom.
    seen: Option<(Generation, Unwinder)>,
    tables: HashMap<Identity, Arc<Table>>,
    /// Stands in for every table where none is needed.
    no_table: Arc<Table>,
    /// By address.
    loaded: Vec<(Module, Arc<Table>)>,
    unloaded: Vec<(Module, Instant)>,
    listed: Arc<[Module]>,
}

impl Modules {
    /// Looks for modules that came or went. `true` when some did. Only [`Unwinder::Tables`] has use for tables.
    pub(super) fn refresh(&mut self, unwinder: Unwinder) -> bool {
        let seen = Some((modules::generation(), unwinder));
        if self.seen == seen {
            return false;
        }
        self.seen = seen;
        let program = std::env::current_exe().unwrap_or_default();
        let mut found = Vec::new();
        modules::each(|loaded| {
            found.extend(find(loaded, &program, |identity| {
                unwinder == Unwinder::Tables && !self.tables.contains_key(identity)
            }));
            true
        });
        let before = std::mem::take(&mut self.loaded);
        for Found { module, identity, section } in found {
            let table = match unwinder {
                Unwinder::Tables => {
                    let compile = |identity: &Identity| {
                        let (section, address) = section.unwrap_or_default();
                        let text = identity.text.0..identity.text.1;
                        Arc::new(compile::<Native>(&section, address, text, |gaps| code(&module, &gaps)))
                    };
                    self.tables.entry(identity).or_insert_with_key(compile).clone()
                }
                Unwinder::FramePointers => self.no_table.clone(),
            };
            self.loaded.push((module, table));
        }
        self.loaded.sort_by_key(|(module, _)| module.start);
        self.forget(before);
        true
    }

    /// Where each loaded module's table applies.
    pub(super) fn code_map(&self) -> CodeMap {
        let table = |(module, table): &(Module, Arc<Table>)| LoadedTable {
            start: module.start,
            len: module.end - module.start,
            table: table.clone(),
        };
        CodeMap::new(self.loaded.iter().map(table).collect())
    }

    /// Loaded modules, then those unloaded lately, latest first.
    pub(super) fn list(&self) -> Arc<[Module]> {
        self.listed.clone()
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = (&Module, &Table)> {
        self.loaded.iter().map(|(module, table)| (module, &**table))
    }

    /// The loaded module that has its code around `address`.
    fn holding(&self, address: u64) -> Option<&Module> {
        let after = self.loaded.partition_point(|(module, _)| module.start <= address);
        let (module, _) = self.loaded.get(after.checked_sub(1)?)?;
        (address < module.end).then_some(module)
    }

    /// Whether both addresses are in the code of the same loaded module.
    pub(super) fn same(&self, one: u64, other: u64) -> bool {
        self.holding(one).is_some_and(|module| (module.start..module.end).contains(&other))
    }

    /// `frames` up to the last one that is in a module's code, but at least the first. Generated code in between is kept.
    pub(super) fn leading_code<'a>(&self, frames: &'a [u64]) -> &'a [u64] {
        let is_code = |caller: u64| {
            let address = caller.wrapping_sub(1);
            let unloaded = |(module, _): &(Module, Instant)| (module.start..module.end).contains(&address);
            self.holding(address).is_some() || self.unloaded.iter().any(unloaded)
        };
        let last = frames.iter().skip(1).rposition(|caller| is_code(*caller));
        &frames[..last.map_or(1, |last| last + 2).min(frames.len())]
    }

    /// Moves what is no longer loaded to the unloaded, and bounds what is kept.
    fn forget(&mut self, before: Vec<(Module, Arc<Table>)>) {
        let now = Instant::now();
        let same = |a: &Module, b: &Module| {
            (a.start, a.end, &a.path, &a.build_id) == (b.start, b.end, &b.path, &b.build_id)
        };
        let loaded = &self.loaded;
        let is_loaded = |module: &Module| loaded.iter().any(|(other, _)| same(module, other));
        self.unloaded.retain(|(module, since)| now.duration_since(*since) < REMEMBERED && !is_loaded(module));
        let gone = before.into_iter().map(|(module, _)| module).filter(|module| !is_loaded(module));
        let gone: Vec<_> = gone.map(|module| (Module { unloaded: true, ..module }, now)).collect();
        self.unloaded.splice(0..0, gone);
        self.unloaded.truncate(MAX_UNLOADED);
        self.listed = loaded
            .iter()
            .map(|(module, _)| module)
            .chain(self.unloaded.iter().map(|(module, _)| module))
            .cloned()
            .collect();
        if self.tables.len() > loaded.len() + SPARE_TABLES {
            self.tables.retain(|_, table| Arc::strong_count(table) > 1);
        }
    }
}

/// Describes a loaded module, with a copy of what its table is made from if that is wanted; `None` if it has no code.
fn find(loaded: &Loaded<'_>, program: &Path, wanted: impl FnOnce(&Identity) -> bool) -> Option<Found> {
    let text = text(loaded.headers())?;
    let path: Arc<Path> = match loaded.name().to_bytes() {
        b"" => program.into(),
        b"linux-vdso.so.1" | b"linux-gate.so.1" => Path::new("[vdso]").into(),
        name => Path::new(OsStr::from_bytes(name)).into(),
    };
    let build_id: Arc<[u8]> = build_id(loaded).unwrap_or_default().into();
    let section = section(loaded, text.addresses.start);
    let checksum = match (&*build_id, section) {
        ([], Some((bytes, _))) => {
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            hasher.finish()
        }
        _ => 0,
    };
    let (start, end) = (text.addresses.start, text.addresses.end);
    let identity = Identity { path: path.clone(), text: (start, end), build_id: build_id.clone(), checksum };
    let section = section.filter(|_| wanted(&identity)).map(|(bytes, address)| (bytes.to_vec(), address));
    let bias = loaded.bias();
    let module = Module {
        start: bias.wrapping_add(start),
        end: bias.wrapping_add(end),
        bias,
        file_offset: text.file_offset,
        path,
        build_id,
        unloaded: false,
    };
    Some(Found { module, identity, section })
}

/// Bytes of the module's code in those places (in the file's own numbering), if it is still loaded.
fn code(module: &Module, places: &[Range<u64>]) -> Vec<Code> {
    let mut code = Vec::new();
    modules::each(|loaded| {
        let text = text(loaded.headers()).map(|text| loaded.bias().wrapping_add(text.addresses.start));
        if loaded.bias() != module.bias || text != Some(module.start) {
            return true;
        }
        for place in places {
            let len = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
            // A library that was loaded there meanwhile may be smaller, and a page may have been left out of the file.
            if len <= MAX_GAP
                && let Some(bytes) = loaded.bytes_from(place.start)
            {
                code.push(Code { address: place.start, bytes: bytes[..len.min(bytes.len())].to_vec() });
            }
        }
        false
    });
    code
}

/// Every loaded module with its `.eh_frame` and the section's address in the file's own numbering.
#[cfg(test)]
pub(super) fn loaded_sections() -> Vec<(Module, Vec<u8>, u64)> {
    let program = std::env::current_exe().unwrap_or_default();
    let mut sections = Vec::new();
    modules::each(|loaded| {
        sections.extend(find(loaded, &program, |_| true).and_then(|Found { module, section, .. }| {
            let (bytes, address) = section?;
            Some((module, bytes, address))
        }));
        true
    });
    sections
}

struct Text {
    /// From the first executable segment to the last, in the file's own numbering.
    addresses: Range<u64>,
    file_offset: u64,
}

fn text(headers: &[Header]) -> Option<Text> {
    let executable = |header: &&Header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0;
    let first = headers.iter().filter(executable).min_by_key(|header| header.p_vaddr)?;
    let end = headers
        .iter()
        .filter(executable)
        .map(|header| header.p_vaddr.saturating_add(header.p_memsz))
        .max()?;
    (end > first.p_vaddr).then_some(Text { addresses: first.p_vaddr..end, file_offset: first.p_offset })
}

/// The bytes of `.eh_frame` and their address in the file's own numbering.
fn section<'a>(loaded: &'a Loaded<'_>, text: u64) -> Option<(&'a [u8], u64)> {
    let header = loaded.headers().iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME)?.p_vaddr;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header).set_text(text);
    let parsed = EhFrameHdr::new(loaded.bytes_from(header)?, LittleEndian).parse(&bases, 8).ok()?;
    let Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
    let bytes = loaded.bytes_from(address)?;
    Some((&bytes[..section_len(bytes)], address))
}

/// The GNU build id among the module's notes.
fn build_id<'a>(loaded: &'a Loaded<'_>) -> Option<&'a [u8]> {
    loaded.headers().iter().filter(|header| header.p_type == libc::PT_NOTE).find_map(|header| {
        let segment = loaded.bytes_from(header.p_vaddr)?;
        let notes = segment.get(..usize::try_from(header.p_filesz).ok()?)?;
        find_build_id(notes, header.p_align)
    })
}

fn find_build_id(mut notes: &[u8], align: u64) -> Option<&[u8]> {
    const GNU_BUILD_ID: u32 = 3;
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let (header, rest) = notes.split_first_chunk::<12>()?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (name_len, len, kind) = (field(0) as usize, field(4) as usize, field(8));
        // Padding counts from the note's start.
        let after_name = (12 + name_len).next_multiple_of(align) - 12;
        let name = rest.get(..name_len)?;
        let description = rest.get(after_name..)?.get(..len)?;
        if kind == GNU_BUILD_ID && name == b"GNU\0" {
            return (len <= MAX_BUILD_ID).then_some(description);
        }
        notes = rest.get((12 + after_name + len).next_multiple_of(align) - 12..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for field in [name.len() as u32, description.len() as u32, kind] {
            note.extend(field.to_le_bytes());
        }
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn the_build_id_is_found_among_other_notes_and_damage_is_survived() {
        let mut notes = note(b"GNU\0", 1, &[0; 16]);
        notes.extend(note(b"Other\0", 3, &[9; 5]));
        notes.extend(note(b"GNU\0", 3, &[1, 2, 3, 4, 5]));
        assert_eq!(find_build_id(&notes, 4), Some(&[1, 2, 3, 4, 5][..]));
        for cut in 0..notes.len() {
            let found = find_build_id(&notes[..cut], 4);
            assert!(found.is_none() || found == Some(&[1, 2, 3, 4, 5]));
        }
        notes[4] = 0xff;
        assert_eq!(find_build_id(&notes, 4), None);
        assert_eq!(find_build_id(&note(b"GNU\0", 3, &[7; 65]), 4), None);
    }

    #[test]
    fn this_programs_modules_are_found_with_tables_and_build_ids() {
        let mut modules = Modules::default();
        assert!(modules.refresh(Unwinder::Tables));
        assert!(!modules.refresh(Unwinder::Tables), "nothing was loaded since");
        let here = this_programs_modules_are_found_with_tables_and_build_ids as *const () as u64;
        let list = modules.list();
        let own = list.iter().find(|module| (module.start..module.end).contains(&here)).expect("the program");
        assert_eq!(Some(&*own.path), std::env::current_exe().ok().as_deref());
        for (module, table) in modules.tables() {
            assert!(table.bytes() > 16, "{} has a table", module.path.display());
        }
        let names: Vec<_> = list.iter().map(|module| module.path.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name.contains("libc")), "{names:?}");
        assert!(names.iter().any(|name| name == "[vdso]"), "{names:?}");
        let libc =
            list.iter().find(|module| module.path.to_string_lossy().contains("libc.so")).expect("libc");
        assert_eq!(libc.build_id.len(), 20);
    }
}
