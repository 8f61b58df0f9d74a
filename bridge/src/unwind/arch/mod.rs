//! What differs between processor architectures: where a call leaves the return address, what the rows of their
//! `.eh_frame` look like, and how the kernel lays a signal frame out. Pure facts: each is compiled for tests on any
//! machine, and for use on its own.

#[cfg(any(test, fuzzing, target_arch = "aarch64"))]
mod aarch64;
#[cfg(any(test, fuzzing, target_arch = "x86_64"))]
mod x86_64;

use gimli::{
    CfaRule, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule, UnwindContextStorage,
    UnwindExpression, UnwindTableRow, Vendor,
};

#[cfg(any(test, fuzzing, target_arch = "aarch64"))]
pub(crate) use self::aarch64::Aarch64;
#[cfg(any(test, fuzzing, target_arch = "x86_64"))]
pub(crate) use self::x86_64::X86_64;

/// The architecture that this is compiled for.
#[cfg(target_arch = "aarch64")]
pub(crate) type Native = Aarch64;
/// The architecture that this is compiled for.
#[cfg(target_arch = "x86_64")]
pub(crate) type Native = X86_64;

use super::rule::{Base, Rule, Saved, SideRule};

/// What walking and compiling need to know of an architecture.
pub(crate) trait Architecture {
    /// Whether a call leaves the return address in a register, for the callee to save; else it is at CFA - 8.
    const LINK_REGISTER: bool;
    /// Where a signal frame keeps the interrupted registers.
    const SIGNAL_FRAME: SignalFrame;
    /// Whose extensions of call frame instructions there may be.
    const VENDOR: Vendor;

    /// The address of code that a saved return address means.
    fn code_address(saved: u64) -> u64;

    /// What the row says, or `None` when no rule can say that.
    fn express(row: &Described<'_>) -> Option<Expressed>;

    /// Bytes between the addresses at which a linkage stub may start.
    const STUB_ALIGNMENT: u64;

    /// The length of the linkage stub that `code`, found at `address`, starts with, and the rule for it. Not every linker
    /// describes its stubs.
    fn stub(address: u64, code: &[u8]) -> Option<(usize, Rule)>;
}

/// Where a signal frame's context keeps the interrupted registers, in bytes from the frame's stack pointer.
pub(crate) struct SignalFrame {
    pub(super) ip: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// Of the link register, where there is one.
    pub(super) lr: Option<u64>,
}

/// A rule as the compiler stores it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expressed {
    Packed(Rule),
    Side(SideRule),
}

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
pub(super) type TableRow = UnwindTableRow<usize, InPlace>;

/// Rows with room for every register that compilers describe: smaller than gimli's own, so cheaper to copy.
pub(super) struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); 48];
    type Stack = [UnwindTableRow<usize, Self>; 8];
}

/// A row of a function's unwind information.
pub(crate) struct Described<'a> {
    pub(super) row: &'a TableRow,
    pub(super) section: &'a EhFrame<Bytes<'a>>,
}

impl<'a> Described<'a> {
    fn register(&self, register: Register) -> Option<RegisterRule<usize>> {
        self.row.register(register)
    }

    fn cfa(&self) -> &CfaRule<usize> {
        self.row.cfa()
    }

    fn expression(&self, expression: &UnwindExpression<usize>) -> Option<&'a [u8]> {
        expression.get(self.section).ok().map(|expression| expression.0.slice())
    }
}

/// Where a callee-saved register is that was saved `n` bytes above the CFA, if anywhere. Between restoring registers and
/// `ret` compilers keep saying where they were saved: below the stack pointer by then.
fn saved_at(base: Base, cfa: i64, n: i64) -> Option<Saved> {
    if base == Base::Sp && cfa.saturating_add(n) < 0 {
        return Some(Saved::Unchanged);
    }
    i32::try_from(n).ok().map(Saved::AtCfa)
}

/// DWARF's operator for a value in memory.
const DEREF: u8 = 0x06;

/// DWARF's operators for stack and frame pointer with an offset.
struct Operators {
    sp: u8,
    fp: u8,
}

impl Operators {
    /// Base and offset of a CFA that is given as an expression, and whether it is the word stored there.
    fn cfa(&self, expression: &[u8]) -> Option<(Base, i32, bool)> {
        let (register, rest) = expression.split_first()?;
        let base = match register {
            _ if *register == self.sp => Base::Sp,
            _ if *register == self.fp => Base::Fp,
            _ => return None,
        };
        let (offset, rest) = sleb(rest)?;
        let indirect = match rest {
            [] => false,
            [DEREF] => true,
            _ => return None,
        };
        Some((base, i32::try_from(offset).ok()?, indirect))
    }

    /// Where a register is saved at an address that is given as an expression.
    fn saved(&self, expression: &[u8]) -> Option<Saved> {
        let (register, offset) = expression.split_first()?;
        (*register == self.fp).then_some(())?;
        let (offset, []) = sleb(offset)? else { return None };
        i32::try_from(offset).ok().map(Saved::AtFp)
    }
}

/// A signed LEB128 number and what follows it.
fn sleb(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0i64;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        let shift = 7 * i as u32;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let unused = 64 - (shift + 7);
            return Some((value << unused >> unused, &bytes[i + 1..]));
        }
    }
    None
}
