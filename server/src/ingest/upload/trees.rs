//! Stack traces as trees, in the two binary forms of older agents. Both write a node as the length of its name, the name,
//! its value and the number of its children, who follow it at once; numbers are LEB128.
//!
//! In a *tree* a node is a frame. In a *trie* it is a piece of text: the pieces from the root on, joined, are a stack trace
//! with frames separated by `;`. No input makes either cost more than its length and the limits allow.

use super::tally::Tally;
use crate::ingest::{IngestError, Limits};

/// How deep a tree may be: far deeper than any stack trace, in frames and in pieces of text.
const MAX_DEPTH: usize = 1 << 20;

/// Reads trees, one after the other. A node without a name is no frame: roots have none.
pub(super) fn tree(bytes: &[u8], tally: &mut Tally<'_>) -> Result<(), IngestError> {
    let mut nodes = Nodes::new(bytes);
    // Names of the open nodes, and how long the path was before each of the first `known` of them.
    let mut open: Vec<(&[u8], usize)> = Vec::new();
    let mut known = 0;
    let mut path = Vec::new();
    while let Some(node) = nodes.next()? {
        if known > node.depth {
            known = node.depth;
            path.truncate(open[known].1);
        }
        open.truncate(node.depth);
        open.push((node.name, 0));
        if node.value == 0 {
            continue;
        }
        // Frames that nothing was counted below are never named.
        for (name, before) in &mut open[known..] {
            *before = path.len();
            if !name.is_empty() && path.len() < tally.depth {
                path.push(tally.frame(text(name, node.number)?));
            }
        }
        known = open.len();
        tally.add(&path, node.value)?;
    }
    Ok(())
}

/// What a trie's text was before a node added its piece.
struct Before {
    text: usize,
    frames: usize,
    last_frame: usize,
}

/// Reads tries, one after the other.
pub(super) fn trie(bytes: &[u8], limits: &Limits, tally: &mut Tally<'_>) -> Result<(), IngestError> {
    let mut nodes = Nodes::new(bytes);
    let mut open: Vec<Before> = Vec::new();
    // The pieces of the open nodes, where the frames in them lie that are complete, and where the last one begins.
    let mut joined: Vec<u8> = Vec::new();
    let mut frames: Vec<(usize, usize)> = Vec::new();
    let mut last_frame = 0;
    // Numbers of as many frames as were needed yet.
    let mut path: Vec<u32> = Vec::new();
    let mut read = 0;
    while let Some(node) = nodes.next()? {
        if let Some(before) = open.get(node.depth) {
            joined.truncate(before.text);
            frames.truncate(before.frames);
            last_frame = before.last_frame;
            path.truncate(frames.len());
            open.truncate(node.depth);
        }
        open.push(Before { text: joined.len(), frames: frames.len(), last_frame });
        for &byte in node.name {
            if byte == b';' {
                if last_frame < joined.len() && frames.len() < tally.depth {
                    frames.push((last_frame, joined.len()));
                }
                last_frame = joined.len() + 1;
            }
            joined.push(byte);
        }
        if node.value == 0 {
            continue;
        }
        let partial = last_frame < joined.len() && frames.len() < tally.depth;
        let mut frame = |start: usize, end: usize| {
            // Nodes that share a long name each read it again.
            read += end - start;
            if read > limits.max_decoded_bytes {
                let max = limits.max_decoded_bytes;
                return Err(IngestError::over("names of frames", "max_decoded_bytes", max, read));
            }
            Ok(tally.frame(text(&joined[start..end], node.number)?))
        };
        for &(start, end) in &frames[path.len()..] {
            path.push(frame(start, end)?);
        }
        if partial {
            path.push(frame(last_frame, joined.len())?);
        }
        tally.add(&path, node.value)?;
        path.truncate(frames.len());
    }
    Ok(())
}

fn text(name: &[u8], node: usize) -> Result<&str, IngestError> {
    let error = |_| IngestError::invalid(format!("node {node}"), "a frame's name is not UTF-8: encode it so");
    std::str::from_utf8(name).map_err(error)
}

struct Node<'a> {
    /// From 1 on.
    number: usize,
    /// How many nodes are above it.
    depth: usize,
    name: &'a [u8],
    /// Never negative.
    value: i64,
}

/// The nodes in the order of the input, each before its children.
struct Nodes<'a> {
    rest: &'a [u8],
    count: usize,
    /// How many children of each open node are still to come.
    left: Vec<u64>,
}

impl<'a> Nodes<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, count: 0, left: Vec::new() }
    }

    fn next(&mut self) -> Result<Option<Node<'a>>, IngestError> {
        while self.left.last() == Some(&0) {
            self.left.pop();
        }
        let depth = self.left.len();
        if depth == 0 && self.rest.is_empty() {
            return Ok(None);
        }
        self.count += 1;
        if depth > MAX_DEPTH {
            return Err(self.error(&format!("is below {depth} others: no stack trace is so deep")));
        }
        if let Some(left) = self.left.last_mut() {
            *left -= 1;
        }
        let length = self.number()?;
        let name = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((name, rest)) = name else {
            return Err(self.error(&format!("its name of {length} bytes is not all there")));
        };
        self.rest = rest;
        let value = self.number()?;
        let Ok(value) = i64::try_from(value) else {
            return Err(self.error(&format!("its value {value} is over {}", i64::MAX)));
        };
        let children = self.number()?;
        self.left.push(children);
        Ok(Some(Node { number: self.count, depth, name, value }))
    }

    fn number(&mut self) -> Result<u64, IngestError> {
        let mut number = 0;
        for at in 0..10 {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return Err(self.error("is not all there: the input ends before it does"));
            };
            self.rest = rest;
            if at == 9 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.error("a number has more than 64 bits"))
    }

    fn error(&self, message: &str) -> IngestError {
        IngestError::invalid(format!("node {}", self.count), message)
    }
}
