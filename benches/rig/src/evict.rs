//! What runs between two cold samples: enough data and branches that nothing of the handler is cached.
#![allow(unsafe_code)] // makes pages of tiny functions

use anyhow::{Result, bail};
use std::hint::black_box;

const DATA: usize = 16 << 20;
const CODE: usize = 512 << 10;
const LINE: usize = 64;

/// A cache-sized workload.
pub(crate) struct Evictor {
    data: Vec<u8>,
    code: *const u8,
}

impl Evictor {
    /// Allocates the data and writes one tiny function into every cache line of the code.
    pub(crate) fn new() -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping touches nothing that exists.
        let code = unsafe {
            libc::mmap(std::ptr::null_mut(), CODE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if code == libc::MAP_FAILED {
            bail!("mmap of {CODE} bytes: {}", std::io::Error::last_os_error());
        }
        // SAFETY: the mapping is ours, writable and CODE bytes long.
        let bytes = unsafe { std::slice::from_raw_parts_mut(code.cast::<u8>(), CODE) };
        for (index, line) in bytes.chunks_exact_mut(LINE).enumerate() {
            // test dil, mask; jz +1; nop; ret
            line[..8].copy_from_slice(&[0x40, 0xF6, 0xC7, 1 << (index % 8), 0x74, 0x01, 0x90, 0xC3]);
        }
        // SAFETY: the same mapping; `bytes` is not used again.
        if unsafe { libc::mprotect(code, CODE, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
            bail!("mprotect: {}", std::io::Error::last_os_error());
        }
        Ok(Self { data: vec![1; DATA], code: code.cast() })
    }

    /// Runs all of it once.
    pub(crate) fn run(&mut self) {
        for byte in self.data.iter_mut().step_by(LINE) {
            *byte = byte.wrapping_add(1);
        }
        let mut argument = 0x9E37_79B9_u32;
        for offset in (0..CODE).step_by(LINE) {
            argument = argument.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // SAFETY: `offset` stays inside the mapping.
            let line = unsafe { self.code.add(offset) };
            // SAFETY: every line holds a function of this signature that touches no memory.
            let call: extern "sysv64" fn(u32) = unsafe { std::mem::transmute(line) };
            call(black_box(argument >> 24));
        }
        black_box(&self.data);
    }
}

impl Drop for Evictor {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, no longer used.
        unsafe { libc::munmap(self.code.cast_mut().cast(), CODE) };
    }
}
