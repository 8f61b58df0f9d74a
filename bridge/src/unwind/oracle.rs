//! The tables against framehop, an unwinder that reads the same `.eh_frame` in its own way: row by row on real files,
//! with made-up registers and a stack whose words tell where they were read from. Both must find the same caller, stack
//! pointer and frame pointer. Where they cannot, there is a reason, and as many of it as there are rows.
//!
//! `SPANFLAME_ORACLE=all` checks every row of the largest files too and prints which rows no rule can express.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder};
use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EhFrameHdr, LittleEndian, Pointer, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection as _,
};

use super::arch::{Architecture, Bytes};
use super::rule::{Base, Rule};
use super::table::{Row, Table};
use super::{Aarch64, CodeMap, End, LoadedTable, Memory, Registers, X86_64, compile, section_len, walk};

/// framehop's half of an architecture.
pub(crate) trait Peer: Architecture {
    type Unwinder: Unwinder<Module = framehop::Module<Vec<u8>>>;
    const STACK_POINTER: Register;
    const FRAME_POINTER: Register;
    const RETURN_ADDRESS: Register;

    fn unwinder() -> (Self::Unwinder, <Self::Unwinder as Unwinder>::Cache);
    fn theirs(registers: Registers) -> <Self::Unwinder as Unwinder>::UnwindRegs;
    /// Stack and frame pointer.
    fn ours(registers: &<Self::Unwinder as Unwinder>::UnwindRegs) -> (u64, u64);
}

impl Peer for X86_64 {
    type Unwinder = UnwinderX86_64<Vec<u8>>;
    const STACK_POINTER: Register = gimli::X86_64::RSP;
    const FRAME_POINTER: Register = gimli::X86_64::RBP;
    const RETURN_ADDRESS: Register = gimli::X86_64::RA;

    fn unwinder() -> (Self::Unwinder, CacheX86_64) {
        (UnwinderX86_64::new(), CacheX86_64::new())
    }

    fn theirs(registers: Registers) -> UnwindRegsX86_64 {
        UnwindRegsX86_64::new(registers.ip, registers.sp, registers.fp)
    }

    fn ours(registers: &UnwindRegsX86_64) -> (u64, u64) {
        (registers.sp(), registers.bp())
    }
}

impl Peer for Aarch64 {
    type Unwinder = UnwinderAarch64<Vec<u8>>;
    const STACK_POINTER: Register = gimli::AArch64::SP;
    const FRAME_POINTER: Register = gimli::AArch64::X29;
    const RETURN_ADDRESS: Register = gimli::AArch64::X30;

    fn unwinder() -> (Self::Unwinder, CacheAarch64) {
        (UnwinderAarch64::new(), CacheAarch64::new())
    }

    fn theirs(registers: Registers) -> UnwindRegsAarch64 {
        let Registers { sp, fp, lr, .. } = registers;
        UnwindRegsAarch64::new_with_ptr_auth_mask(PtrAuthMask((1 << 48) - 1), lr, sp, fp)
    }

    fn ours(registers: &UnwindRegsAarch64) -> (u64, u64) {
        (registers.sp(), registers.fp())
    }
}

const SP: u64 = 0x10_0000;
const FP: u64 = 0x30_0000;
/// Where the words of the stack point to.
const TOLD: u64 = 1 << 40;
const TOLD_LEN: u64 = 1 << 23;
const LR: u64 = TOLD + TOLD_LEN - 1;

/// The word at `address`; nothing below the stack pointer is anybody's.
fn word(address: u64) -> Option<u64> {
    (address >= SP).then_some(TOLD + 1 + (address & (TOLD_LEN - 8)))
}

/// Remembers what was read last.
#[derive(Default)]
struct Telling(u64);

impl Memory for Telling {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0 = address;
        word(address)
    }
}

/// What is known of a frame's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Caller {
    address: u64,
    sp: u64,
    fp: u64,
}

/// Ours: a second step, through a rule of which only one register is unknown, tells what that register holds.
struct Ours {
    by_sp: CodeMap,
    by_fp: CodeMap,
}

impl Ours {
    fn new(binary: &Binary, table: Table) -> Self {
        let table = Arc::new(table);
        let map = |base| {
            let rule = Rule::frame(base, 16, Some(16)).expect("fits");
            let probe = Table::new(vec![Row { start: 0, rule }], TOLD_LEN as u32, Vec::new(), 0);
            let len = binary.text.end - binary.text.start;
            CodeMap::new(vec![
                LoadedTable { start: binary.text.start, len, table: table.clone() },
                LoadedTable { start: TOLD, len: TOLD_LEN, table: Arc::new(probe) },
            ])
        };
        Self { by_sp: map(Base::Sp), by_fp: map(Base::Fp) }
    }

