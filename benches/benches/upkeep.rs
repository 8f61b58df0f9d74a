//! B12 to B15: memory and CPU beside the samples.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_benches::run(env!("CARGO_BIN_EXE_spanflame-subject"), spanflame_benches::upkeep::measure)
}
