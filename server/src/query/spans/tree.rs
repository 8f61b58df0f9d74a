//! Spans as a tree by their parents, as far as the samples tell them.
//!
//! Parents come from strangers: nothing recurses, and where they lead in a circle the circle is cut.

use std::cmp::Reverse;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::model::{SpanId, TimeRange};

/// A span in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeSpan {
    /// Its id.
    pub span_id: SpanId,
    /// Its parent, as told by its samples. One that is not told hangs below its local root.
    pub parent: Option<SpanId>,
    /// The first span of its trace in its process.
    pub local_root: Option<SpanId>,
    /// How many spans are above it in the tree.
    pub depth: u32,
    /// Its service; none for a span that is known only as another's parent.
    pub service: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Samples in itself.
    pub samples: u64,
    /// CPU time of itself, in nanoseconds.
    pub cpu_nanos: i64,
    /// Samples in itself and all spans below it.
    pub total_samples: u64,
    /// CPU time of itself and all spans below it, in nanoseconds.
    pub total_cpu_nanos: i64,
    /// The time that the profiles with its own samples cover.
    pub range: Option<TimeRange>,
}

/// A tree in the making.
#[derive(Default)]
pub(super) struct SpanTree {
    nodes: Vec<Node>,
    numbers: HashMap<SpanId, usize, RandomState>,
}

struct Node {
    span: TreeSpan,
    /// When it began, where it says so itself, in Unix nanoseconds.
    start_nanos: Option<i64>,
    /// Where it hangs if its parent is not told.
    within: Option<SpanId>,
}

/// What one entry tells of a span.
pub(super) struct Told<'a> {
    pub(super) span_id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) local_root: Option<SpanId>,
    pub(super) name: Option<&'a str>,
    pub(super) local_root_name: Option<&'a str>,
    pub(super) service: &'a str,
    pub(super) samples: u64,
    pub(super) cpu_nanos: i64,
    pub(super) range: TimeRange,
}

/// What a span says of itself, where its trace is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSpan {
    /// Its id.
    pub span_id: SpanId,
    /// Its parent.
    pub parent: Option<SpanId>,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// When it began and ended, in Unix nanoseconds.
    pub nanos: (i64, i64),
}

impl SpanTree {
    fn node(&mut self, span_id: SpanId) -> &mut Node {
        let number = *self.numbers.entry(span_id).or_insert_with(|| {
            let span = TreeSpan {
                span_id,
                parent: None,
                local_root: None,
                depth: 0,
                service: None,
                name: None,
                samples: 0,
                cpu_nanos: 0,
                total_samples: 0,
                total_cpu_nanos: 0,
                range: None,
            };
            self.nodes.push(Node { span, start_nanos: None, within: None });
            self.nodes.len() - 1
        });
        &mut self.nodes[number]
    }

    /// Takes in what a span says of itself, which is believed before what samples tell.
    pub(super) fn add_known(&mut self, known: &KnownSpan) {
        let node = self.node(known.span_id);
        node.start_nanos = Some(known.nanos.0);
        let span = &mut node.span;
        span.parent = known.parent.filter(|&parent| parent != known.span_id);
        span.service = Some(known.service.clone());
        span.name = Some(known.name.clone());
        if let Some(parent) = span.parent {
            self.node(parent);
        }
    }

    /// Takes in what an entry tells of its span, its parent and its local root.
    pub(super) fn add(&mut self, told: &Told<'_>) {
        let id = told.span_id;
        let parent = told.parent.filter(|&parent| parent != id);
        let root = told.local_root.filter(|&root| root != id);
        let node = self.node(id);
        node.within = node.within.or(root);
        let span = &mut node.span;
        span.parent = span.parent.or(parent);
        span.local_root = span.local_root.or(told.local_root);
        span.service.get_or_insert_with(|| told.service.to_owned());
        if span.name.is_none() {
            span.name = told.name.map(str::to_owned);
        }
        span.samples = span.samples.saturating_add(told.samples);
        span.cpu_nanos = span.cpu_nanos.saturating_add(told.cpu_nanos);
        span.range = super::widened(span.range, told.range);
        if let Some(root) = told.local_root {
            let root = &mut self.node(root).span;
            if root.name.is_none() {
                root.name = told.local_root_name.map(str::to_owned);
            }
        }
        if let Some(parent) = parent {
            let parent = self.node(parent);
            // The parent of a span that is not its process's first ran in that process, too.
            parent.within = parent.within.or(root.filter(|&root| root != parent.span.span_id));
        }
    }