    fn step<A: Peer>(&self, registers: Registers) -> Result<Caller, End> {
        let step = |map| {
            let (mut frames, mut stack) = (Vec::new(), Telling::default());
            let end = walk::<A>(map, registers, &mut stack, |frame| {
                frames.push(frame);
                frames.len() < 3
            });
            // The probe reads its frame pointer last, at the register itself.
            if end == End::TooDeep { Ok((frames[1], stack.0)) } else { Err(end) }
        };
        let (address, sp) = step(&self.by_sp)?;
        let (_, fp) = step(&self.by_fp)?;
        Ok(Caller { address, sp, fp })
    }
}

/// A file's code and `.eh_frame`, addresses in its own numbering.
struct Binary {
    name: String,
    arm: bool,
    text: Range<u64>,
    section: Vec<u8>,
    address: u64,
}

impl Binary {
    fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        const LOAD: u32 = 1;
        const EH_FRAME: u32 = 0x6474_e550;
        const EXECUTABLE: u32 = 1;
        let number = |at: u64, len: usize| -> Option<u64> {
            let field = bytes.get(usize::try_from(at).ok()?..)?.get(..len)?;
            Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        let arm = match number(18, 2)? {
            62 => false,
            183 => true,
            _ => return None,
        };
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let (mut text, mut header, mut loads) = (None::<Range<u64>>, None, Vec::new());
        for at in (0..count).map(|index| table + index * size) {
            let (kind, flags, offset) =
                (number(at, 4)? as u32, number(at + 4, 4)? as u32, number(at + 8, 8)?);
            let (address, in_file, in_memory) =
                (number(at + 16, 8)?, number(at + 32, 8)?, number(at + 40, 8)?);
            match kind {
                LOAD => {
                    loads.push((address..address + in_file, offset));
                    if flags & EXECUTABLE != 0 {
                        let end = address + in_memory;
                        text = Some(
                            text.map_or(address..end, |text| text.start.min(address)..text.end.max(end)),
                        );
                    }
                }
                EH_FRAME => header = Some(address),
                _ => {}
            }
        }
        let text = text?;
        let from = |address: u64| {
            let (range, offset) = loads.iter().find(|(range, _)| range.contains(&address))?;
            let at = |address: u64| usize::try_from(address - range.start + offset).ok();
            bytes.get(at(address)?..at(range.end)?.min(bytes.len()))
        };
        let bases = BaseAddresses::default().set_eh_frame_hdr(header?).set_text(text.start);
        let parsed = EhFrameHdr::new(from(header?)?, LittleEndian).parse(&bases, 8).ok()?;
        let Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
        let section = from(address)?;
        let section = section[..section_len(section)].to_vec();
        Some(Self { name: name.to_owned(), arm, text, section, address })
    }
}

/// What came of comparing.
#[derive(Debug, Default)]
struct Totals {
    functions: u64,
    addresses: u64,
    same: u64,
    /// Rows without a rule of ours, by their shape.
    unknown: BTreeMap<String, u64>,
    /// Differences with a reason.
    explained: BTreeMap<&'static str, u64>,
    unexplained: u64,
    examples: Vec<String>,
}

/// How many addresses of a file are compared, roughly; every so many functions is left out beyond that.
const ENOUGH: usize = 12_000;

