//! S3 and S4: merging an hour of a service into a flame graph, and writing a large one down.

use std::time::{Duration, Instant};

use buffa::Message;
use bytes::Bytes;
use spanflame_bench_rig::Measurement;
use spanflame_wire::querier::v1::{SelectMergeStacktracesRequest, SelectMergeStacktracesResponse};

use crate::corpus::{Random, profile};
use crate::rig::{CPU, Caller, Server, Setup, now_ms, push, quantile, runtime};

const PODS: i64 = 10;
const SAMPLES: u64 = 500;

/// Ten-second profiles of every pod over the time before `end`.
async fn fill(callers: &[Caller], end: i64, profiles_per_pod: i64) -> anyhow::Result<()> {
    let mut random = Random::new(2);
    for at in 0..profiles_per_pod {
        for pod in 0..PODS {
            let encoded = profile(&mut random, end - (at + 1) * 10_000 + pod * 31, SAMPLES);
            let body = push("checkout", &format!("pod-{pod}"), encoded.gzipped);
            for caller in callers {
                caller.push(body.clone()).await?;
            }
        }
    }
    Ok(())
}

fn request(start: i64, end: i64, max_nodes: i64) -> SelectMergeStacktracesRequest {
    SelectMergeStacktracesRequest {
        profile_typeID: CPU.to_owned(),
        label_selector: r#"{service_name="checkout"}"#.to_owned(),
        start,
        end,
        max_nodes: Some(max_nodes),
        ..Default::default()
    }
}

/// How long the answer takes, in the middle of several, in milliseconds; and the last answer.
async fn time(
    caller: &Caller,
    json: bool,
    request: &SelectMergeStacktracesRequest,
    rounds: usize,
) -> anyhow::Result<(f64, Bytes)> {
    let (content_type, body) = match json {
        true => ("application/json", serde_json::to_vec(request)?.into()),
        false => ("application/proto", Bytes::from(request.encode_to_vec())),
    };
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    let mut answer = Bytes::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        answer = caller.query("SelectMergeStacktraces", content_type, body.clone()).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok((quantile(&times, 0.5), answer))
}

fn nodes(answer: &[u8]) -> anyhow::Result<usize> {
    let answer = SelectMergeStacktracesResponse::decode_from_slice(answer)?;
    Ok(answer.flamegraph.levels.iter().map(|level| level.values.len() / 4).sum())
}

pub(crate) fn measure(setup: &Setup) -> anyhow::Result<Vec<Measurement>> {
    let runtime = runtime()?;
    let server = Server::start(false, &[])?;
    let ours = Caller::new(&server.url);
    let peer = setup.pyroscope.as_deref().map(Caller::new);
    let callers: Vec<Caller> = std::iter::once(&ours).chain(&peer).cloned().collect();
    let (end, profiles) = (now_ms() - 30_000, setup.pick(20, 350));
    let start = end - profiles * 10_000 - 10_000;
    runtime.block_on(fill(&callers, end, profiles))?;

    let rounds = setup.pick(3, 9);
    let hour = request(start, end, 8192);
    let (merged, answer) = runtime.block_on(time(&ours, false, &hour, rounds))?;
    let merged_by_peer = peer.as_ref().map(|peer| runtime.block_on(time(peer, false, &hour, rounds)));
    let merged_by_peer = merged_by_peer.transpose()?;
    let s3 = Measurement {
        id: "S3".to_owned(),
        ours: Some(merged),
        peer: merged_by_peer.as_ref().map(|(time, _)| *time),
        unit: "ms".to_owned(),
        peer_is: peer.as_ref().map_or_else(String::new, |_| "Grafana Pyroscope".to_owned()),
        note: format!(
            "{} profiles of {SAMPLES} samples into {} nodes, protobuf, over HTTP",
            PODS * profiles,
            nodes(&answer)?
        ),
    };

    // The merge is the same for any number of nodes, so what is left of the difference is folding and writing. A few minutes
    // have as many nodes as are asked for, and a merge that does not drown the difference.
    let start = start.max(end - 210_000);
    let rounds = setup.pick(9, 25);
    // The server's own CPU time beside it: the client's reading is in the other.
    let timed = |json: bool, asked: &SelectMergeStacktracesRequest| {
        let before = server.cpu_seconds()?;
        let (time, answer) = runtime.block_on(time(&ours, json, asked, rounds))?;
        let cpu = (server.cpu_seconds()? - before) * 1000.0 / rounds as f64;
        anyhow::Ok((time, cpu, answer))
    };
    let (least, least_cpu, _) = timed(false, &request(start, end, 1))?;
    let mut points = Vec::new();
    let mut hardest = 0.0;
    for most in [12_500, 25_000, 50_000] {
        let asked = request(start, end, most);
        let (proto, proto_cpu, answer) = timed(false, &asked)?;
        let (json, json_cpu, _) = timed(true, &asked)?;
        hardest = json.max(proto) - least;
        points.push(format!(
            "{} nodes proto {:.1} (server's CPU time {:.1}) json {:.1} ({:.1})",
            nodes(&answer)?,
            proto - least,
            proto_cpu - least_cpu,
            json - least,
            json_cpu - least_cpu
        ));
    }
    let s4 = Measurement {
        id: "S4".to_owned(),
        ours: Some(hardest),
        unit: "ms".to_owned(),
        note: format!("beyond the same query for one node, {least:.1} ms; {}", points.join("; ")),
        ..Default::default()
    };
    Ok(vec![s3, s4])
}
