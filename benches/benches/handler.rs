//! B2: time in the signal handler's body.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_benches::run(env!("CARGO_BIN_EXE_spanflame-subject"), spanflame_benches::handler::measure)
}
