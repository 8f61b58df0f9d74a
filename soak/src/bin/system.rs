//! The soak on the system's allocator.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanflame_soak::main("system")
}
