//! The one tree that stack traces are merged into, and the one walk over it that every encoder follows.
//!
//! Nothing recurses: stack traces come from strangers and may be a thousand frames deep.

use std::cmp::Ordering;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::QueryError;

const ROOT: usize = 0;

/// Nodes of a tree in the making: some 44 bytes each, of which one small profile can ask for any number.
const MAX_NODES: usize = 8 << 20;

#[derive(Debug, Clone)]
struct Node<const SIDES: usize> {
    frame: u32,
    parent: u32,
    own: [i64; SIDES],
    total: [i64; SIDES],
}

/// How a tree in the making finds a node's children.
#[derive(Debug, Clone, Copy)]
struct Link {
    frame: u32,
    /// The first child; the root, which is nobody's, for none.
    first: u32,
    /// The next child of the same parent, likewise.
    next: u32,
}

/// Children of one node that are found by going through them, which is faster than hashing as long as they are few.
const LISTED: usize = 8;

/// A tree in the making. Frames are numbers whose meaning only the caller knows; every node has one value for each side:
/// one for a graph, two for a comparison.
#[derive(Debug)]
pub(super) struct TreeBuilder<const SIDES: usize> {
    nodes: Vec<Node<SIDES>>,
    /// One for each node: apart, because a merge of many stack traces does little else than follow them.
    links: Vec<Link>,
    /// Children that are not listed, by parent and frame.
    unlisted: HashMap<(u32, u32), u32, RandomState>,
    max_nodes: usize,
}

impl<const SIDES: usize> TreeBuilder<SIDES> {
    pub(super) fn new() -> Self {
        Self::of_at_most(MAX_NODES)
    }

    fn of_at_most(max_nodes: usize) -> Self {
        let (nodes, links) = (Vec::new(), Vec::new());
        let mut builder = Self { nodes, links, unlisted: HashMap::default(), max_nodes };
        builder.push(ROOT as u32, u32::MAX);
        builder
    }

    /// Adds `value` on one side to the stack trace with these frames, the root first.
    ///
    /// # Errors
    /// When the tree is too large; what is in it then is of no use.
    pub(super) fn add(
        &mut self,
        frames: impl IntoIterator<Item = u32>,
        side: usize,
        value: i64,
    ) -> Result<(), QueryError> {
        let at = frames.into_iter().fold(ROOT as u32, |at, frame| self.child(at, frame));
        // A stack trace is short beside that, so looking once for each is enough.
        if self.nodes.len() > self.max_nodes {
            let fix = "ask for a shorter time, fewer series or a call site";
            return Err(QueryError::TooMuch { what: "different call paths", max: self.max_nodes, fix });
        }
        let own = &mut self.nodes[at as usize].own[side];
        *own = own.saturating_add(value);
        Ok(())
    }

    fn child(&mut self, parent: u32, frame: u32) -> u32 {
        let (mut last, mut at) = (None, self.links[parent as usize].first);
        for _ in 0..LISTED {
            if at == ROOT as u32 {
                let child = self.push(parent, frame);
                match last {
                    Some(last) => self.links[last as usize].next = child,
                    None => self.links[parent as usize].first = child,
                }
                return child;
            }
            let link = self.links[at as usize];
            if link.frame == frame {
                return at;
            }
            (last, at) = (Some(at), link.next);
        }
        if let Some(&child) = self.unlisted.get(&(parent, frame)) {
            return child;
        }
        let child = self.push(parent, frame);
        self.unlisted.insert((parent, frame), child);
        child
    }

    fn push(&mut self, parent: u32, frame: u32) -> u32 {
        let number = self.nodes.len() as u32;
        self.nodes.push(Node { frame, parent, own: [0; SIDES], total: [0; SIDES] });
        self.links.push(Link { frame, first: ROOT as u32, next: ROOT as u32 });
        number
    }