    /// The spans from the roots down, each followed by those below it: those first that began first, where that is known,
    /// then the heaviest.
    pub(super) fn finish(mut self) -> Vec<TreeSpan> {
        let mut parents: Vec<Option<usize>> = self
            .nodes
            .iter()
            .map(|node| node.span.parent.or(node.within).and_then(|id| self.numbers.get(&id).copied()))
            .collect();
        self.cut_circles(&mut parents);
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        let mut roots = Vec::new();
        for (at, parent) in parents.iter().enumerate() {
            match *parent {
                Some(parent) => children[parent].push(at),
                None => roots.push(at),
            }
        }
        let mut order = roots.clone();
        let mut next = 0;
        while let Some(&at) = order.get(next) {
            next += 1;
            order.extend(&children[at]);
            for &child in &children[at] {
                self.nodes[child].span.depth = self.nodes[at].span.depth + 1;
            }
        }
        for &at in order.iter().rev() {
            let span = &mut self.nodes[at].span;
            span.total_samples = span.total_samples.saturating_add(span.samples);
            span.total_cpu_nanos = span.total_cpu_nanos.saturating_add(span.cpu_nanos);
            let (samples, cpu_nanos) = (span.total_samples, span.total_cpu_nanos);
            if let Some(parent) = parents[at] {
                let parent = &mut self.nodes[parent].span;
                parent.total_samples = parent.total_samples.saturating_add(samples);
                parent.total_cpu_nanos = parent.total_cpu_nanos.saturating_add(cpu_nanos);
            }
        }
        let rank = |&at: &usize| {
            let Node { span, start_nanos, .. } = &self.nodes[at];
            let weight = Reverse((span.total_cpu_nanos, span.total_samples));
            (start_nanos.unwrap_or(i64::MAX), weight, span.span_id)
        };
        roots.sort_by_key(rank);
        children.iter_mut().for_each(|of_node| of_node.sort_by_key(rank));
        let mut pending = roots;
        pending.reverse();
        let mut sorted = Vec::with_capacity(self.nodes.len());
        while let Some(at) = pending.pop() {
            sorted.push(self.nodes[at].span.clone());
            pending.extend(children[at].iter().rev());
        }
        sorted
    }

