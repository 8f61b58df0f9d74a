//! JSON of answers that are one flame graph, as protobuf's JSON has it: numbers of 64 bits as text, and no field that is
//! empty or zero.
//!
//! A large graph is hundreds of thousands of numbers. They are written straight into the answer: what derives JSON from
//! messages makes of each a text first.

use bytes::Bytes;
use connectrpc::{CodecFormat, ConnectError, Encodable};
use spanflame_wire::querier::v1::{
    DiffResponse, Level, SelectMergeSpanProfileResponse, SelectMergeStacktracesResponse,
};

/// An answer that is a flame graph more often than not.
pub(super) struct Graphed<M>(pub(super) M);

/// A message that is a flame graph if nothing else is in it.
pub(super) trait HasGraph {
    /// The graph, if that is all.
    fn graph(&self) -> Option<Graph<'_>>;
}

/// A flame graph to be written.
pub(super) struct Graph<'a> {
    names: &'a [String],
    levels: &'a [Level],
    /// Its fields that are numbers, in order.
    numbers: Vec<(&'static str, i64)>,
}

impl<M: Encodable<M> + HasGraph> Encodable<M> for Graphed<M> {
    fn encode(&self, codec: CodecFormat) -> Result<Bytes, ConnectError> {
        match (codec, self.0.graph()) {
            (CodecFormat::Json, Some(graph)) => Ok(json(&graph).into()),
            _ => self.0.encode(codec),
        }
    }
}

impl HasGraph for SelectMergeStacktracesResponse {
    fn graph(&self) -> Option<Graph<'_>> {
        let Self { flamegraph, tree, dot, pprof, .. } = self;
        let alone = tree.is_empty() && dot.is_empty() && pprof.as_option().is_none();
        flamegraph.as_option().filter(|_| alone).map(of_one)
    }
}

impl HasGraph for SelectMergeSpanProfileResponse {
    fn graph(&self) -> Option<Graph<'_>> {
        self.flamegraph.as_option().filter(|_| self.tree.is_empty()).map(of_one)
    }
}

impl HasGraph for DiffResponse {
    fn graph(&self) -> Option<Graph<'_>> {
        self.flamegraph.as_option().map(|graph| Graph {
            names: &graph.names,
            levels: &graph.levels,
            numbers: vec![
                ("total", graph.total),
                ("maxSelf", graph.max_self),
                ("leftTicks", graph.leftTicks),
                ("rightTicks", graph.rightTicks),
            ],
        })
    }
}

fn of_one(graph: &spanflame_wire::querier::v1::FlameGraph) -> Graph<'_> {
    let numbers = vec![("total", graph.total), ("maxSelf", graph.max_self)];
    Graph { names: &graph.names, levels: &graph.levels, numbers }
}

/// The answer that is this graph.
pub(super) fn json(graph: &Graph<'_>) -> Vec<u8> {
    let values: usize = graph.levels.iter().map(|level| level.values.len()).sum();
    let names: usize = graph.names.iter().map(|name| name.len() + 3).sum();
    // Most numbers have few digits.
    let mut out = Vec::with_capacity(values * 8 + names + 128);
    out.extend_from_slice(b"{\"flamegraph\":{");
    let before_fields = out.len();
    if !graph.names.is_empty() {
        out.extend_from_slice(b"\"names\":");
        serde_json::to_writer(&mut out, graph.names).expect("texts are JSON, and memory takes it");
        out.push(b',');
    }
    if !graph.levels.is_empty() {
        out.extend_from_slice(b"\"levels\":[");
        for level in graph.levels {
            put_level(&mut out, level);
        }
        end_list(&mut out);
        out.push(b',');
    }
    for (name, number) in graph.numbers.iter().filter(|(_, number)| *number != 0) {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        put_number(&mut out, *number);
    }
    if out.len() > before_fields {
        out.pop();
    }
    out.extend_from_slice(b"}}");
    out
}

fn put_level(out: &mut Vec<u8>, level: &Level) {
    if level.values.is_empty() {
        out.extend_from_slice(b"{},");
        return;
    }
    out.extend_from_slice(b"{\"values\":[");
    level.values.iter().for_each(|value| put_number(out, *value));
    end_list(out);
    out.extend_from_slice(b"},");
}

/// Writes a number as text, and a comma.
fn put_number(out: &mut Vec<u8>, number: i64) {
    out.push(b'"');
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\",");
}

/// Ends a list in place of its last comma.
fn end_list(out: &mut [u8]) {
    if let Some(comma) = out.last_mut() {
        *comma = b']';
    }
}

#[cfg(test)]
mod tests {
    use buffa::Message;
    use proptest::prelude::*;
    use spanflame_wire::querier::v1::{FlameGraph, FlameGraphDiff};

    use super::*;

    fn check<M: Message + HasGraph + Encodable<M> + serde::Serialize>(answer: M) {
        let derived = serde_json::to_vec(&answer).unwrap();
        let written = Graphed(answer).encode(CodecFormat::Json).unwrap();
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&derived));
    }

    proptest! {
        #[test]
        fn graphs_are_written_as_they_are_derived(
            names in prop::collection::vec(".*", 0..4),
            levels in prop::collection::vec(prop::collection::vec(prop_oneof![any::<i64>(), -2..100i64], 0..9), 0..4),
            numbers in prop::array::uniform4(prop_oneof![any::<i64>(), -1..2i64]),
        ) {
            let levels: Vec<Level> =
                levels.into_iter().map(|values| Level { values, ..Default::default() }).collect();
            let [total, max_self, left, right] = numbers;
            let graph = FlameGraph {
                names: names.clone(), levels: levels.clone(), total, max_self, ..Default::default()
            };
            let diff = FlameGraphDiff {
                names, levels, total, max_self, leftTicks: left, rightTicks: right, ..Default::default()
            };
            check(SelectMergeStacktracesResponse { flamegraph: graph.clone().into(), ..Default::default() });
            check(SelectMergeSpanProfileResponse { flamegraph: graph.into(), ..Default::default() });
            check(DiffResponse { flamegraph: diff.into(), ..Default::default() });
        }
    }

    #[test]
    fn other_answers_are_derived() {
        check(SelectMergeStacktracesResponse::default());
        check(SelectMergeStacktracesResponse { dot: "digraph {}".to_owned(), ..Default::default() });
        check(SelectMergeSpanProfileResponse { tree: vec![1, 2], ..Default::default() });
        check(DiffResponse::default());
    }
}
