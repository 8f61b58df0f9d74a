//! B8: cost of a span.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_benches::run(env!("CARGO_BIN_EXE_spanflame-subject"), spanflame_benches::span::measure)
}
