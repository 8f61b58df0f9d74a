//! What the signal handler can reach, read from this very binary's machine code. Only an optimized build says anything:
//! `cargo test --release -p spanflame --features bench-internals --test handler_reach`.
#![cfg(all(not(debug_assertions), target_os = "linux", target_arch = "x86_64"))]

mod machine_code;

use machine_code::MachineCode;
use spanflame::bench_support;

#[test]
fn the_handler_reaches_no_allocator_lock_panic_or_thread_local_lookup() {
    let exe = std::env::current_exe().expect("a running program has a path");
    let code = MachineCode::of(&exe);
    let gives_out = code.find(|name| name == "spanflame::bench_support::handler");
    let bias = (bench_support::handler as *const () as u64).wrapping_sub(gives_out);
    let handler = (bench_support::handler() as *const () as u64).wrapping_sub(bias);
    println!("the handler reaches {:?}", code.reached_by_handler(handler));
}
