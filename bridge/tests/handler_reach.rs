//! What the signal handler can reach, read from this very binary's machine code. Only an optimized build says anything:
//! `cargo test --release -p spanflame --features bench-internals --test handler_reach`.
#![cfg(all(not(debug_assertions), target_os = "linux", target_arch = "x86_64"))]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use spanflame::bench_support;

/// Functions by start address: name, and where they call and jump to.
type Functions = BTreeMap<u64, (String, Vec<Target>)>;

enum Target {
    Address(u64),
    /// A jump through a register: the table of a `match`, or the handler that was there before.
    JumpRegister,
    /// A call through a register.
    CallRegister,
    /// Through a word of memory, as calls of what might be in another library go.
    Slot(u64),
    Unknown(String),
}

fn address(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}

fn objdump(arguments: &[&str]) -> String {
    let exe = std::env::current_exe().expect("a running program has a path");
    let output =
        Command::new("objdump").args(arguments).arg(exe).output().expect("objdump (binutils) is installed");
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What the loader puts into words of memory: addresses within this program.
fn slots() -> BTreeMap<u64, u64> {
    let relocations = objdump(&["-R"]);
    let slot = |line: &str| {
        let mut fields = line.split_whitespace();
        let slot = address(fields.next()?)?;
        Some((slot, address(fields.nth(1)?.strip_prefix("*ABS*+0x")?)?))
    };
    relocations.lines().filter_map(slot).collect()
}

fn disassemble() -> Functions {
    let mut functions = Functions::new();
    let mut current = None;
    for line in objdump(&["-d", "--no-show-raw-insn", "-C", "-w"]).lines() {
        if let Some((start, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            let start = address(start).expect("an address");
            functions.insert(start, (name.to_owned(), Vec::new()));
            current = Some(start);
        } else if let (Some(start), Some((_, instruction))) = (current, line.split_once(":\t")) {
            let mut words = instruction.split_whitespace().filter(|word| !["bnd", "notrack"].contains(word));
            let (Some(operation), operand) = (words.next(), words.next().unwrap_or_default()) else {
                continue;
            };
            if operation.starts_with("call") || operation.starts_with('j') {
                let slot = instruction
                    .split_once("(%rip)")
                    .and_then(|(_, comment)| comment.split_whitespace().nth(1));
                let target = match (address(operand), operand.strip_prefix("*%"), slot.and_then(address)) {
                    (Some(address), _, _) => Target::Address(address),
                    (_, Some(_), _) if operation.starts_with('j') => Target::JumpRegister,
                    (_, Some(_), _) => Target::CallRegister,
                    (_, _, Some(slot)) => Target::Slot(slot),
                    _ => Target::Unknown(instruction.to_owned()),
                };
                functions.get_mut(&start).expect("inserted above").1.push(target);
            }
        }
    }
    functions
}

#[test]
fn the_handler_reaches_no_allocator_lock_panic_or_thread_local_lookup() {
    let (functions, slots) = (disassemble(), slots());
    let gives_out = functions.iter().find(|(_, (name, _))| name == "spanflame::bench_support::handler");
    let (in_file, _) = gives_out.expect("the function that gives the handler out");
    let bias = (bench_support::handler as *const () as u64).wrapping_sub(*in_file);
    let handler = (bench_support::handler() as *const () as u64).wrapping_sub(bias);
    assert!(functions[&handler].0.contains("sys::signal::handler"), "{}", functions[&handler].0);

    let mut reached = BTreeSet::new();
    let mut open = vec![handler];
    while let Some(address) = open.pop() {
        let (start, (name, targets)) = functions.range(..=address).next_back().expect("code at every target");
        // What every `extern "C"` function does when a panic arrives; nothing else that is reached can panic.
        if name == "core::panicking::panic_cannot_unwind" {
            continue;
        }
        // Whatever is not inlined must be ours: the standard library's panics, locks and allocators are not.
        assert!(
            name.starts_with("spanflame::") || name.starts_with("<spanflame::"),
            "the handler reaches {name}"
        );
        if reached.insert(*start) {
            for target in targets {
                match target {
                    Target::Address(target) => open.push(*target),
                    Target::JumpRegister => {}
                    // The handler that was there before; nobody else may call what this test cannot follow.
                    Target::CallRegister => {
                        assert!(name.ends_with("sys::signal::pass_on"), "{name} calls through a register");
                    }
                    Target::Slot(slot) => match slots.get(slot) {
                        Some(target) => open.push(*target),
                        None => panic!("{name} calls into another library, through {slot:#x}"),
                    },
                    Target::Unknown(instruction) => panic!("where does {name} go? {instruction}"),
                }
            }
        }
    }
    let names: Vec<&str> = reached.iter().map(|start| functions[start].0.as_str()).collect();
    println!("the handler reaches {names:?}");
}
