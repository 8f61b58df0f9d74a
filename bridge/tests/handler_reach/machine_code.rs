//! What a signal handler can reach, read from the machine code that it is linked into.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

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

/// A program's or a library's.
pub(crate) struct MachineCode {
    functions: Functions,
    /// What the loader puts into words of memory: addresses within the same file.
    slots: BTreeMap<u64, u64>,
}

impl MachineCode {
    pub(crate) fn of(file: &Path) -> Self {
        Self { functions: functions(file), slots: slots(file) }
    }

    /// Where the one function is whose name `is` says yes to.
    pub(crate) fn find(&self, is: impl Fn(&str) -> bool) -> u64 {
        let found: Vec<u64> =
            self.functions.iter().filter(|(_, (name, _))| is(name)).map(|(start, _)| *start).collect();
        let [start] = found[..] else { panic!("{} such functions", found.len()) };
        start
    }

    /// Asserts that the handler at `start` reaches no allocator, lock, panic or thread-local look-up: nothing but the
    /// profiler's own functions. Gives their names.
    pub(crate) fn reached_by_handler(&self, start: u64) -> Vec<&str> {
        let Self { functions, slots } = self;
        assert!(functions[&start].0.contains("sys::signal::handler"), "{}", functions[&start].0);
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(address) = open.pop() {
            let (start, (name, targets)) =
                functions.range(..=address).next_back().expect("code at every target");
            // What every `extern "C"` function does when a panic arrives; nothing else that is reached can panic.
            if name == "core::panicking::panic_cannot_unwind" {
                continue;
            }
            // Whatever is not inlined must be ours: the standard library's panics, locks and allocators are not, nor is
            // what another library is called through.
            assert!(
                name.starts_with("spanflame::") || name.starts_with("<spanflame::"),
                "the handler reaches {name}"
            );
            if !reached.insert(*start) {
                continue;
            }
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
        reached.iter().map(|start| functions[start].0.as_str()).collect()
    }
}

fn address(hex: &str) -> Option<u64> {
    u64::from_str_radix(hex, 16).ok()
}

fn objdump(arguments: &[&str], file: &Path) -> String {
    let output =
        Command::new("objdump").args(arguments).arg(file).output().expect("objdump (binutils) is installed");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn slots(file: &Path) -> BTreeMap<u64, u64> {
    let relocations = objdump(&["-R"], file);
    let slot = |line: &str| {
        let mut fields = line.split_whitespace();
        let slot = address(fields.next()?)?;
        Some((slot, address(fields.nth(1)?.strip_prefix("*ABS*+0x")?)?))
    };
    relocations.lines().filter_map(slot).collect()
}

fn functions(file: &Path) -> Functions {
    /// Of instructions that are padded to a certain length, as those are which look up a thread-local value.
    const PREFIXES: [&str; 5] = ["bnd", "notrack", "data16", "rex.W", "rex"];
    let mut functions = Functions::new();
    let mut current = None;
    for line in objdump(&["-d", "--no-show-raw-insn", "-C", "-w"], file).lines() {
        if let Some((start, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            let start = address(start).expect("an address");
            functions.insert(start, (name.to_owned(), Vec::new()));
            current = Some(start);
        } else if let (Some(start), Some((_, instruction))) = (current, line.split_once(":\t")) {
            let mut words = instruction.split_whitespace().filter(|word| !PREFIXES.contains(word));
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
