//! S1 to S4: what ingest and queries cost, over HTTP, beside a Grafana Pyroscope server where one is named.

mod corpus;
mod ingest;
mod query;
mod rig;

use std::process::ExitCode;

fn main() -> ExitCode {
    rig::run(|setup| Ok([ingest::measure(setup)?, query::measure(setup)?].concat()))
}
