//! The modules that the dynamic loader has mapped, as bytes.
#![allow(unsafe_code)] // dl_iterate_phdr and the memory it describes

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// A module, visible only while the loader's lock is held.
pub(crate) struct Loaded<'a> {
    info: &'a libc::dl_phdr_info,
}

/// A program header: type, flags, addresses in the file's own numbering.
pub(crate) type Header = libc::Elf64_Phdr;

/// How many modules were ever loaded and unloaded: changes exactly when the set of modules does.
pub(crate) type Generation = (u64, u64);

impl Loaded<'_> {
    /// What the loader calls it; empty for the program itself.
    pub(crate) fn name(&self) -> &CStr {
        if self.info.dlpi_name.is_null() {
            return c"";
        }
        // SAFETY: not null, so a string that lives as long as the module is loaded.
        unsafe { CStr::from_ptr(self.info.dlpi_name) }
    }

    /// Address in memory minus address in the file's own numbering.
    pub(crate) fn bias(&self) -> u64 {
        self.info.dlpi_addr
    }

    pub(crate) fn generation(&self) -> Generation {
        (self.info.dlpi_adds, self.info.dlpi_subs)
    }

    pub(crate) fn headers(&self) -> &[Header] {
        if self.info.dlpi_phdr.is_null() {
            return &[];
        }
        // SAFETY: the loader describes a mapped array that lives as long as the module is loaded.
        unsafe { std::slice::from_raw_parts(self.info.dlpi_phdr, self.info.dlpi_phnum.into()) }
    }

    /// Memory of a read-only segment from `start` (in the file's own numbering) to the segment's end, or `None` if
    /// there is no such segment.
    pub(crate) fn bytes_from(&self, start: u64) -> Option<&[u8]> {
        let range =
            self.headers().iter().filter(|header| header.p_type == libc::PT_LOAD).find_map(|header| {
                let read_only = header.p_flags & (libc::PF_R | libc::PF_W) == libc::PF_R;
                let end = header.p_vaddr.checked_add(header.p_filesz)?;
                (read_only && (header.p_vaddr..end).contains(&start)).then_some(start..end)
            })?;
        let Range { start, end } = range;
        let address = self.bias().wrapping_add(start) as *const u8;
        let len = usize::try_from(end - start).ok()?;
        // SAFETY: part of a loaded segment that is readable and nobody writes; `self` cannot outlive the loader's lock,
        // which keeps the module loaded.
        Some(unsafe { std::slice::from_raw_parts(address, len) })
    }
}

/// Calls `visit` on every module with the loader's lock held, until it returns `false`. It must neither panic nor load
/// or unload modules.
pub(crate) fn each(mut visit: impl FnMut(&Loaded<'_>) -> bool) {
    let mut visit: &mut dyn FnMut(&Loaded<'_>) -> bool = &mut visit;
    hold();
    // SAFETY: `callback` gets the pointer to `visit`, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(callback), (&raw mut visit).cast()) };
    let_go();
}

/// Raised while modules are visited, and while the process forks.
static HELD: AtomicBool = AtomicBool::new(false);

/// Before a fork: waits until nobody visits modules here. The loader's lock would stay taken in the child for ever, and
/// not only the profiler needs it.
pub(crate) extern "C" fn hold() {
    while HELD.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
}

/// After a fork, in both processes.
pub(crate) extern "C" fn let_go() {
    HELD.store(false, Ordering::Release);
}

unsafe extern "C" fn callback(info: *mut libc::dl_phdr_info, _size: usize, visit: *mut c_void) -> c_int {
    // SAFETY: `each` passes a pointer to such a reference, used by this call alone.
    let visit = unsafe { &mut *visit.cast::<&mut dyn FnMut(&Loaded<'_>) -> bool>() };
    // SAFETY: the loader passes a valid structure.
    let info = unsafe { &*info };
    c_int::from(!visit(&Loaded { info }))
}

/// The current generation of the set of modules.
pub(crate) fn generation() -> Generation {
    let mut generation = (0, 0);
    each(|module| {
        generation = module.generation();
        false
    });
    generation
}