    /// Makes a root of the smallest span of each circle.
    fn cut_circles(&self, parents: &mut [Option<usize>]) {
        const NEW: usize = usize::MAX;
        let mut walks = vec![NEW; parents.len()];
        for start in 0..parents.len() {
            let mut at = start;
            while walks[at] == NEW {
                walks[at] = start;
                match parents[at] {
                    Some(parent) => at = parent,
                    None => break,
                }
            }
            let Some(next) = parents[at].filter(|_| walks[at] == start) else { continue };
            // This walk came back to itself: from here on it is the circle.
            let (mut smallest, mut round) = (at, next);
            while round != at {
                if self.nodes[round].span.span_id < self.nodes[smallest].span.span_id {
                    smallest = round;
                }
                round = parents[round].expect("every span of a circle has a parent");
            }
            parents[smallest] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> SpanId {
        SpanId::new(number).unwrap()
    }

    /// A span with as many samples as its number.
    fn tree(spans: &[(u64, u64, u64)]) -> Vec<TreeSpan> {
        let mut tree = SpanTree::default();
        for &(span, parent, root) in spans {
            tree.add(&Told {
                span_id: id(span),
                parent: SpanId::new(parent),
                local_root: SpanId::new(root),
                name: None,
                local_root_name: Some("root").filter(|_| root != 0),
                service: "checkout",
                samples: span,
                cpu_nanos: span as i64,
                range: TimeRange { start_ms: 0, end_ms: 1 },
            });
        }
        tree.finish()
    }

    fn shape(spans: &[(u64, u64, u64)]) -> Vec<(u64, u32, u64)> {
        tree(spans).iter().map(|span| (span.span_id.get(), span.depth, span.total_samples)).collect()
    }

    #[test]
    fn spans_hang_below_their_parents_the_heaviest_first() {
        let family = [(1, 0, 1), (2, 1, 1), (3, 1, 1), (4, 2, 1), (9, 0, 9)];
        assert_eq!(shape(&family), [(1, 0, 10), (2, 1, 6), (4, 2, 4), (3, 1, 3), (9, 0, 9)]);
    }

    #[test]
    fn parents_without_samples_are_there_and_named_where_a_child_names_them() {
        // 7 is a parent that nobody sampled, in the process of the root 1, which was not sampled either.
        let spans = tree(&[(5, 7, 1), (6, 0, 1)]);
        let found: Vec<_> = spans.iter().map(|s| (s.span_id.get(), s.depth, s.total_samples)).collect();
        assert_eq!(found, [(1, 0, 11), (6, 1, 6), (7, 1, 5), (5, 2, 5)]);
        assert_eq!((spans[0].name.as_deref(), spans[0].service.as_deref()), (Some("root"), None));
        assert_eq!((spans[1].parent, spans[2].range), (None, None));
    }

    #[test]
    fn what_spans_say_of_themselves_goes_before_what_samples_tell() {
        let known = |span: u64, parent: u64, start: i64| KnownSpan {
            span_id: id(span),
            parent: SpanId::new(parent),
            service: "shop".to_owned(),
            name: format!("span {span}"),
            nanos: (start, start + 1),
        };
        let mut tree = SpanTree::default();
        for span in [known(1, 0, 10), known(3, 1, 30), known(4, 1, 20), known(2, 9, 5)] {
            tree.add_known(&span);
        }
        let range = TimeRange { start_ms: 0, end_ms: 1 };
        for (span, samples) in [(3, 5), (4, 1)] {
            tree.add(&Told {
                span_id: id(span),
                parent: None,
                local_root: Some(id(1)),
                name: Some("else"),
                local_root_name: None,
                service: "else",
                samples,
                cpu_nanos: 1,
                range,
            });
        }
        let spans = tree.finish();
        let found: Vec<_> = spans.iter().map(|s| (s.span_id.get(), s.depth, s.total_samples)).collect();
        assert_eq!(found, [(1, 0, 6), (4, 1, 1), (3, 1, 5), (9, 0, 0), (2, 1, 0)]);
        assert_eq!((spans[1].service.as_deref(), spans[1].name.as_deref()), (Some("shop"), Some("span 4")));
    }

    #[test]
    fn circles_are_cut() {
        assert_eq!(shape(&[(1, 1, 0)]), [(1, 0, 1)]);
        assert_eq!(shape(&[(3, 2, 0), (2, 3, 0)]), [(2, 0, 5), (3, 1, 3)]);
        assert_eq!(shape(&[(4, 3, 0), (3, 2, 0), (2, 3, 0)]), [(2, 0, 9), (3, 1, 7), (4, 2, 4)]);
    }

    proptest! {
        #[test]
        fn every_span_is_there_once_and_below_no_more_than_its_samples(
            spans in prop::collection::vec((1..20u64, 0..20u64, 0..20u64), 0..60),
        ) {
            let sorted = tree(&spans);
            let mut ids: Vec<_> = sorted.iter().map(|span| span.span_id).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), sorted.len());
            let all: u64 = spans.iter().map(|(span, ..)| span).sum();
            let roots = sorted.iter().filter(|span| span.depth == 0).map(|span| span.total_samples);
            prop_assert_eq!(roots.sum::<u64>(), all);
            let mut depth = -1;
            for span in &sorted {
                prop_assert!(i64::from(span.depth) <= depth + 1);
                depth = i64::from(span.depth);
                prop_assert!(span.total_samples >= span.samples);
            }
        }
    }
}
