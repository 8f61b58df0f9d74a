//! B1 and B3: user instructions per sample.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_benches::run(env!("CARGO_BIN_EXE_spanflame-subject"), spanflame_benches::instructions::measure)
}
