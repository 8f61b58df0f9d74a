//! Stack traces merged into a tree, and the tree written as Pyroscope's flame graph.
//!
//! Nothing recurses: stack traces come from strangers and may be a thousand frames deep.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::store::FrameNames;

/// A flame graph as Pyroscope encodes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlameGraph {
    /// Names of bars; the first is `total`.
    pub names: Vec<String>,
    /// Bars from the root down, four numbers each: distance from the end of the bar to the left of it on the same level,
    /// total, self, number of the name. Children lie to the right of their parent's self part, sorted by name.
    pub levels: Vec<Vec<i64>>,
    /// The value of the root.
    pub total: i64,
    /// The largest self value of a bar.
    pub max_self: i64,
    /// Samples that it rests on.
    pub samples: u64,
}

const ROOT: usize = 0;
const ROOT_NAME: &str = "total";
const FOLDED_NAME: &str = "other";

#[derive(Debug)]
struct Node {
    name: u32,
    parent: u32,
    own: i64,
    total: i64,
}

/// A tree of stack traces with a value for each.
#[derive(Debug)]
pub(super) struct StackTree {
    nodes: Vec<Node>,
    children: HashMap<(u32, u32), u32, RandomState>,
}

impl StackTree {
    pub(super) fn new() -> Self {
        let root = Node { name: u32::MAX, parent: 0, own: 0, total: 0 };
        Self { nodes: vec![root], children: HashMap::default() }
    }

    /// Adds `value` to the stack trace with these frames, the root first.
    pub(super) fn add(&mut self, frames: &[u32], value: i64) {
        let mut at = ROOT as u32;
        for &name in frames {
            let next = self.nodes.len() as u32;
            let child = *self.children.entry((at, name)).or_insert(next);
            if child == next {
                self.nodes.push(Node { name, parent: at, own: 0, total: 0 });
            }
            at = child;
        }
        let own = &mut self.nodes[at as usize].own;
        *own = own.saturating_add(value);
    }

    /// The flame graph with about the `max_nodes` largest nodes, 0 for all. Smaller ones are folded, parent by parent,
    /// into one bar named `other`; as nodes of equal value stay together, a few more than `max_nodes` may survive.
    pub(super) fn flame_graph(mut self, names: &FrameNames, max_nodes: usize) -> FlameGraph {
        // A child is always behind its parent, so one pass from the end adds up the totals.
        for at in (1..self.nodes.len()).rev() {
            let total = self.nodes[at].total.saturating_add(self.nodes[at].own);
            self.nodes[at].total = total;
            let parent = self.nodes[at].parent as usize;
            self.nodes[parent].total = self.nodes[parent].total.saturating_add(total);
        }
        self.nodes[ROOT].total = self.nodes[ROOT].total.saturating_add(self.nodes[ROOT].own);
        let children = Children::of(&self.nodes, names);
        let smallest = self.smallest_kept(max_nodes);

        let mut encoder = Encoder::default();
        let mut pending = vec![Bar { node: Some(ROOT), level: 0, x: 0, total: self.nodes[ROOT].total }];
        while let Some(bar) = pending.pop() {
            let (name, own) = match bar.node {
                Some(ROOT) => (ROOT_NAME, self.nodes[ROOT].own),
                Some(node) => (names.get(self.nodes[node].name), self.nodes[node].own),
                None => (FOLDED_NAME, bar.total),
            };
            encoder.bar(&bar, own, name);
            let Some(node) = bar.node else { continue };
            let of_node = children.of_node(node);
            let folds = of_node.iter().any(|&child| self.nodes[child as usize].total < smallest);
            // A function that is really called `other` cannot be told from the folded bar beside it, so they are one.
            let kept = |child: usize| {
                let Node { total, name, .. } = self.nodes[child];
                total >= smallest && !(folds && names.get(name) == FOLDED_NAME)
            };
            let mut x = bar.x.saturating_add(own);
            let mut folded = 0i64;
            let first = pending.len();
            for &child in of_node {
                let child = child as usize;
                let total = self.nodes[child].total;
                if kept(child) {
                    pending.push(Bar { node: Some(child), level: bar.level + 1, x, total });
                    x = x.saturating_add(total);
                } else {
                    folded = total.saturating_add(folded);
                }
            }
            if folded > 0 {
                pending.push(Bar { node: None, level: bar.level + 1, x, total: folded });
            }
            pending[first..].reverse();
        }
        encoder.finish(self.nodes[ROOT].total)
    }

    fn smallest_kept(&self, max_nodes: usize) -> i64 {
        if max_nodes == 0 || self.nodes.len() - 1 <= max_nodes {
            return 0;
        }
        let mut totals: Vec<i64> = self.nodes[1..].iter().map(|node| node.total).collect();
        let (_, smallest, _) = totals.select_nth_unstable_by(max_nodes - 1, |a, b| b.cmp(a));
        *smallest
    }
}

/// Children of every node, sorted by name.
struct Children {
    sorted: Vec<u32>,
    starts: Vec<u32>,
}

