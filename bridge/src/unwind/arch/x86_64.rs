//! x86-64, as the System V ABI and Linux have it.

use gimli::{CfaRule, Register, RegisterRule, Vendor};

use super::{Architecture, Described, Expressed, Operators, SignalFrame, saved_at};
use crate::unwind::rule::{Base, Rule, Saved, SideRule};

/// x86-64.
pub(crate) enum X86_64 {}

/// A call pushes the return address.
const RETURN: Saved = Saved::AtCfa(-8);

impl Architecture for X86_64 {
    const LINK_REGISTER: bool = false;
    // `ucontext_t.uc_mcontext.gregs`; the stack pointer is at the context.
    const SIGNAL_FRAME: SignalFrame = SignalFrame { ip: 168, sp: 160, fp: 120, lr: None };
    const VENDOR: Vendor = Vendor::Default;

    #[inline]
    fn code_address(saved: u64) -> u64 {
        saved
    }

    const STUB_ALIGNMENT: u64 = 8;

    fn stub(address: u64, code: &[u8]) -> Option<(usize, Rule)> {
        let jump = Rule::frame(Base::Sp, 8, None)?;
        let (len, rule) = match code {
            // jmp *slot; push index; jmp first: the word is pushed once the push has run.
            [0xff, 0x25, _, _, _, _, 0x68, _, _, _, _, 0xe9, ..] => (16, Rule::of(Rule::PLT, 11)),
            // endbr64; push index; jmp first
            [0xf3, 0x0f, 0x1e, 0xfa, 0x68, _, _, _, _, 0xe9 | 0xf2, ..] => (16, Rule::of(Rule::PLT, 9)),
            // endbr64; jmp *slot
            [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, ..] | [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, ..] => {
                (16, jump)
            }
            // endbr64; mov $index, %r11d; jmp *slot
            [0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0xbb, _, _, _, _, 0xff, 0x25, ..] => (16, jump),
            // jmp *slot; nop
            [0xff, 0x25, _, _, _, _, 0x66, 0x90, ..] => (8, jump),
            _ => return None,
        };
        (address.is_multiple_of(len as u64) && code.len() >= len).then_some((len, rule))
    }

    fn express(row: &Described<'_>) -> Option<Expressed> {
        match row.register(gimli::X86_64::RA) {
            Some(RegisterRule::Offset(-8)) => {}
            Some(RegisterRule::Undefined) => return Some(Expressed::Packed(Rule::ENTRY)),
            _ => return None,
        }
        let rbp = row.register(gimli::X86_64::RBP);
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = base(*register)?;
                let fp = match rbp {
                    Some(RegisterRule::Offset(n)) => saved_at(base, *offset, n)?,
                    other => elsewhere(row, other)?,
                };
                let packed = match fp {
                    Saved::Unchanged => Rule::frame(base, *offset, None),
                    Saved::AtCfa(n) => Rule::frame(base, *offset, Some(-i64::from(n))),
                    Saved::AtFp(_) => None,
                };
                let offset = i32::try_from(*offset).ok()?;
                let side = SideRule { base, offset, indirect: false, fp, ra: RETURN };
                Some(packed.map_or(Expressed::Side(side), Expressed::Packed))
            }
            CfaRule::Expression(expression) => {
                let fp = match rbp {
                    Some(RegisterRule::Offset(n)) => Saved::AtCfa(i32::try_from(n).ok()?),
                    other => elsewhere(row, other)?,
                };
                match row.expression(expression)? {
                    // rsp + 8 + ((((rip + 0) & 15) >= n) << 3): a procedure linkage table.
                    [BREG_RSP, 8, BREG_RIP, 0, LIT15, AND, lit @ LIT0..=LIT15, GE, LIT3, SHL, PLUS] => {
                        (fp == Saved::Unchanged).then(|| Expressed::Packed(Rule::of(Rule::PLT, lit - LIT0)))
                    }
                    other => {
                        let (base, offset, indirect) = OPERATORS.cfa(other)?;
                        Some(Expressed::Side(SideRule { base, offset, indirect, fp, ra: RETURN }))
                    }
                }
            }
        }
    }
}

/// The caller's rbp where it is not at an offset from the CFA.
fn elsewhere(row: &Described<'_>, rule: Option<RegisterRule<usize>>) -> Option<Saved> {
    match rule {
        None | Some(RegisterRule::SameValue) => Some(Saved::Unchanged),
        Some(RegisterRule::Expression(expression)) => OPERATORS.saved(row.expression(&expression)?),
        _ => None,
    }
}

fn base(register: Register) -> Option<Base> {
    match register {
        gimli::X86_64::RSP => Some(Base::Sp),
        gimli::X86_64::RBP => Some(Base::Fp),
        _ => None,
    }
}

// DWARF expression operators.
const AND: u8 = 0x1a;
const PLUS: u8 = 0x22;
const SHL: u8 = 0x24;
const GE: u8 = 0x2a;
const LIT0: u8 = 0x30;
const LIT3: u8 = 0x33;
const LIT15: u8 = 0x3f;
const BREG_RSP: u8 = 0x77;
const BREG_RIP: u8 = 0x80;
const OPERATORS: Operators = Operators { sp: BREG_RSP, fp: 0x76 };
