//! 64-bit Arm, as AAPCS64 and Linux have it.

use gimli::{CfaRule, Register, RegisterRule, Vendor};

use super::{Architecture, Described, Expressed, Operators, SignalFrame, saved_at};
use crate::unwind::rule::{Base, Rule, Saved, SideRule};

/// 64-bit Arm.
pub(crate) enum Aarch64 {}

/// Linux gives processes addresses of 48 bits unless they ask for more, which no loader does for code. What lies above
/// is the signature of pointer authentication.
const ADDRESS_BITS: u32 = 48;

/// From a signal frame's stack pointer: 128 bytes of `siginfo_t`, then `ucontext_t` with `uc_mcontext` 176 bytes into it,
/// which starts with the fault address.
const GENERAL_REGISTERS: u64 = 128 + 176 + 8;

impl Architecture for Aarch64 {
    const LINK_REGISTER: bool = true;
    const SIGNAL_FRAME: SignalFrame = SignalFrame {
        ip: GENERAL_REGISTERS + 32 * 8,
        sp: GENERAL_REGISTERS + 31 * 8,
        fp: GENERAL_REGISTERS + 29 * 8,
        lr: Some(GENERAL_REGISTERS + 30 * 8),
    };
    // For the instruction that says from where on the return address is signed.
    const VENDOR: Vendor = Vendor::AArch64;

    #[inline]
    fn code_address(saved: u64) -> u64 {
        saved & ((1 << ADDRESS_BITS) - 1)
    }

    const STUB_ALIGNMENT: u64 = 4;

    fn stub(_address: u64, code: &[u8]) -> Option<(usize, Rule)> {
        const BTI_C: u32 = 0xd503_245f;
        // adrp x16, page; ldr x17, [x16, #slot]; add x16, x16, #slot; br x17
        const STUB: [(u32, u32); 4] = [
            (0x9f00_001f, 0x9000_0010),
            (0xffc0_03ff, 0xf940_0211),
            (0xff80_03ff, 0x9100_0210),
            (!0, 0xd61f_0220),
        ];
        let (instructions, _) = code.as_chunks::<4>();
        let mut instructions = instructions.iter().copied().map(u32::from_le_bytes).peekable();
        let landing = usize::from(instructions.next_if_eq(&BTI_C).is_some());
        let mut checked = 0;
        for ((mask, value), instruction) in STUB.into_iter().zip(instructions) {
            (instruction & mask == value).then_some(())?;
            checked += 1;
        }
        (checked == STUB.len()).then_some(())?;
        Some((4 * (landing + checked), Rule::frame(Base::Sp, 0, None)?))
    }

    fn express(row: &Described<'_>) -> Option<Expressed> {
        let (x29, x30) = (row.register(gimli::AArch64::X29), row.register(gimli::AArch64::X30));
        if x30 == Some(RegisterRule::Undefined) {
            return Some(Expressed::Packed(Rule::ENTRY));
        }
        let (base, offset, indirect) = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                (base(*register)?, i32::try_from(*offset).ok()?, false)
            }
            CfaRule::Expression(expression) => OPERATORS.cfa(row.expression(expression)?)?,
        };
        let saved = |rule| match rule {
            // Compilers leave the rule out for registers that hold the caller's value.
            None | Some(RegisterRule::SameValue) => Some(Saved::Unchanged),
            Some(RegisterRule::Offset(n)) if indirect => i32::try_from(n).ok().map(Saved::AtCfa),
            Some(RegisterRule::Offset(n)) => saved_at(base, offset.into(), n),
            Some(RegisterRule::Expression(expression)) => OPERATORS.saved(row.expression(&expression)?),
            _ => None,
        };
        let (fp, ra) = (saved(x29)?, saved(x30)?);
        let packed = match (fp, ra) {
            _ if indirect => None,
            (Saved::Unchanged, Saved::Unchanged) => Rule::frame(base, offset.into(), None),
            // Nearly always a pair, as a frame record is.
            (Saved::AtCfa(fp), Saved::AtCfa(ra)) if ra.checked_sub(fp) == Some(8) => {
                Rule::frame(base, offset.into(), Some(-i64::from(fp)))
            }
            _ => None,
        };
        let side = SideRule { base, offset, indirect, fp, ra };
        Some(packed.map_or(Expressed::Side(side), Expressed::Packed))
    }
}

const OPERATORS: Operators = Operators { sp: 0x8f, fp: 0x8d };

fn base(register: Register) -> Option<Base> {
    match register {
        gimli::AArch64::SP => Some(Base::Sp),
        gimli::AArch64::X29 => Some(Base::Fp),
        _ => None,
    }
}
