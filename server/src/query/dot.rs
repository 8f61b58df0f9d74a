//! The tree written as a call graph in Graphviz' DOT language.

use std::collections::HashMap;
use std::fmt::Write as _;

use foldhash::fast::RandomState;

use super::names::FrameNames;
use super::tree::{Shown, Tree};
use crate::model::ProfileType;

/// Functions that a graph shows when nobody names a number: more cannot be read.
pub(super) const DEFAULT_FUNCTIONS: usize = 100;

type Map<K, V> = HashMap<K, V, RandomState>;

/// What the graph says of a function or a call.
#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    /// The value of stack traces that end here.
    own: i64,
    /// The value of those that come by, each counted once however often it does.
    total: i64,
}

/// The call graph of a tree whose frames are names: about its `max_functions` largest functions. Where functions between
/// two of them are left out, the call is dotted.
pub(super) fn dot(tree: &Tree<1>, names: &FrameNames, kind: &ProfileType, max_functions: usize) -> String {
    let functions = functions(tree);
    let mut largest: Vec<(u32, Weight)> = functions.into_iter().collect();
    largest
        .sort_unstable_by(|a, b| b.1.total.cmp(&a.1.total).then_with(|| names.get(a.0).cmp(names.get(b.0))));
    largest.truncate(max_functions);
    let numbers: Map<u32, usize> =
        largest.iter().enumerate().map(|(at, (name, _))| (*name, at + 1)).collect();
    let mut calls: Vec<((usize, usize, bool), i64)> = calls(tree, &numbers).into_iter().collect();
    calls.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));

    let [total] = tree.total();
    let shown = |value: i64| amount(value, &kind.sample_unit);
    let share = |value: i64| if total > 0 { value as f64 * 100.0 / total as f64 } else { 0.0 };
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("a string takes it");
    line(format_args!("digraph {} {{", quoted(&kind.to_string())));
    line(format_args!("  label={};", quoted(&format!("{kind}\ntotal {}", shown(total)))));
    line(format_args!("  node [shape=box, style=filled, fillcolor=\"#f8f8f8\"];"));
    for (at, (name, weight)) in largest.iter().enumerate() {
        let label = format!(
            "{}\n{} ({:.2}%) of {} ({:.2}%)",
            names.get(*name),
            shown(weight.own),
            share(weight.own),
            shown(weight.total),
            share(weight.total)
        );
        // From 8 to 24 points, by what the function does itself.
        let size = 8.0 + share(weight.own) * 0.16;
        line(format_args!("  N{} [label={}, fontsize={size:.0}];", at + 1, quoted(&label)));
    }
    for ((from, to, direct), value) in calls {
        let style = if direct { "" } else { ", style=dotted" };
        let width = 1.0 + share(value) * 0.04;
        let label = quoted(&shown(value));
        line(format_args!("  N{from} -> N{to} [label={label}, penwidth={width:.1}{style}];"));
    }
    line(format_args!("}}"));
    out
}

/// A way from the root, in which what lies on it several times is known at once.
#[derive(Default)]
struct Way<T> {
    steps: Vec<T>,
    times: Map<T, u32>,
}

impl<T: Copy + Eq + std::hash::Hash> Way<T> {
    /// Goes back until `length` steps are left.
    fn back_to(&mut self, length: usize) {
        for step in self.steps.drain(length.min(self.steps.len())..) {
            if let Some(times) = self.times.get_mut(&step) {
                *times -= 1;
            }
        }
    }

    /// Goes a step and tells whether it is the first of its kind.
    fn go(&mut self, step: T) -> bool {
        self.steps.push(step);
        let times = self.times.entry(step).or_default();
        *times += 1;
        *times == 1
    }
}

fn functions(tree: &Tree<1>) -> Map<u32, Weight> {
    let mut functions: Map<u32, Weight> = Map::default();
    let mut way = Way::default();
    tree.walk(0, |bar| {
        let Shown::Frame(name) = bar.shown else { return };
        way.back_to(bar.depth - 1);
        let weight = functions.entry(name).or_default();
        weight.own = weight.own.saturating_add(bar.own[0]);
        if way.go(name) {
            weight.total = weight.total.saturating_add(bar.total[0]);
        }
    });
    functions
}

