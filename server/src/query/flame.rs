//! The tree written as Pyroscope's flame graph, and two of them laid over one another.

use super::names::{FOLDED, FrameNames, ROOT};
use super::tree::{Bar, Shown, Tree};

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

/// Two flame graphs laid over one another as Pyroscope encodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlameGraphDiff {
    /// Names of bars; the first is `total`.
    pub names: Vec<String>,
    /// Bars from the root down, seven numbers each: as in [`FlameGraph`] distance, total and self of the left graph, the
    /// same three of the right one, number of the name.
    pub levels: Vec<Vec<i64>>,
    /// The values of both roots together.
    pub total: i64,
    /// The largest self value of a bar, of either side.
    pub max_self: i64,
    /// The value of the left root.
    pub left: i64,
    /// The value of the right root.
    pub right: i64,
}

/// The flame graph of a tree whose frames are names.
pub(super) fn flame_graph(tree: &Tree<1>, names: &FrameNames, max_nodes: usize, samples: u64) -> FlameGraph {
    let Encoder { names, levels, max_self, .. } = encode(tree, names, max_nodes);
    let [total] = tree.total();
    FlameGraph { names, levels, total, max_self, samples }
}

/// The comparison of both sides of a tree whose frames are names.
pub(super) fn flame_graph_diff(tree: &Tree<2>, names: &FrameNames, max_nodes: usize) -> FlameGraphDiff {
    let Encoder { names, levels, max_self, .. } = encode(tree, names, max_nodes);
    let [left, right] = tree.total();
    FlameGraphDiff { names, levels, total: left.saturating_add(right), max_self, left, right }
}

fn encode<const SIDES: usize>(tree: &Tree<SIDES>, names: &FrameNames, max_nodes: usize) -> Encoder<SIDES> {
    let mut encoder = Encoder {
        names: Vec::new(),
        numbers: vec![None; names.len()],
        levels: Vec::new(),
        ends: Vec::new(),
        free: Vec::new(),
        max_self: 0,
    };
    tree.walk(max_nodes, |bar| encoder.bar(&bar, names));
    encoder
}

struct Encoder<const SIDES: usize> {
    names: Vec<String>,
    /// Where among those each name is, by its number.
    numbers: Vec<Option<i64>>,
    levels: Vec<Vec<i64>>,
    /// Where the last bar of each level ends.
    ends: Vec<[i64; SIDES]>,
    /// Where the next bar of each level begins, below the last bar of the level above.
    free: Vec<[i64; SIDES]>,
    max_self: i64,
}

