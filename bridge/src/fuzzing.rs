//! Ways for fuzz targets into parsers that are private. Not compiled otherwise.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::unwind::{
    Aarch64, Architecture, Code, CodeMap, LoadedTable, Memory, Registers, Upwards, X86_64, compile, follow,
    section_len, walk,
};

const TEXT: u64 = 0x1000;
const TEXT_LEN: u64 = 0x1_0000;

/// A stack that holds whatever the input holds.
struct Stack<'a>(&'a [u8]);

impl Memory for Stack<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let at = usize::try_from(address).ok()?;
        let word = self.0.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    }
}

/// Compiles the bytes as an `.eh_frame` section of each architecture, and walks over the table and along frame pointers
/// with them as the stack.
pub fn eh_frame(bytes: &[u8]) {
    eh_frame_of::<X86_64>(bytes);
    eh_frame_of::<Aarch64>(bytes);
}

fn eh_frame_of<A: Architecture>(bytes: &[u8]) {
    let section = &bytes[..section_len(bytes).min(bytes.len())];
    for section in [section, bytes] {
        // Linkage stubs anywhere, if that is what the input looks like.
        let code = |_| vec![Code { address: TEXT, bytes: bytes.to_vec() }];
        let table = Arc::new(compile::<A>(section, TEXT + TEXT_LEN, TEXT..TEXT + TEXT_LEN, code));
        let map = CodeMap::new(vec![LoadedTable { start: TEXT, len: TEXT_LEN, table }]);
        for ip in (TEXT..TEXT + TEXT_LEN).step_by(251) {
            let mut frames = 0;
            let registers = Registers { ip, sp: 0, fp: 8, lr: TEXT + 7 };
            let mut count = |_| {
                frames += 1;
                frames < 128
            };
            walk::<A>(&map, registers, &mut Stack(bytes), &mut count);
            assert!(frames <= 128);
            let room = [const { AtomicU64::new(0) }; 127];
            let (len, _) = follow::<A>(registers, Upwards { memory: Stack(bytes), above: 0 }, &room);
            assert!(len <= room.len());
        }
    }
}
