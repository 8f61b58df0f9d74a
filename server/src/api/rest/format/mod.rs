//! Flame graphs written in the formats of other tools. Pure: a graph in, bytes out.
//!
//! Names come from strangers: each format says how it keeps them apart from its own syntax. What is written is bounded.

mod folded;
mod nodes;
mod speedscope;
mod svg;

pub(super) use self::folded::folded;
pub(super) use self::nodes::nodes;
pub(super) use self::speedscope::speedscope;
pub(super) use self::svg::svg;
use crate::model::ProfileType;
use crate::query::FlameGraph;

#[cfg(test)]
mod tests;

/// The most bytes that a graph may become.
const MAX_BYTES: usize = 64 << 20;

/// A graph that would become too long a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the profile is over 64 MiB in this format: ask for fewer maxNodes, or for format=pprof")]
pub(super) struct TooLong;

/// A graph with what its readers want to know of it.
pub(super) struct Drawn<'a> {
    /// Whose profile it is.
    pub(super) title: &'a str,
    /// What its values are.
    pub(super) kind: &'a ProfileType,
    /// The values.
    pub(super) graph: &'a FlameGraph,
}

/// A bar of a flame graph, with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bar {
    /// Number of its name.
    name: usize,
    /// Number of the bar above it, none for the first bar, which stands for all.
    parent: Option<usize>,
    depth: usize,
    /// Where it begins, in units of the values.
    x: i64,
    total: i64,
    own: i64,
}

/// The bars of a graph, level after level: a parent always comes before its children.
fn bars(graph: &FlameGraph) -> Vec<Bar> {
    let mut bars: Vec<Bar> = Vec::new();
    let mut above = 0..0;
    for (depth, level) in graph.levels.iter().enumerate() {
        let first = bars.len();
        let mut parent = above.start;
        let mut end = 0i64;
        for bar in level.chunks_exact(4) {
            let x = end.saturating_add(bar[0]);
            end = x.saturating_add(bar[1]);
            while parent + 1 < above.end && bars[parent + 1].x <= x {
                parent += 1;
            }
            bars.push(Bar {
                name: usize::try_from(bar[3]).unwrap_or(0),
                parent: (!above.is_empty()).then_some(parent),
                depth,
                x,
                total: bar[1],
                own: bar[2],
            });
        }
        above = first..bars.len();
    }
    bars
}

/// The names of the bars from the root's first callee down to this bar. The bar that stands for all is no function.
fn stack(bars: &[Bar], at: usize) -> Vec<usize> {
    let mut stack = Vec::new();
    let mut next = at;
    while let Some(parent) = bars[next].parent {
        stack.push(bars[next].name);
        next = parent;
    }
    stack.reverse();
    stack
}

/// Fails if each bar with its name written out is too long together.
fn check_names(graph: &FlameGraph, bars: &[Bar]) -> Result<(), TooLong> {
    const AROUND: usize = 128;
    let bytes = bars.iter().map(|bar| graph.names[bar.name].len() + AROUND).sum::<usize>();
    if bytes > MAX_BYTES { Err(TooLong) } else { Ok(()) }
}