/// Calls between numbered functions, and whether they are direct.
fn calls(tree: &Tree<1>, numbers: &Map<u32, usize>) -> Map<(usize, usize, bool), i64> {
    let mut calls: Map<(usize, usize, bool), i64> = Map::default();
    // Of each step the call that it is; none for the first function and for one that is left out.
    let mut way: Way<Option<(usize, usize, bool)>> = Way::default();
    // Of each step the last function up to it that is shown, and whether it is that step's own.
    let mut callers: Vec<(Option<usize>, bool)> = Vec::new();
    tree.walk(0, |bar| {
        let Shown::Frame(name) = bar.shown else { return };
        way.back_to(bar.depth - 1);
        callers.truncate(bar.depth - 1);
        let (caller, direct) = callers.last().copied().unwrap_or((None, true));
        let callee = numbers.get(&name).copied();
        callers.push((callee.or(caller), callee.is_some()));
        let call = caller.zip(callee).map(|(from, to)| (from, to, direct));
        if way.go(call)
            && let Some(call) = call
        {
            let value = calls.entry(call).or_default();
            *value = value.saturating_add(bar.total[0]);
        }
    });
    calls
}

/// The value in a unit that people read.
fn amount(value: i64, unit: &str) -> String {
    let scale = |steps: &[(f64, &str)]| {
        let found = steps.iter().rfind(|(size, _)| value as f64 >= *size);
        let (size, name) = found.unwrap_or(&steps[0]);
        let number = value as f64 / size;
        if number.fract() == 0.0 { format!("{number}{name}") } else { format!("{number:.2}{name}") }
    };
    match unit {
        "nanoseconds" => scale(&[(1.0, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")]),
        "bytes" => scale(&[(1.0, "B"), (1024.0, "kB"), (1048576.0, "MB"), (1073741824.0, "GB")]),
        _ => value.to_string(),
    }
}

/// A string of DOT.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        c if c.is_control() => " ".to_owned(),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::tree::TreeBuilder;

    fn graph(stacks: &[(&[&str], i64)], max_functions: usize) -> String {
        let mut names = FrameNames::default();
        let mut builder = TreeBuilder::<1>::new();
        for (frames, value) in stacks {
            let frames: Vec<u32> = frames.iter().map(|frame| names.of_text(frame)).collect();
            builder.add(frames, 0, *value).expect("a small tree");
        }
        let tree = builder.finish(None, |a, b| names.get(a).cmp(names.get(b)));
        dot(&tree, &names, &crate::testing::CPU.parse().unwrap(), max_functions)
    }

    #[test]
    fn functions_and_calls_are_summed_over_the_tree() {
        let graph = graph(
            &[
                (&["main", "a", "hash"], 30_000_000),
                (&["main", "b", "hash"], 10_000_000),
                (&["main"], 10_000_000),
            ],
            10,
        );
        assert!(graph.starts_with("digraph \"process_cpu:cpu:nanoseconds:cpu:nanoseconds\" {\n"), "{graph}");
        assert!(
            graph.contains(r#"N1 [label="main\n10ms (20.00%) of 50ms (100.00%)", fontsize=11];"#),
            "{graph}"
        );
        assert!(graph.contains(r#"N2 [label="hash\n40ms (80.00%) of 40ms (80.00%)""#), "{graph}");
        assert!(graph.contains(r#"N1 -> N3 [label="30ms", penwidth=3.4];"#), "{graph}");
        assert!(graph.contains(r#"N4 -> N2 [label="10ms""#), "{graph}");
        assert!(graph.ends_with("}\n"), "{graph}");
    }

    #[test]
    fn recursion_counts_once() {
        let graph = graph(&[(&["f", "g", "f", "g", "f"], 5)], 10);
        assert!(graph.contains(r#"label="f\n5ns (100.00%) of 5ns (100.00%)""#), "{graph}");
        assert!(
            graph.contains(r#"N1 -> N2 [label="5ns""#) && graph.contains(r#"N2 -> N1 [label="5ns""#),
            "{graph}"
        );
    }

    #[test]
    fn what_is_left_out_makes_calls_dotted() {
        let graph =
            graph(&[(&["main", "small", "hash"], 5), (&["main", "hash"], 9), (&["main", "hash", "x"], 1)], 2);
        assert!(graph.contains(r#"N2 -> N1 [label="10ns", penwidth=3.7];"#), "{graph}");
        assert!(graph.contains(r#"N2 -> N1 [label="5ns", penwidth=2.3, style=dotted];"#), "{graph}");
        assert!(!graph.contains("small") && !graph.contains("N3"), "{graph}");
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let graph = graph(&[(&["a\"]; evil [label=\"\\", "b\u{7}\nc"], 5)], 10);
        assert!(graph.contains(r#"label="a\"]; evil [label=\"\\\n"#), "{graph}");
        assert!(graph.contains(r#"label="b \nc\n"#), "{graph}");
    }

    #[test]
    fn amounts_are_readable() {
        for (value, unit, expected) in [
            (0, "nanoseconds", "0ns"),
            (1_500, "nanoseconds", "1.50us"),
            (90_000_000_000, "nanoseconds", "90s"),
            (1536, "bytes", "1.50kB"),
            (7, "count", "7"),
        ] {
            assert_eq!(amount(value, unit), expected);
        }
    }
}
