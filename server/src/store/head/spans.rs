//! The span index: from a span's or a trace's id to its samples without reading any others.
//!
//! Entries with the same id are chained through numbers inside the entries, as are the postings of an entry, so the
//! index costs a hash slot for each id and four bytes for each link, and a look-up follows just the chain.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use super::super::source::{SpanEntry, SpanLookup};
use crate::model::{HashIndex, INDEXED_BYTES, SpanId, SpanRef, TraceId};

/// The end of a chain.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    entry: SpanEntry,
    next_of_span: u32,
    next_of_trace: u32,
    next_child: u32,
    next_of_root: u32,
    first_posting: u32,
    last_posting: u32,
}

#[derive(Debug)]
struct Posting {
    chunk: u32,
    run: u32,
    next: u32,
}

#[derive(Debug, Default)]
pub(super) struct SpanIndex {
    nodes: Vec<Node>,
    postings: Vec<Posting>,
    hasher: RandomState,
    by_key: HashIndex,
    by_span: HashMap<SpanId, u32, RandomState>,
    by_trace: HashMap<TraceId, u32, RandomState>,
    by_parent: HashMap<SpanId, u32, RandomState>,
    by_root: HashMap<SpanId, u32, RandomState>,
}

fn key(entry: &SpanEntry) -> (&SpanRef, u32) {
    (&entry.span, entry.series)
}

/// Puts `node` in front of the chain of `id` and tells what came first before.
fn prepend<K: Hash + Eq>(chains: &mut HashMap<K, u32, RandomState>, id: Option<K>, node: u32) -> u32 {
    id.and_then(|id| chains.insert(id, node)).unwrap_or(NONE)
}

impl SpanIndex {
    /// Adds the runs of samples of a chunk, each with its number, to the entries of their spans and series; tells the
    /// entries' numbers.
    pub(super) fn add(&mut self, chunk: u32, runs: &[(u32, SpanEntry)]) -> Vec<u32> {
        let known = self.nodes.len();
        let numbers = runs.iter().map(|(run, entry)| self.add_run(chunk, *run, entry)).collect();
        self.link(known);
        numbers
    }

    fn add_run(&mut self, chunk: u32, run: u32, entry: &SpanEntry) -> u32 {
        let number = self.number(entry);
        let posting = self.postings.len() as u32;
        self.postings.push(Posting { chunk, run, next: NONE });
        let node = &mut self.nodes[number as usize];
        match node.last_posting {
            NONE => node.first_posting = posting,
            last => self.postings[last as usize].next = posting,
        }
        node.last_posting = posting;
        node.entry.samples = node.entry.samples.saturating_add(entry.samples);
        node.entry.cpu_nanos = node.entry.cpu_nanos.saturating_add(entry.cpu_nanos);
        node.entry.range = node.entry.range.union(entry.range);
        number
    }

    /// The entry with this number.
    pub(super) fn entry(&self, number: u32) -> &SpanEntry {
        &self.nodes[number as usize].entry
    }

    fn number(&mut self, entry: &SpanEntry) -> u32 {
        let Self { nodes, hasher, by_key, .. } = self;
        let hash = hasher.hash_one(key(entry));
        by_key.find(hash, |number| key(&nodes[number as usize].entry) == key(entry)).unwrap_or_else(|| {
            let number = nodes.len() as u32;
            nodes.push(Node {
                entry: SpanEntry { id: number, samples: 0, cpu_nanos: 0, ..entry.clone() },
                next_of_span: NONE,
                next_of_trace: NONE,
                next_child: NONE,
                next_of_root: NONE,
                first_posting: NONE,
                last_posting: NONE,
            });
            by_key.insert(hash, number);
            number
        })
    }

    /// Puts the nodes from this number on in front of their chains. One table after another: each place in a table has to
    /// come from memory, and a processor waits for many of them at a time if there is nothing else to do between them.
    fn link(&mut self, from: usize) {
        let nodes = &mut self.nodes[from..];
        for (node, number) in nodes.iter_mut().zip(from as u32..) {
            node.next_of_span = prepend(&mut self.by_span, node.entry.span.span_id, number);
        }
        for (node, number) in nodes.iter_mut().zip(from as u32..) {
            node.next_of_trace = prepend(&mut self.by_trace, node.entry.span.trace_id, number);
        }
        for (node, number) in nodes.iter_mut().zip(from as u32..) {
            node.next_child = prepend(&mut self.by_parent, node.entry.span.parent, number);
        }
        for (node, number) in nodes.iter_mut().zip(from as u32..) {
            node.next_of_root = prepend(&mut self.by_root, node.entry.span.local_root, number);
        }
    }

    /// Visits at most `limit` entries from number `start` on, and tells whether there are more.
    pub(super) fn visit_some(&self, start: usize, limit: usize, visit: &mut dyn FnMut(&SpanEntry)) -> bool {
        self.nodes.iter().skip(start).take(limit).for_each(|node| visit(&node.entry));
        self.nodes.len() > start + limit
    }

    /// Visits the entries that a look-up is about.
    pub(super) fn visit(&self, lookup: SpanLookup, visit: &mut dyn FnMut(&SpanEntry)) {
        let SpanLookup::Family(id) = lookup else { return self.visit_chain(lookup, visit) };
        self.visit_chain(SpanLookup::Span(id), visit);
        self.visit_chain(SpanLookup::Children(id), &mut |entry| {
            if entry.span.span_id != Some(id) {
                visit(entry);
            }
        });
        self.visit_chain(SpanLookup::LocalRoot(id), &mut |entry| {
            if ![entry.span.span_id, entry.span.parent].contains(&Some(id)) {
                visit(entry);
            }
        });
    }

    fn visit_chain(&self, lookup: SpanLookup, visit: &mut dyn FnMut(&SpanEntry)) {
        let (first, next): (Option<&u32>, fn(&Node) -> u32) = match lookup {
            SpanLookup::Span(id) => (self.by_span.get(&id), |node| node.next_of_span),
            SpanLookup::Trace(id) => (self.by_trace.get(&id), |node| node.next_of_trace),
            SpanLookup::Children(id) => (self.by_parent.get(&id), |node| node.next_child),
            SpanLookup::LocalRoot(id) => (self.by_root.get(&id), |node| node.next_of_root),
            SpanLookup::Family(_) => return,
        };
        let mut at = first.copied().unwrap_or(NONE);
        while at != NONE {
            let node = &self.nodes[at as usize];
            visit(&node.entry);
            at = next(node);
        }
    }

    /// Visits chunk and run of each posting of an entry, oldest first.
    pub(super) fn postings(&self, entry: u32, mut visit: impl FnMut(u32, u32)) {
        let mut at = self.nodes[entry as usize].first_posting;
        while at != NONE {
            let posting = &self.postings[at as usize];
            visit(posting.chunk, posting.run);
            at = posting.next;
        }
    }

    /// How many distinct span ids there are.
    pub(super) fn span_count(&self) -> u64 {
        self.by_span.len() as u64
    }

    /// Memory taken, by the sizes of the entries; hash slots are counted at a load of three quarters.
    pub(super) fn bytes(&self) -> usize {
        let slots = |len: usize, size: usize| len * (size + 1) * 4 / 3;
        let ids = self.by_span.len() + self.by_parent.len() + self.by_root.len();
        self.nodes.len() * size_of::<Node>()
            + self.postings.len() * size_of::<Posting>()
            + self.by_key.len() * INDEXED_BYTES
            + slots(ids, 16)
            + slots(self.by_trace.len(), 32)
    }
}
