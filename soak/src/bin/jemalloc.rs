//! The soak on jemalloc, for Rust's allocations and for libc's.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    spanflame_soak::main("jemalloc")
}
