//! The walk from a thread's registers to its entry.

use super::rule::{Action, Base, SavedBp};
use super::table::{CodeMap, LoadedTable};

/// The registers that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// rip
    pub(crate) ip: u64,
    /// rsp
    pub(crate) sp: u64,
    /// rbp
    pub(crate) bp: u64,
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

// Where a signal frame's context keeps the interrupted registers, from the frame's rsp (`ucontext_t.uc_mcontext.gregs`).
const CONTEXT_RBP: u64 = 120;
const CONTEXT_RSP: u64 = 160;
const CONTEXT_RIP: u64 = 168;

/// Gives `push` the program counter and then each return address, innermost first, until it returns `false`.
#[inline]
pub(crate) fn walk(
    map: &CodeMap,
    registers: Registers,
    memory: &mut impl Memory,
    mut push: impl FnMut(u64) -> bool,
) -> End {
    let Registers { mut ip, mut sp, mut bp } = registers;
    // An interrupted instruction has not run; a call has, and the rule that holds is the call's, one byte back.
    let mut exact = true;
    let mut module: Option<&LoadedTable> = None;
    loop {
        if !push(ip) {
            return End::TooDeep;
        }
        let address = if exact { ip } else { ip.wrapping_sub(1) };
        // Callers mostly live in the module of their callee.
        let (table, offset) = match module.and_then(|module| Some((module, module.offset(address)?))) {
            Some((module, offset)) => (&module.table, offset),
            None => {
                let Some((found, offset)) = map.find(address) else { return End::NoModule };
                module = Some(found);
                (&found.table, offset)
            }
        };
        exact = false;
        let (cfa, saved_bp) = match table.rule(offset).action() {
            Action::Frame { base, cfa, saved_bp } => {
                let cfa = if base == Base::Sp { sp } else { bp }.wrapping_add(cfa);
                (cfa, (saved_bp != 0).then(|| cfa.wrapping_sub(saved_bp)))
            }
            Action::Plt { pushed_at } => {
                (sp.wrapping_add(if address & 15 >= pushed_at { 16 } else { 8 }), None)
            }
            Action::Signal => {
                let context = sp;
                let mut saved = |at| memory.word(context.wrapping_add(at));
                let (Some(rip), Some(rsp), Some(rbp)) =
                    (saved(CONTEXT_RIP), saved(CONTEXT_RSP), saved(CONTEXT_RBP))
                else {
                    return End::BadRead;
                };
                (ip, sp, bp) = (rip, rsp, rbp);
                exact = true;
                continue;
            }
            Action::Entry => return End::Entry,
            Action::Side(index) => {
                let Some(rule) = table.side_rule(index) else { return End::NoRule };
                let base = if rule.base == Base::Sp { sp } else { bp };
                let at = base.wrapping_add_signed(i64::from(rule.offset));
                let cfa = match rule.indirect {
                    false => Some(at),
                    true => memory.word(at),
                };
                let Some(cfa) = cfa else { return End::BadRead };
                let saved_bp = match rule.saved_bp {
                    SavedBp::Unchanged => None,
                    SavedBp::AtCfa(n) => Some(cfa.wrapping_add_signed(i64::from(n))),
                    SavedBp::AtBp(n) => Some(bp.wrapping_add_signed(i64::from(n))),
                };
                (cfa, saved_bp)
            }
            Action::Unknown => return End::NoRule,
        };
        if cfa <= sp {
            return End::NoProgress;
        }
        let Some(caller) = memory.word(cfa.wrapping_sub(8)) else { return End::BadRead };
        if let Some(at) = saved_bp {
            let Some(saved) = memory.word(at) else { return End::BadRead };
            bp = saved;
        }
        // The entry of a thread that something else than libc started often has no rule that says so.
        if caller == 0 {
            return End::Entry;
        }
        (ip, sp) = (caller, cfa);
    }
}
