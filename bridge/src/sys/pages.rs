//! Anonymous memory that is never given back, so that a signal handler may hold on to it.
#![allow(unsafe_code)] // mmap and madvise

use std::sync::atomic::AtomicU64;

/// `count` zeroed words, touched only when written, or `None` when the system is out of memory.
pub(crate) fn words(count: usize) -> Option<&'static [AtomicU64]> {
    // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            count * size_of::<AtomicU64>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // Where the system makes large pages of whatever is mapped, one word would take two megabytes. A system without them
    // refuses the advice.
    // SAFETY: advice on a mapping of ours; it changes no contents.
    unsafe { libc::madvise(address, count * size_of::<AtomicU64>(), libc::MADV_NOHUGEPAGE) };
    // SAFETY: the mapping is page-aligned, `count` words long, zeroed (valid atomics), and never unmapped.
    Some(unsafe { std::slice::from_raw_parts(address.cast(), count) })
}

/// Gives the memory behind `words` back to the system; they read zero afterwards. For words from [`words`] only,
/// whose contents nobody needs any more.
pub(crate) fn forget(words: &'static [AtomicU64]) {
    // SAFETY: advice on a private anonymous mapping of ours: it changes the contents to zero, through words that are
    // atomics and therefore may change under shared references.
    unsafe { libc::madvise(words.as_ptr().cast_mut().cast(), size_of_val(words), libc::MADV_DONTNEED) };
}
