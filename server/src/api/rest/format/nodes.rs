//! A table of nodes: the plainest form of a graph. Not nested, so that no reader meets a depth that it cannot take.

use serde::Serialize;

use super::{Drawn, TooLong, bars, check_names};

#[derive(Serialize)]
struct Table<'a> {
    r#type: String,
    unit: &'a str,
    total: i64,
    samples: u64,
    nodes: Vec<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    /// Place in the table of the node that it hangs below.
    parent: Option<usize>,
    depth: usize,
    #[serde(rename = "self")]
    own: i64,
    total: i64,
}

/// The table, parents before their children.
pub(in crate::api::rest) fn nodes(drawn: &Drawn<'_>) -> Result<Vec<u8>, TooLong> {
    let graph = drawn.graph;
    let bars = bars(graph);
    check_names(graph, &bars)?;
    let nodes = bars.iter().map(|bar| Node {
        name: &graph.names[bar.name],
        parent: bar.parent,
        depth: bar.depth,
        own: bar.own,
        total: bar.total,
    });
    let table = Table {
        r#type: drawn.kind.to_string(),
        unit: &drawn.kind.sample_unit,
        total: graph.total,
        samples: graph.samples,
        nodes: nodes.collect(),
    };
    Ok(serde_json::to_vec(&table).expect("strings and numbers are JSON"))
}