    /// The tree, siblings in this order of their frames. A frame that is `other` joins the folded bar beside it.
    pub(super) fn finish(self, other: Option<u32>, order: impl Fn(u32, u32) -> Ordering) -> Tree<SIDES> {
        let mut nodes = self.nodes;
        // A child is always behind its parent, so one pass from the end adds up the totals.
        for at in (0..nodes.len()).rev() {
            let Node { own, mut total, parent, .. } = nodes[at];
            (0..SIDES).for_each(|side| total[side] = total[side].saturating_add(own[side]));
            nodes[at].total = total;
            if at != ROOT {
                let sums = &mut nodes[parent as usize].total;
                (0..SIDES).for_each(|side| sums[side] = sums[side].saturating_add(total[side]));
            }
        }
        let mut starts = vec![0u32; nodes.len() + 1];
        for node in &nodes[1..] {
            starts[node.parent as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // Each child to its parent's others, then those into order: most nodes have one, which need no comparison.
        let mut free = starts.clone();
        let mut children = vec![0u32; nodes.len() - 1];
        for (at, node) in nodes.iter().enumerate().skip(1) {
            let place = &mut free[node.parent as usize];
            children[*place as usize] = at as u32;
            *place += 1;
        }
        for siblings in starts.windows(2) {
            children[siblings[0] as usize..siblings[1] as usize]
                .sort_unstable_by(|&a, &b| order(nodes[a as usize].frame, nodes[b as usize].frame));
        }
        Tree { nodes, children, starts, other }
    }
}

/// A finished tree.
#[derive(Debug)]
pub(super) struct Tree<const SIDES: usize> {
    nodes: Vec<Node<SIDES>>,
    /// Children of every node in order, node after node.
    children: Vec<u32>,
    starts: Vec<u32>,
    other: Option<u32>,
}

/// What a bar of a walk shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// All there is.
    Root,
    /// A frame below its callers.
    Frame(u32),
    /// Frames that were too small, together.
    Folded,
}

/// One node as a walk comes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar<const SIDES: usize> {
    /// What it shows.
    pub(super) shown: Shown,
    /// Its distance from the root.
    pub(super) depth: usize,
    /// The value of stack traces that end here.
    pub(super) own: [i64; SIDES],
    /// The value of those that come by.
    pub(super) total: [i64; SIDES],
    /// How many bars lie right below it.
    pub(super) children: usize,
}

struct Pending<const SIDES: usize> {
    /// None for a folded one.
    node: Option<usize>,
    depth: usize,
    total: [i64; SIDES],
}

impl<const SIDES: usize> Tree<SIDES> {
    /// The value of everything.
    pub(super) fn total(&self) -> [i64; SIDES] {
        self.nodes[ROOT].total
    }