fn compare<A: Peer>(binary: &Binary, everything: bool) -> Totals {
    let Binary { name, text, section, address, .. } = binary;
    let ours = Ours::new(binary, compile::<A>(section, *address, text.clone(), |_| Vec::new()));
    let (mut theirs, mut cache) = A::unwinder();
    let info = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: Some(text.clone()),
        eh_frame_svma: Some(*address..*address + section.len() as u64),
        eh_frame: Some(section.clone()),
        ..Default::default()
    };
    theirs.add_module(framehop::Module::new(name.clone(), text.clone(), 0, info));

    let bases = BaseAddresses::default().set_eh_frame(*address).set_text(text.start);
    let mut frame = EhFrame::new(section, LittleEndian);
    frame.set_address_size(8);
    frame.set_vendor(A::VENDOR);
    let mut functions = Vec::new();
    let mut entries = frame.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        functions.extend(partial.parse(EhFrame::cie_from_offset).ok());
    }
    functions.retain(|fde| fde.initial_address() >= text.start && fde.end_address() <= text.end);
    functions.sort_by_key(|fde| fde.initial_address());
    // Of two descriptions of one function, which one counts is a matter of taste.
    functions.dedup_by(|later, earlier| later.initial_address() < earlier.end_address());
    let step = if everything { 1 } else { (functions.len() * 8).div_ceil(ENOUGH).max(1) };

    let mut totals = Totals::default();
    let mut context = UnwindContext::new();
    for fde in functions.iter().step_by(step) {
        totals.functions += 1;
        if fde.is_signal_trampoline() {
            *totals.explained.entry("a signal frame: framehop has no rule for the kernel's").or_default() +=
                1;
            continue;
        }
        let Ok(mut rows) = fde.rows(&frame, &bases, &mut context) else { continue };
        while let Ok(Some(row)) = rows.next_row() {
            let (start, end) = (row.start_address(), row.end_address().min(fde.end_address()));
            // Some functions go on describing where they have ended.
            if start >= end {
                continue;
            }
            let middle = start + (end - start) / 2;
            for ip in [start, middle].into_iter().take(if middle > start { 2 } else { 1 }) {
                totals.addresses += 1;
                let registers = Registers { ip, sp: SP, fp: FP, lr: if A::LINK_REGISTER { LR } else { 0 } };
                let found = ours.step::<A>(registers);
                if found == Err(End::NoRule) {
                    let shape = || shape::<A>(row.cfa(), |register| row.register(register), &frame);
                    *totals.unknown.entry(shape()).or_default() += 1;
                    continue;
                }
                let mut state = A::theirs(registers);
                let at = FrameAddress::from_instruction_pointer(ip);
                let result =
                    theirs.unwind_frame(at, &mut state, &mut cache, &mut |address| word(address).ok_or(()));
                let result = result.map(|caller| {
                    let (sp, fp) = A::ours(&state);
                    caller.map(|address| Caller { address, sp, fp })
                });
                match (found, result) {
                    (Ok(found), Ok(Some(result))) if found == result => totals.same += 1,
                    (Err(End::Entry), Ok(None)) => totals.same += 1,
                    (found, result) => match explained::<A>(row.cfa(), &found, &result) {
                        Some(reason) => *totals.explained.entry(reason).or_default() += 1,
                        None => {
                            totals.unexplained += 1;
                            if totals.examples.len() < 5 {
                                let shape = shape::<A>(row.cfa(), |register| row.register(register), &frame);
                                totals
                                    .examples
                                    .push(format!("{ip:#x} ({shape}): {found:x?}, framehop {result:x?}"));
                            }
                        }
                    },
                }
            }
        }
    }
    totals
}

/// Why the two need not agree there.
fn explained<A: Peer>(
    cfa: &CfaRule<usize>,
    found: &Result<Caller, End>,
    result: &Result<Option<Caller>, framehop::Error>,
) -> Option<&'static str> {
    match (found, result) {
        (Err(End::Entry), Ok(Some(_))) if A::LINK_REGISTER => {
            Some("an entry: framehop takes the link register of the first frame all the same")
        }
        (Err(End::BadRead | End::NoProgress), Err(_)) => {
            Some("both find that the made-up stack does not fit")
        }
        (Err(End::NoProgress), Ok(Some(caller))) if caller.sp <= SP => {
            Some("hand-written rules by which a caller's frame is not above its callee's: ours stops there")
        }
        (Ok(_), Err(_)) if matches!(cfa, CfaRule::Expression(_)) => {
            Some("a CFA in memory or from an expression: framehop gives up")
        }
        (Ok(_), Ok(Some(caller))) if matches!(cfa, CfaRule::Expression(_)) && caller.sp == FP + 16 => {
            Some("a CFA in memory or from an expression: framehop follows the frame pointer instead")
        }
        _ => None,
    }
}

/// What a row looks like, without its numbers.
fn shape<A: Peer>(
    cfa: &CfaRule<usize>,
    register: impl Fn(Register) -> Option<RegisterRule<usize>>,
    section: &EhFrame<Bytes<'_>>,
) -> String {
    let expression = |expression: &UnwindExpression<usize>| match expression.get(section) {
        Ok(expression) => format!("expression {:02x?}", expression.0.slice()),
        Err(_) => "damaged expression".to_owned(),
    };
    let rule = |rule| match rule {
        None => "-".to_owned(),
        Some(RegisterRule::Offset(_)) => "at cfa+n".to_owned(),
        Some(RegisterRule::Expression(found)) => expression(&found),
        Some(other) => format!("{other:?}"),
    };
    let cfa = match cfa {
        CfaRule::RegisterAndOffset { register, .. } if *register == A::STACK_POINTER => "sp+n".to_owned(),
        CfaRule::RegisterAndOffset { register, .. } if *register == A::FRAME_POINTER => "fp+n".to_owned(),
        CfaRule::RegisterAndOffset { register, .. } => format!("r{}+n", register.0),
        CfaRule::Expression(found) => expression(found),
    };
    format!("cfa {cfa}, fp {}, ra {}", rule(register(A::FRAME_POINTER)), rule(register(A::RETURN_ADDRESS)))
}

