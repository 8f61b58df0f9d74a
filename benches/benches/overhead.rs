//! B9: added CPU of a working program.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_benches::run(env!("CARGO_BIN_EXE_spanflame-subject"), spanflame_benches::overhead::measure)
}
