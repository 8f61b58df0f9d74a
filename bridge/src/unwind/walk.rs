//! The walk from a thread's registers to its entry.

use super::arch::Architecture;
use super::rule::{Action, Base, Saved};
use super::table::{CodeMap, LoadedTable};

/// The registers that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Program counter: rip, or pc.
    pub(crate) ip: u64,
    /// Stack pointer: rsp, or sp.
    pub(crate) sp: u64,
    /// Frame pointer: rbp, or x29.
    pub(crate) fp: u64,
    /// Link register: x30, and zero on x86-64, which has none.
    pub(crate) lr: u64,
}

/// Reads of the walked thread's stack.
pub(crate) trait Memory {
    /// The word at `address`, or `None` when that may not be read.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// Why a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum End {
    /// It reached the thread's entry.
    Entry = 0,
    /// No room for more frames.
    TooDeep = 1,
    /// The address is in no known module.
    NoModule = 2,
    /// The module has no rule for the address.
    NoRule = 3,
    /// The rule points outside the stack.
    BadRead = 4,
    /// The caller's frame would not lie above this one.
    NoProgress = 5,
}

impl End {
    pub(crate) const ALL: [Self; 6] =
        [Self::Entry, Self::TooDeep, Self::NoModule, Self::NoRule, Self::BadRead, Self::NoProgress];
}

/// Gives `push` the program counter and then each return address, innermost first, until it returns `false`. The
/// address at which a signal interrupted a frame is told as one more than it is: like a return address, it is after the
/// instruction that the frame is at.
#[inline]
pub(crate) fn walk<A: Architecture>(
    map: &CodeMap,
    registers: Registers,
    memory: &mut impl Memory,
    mut push: impl FnMut(u64) -> bool,
) -> End {
    let Registers { mut ip, mut sp, mut fp, mut lr } = registers;
    // An interrupted instruction has not run; a call has, and the rule that holds is the call's, one byte back.
    let mut first = true;
    let mut module: Option<&LoadedTable> = None;
    loop {
        if !push(ip) {
            return End::TooDeep;
        }
        let address = if first { ip } else { ip.wrapping_sub(1) };
        // Callers mostly live in the module of their callee.
        let (table, offset) = match module.and_then(|module| Some((module, module.offset(address)?))) {
            Some((module, offset)) => (&module.table, offset),
            None => {
                let Some((found, offset)) = map.find(address) else { return End::NoModule };
                module = Some(found);
                (&found.table, offset)
            }
        };
        first = false;
        // Where the caller's frame pointer and the return address are; `None` for in their registers.
        let (cfa, saved_fp, saved_ra) = match table.rule(offset).action() {
            Action::Frame { base, cfa, saved_fp } => {
                let cfa = if base == Base::Sp { sp } else { fp }.wrapping_add(cfa);
                let saved = (saved_fp != 0).then(|| cfa.wrapping_sub(saved_fp));
                (cfa, saved, saved.map(|fp| fp.wrapping_add(8)))
            }
            Action::Plt { pushed_at } => {
                (sp.wrapping_add(if address & 15 >= pushed_at { 16 } else { 8 }), None, None)
            }
            Action::Signal => {
                let context = sp;
                let frame = &A::SIGNAL_FRAME;
                let mut saved = |at| memory.word(context.wrapping_add(at));
                let (Some(saved_ip), Some(saved_sp), Some(saved_fp)) =
                    (saved(frame.ip), saved(frame.sp), saved(frame.fp))
                else {
                    return End::BadRead;
                };
                if let Some(at) = frame.lr {
                    let Some(saved) = saved(at) else { return End::BadRead };
                    lr = saved;
                }
                (ip, sp, fp) = (saved_ip.wrapping_add(1), saved_sp, saved_fp);
                continue;
            }
            Action::Entry => return End::Entry,
            Action::Side(index) => {
                let Some(rule) = table.side_rule(index) else { return End::NoRule };
                let base = if rule.base == Base::Sp { sp } else { fp };
                let at = base.wrapping_add_signed(i64::from(rule.offset));
                let cfa = match rule.indirect {
                    false => Some(at),
                    true => memory.word(at),
                };
                let Some(cfa) = cfa else { return End::BadRead };
                let saved = |saved| match saved {
                    Saved::Unchanged => None,
                    Saved::AtCfa(n) => Some(cfa.wrapping_add_signed(i64::from(n))),
                    Saved::AtFp(n) => Some(fp.wrapping_add_signed(i64::from(n))),
                };
                (cfa, saved(rule.fp), saved(rule.ra))
            }
            Action::Unknown => return End::NoRule,
        };
        let saved_ra = if A::LINK_REGISTER { saved_ra } else { Some(cfa.wrapping_sub(8)) };
        // A function that calls nobody may have no frame at all.
        if cfa < sp || (cfa == sp && saved_ra.is_some()) {
            return End::NoProgress;
        }
        let caller = match saved_ra {
            Some(at) => memory.word(at),
            // A call overwrites the register, so only the frame that was interrupted still has it there.
            None if lr == 0 => return End::NoProgress,
            None => Some(lr),
        };
        let Some(caller) = caller.map(A::code_address) else { return End::BadRead };
        if let Some(at) = saved_fp {
            let Some(saved) = memory.word(at) else { return End::BadRead };
            fp = saved;
        }
        // The entry of a thread that something else than libc started often has no rule that says so.
        if caller == 0 {
            return End::Entry;
        }
        (ip, sp, lr) = (caller, cfa, 0);
    }
}
