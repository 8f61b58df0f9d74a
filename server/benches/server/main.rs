//! S1 to S4, T1 to T8 and T10: what ingest, queries and keeping cost, over HTTP; ingest and queries beside a Grafana Pyroscope
//! server where one is named.

mod corpus;
mod ingest;
mod load;
mod query;
mod reopen;
mod rig;
mod shared;
mod store;

use std::process::ExitCode;

use spanflame_bench_rig::Measurement;

type Measure = fn(&rig::Setup) -> anyhow::Result<Vec<Measurement>>;

/// What is measured together, and how.
const PARTS: &[(&[&str], Measure)] = &[
    (&["S1", "S2"], ingest::measure),
    (&["S3", "S4"], query::measure),
    (&["T1", "T2", "T3", "T4", "T5", "T6", "T8"], store::measure),
    (&["T7"], reopen::measure),
    (&["T10"], shared::measure),
];

fn main() -> ExitCode {
    rig::run(|setup| {
        let wanted = PARTS.iter().filter(|(ids, _)| setup.wants(ids));
        let found: anyhow::Result<Vec<_>> = wanted.map(|(_, measure)| measure(setup)).collect();
        Ok(found?.concat())
    })
}
