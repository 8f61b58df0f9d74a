//! Reads a flame graph as Grafana's data source does: bars become a tree by their position alone. What the data source
//! would silently drop or stumble over is a panic here.

use std::collections::BTreeMap;

use prost::Message;

use crate::pprof::{Sample, is_function};

/// `querier.v1.FlameGraph`.
#[derive(Clone, PartialEq, Message)]
pub struct FlameGraph {
    /// The functions' names.
    #[prost(string, repeated, tag = 1)]
    pub names: Vec<String>,
    /// The bars, from the root outwards.
    #[prost(message, repeated, tag = 2)]
    pub levels: Vec<Level>,
    /// The root's total.
    #[prost(int64, tag = 3)]
    pub total: i64,
    /// The largest value that any bar has to itself.
    #[prost(int64, tag = 4)]
    pub max_self: i64,
}

/// `querier.v1.Level`.
#[derive(Clone, PartialEq, Message)]
pub struct Level {
    /// Four numbers for each bar: gap to the end of the bar before, total, self, index of the name.
    #[prost(int64, repeated, tag = 1)]
    pub values: Vec<i64>,
}

/// What was spent at one place of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// There and in all that it called.
    pub total: i64,
    /// There alone.
    pub own: i64,
}

/// A tree of stacks, as what was spent at each path from its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<Vec<String>, Spent>);

impl Tree {
    /// The tree that a flame graph stands for.
    ///
    /// # Panics
    /// When Grafana's data source would crash over it, or leave a bar out.
    pub fn of_graph(graph: &FlameGraph) -> Self {
        let name = |index: i64| {
            let index = usize::try_from(index).expect("an index is not negative");
            graph.names.get(index).expect("an index is within the names").clone()
        };
        let mut tree = BTreeMap::new();
        let (root, levels) = graph.levels.split_first().expect("a flame graph has a root");
        let &[offset, total, own, _] = root.values.as_slice() else {
            panic!("one bar of four numbers in the first level, got {:?}", root.values);
        };
        // The data source takes the root's offset for the index of its name.
        let path = vec![name(offset)];
        tree.insert(path.clone(), Spent { total, own });
        assert_eq!(graph.total, total, "the graph's total is its root's");

        let mut parents = vec![Bar { start: 0, end: total, path }];
        for level in levels {
            let (bars, rest) = level.values.as_chunks::<4>();
            assert!(rest.is_empty(), "four numbers for each bar, got {} in a level", level.values.len());
            let mut end = 0;
            let mut parent = 0;
            let mut children = Vec::new();
            for &[gap, total, own, index] in bars {
                assert!(gap >= 0 && total > 0 && (0..=total).contains(&own), "bar {gap} {total} {own}");
                let start = end + gap;
                end = start + total;
                while !parents
                    .get(parent)
                    .expect("a bar lies within a bar of the level before")
                    .holds(start, end)
                {
                    parent += 1;
                }
                let mut path = parents[parent].path.clone();
                path.push(name(index));
                let twin = tree.insert(path.clone(), Spent { total, own });
                assert_eq!(twin, None, "two bars for {path:?}");
                children.push(Bar { start, end, path });
            }
            parents = children;
        }
        let largest = tree.values().map(|spent| spent.own).max();
        assert_eq!(largest, Some(graph.max_self), "the largest self value");
        Self(tree)
    }

    /// The tree of these samples' stacks, by CPU time.
    pub fn of_samples<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let mut tree = BTreeMap::from([(vec!["total".to_owned()], Spent::default())]);
        for sample in samples.into_iter().filter(|sample| sample.cpu() > 0) {
            let mut path = vec!["total".to_owned()];
            tree.entry(path.clone()).or_default().total += sample.cpu();
            for function in &sample.stack {
                path.push(function.clone());
                tree.entry(path.clone()).or_default().total += sample.cpu();
            }
            tree.entry(path).or_default().own += sample.cpu();
        }
        Self(tree)
    }

    /// Everything, from the root.
    pub fn total(&self) -> i64 {
        self.0.iter().filter(|(path, _)| path.len() == 1).map(|(_, spent)| spent.total).sum()
    }

    /// What was spent in a function, see [`is_function`], and in all that it called.
    pub fn within(&self, function: &str) -> i64 {
        let outermost = |path: &[String]| {
            path.split_last().is_some_and(|(last, before)| {
                is_function(last, function) && !before.iter().any(|name| is_function(name, function))
            })
        };
        self.0.iter().filter(|(path, _)| outermost(path)).map(|(_, spent)| spent.total).sum()
    }

    /// Whether this tree holds all of the other: its paths, each with at least as much.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.iter().all(|(path, spent)| {
            self.0.get(path).is_some_and(|here| here.total >= spent.total && here.own >= spent.own)
        })
    }

    /// What was spent where, by path.
    pub fn paths(&self) -> impl Iterator<Item = (&[String], Spent)> {
        self.0.iter().map(|(path, spent)| (path.as_slice(), *spent))
    }
}

struct Bar {
    start: i64,
    end: i64,
    path: Vec<String>,
}

impl Bar {
    fn holds(&self, start: i64, end: i64) -> bool {
        self.start <= start && end <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stack: &[&str], cpu: i64) -> Sample {
        Sample {
            stack: stack.iter().map(|&name| name.to_owned()).collect(),
            values: BTreeMap::from([("cpu/nanoseconds".to_owned(), cpu)]),
            labels: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    fn graph(levels: &[&[i64]]) -> FlameGraph {
        let own = levels.iter().flat_map(|level| level.chunks(4)).map(|bar| bar[2]).max();
        FlameGraph {
            names: ["total", "a", "b", "c"].map(str::to_owned).to_vec(),
            levels: levels.iter().map(|values| Level { values: values.to_vec() }).collect(),
            total: levels[0][1],
            max_self: own.unwrap_or_default(),
        }
    }

    #[test]
    fn a_graph_and_the_samples_it_was_made_of_are_the_same_tree() {
        let samples =
            [sample(&["a"], 10), sample(&["a", "b"], 20), sample(&["c", "b"], 5), sample(&["c", "b"], 7)];
        let graph = graph(&[&[0, 42, 0, 0], &[0, 30, 10, 1, 0, 12, 0, 3], &[10, 20, 20, 2, 0, 12, 12, 2]]);
        let tree = Tree::of_graph(&graph);
        assert_eq!(tree, Tree::of_samples(&samples));
        assert_eq!((tree.total(), tree.within("a"), tree.within("b"), tree.within("d")), (42, 30, 32, 0));
        assert!(tree.holds(&Tree::of_samples(&samples[1..])));
        assert!(!Tree::of_samples(&samples[1..]).holds(&tree));
    }

    #[test]
    fn a_recursive_function_counts_once() {
        let tree = Tree::of_samples(&[sample(&["x::a", "b", "x::a", "x::a::{{closure}}"], 3)]);
        assert_eq!(tree.within("a"), 3);
    }

    #[test]
    fn nothing_is_a_root_alone() {
        assert_eq!(Tree::of_graph(&graph(&[&[0, 0, 0, 0]])), Tree::of_samples(&[]));
    }

    #[test]
    #[should_panic(expected = "a bar lies within a bar of the level before")]
    fn a_bar_outside_of_every_parent_is_noticed() {
        Tree::of_graph(&graph(&[&[0, 10, 5, 0], &[5, 5, 5, 1], &[4, 5, 5, 2]]));
    }
}