    /// Visits the root, then of every node its first child with all below, its second, and so on.
    ///
    /// The `max_nodes` largest nodes are visited, 0 for all, those first that the walk comes by first where several are
    /// equally small; the others are folded, parent by parent, into one bar behind their siblings. What lies below a bar
    /// never has a larger value than the bar has beside its own, and no bar but the root is zero on all sides.
    pub(super) fn walk(&self, max_nodes: usize, mut visit: impl FnMut(Bar<SIDES>)) {
        let mut room_for = self.room(max_nodes);
        let mut kept = Vec::new();
        let mut pending = vec![Pending { node: Some(ROOT), depth: 0, total: self.total() }];
        while let Some(Pending { node, depth, total }) = pending.pop() {
            let Some(node) = node else {
                visit(Bar { shown: Shown::Folded, depth, own: total, total, children: 0 });
                continue;
            };
            let mut own = self.nodes[node].own;
            // Sums end at the largest number, so that below it a part may be as large as its whole.
            let mut room = total;
            for side in 0..SIDES {
                own[side] = own[side].min(total[side]);
                room[side] -= own[side];
            }
            let mut take = |wanted: [i64; SIDES]| {
                let taken = std::array::from_fn(|side| wanted[side].min(room[side]));
                (0..SIDES).for_each(|side| room[side] -= taken[side]);
                taken
            };
            let below = self.children_of(node);
            kept.clear();
            kept.extend(below.iter().map(|&child| room_for.take(self.weight(child as usize))));
            let folds = kept.contains(&false);
            let first = pending.len();
            let mut folded = [0i64; SIDES];
            for (&child, &kept) in below.iter().zip(&kept) {
                let child = child as usize;
                // A frame that is really called so cannot be told from the folded bar beside it, so they are one.
                let joins = folds && Some(self.nodes[child].frame) == self.other;
                if kept && !joins {
                    let total = take(self.nodes[child].total);
                    pending.push(Pending { node: Some(child), depth: depth + 1, total });
                } else {
                    let total = &self.nodes[child].total;
                    (0..SIDES).for_each(|side| folded[side] = folded[side].saturating_add(total[side]));
                }
            }
            pending.push(Pending { node: None, depth: depth + 1, total: take(folded) });
            // Those that are nothing go; all that were pending before are something.
            let mut end = first;
            for at in first..pending.len() {
                if pending[at].total.iter().any(|&value| value > 0) {
                    pending.swap(end, at);
                    end += 1;
                }
            }
            pending.truncate(end);
            let shown = if node == ROOT { Shown::Root } else { Shown::Frame(self.nodes[node].frame) };
            visit(Bar { shown, depth, own, total, children: pending.len() - first });
            pending[first..].reverse();
        }
    }

    fn children_of(&self, node: usize) -> &[u32] {
        &self.children[self.starts[node] as usize..self.starts[node + 1] as usize]
    }

    fn weight(&self, node: usize) -> i64 {
        self.nodes[node].total.iter().fold(0, |sum, &value| sum.saturating_add(value))
    }

    fn room(&self, max_nodes: usize) -> Room {
        if max_nodes == 0 || self.nodes.len() - 1 <= max_nodes {
            return Room { smallest: i64::MIN, equal: 0 };
        }
        let mut weights: Vec<i64> = (1..self.nodes.len()).map(|node| self.weight(node)).collect();
        let (larger, &mut smallest, _) = weights.select_nth_unstable_by(max_nodes - 1, |a, b| b.cmp(a));
        let larger = larger.iter().filter(|&&weight| weight > smallest).count();
        Room { smallest, equal: max_nodes - larger }
    }
}

/// Which nodes a walk keeps: the larger ones, and of those that are just as small as the last of them so many.
struct Room {
    smallest: i64,
    equal: usize,
}

impl Room {
    fn take(&mut self, weight: i64) -> bool {
        if weight == self.smallest && self.equal > 0 {
            self.equal -= 1;
            return true;
        }
        weight > self.smallest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_an_end() {
        let mut builder = TreeBuilder::<1>::of_at_most(100);
        let mut add = |leaf: u32| builder.add([7, leaf], 0, 1);
        assert!((0..98).all(|leaf| add(leaf).is_ok()));
        assert!(add(5).is_ok(), "that path is there already");
        assert!(matches!(add(98), Err(QueryError::TooMuch { max: 100, .. })));
    }

    #[test]
    fn as_many_nodes_are_kept_as_were_asked_for() {
        let mut builder = TreeBuilder::<1>::new();
        for leaf in 0..3000 {
            builder.add([1, leaf % 50, leaf], 0, 1).unwrap();
        }
        let tree = builder.finish(None, |a, b| a.cmp(&b));
        for max_nodes in [1, 2, 51, 52, 100, 2999] {
            let (mut kept, mut folded, mut own) = (0, 0, 0);
            tree.walk(max_nodes, |bar| {
                match bar.shown {
                    Shown::Root => {}
                    Shown::Frame(_) => kept += 1,
                    Shown::Folded => folded += 1,
                }
                own += bar.own[0];
            });
            assert_eq!((kept, own), (max_nodes, 3000));
            assert!(folded <= max_nodes + 1, "one for each parent at most");
        }
    }
}