impl<const SIDES: usize> Encoder<SIDES> {
    fn bar(&mut self, bar: &Bar<SIDES>, names: &FrameNames) {
        let name = match bar.shown {
            Shown::Root => ROOT,
            Shown::Frame(name) => name,
            Shown::Folded => FOLDED,
        };
        let number = *self.numbers[name as usize].get_or_insert_with(|| {
            self.names.push(names.get(name).to_owned());
            self.names.len() as i64 - 1
        });
        let depth = bar.depth;
        if depth == self.levels.len() {
            self.levels.push(Vec::new());
            self.ends.push([0; SIDES]);
        }
        if depth == self.free.len() {
            self.free.push([0; SIDES]);
        }
        let start = self.free[depth];
        let end = std::array::from_fn(|side| start[side].saturating_add(bar.total[side]));
        for (side, start) in start.iter().enumerate() {
            let gap = start.saturating_sub(self.ends[depth][side]);
            self.levels[depth].extend([gap, bar.total[side], bar.own[side]]);
            self.max_self = self.max_self.max(bar.own[side]);
        }
        self.levels[depth].push(number);
        self.ends[depth] = end;
        self.free[depth] = end;
        // Children lie to the right of their parent's self part.
        let below = std::array::from_fn(|side| start[side].saturating_add(bar.own[side]));
        self.free.truncate(depth + 1);
        self.free.push(below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tree::TreeBuilder;

    /// A tree of these stack traces, the root first, each with its value on either side.
    fn tree<const SIDES: usize>(stacks: &[(&[&str], [i64; SIDES])]) -> (Tree<SIDES>, FrameNames) {
        let mut names = FrameNames::default();
        let mut builder = TreeBuilder::new();
        for (frames, values) in stacks {
            let frames: Vec<u32> = frames.iter().map(|frame| names.of_text(frame)).collect();
            for (side, value) in values.iter().enumerate().filter(|(_, value)| **value != 0) {
                builder.add(frames.iter().copied(), side, *value).expect("a small tree");
            }
        }
        let tree = builder.finish(Some(FOLDED), |a, b| names.get(a).cmp(names.get(b)));
        (tree, names)
    }

    fn graph(stacks: &[(&[&str], i64)], max_nodes: usize) -> FlameGraph {
        let stacks: Vec<_> = stacks.iter().map(|(frames, value)| (*frames, [*value])).collect();
        let (tree, names) = tree(&stacks);
        flame_graph(&tree, &names, max_nodes, 0)
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
    fn a_function_with_many_callees_has_each_once() {
        let names: Vec<String> = (0..50).map(|at| format!("f{at:02}")).collect();
        let stacks: Vec<Vec<&str>> = names.iter().map(|name| vec!["main", name]).collect();
        let twice: Vec<(&[&str], i64)> =
            stacks.iter().chain(&stacks).map(|frames| (frames.as_slice(), 1)).collect();
        let graph = graph(&twice, 0);
        assert_eq!(graph.names[2..], names);
        let expected: Vec<i64> = (2..52).flat_map(|name| [0, 2, 2, name]).collect();
        assert_eq!(graph.levels[2], expected);
    }

    #[test]
    fn small_nodes_fold_into_other() {
        let stacks: &[(&[&str], i64)] =
            &[(&["a"], 10), (&["b"], 5), (&["c"], 5), (&["d", "e"], 1), (&["f"], 2)];
        let folded = graph(stacks, 2);
        assert_eq!(folded.names, ["total", "a", "b", "other"], "of two as large as one another the first");
        assert_eq!(folded.levels[1], [0, 10, 10, 1, 0, 5, 5, 2, 0, 8, 8, 3]);
        assert_eq!(graph(stacks, 3).names, ["total", "a", "b", "c", "other"]);
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

    #[test]
    fn no_bar_leaves_its_parent_where_sums_end() {
        let max = i64::MAX;
        let graph = graph(&[(&["a", "b"], max), (&["a", "c"], max), (&["a"], 5), (&["d"], 7)], 0);
        assert_eq!(graph.levels[0], [0, max, 0, 0]);
        assert_eq!(graph.levels[1], [0, max, 5, 1], "there is no room for another");
        assert_eq!(graph.levels[2], [5, max - 5, max - 5, 2]);
    }

    #[test]
    fn both_sides_of_a_comparison_have_their_own_offsets() {
        let stacks: &[(&[&str], [i64; 2])] =
            &[(&["a", "x"], [4, 1]), (&["a"], [0, 2]), (&["b"], [3, 0]), (&["c"], [0, 5])];
        let (tree, names) = tree(stacks);
        let diff = flame_graph_diff(&tree, &names, 0);
        assert_eq!(diff.names, ["total", "a", "x", "b", "c"]);
        assert_eq!(
            diff.levels,
            [
                vec![0, 7, 0, 0, 8, 0, 0],
                vec![0, 4, 0, 0, 3, 2, 1, 0, 3, 3, 0, 0, 0, 3, 0, 0, 0, 0, 5, 5, 4],
                vec![0, 4, 4, 2, 1, 1, 2],
            ]
        );
        assert_eq!((diff.total, diff.left, diff.right, diff.max_self), (15, 7, 8, 5));
        let folded = flame_graph_diff(&tree, &names, 1);
        assert_eq!(folded.names, ["total", "a", "other"]);
        assert_eq!(folded.levels[1][7..], [0, 3, 3, 0, 5, 5, 2]);
    }

    #[test]
    fn an_empty_comparison_is_one_bar_of_zeros() {
        let (tree, names) = tree::<2>(&[]);
        let diff = flame_graph_diff(&tree, &names, 0);
        assert_eq!((diff.names.len(), diff.levels), (1, vec![vec![0; 7]]));
    }
}
