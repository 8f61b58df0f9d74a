//! Ways for fuzz targets into parsers that are private. Not compiled otherwise.

use std::sync::Arc;

use crate::unwind::{CodeMap, LoadedTable, Memory, Registers, compile, section_len, walk};

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

/// Compiles the bytes as an `.eh_frame` section and walks over the table with them as the stack.
pub fn eh_frame(bytes: &[u8]) {
    let section = &bytes[..section_len(bytes).min(bytes.len())];
    for section in [section, bytes] {
        let table = Arc::new(compile(section, TEXT + TEXT_LEN, TEXT..TEXT + TEXT_LEN));
        let map = CodeMap::new(vec![LoadedTable { start: TEXT, len: TEXT_LEN, table }]);
        for ip in (TEXT..TEXT + TEXT_LEN).step_by(251) {
            let mut frames = 0;
            let registers = Registers { ip, sp: 0, bp: 8 };
            walk(&map, registers, &mut Stack(bytes), |_| {
                frames += 1;
                frames < 128
            });
            assert!(frames <= 128);
        }
    }
}