fn sysroot_libraries() -> Vec<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let Some(output) = output.ok().filter(|output| output.status.success()) else { return Vec::new() };
    let library = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib");
    let Ok(entries) = std::fs::read_dir(library) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.to_string_lossy().contains("librustc_driver")).collect()
}

/// Functions that realign their stack, keep it in a register while they grow it, and call through linkage stubs.
fn realigned(directory: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
        #include <stdlib.h>
        #include <string.h>
        extern void use(void *, void *);
        int aligned(int n) {
            char block[64] __attribute__((aligned(128)));
            memset(block, n, sizeof block);
            use(block, 0);
            return block[n & 63] + abs(n);
        }
        int growing(int n) {
            char block[64] __attribute__((aligned(64)));
            char *grown = __builtin_alloca(n);
            use(block, grown);
            return growing(n - 1) + grown[0];
        }
    "#;
    let (source, library) = (directory.join("realigned.c"), directory.join("librealigned.so"));
    std::fs::write(&source, SOURCE).expect("written");
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O2", "-fPIC", "-shared", "-fomit-frame-pointer", "-Wl,-z,lazy", "-o"])
        .arg(&library)
        .arg(source);
    compiler.status().is_ok_and(|status| status.success()).then_some(library)
}

/// The kernel's own code, from this process's memory.
fn vdso() -> Option<Vec<u8>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let mut memory = std::fs::File::open("/proc/self/mem").ok()?;
    memory.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = vec![0; usize::try_from(end - start).ok()?];
    memory.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

#[test]
fn every_row_of_real_binaries_says_what_framehop_says() {
    let everything = std::env::var("SPANFLAME_ORACLE").is_ok_and(|wanted| wanted == "all");
    let directory = tempfile::tempdir().expect("a directory");
    let here = Path::new("/lib/x86_64-linux-gnu");
    let there = Path::new("/usr/aarch64-linux-gnu/lib");
    let mut paths = vec![std::env::current_exe().expect("a path")];
    paths.extend(
        ["libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1", "libm.so.6"].map(|name| here.join(name)),
    );
    paths.extend(["/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/bin/bash"].map(PathBuf::from));
    paths.extend(
        ["libc.so.6", "ld-linux-aarch64.so.1", "libgcc_s.so.1", "libm.so.6", "libstdc++.so.6"]
            .map(|name| there.join(name)),
    );
    paths.extend(realigned(directory.path()));
    paths.extend(sysroot_libraries());
    // More to check, separated by colons.
    let more = std::env::var_os("SPANFLAME_ORACLE_FILES").unwrap_or_default();
    paths.extend(std::env::split_paths(&more).filter(|path| !path.as_os_str().is_empty()));

    let mut binaries: Vec<Binary> = Vec::new();
    binaries.extend(vdso().and_then(|bytes| Binary::read("[vdso]", &bytes)));
    // What is not installed is not checked; this program is.
    for path in paths {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        binaries.extend(Binary::read(&name, &bytes));
    }
    assert!(binaries.len() >= 2, "this program and its C library at least");

    let mut sum = Totals::default();
    for binary in &binaries {
        let totals = match binary.arm {
            true => compare::<Aarch64>(binary, everything),
            false => compare::<X86_64>(binary, everything),
        };
        let unknown: u64 = totals.unknown.values().sum();
        let explained: u64 = totals.explained.values().sum();
        println!(
            "{:<40} {:>7} functions, {:>8} addresses: {:>8} the same, {unknown} without a rule, {explained} explained",
            binary.name, totals.functions, totals.addresses, totals.same
        );
        assert_eq!(totals.unexplained, 0, "{}: {:#?}", binary.name, totals.examples);
        assert!(totals.same > 0, "{}: nothing compared", binary.name);
        sum.functions += totals.functions;
        sum.addresses += totals.addresses;
        sum.same += totals.same;
        totals.unknown.into_iter().for_each(|(shape, n)| *sum.unknown.entry(shape).or_default() += n);
        totals.explained.into_iter().for_each(|(reason, n)| *sum.explained.entry(reason).or_default() += n);
    }
    println!("all: {} functions, {} addresses, {} the same", sum.functions, sum.addresses, sum.same);
    println!("explained: {:#?}", sum.explained);
    if everything {
        let mut shapes: Vec<_> = sum.unknown.iter().collect();
        shapes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        println!("without a rule: {:#?}", &shapes[..shapes.len().min(25)]);
    }
    let unknown: u64 = sum.unknown.values().sum();
    assert!(unknown * 200 < sum.addresses, "{unknown} of {} addresses have no rule", sum.addresses);
}
