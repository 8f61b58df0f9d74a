//! The tree written as Pyroscope's tree bytes.
//!
//! Nodes from the root down, each before its children: length of the name and the name, self, number of children; numbers
//! are LEB128. The root has no name. A tree of nothing is no bytes.

use super::names::{FOLDED, FrameNames};
use super::tree::{Shown, Tree};

/// The bytes of a tree whose frames are names.
pub(super) fn tree_bytes(tree: &Tree<1>, names: &FrameNames, max_nodes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if tree.total() == [0] {
        return out;
    }
    tree.walk(max_nodes, |bar| {
        let name = match bar.shown {
            Shown::Root => "",
            Shown::Frame(name) => names.get(name),
            Shown::Folded => names.get(FOLDED),
        };
        put(&mut out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        put(&mut out, bar.own[0] as u64);
        put(&mut out, bar.children as u64);
    });
    out
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
