//! The file format of speedscope.app: one profile of stacks with weights.

use serde::Serialize;

use super::{Drawn, MAX_BYTES, TooLong, bars, stack};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'a str,
    active_profile_index: u32,
    exporter: &'static str,
    shared: Shared<'a>,
    profiles: [Profile<'a>; 1],
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize)]
struct Frame<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    r#type: &'static str,
    name: &'a str,
    unit: &'static str,
    start_value: i64,
    end_value: i64,
    samples: Vec<Vec<usize>>,
    weights: Vec<i64>,
}

/// The file, as JSON.
pub(in crate::api::rest) fn speedscope(drawn: &Drawn<'_>) -> Result<Vec<u8>, TooLong> {
    let graph = drawn.graph;
    let bars = bars(graph);
    // A number of a frame takes up to seven digits and a comma.
    let mut bytes = graph.names.iter().map(|name| name.len() + 16).sum::<usize>();
    let (mut samples, mut weights) = (Vec::new(), Vec::new());
    for (at, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.own > 0) {
        let stack = stack(&bars, at);
        bytes += stack.len() * 8 + 24;
        if bytes > MAX_BYTES {
            return Err(TooLong);
        }
        samples.push(stack);
        weights.push(bar.own);
    }
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        name: drawn.title,
        active_profile_index: 0,
        exporter: concat!("spanflame/", env!("CARGO_PKG_VERSION")),
        shared: Shared { frames: graph.names.iter().map(|name| Frame { name }).collect() },
        profiles: [Profile {
            r#type: "sampled",
            name: drawn.title,
            unit: unit(&drawn.kind.sample_unit),
            start_value: 0,
            end_value: graph.total,
            samples,
            weights,
        }],
    };
    Ok(serde_json::to_vec(&file).expect("strings and numbers are JSON"))
}

/// The unit as the format knows it.
fn unit(unit: &str) -> &'static str {
    const KNOWN: [&str; 5] = ["nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"];
    KNOWN.into_iter().find(|known| *known == unit).unwrap_or("none")
}
