//! The samples of a selection merged: by the names of their frames, or by whole locations.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use spanflame_wire::google::v1 as wire;

use super::flame::{self, FlameGraph, FlameGraphDiff};
use super::names::{FOLDED, FrameNames};
use super::select::{Covered, FoundStack, Selection};
use super::tree::{Tree, TreeBuilder};
use super::{Engine, QueryError, dot, pprof, tree_bytes};
use crate::model::{Line, Location, Mapping, ProfileType, Symbols, SymbolsBuilder};

/// Stack traces merged by the names of their frames, to be written in one form or another.
#[derive(Debug)]
pub struct MergedStacks {
    kind: ProfileType,
    names: FrameNames,
    tree: Tree<1>,
    samples: u64,
}

/// Stack traces merged by their locations, with everything that is known of those.
#[derive(Debug)]
pub struct MergedProfile {
    pub(super) kind: ProfileType,
    pub(super) symbols: Symbols,
    /// Its frames are locations.
    pub(super) tree: Tree<1>,
    pub(super) covered: Covered,
    samples: u64,
}

impl MergedStacks {
    /// The sum of all values, in the unit of the profile type.
    pub fn total(&self) -> i64 {
        self.tree.total()[0]
    }

    /// Samples that it rests on.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The flame graph with the `max_nodes` largest nodes, 0 for all; smaller ones are folded into `other`.
    pub fn flame_graph(&self, max_nodes: usize) -> FlameGraph {
        flame::flame_graph(&self.tree, &self.names, max_nodes, self.samples)
    }

    /// Pyroscope's tree bytes, with nodes as in [`flame_graph`](Self::flame_graph); none if there is nothing.
    pub fn tree_bytes(&self, max_nodes: usize) -> Vec<u8> {
        tree_bytes::tree_bytes(&self.tree, &self.names, max_nodes)
    }

    /// The call graph in Graphviz' language, of about the `max_functions` largest functions; 0 for a hundred.
    pub fn dot(&self, max_functions: usize) -> String {
        let most = if max_functions == 0 { dot::DEFAULT_FUNCTIONS } else { max_functions };
        dot::dot(&self.tree, &self.names, &self.kind, most)
    }
}

impl MergedProfile {
    /// The sum of all values, in the unit of the profile type.
    pub fn total(&self) -> i64 {
        self.tree.total()[0]
    }

    /// Samples that it rests on.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The profile as a pprof message, of the `max_nodes` largest nodes of the tree of locations, 0 for all;
    /// smaller ones are folded into a function named `other`. It begins with the first of the merged profiles and lasts
    /// until the last one's end.
    pub fn pprof(&self, max_nodes: usize) -> wire::Profile {
        pprof::pprof(self, max_nodes)
    }
}

impl Engine {
    /// The merged stack traces of a selection.
    pub fn merge(&self, selection: &Selection) -> Result<MergedStacks, QueryError> {
        let mut names = FrameNames::default();
        let mut builder = TreeBuilder::new();
        let mut samples = 0u64;
        self.visit_stacks(selection, &mut names, |found| {
            samples = samples.saturating_add(found.samples);
            builder.add(found.frames.iter().copied(), 0, found.value)
        })?;
        let tree = by_name(builder, &names);
        Ok(MergedStacks { kind: selection.kind.clone(), names, tree, samples })
    }

    /// Two selections laid over one another, with the `max_nodes` largest nodes of both together, 0 for all.
    pub fn diff(
        &self,
        left: &Selection,
        right: &Selection,
        max_nodes: usize,
    ) -> Result<FlameGraphDiff, QueryError> {
        let mut names = FrameNames::default();
        let mut builder = TreeBuilder::new();
        for (side, selection) in [left, right].into_iter().enumerate() {
            self.visit_stacks(selection, &mut names, |found| {
                builder.add(found.frames.iter().copied(), side, found.value)
            })?;
        }
        let tree = by_name(builder, &names);
        Ok(flame::flame_graph_diff(&tree, &names, max_nodes))
    }

    /// The merged profile of a selection, with all that is known of its locations.
    pub fn merge_profile(&self, selection: &Selection) -> Result<MergedProfile, QueryError> {
        let mut names = FrameNames::default();
        let mut tables = Tables::default();
        let mut builder = TreeBuilder::new();
        let mut samples = 0u64;
        let ignore_leaf_lines = selection.stacks.ignore_leaf_lines;
        let covered = self.visit_stacks(selection, &mut names, |found| {
            let locations = tables.take_over(&found, ignore_leaf_lines);
            samples = samples.saturating_add(found.samples);
            builder.add(locations.iter().copied(), 0, found.value)
        })?;
        let tree = builder.finish(None, |a, b| a.cmp(&b));
        let kind = selection.kind.clone();
        Ok(MergedProfile { kind, symbols: tables.builder.finish(), tree, covered, samples })
    }
}

fn by_name<const SIDES: usize>(builder: TreeBuilder<SIDES>, names: &FrameNames) -> Tree<SIDES> {
    builder.finish(Some(FOLDED), |a, b| names.get(a).cmp(names.get(b)))
}

/// Tables made of those of many sources.
#[derive(Default)]
struct Tables {
    builder: SymbolsBuilder,
    /// The source whose locations are known.
    source: usize,
    /// Numbers of locations of that source, with and without their source lines.
    known: HashMap<(u32, bool), u32, RandomState>,
    lines: Vec<Line>,
    locations: Vec<u32>,
}

impl Tables {
    /// The numbers here of a stack trace's locations, the root first.
    fn take_over(&mut self, found: &FoundStack<'_>, ignore_leaf_lines: bool) -> &[u32] {
        if self.source != found.source {
            self.source = found.source;
            self.known.clear();
        }
        self.locations.clear();
        for (at, &number) in found.locations.iter().enumerate().rev() {
            let key = (number, at == 0 && ignore_leaf_lines);
            let here = match self.known.get(&key) {
                Some(&here) => here,
                None => {
                    let here = self.location(found.symbols, found.symbols.location(number), key.1);
                    self.known.insert(key, here);
                    here
                }
            };
            self.locations.push(here);
        }
        &self.locations
    }

    fn location(&mut self, symbols: &Symbols, location: Location, ignore_lines: bool) -> u32 {
        let Self { builder, lines, .. } = self;
        lines.clear();
        for line in symbols.lines(location) {
            let mut function = symbols.function(line.function);
            for text in [&mut function.name, &mut function.system_name, &mut function.filename] {
                *text = builder.string(symbols.string(*text));
            }
            let function = builder.function(function);
            lines.push(Line { function, line: if ignore_lines { 0 } else { line.line } });
        }
        let mapping = symbols.mapping(location.mapping);
        let (filename, build_id) = (symbols.string(mapping.filename), symbols.string(mapping.build_id));
        let (filename, build_id) = (builder.string(filename), builder.string(build_id));
        let mapping = builder.mapping(Mapping { filename, build_id, ..mapping });
        let address = if ignore_lines && !lines.is_empty() { 0 } else { location.address };
        builder.location(mapping, address, lines)
    }
}
