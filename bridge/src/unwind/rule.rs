//! Unwind rules: how to get from a frame to its caller.

/// The register that a frame's canonical frame address (CFA) is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Base {
    Sp,
    Fp,
}

/// A rule as the table stores it: three bits of kind, then what the kind needs.
///
/// Frame rules (kinds 0 and 1) hold the CFA's distance from its base in bits 3..20 and the distance from the CFA down
/// to the caller's saved frame pointer in bits 20..32, both in words; the latter is 0 when the register still holds the
/// caller's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule(u32);

/// What a [`Rule`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// CFA = base + `cfa`; the caller's frame pointer is at CFA - `saved_fp`, or still in its register when that is 0.
    /// Bytes. Where there is a link register, the return address is right above the saved frame pointer, or still there.
    Frame { base: Base, cfa: u64, saved_fp: u64 },
    /// The linker's procedure linkage table on x86-64: CFA = rsp + 8, or rsp + 16 from byte `pushed_at` of each 16-byte entry.
    Plt { pushed_at: u64 },
    /// The kernel's signal frame: the interrupted registers are in the context above the stack pointer.
    Signal,
    /// The thread's entry: there is no caller.
    Entry,
    /// Looked up in the table's side rules.
    Side(usize),
    /// Nothing is known here.
    Unknown,
}

const KIND_BITS: u32 = 3;
const CFA_BITS: u32 = 17;
const CFA_MASK: u32 = (1 << CFA_BITS) - 1;
const WORD: u64 = 8;

impl Rule {
    const SP: u32 = 0;
    const FP: u32 = 1;
    pub(super) const UNKNOWN: Self = Self::of(2, 0);
    pub(super) const ENTRY: Self = Self::of(3, 0);
    pub(super) const SIGNAL: Self = Self::of(4, 0);
    pub(super) const PLT: u32 = 5;
    const SIDE: u32 = 6;

    /// A frame rule, if the distances (in bytes) fit.
    pub(super) fn frame(base: Base, cfa: i64, saved_fp: Option<i64>) -> Option<Self> {
        let cfa = words(cfa, CFA_MASK)?;
        let saved_fp = match saved_fp {
            None => 0,
            Some(below) => words(below, u32::MAX >> (KIND_BITS + CFA_BITS)).filter(|words| *words > 0)?,
        };
        let kind = match base {
            Base::Sp => Self::SP,
            Base::Fp => Self::FP,
        };
        Some(Self(kind | cfa << KIND_BITS | saved_fp << (KIND_BITS + CFA_BITS)))
    }

    /// A rule of a kind that is no frame rule, with a parameter of one byte at most.
    pub(super) const fn of(kind: u32, parameter: u8) -> Self {
        Self(kind | (parameter as u32) << KIND_BITS)
    }

    pub(super) fn side(index: usize) -> Option<Self> {
        let index = u32::try_from(index).ok().filter(|index| *index <= u32::MAX >> KIND_BITS)?;
        Some(Self(Self::SIDE | index << KIND_BITS))
    }

    #[inline]
    pub(super) fn action(self) -> Action {
        let payload = self.0 >> KIND_BITS;
        let frame = |base| Action::Frame {
            base,
            cfa: u64::from(payload & CFA_MASK) * WORD,
            saved_fp: u64::from(payload >> CFA_BITS) * WORD,
        };
        let kind = self.0 & ((1 << KIND_BITS) - 1);
        // Nearly every rule is one of these two.
        if kind <= Self::FP {
            return frame(if kind == Self::SP { Base::Sp } else { Base::Fp });
        }
        match kind {
            3 => Action::Entry,
            4 => Action::Signal,
            Self::PLT => Action::Plt { pushed_at: u64::from(payload) },
            Self::SIDE => Action::Side(payload as usize),
            _ => Action::Unknown,
        }
    }
}

fn words(bytes: i64, max: u32) -> Option<u32> {
    let words = u32::try_from(bytes / WORD as i64).ok()?;
    (bytes % WORD as i64 == 0 && words <= max).then_some(words)
}

/// A rule too rare for the packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SideRule {
    pub(super) base: Base,
    /// Added to the base, in bytes.
    pub(super) offset: i32,
    /// Whether the CFA is the word stored at base + offset, as in functions that realign their stack.
    pub(super) indirect: bool,
    /// The caller's frame pointer.
    pub(super) fp: Saved,
    /// The return address.
    pub(super) ra: Saved,
}

/// Where a register's value at the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Saved {
    /// Still in the register.
    Unchanged,
    /// At CFA + n.
    AtCfa(i32),
    /// At this frame's frame pointer + n.
    AtFp(i32),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frame_rules_survive_packing_or_are_refused(fp: bool, cfa in -64i64..1 << 21, saved in -64i64..1 << 16) {
            let base = if fp { Base::Fp } else { Base::Sp };
            let fits = cfa >= 0 && cfa % 8 == 0 && cfa < 1 << 20 && saved > 0 && saved % 8 == 0 && saved < 1 << 15;
            let rule = Rule::frame(base, cfa, Some(saved));
            prop_assert_eq!(rule.is_some(), fits);
            if let Some(rule) = rule {
                prop_assert_eq!(
                    rule.action(),
                    Action::Frame { base, cfa: cfa as u64, saved_fp: saved as u64 }
                );
            }
        }
    }

    #[test]
    fn the_other_kinds_survive_packing() {
        assert_eq!(Rule::UNKNOWN.action(), Action::Unknown);
        assert_eq!(Rule::ENTRY.action(), Action::Entry);
        assert_eq!(Rule::SIGNAL.action(), Action::Signal);
        assert_eq!(Rule::of(Rule::PLT, 11).action(), Action::Plt { pushed_at: 11 });
        assert_eq!(Rule::side(70_000).map(Rule::action), Some(Action::Side(70_000)));
        assert_eq!(Rule::side(1 << 30), None);
        let unchanged = Rule::frame(Base::Sp, 8, None).map(Rule::action);
        assert_eq!(unchanged, Some(Action::Frame { base: Base::Sp, cfa: 8, saved_fp: 0 }));
    }
}