impl Children {
    fn of(nodes: &[Node], names: &FrameNames) -> Self {
        let mut sorted: Vec<u32> = (1..nodes.len() as u32).collect();
        sorted.sort_unstable_by(|&a, &b| {
            let (a, b) = (&nodes[a as usize], &nodes[b as usize]);
            a.parent.cmp(&b.parent).then_with(|| names.get(a.name).cmp(names.get(b.name)))
        });
        let mut starts = vec![0u32; nodes.len() + 1];
        for node in &nodes[1..] {
            starts[node.parent as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        Self { sorted, starts }
    }

    fn of_node(&self, node: usize) -> &[u32] {
        &self.sorted[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}

struct Bar {
    /// None for a folded one.
    node: Option<usize>,
    level: usize,
    x: i64,
    total: i64,
}

#[derive(Default)]
struct Encoder {
    names: Vec<String>,
    numbers: HashMap<String, i64, RandomState>,
    levels: Vec<Vec<i64>>,
    ends: Vec<i64>,
    max_self: i64,
}

impl Encoder {
    fn bar(&mut self, bar: &Bar, own: i64, name: &str) {
        let number = match self.numbers.get(name) {
            Some(&number) => number,
            None => {
                let number = self.names.len() as i64;
                self.names.push(name.to_owned());
                self.numbers.insert(name.to_owned(), number);
                number
            }
        };
        if bar.level == self.levels.len() {
            self.levels.push(Vec::new());
            self.ends.push(0);
        }
        let end = &mut self.ends[bar.level];
        self.levels[bar.level].extend([bar.x.saturating_sub(*end), bar.total, own, number]);
        *end = bar.x.saturating_add(bar.total);
        self.max_self = self.max_self.max(own);
    }

    fn finish(self, total: i64) -> FlameGraph {
        FlameGraph { names: self.names, levels: self.levels, total, max_self: self.max_self, samples: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(stacks: &[(&[&str], i64)], max_nodes: usize) -> FlameGraph {
        let mut names = FrameNames::default();
        let mut tree = StackTree::new();
        for (frames, value) in stacks {
            let frames: Vec<u32> = frames.iter().map(|frame| names.of_text(frame)).collect();
            tree.add(&frames, *value);
        }
        tree.flame_graph(&names, max_nodes)
    }

    #[test]
    fn nothing_is_one_bar_of_zero() {
        let empty = graph(&[], 10);
        assert_eq!(empty.names, ["total"]);
        assert_eq!(empty.levels, [[0, 0, 0, 0]]);
        assert_eq!((empty.total, empty.max_self), (0, 0));
    }

    #[test]
    fn children_follow_their_parents_self_part() {
        let graph = graph(&[(&["handler"], 10), (&["handler", "hash"], 20)], 0);
        assert_eq!(graph.names, ["total", "handler", "hash"]);
        assert_eq!(graph.levels, [[0, 30, 0, 0], [0, 30, 10, 1], [10, 20, 20, 2]]);
        assert_eq!((graph.total, graph.max_self), (30, 20));
    }

    #[test]
    fn siblings_are_sorted_and_offsets_count_from_the_bar_before() {
        let graph = graph(&[(&["b", "x"], 4), (&["a"], 3), (&["a", "y"], 2), (&["c", "a"], 1)], 0);
        assert_eq!(graph.names, ["total", "a", "y", "b", "x", "c"]);
        assert_eq!(
            graph.levels,
            [
                vec![0, 10, 0, 0],
                vec![0, 5, 3, 1, 0, 4, 0, 3, 0, 1, 0, 5],
                vec![3, 2, 2, 2, 0, 4, 4, 4, 0, 1, 1, 1]
            ]
        );
    }

    #[test]
    fn small_nodes_fold_into_other_and_ties_survive() {
        let stacks: &[(&[&str], i64)] =
            &[(&["a"], 10), (&["b"], 5), (&["c"], 5), (&["d", "e"], 1), (&["f"], 2)];
        let folded = graph(stacks, 2);
        assert_eq!(folded.names, ["total", "a", "b", "c", "other"]);
        assert_eq!(folded.levels[1], [0, 10, 10, 1, 0, 5, 5, 2, 0, 5, 5, 3, 0, 3, 3, 4]);
        assert_eq!(folded.levels.len(), 2);
        assert_eq!(folded.total, 23);
        assert_eq!(graph(stacks, 6), graph(stacks, 0));
    }

    #[test]
    fn a_function_called_other_joins_the_folded_bar_only_where_there_is_one() {
        let stacks: &[(&[&str], i64)] = &[(&["other", "x"], 10), (&["z"], 9), (&["b"], 1)];
        assert_eq!(graph(stacks, 0).names, ["total", "b", "other", "x", "z"]);
        let folded = graph(stacks, 3);
        assert_eq!(folded.names, ["total", "z", "other"]);
        assert_eq!(folded.levels, [vec![0, 20, 0, 0], vec![0, 9, 9, 1, 0, 11, 11, 2]]);
    }

    #[test]
    fn deep_stacks_and_recursion_are_fine() {
        let deep = vec!["f"; 5000];
        let graph = graph(&[(&deep, 1)], 0);
        assert_eq!(graph.names, ["total", "f"]);
        assert_eq!(graph.levels.len(), 5001);
    }
}
