//! From `.eh_frame` to a table. Runs on the collector's thread, never in the handler.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindExpression, UnwindSection, UnwindTableRow, X86_64,
};

use super::rule::{Base, Rule, SavedBp, SideRule};
use super::table::{Row, Table};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type TableRow = UnwindTableRow<usize, InPlace>;

/// Rows with room for every register that x86-64 code describes: smaller than gimli's own, so cheaper to copy.
struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = [UnwindTableRow<usize, Self>; 8];
}

/// Distance between one function's end and the next one's start that is padding, where no program counter falls.
const PADDING: u64 = 16;

/// Text longer than this is not compiled: offsets are 32 bits wide.
const MAX_TEXT: u64 = u32::MAX as u64 - 0x1000;

/// Compiles the `.eh_frame` section found at `section_address`, for a module whose text is at `text`; addresses are
/// in the file's own numbering. Functions that cannot be understood are left out and counted; nothing here fails.
pub(crate) fn compile(section: &[u8], section_address: u64, text: Range<u64>) -> Table {
    let len = text.end.saturating_sub(text.start);
    if len > MAX_TEXT {
        return Table::new(Vec::new(), 0, Vec::new(), 0);
    }
    let mut compiler = Compiler {
        section: EhFrame::new(section, LittleEndian),
        bases: BaseAddresses::default().set_eh_frame(section_address).set_text(text.start),
        text,
        rows: Vec::new(),
        functions: Vec::new(),
        side: Vec::new(),
        side_index: HashMap::new(),
        not_expressible: 0,
    };
    compiler.section.set_address_size(8);
    compiler.read_functions();
    compiler.finish(len as u32)
}

/// Bytes of `.eh_frame` at the start of `mapped`: up to its terminator, or all when there is none.
pub(crate) fn section_len(mapped: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) =
        mapped.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
    {
        let (header, length) = match length {
            0 => return at + 4,
            u32::MAX => {
                let wide = mapped.get(at + 4..at + 12).and_then(|bytes| bytes.try_into().ok());
                let Some(wide) = wide.map(u64::from_le_bytes).and_then(|wide| usize::try_from(wide).ok())
                else {
                    return at;
                };
                (12, wide)
            }
            short => (4, short as usize),
        };
        match at.checked_add(header).and_then(|body| body.checked_add(length)) {
            Some(next) if next <= mapped.len() => at = next,
            _ => return at,
        }
    }
    at
}

/// One function's part of the rows, addresses relative to the text.
struct Function {
    start: u64,
    end: u64,
    rows: Range<usize>,
}

struct Compiler<'a> {
    section: EhFrame<Bytes<'a>>,
    bases: BaseAddresses,
    text: Range<u64>,
    rows: Vec<Row>,
    functions: Vec<Function>,
    side: Vec<SideRule>,
    side_index: HashMap<SideRule, usize>,
    not_expressible: u32,
}

impl Compiler<'_> {
    fn read_functions(&mut self) {
        let (section, bases) = (self.section, self.bases.clone());
        let mut context = UnwindContext::<usize, InPlace>::new_in();
        // Most functions of an object file share one CIE.
        let mut last_cie = None;
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let fde = partial.parse(|section, bases, offset| match &last_cie {
                Some((at, cie)) if *at == offset => Ok(Clone::clone(cie)),
                _ => {
                    let cie = section.cie_from_offset(bases, offset)?;
                    last_cie = Some((offset, cie.clone()));
                    Ok(cie)
                }
            });
            let Ok(fde) = fde else {
                self.not_expressible += 1;
                continue;
            };
            let (start, end) = (fde.initial_address(), fde.end_address());
            // Also drops what the linker left of discarded functions.
            if start < self.text.start || end > self.text.end || start >= end {
                continue;
            }
            let first = self.rows.len();
            if fde.is_signal_trampoline() {
                self.push(start, Rule::SIGNAL);
            } else {
                let mut understood = start;
                let mut table = fde.rows(&section, &bases, &mut context).ok();
                while let Some(Ok(Some(row))) = table.as_mut().map(|table| table.next_row()) {
                    let rule = self.rule(row);
                    self.push(row.start_address().clamp(start, end), rule);
                    understood = row.end_address().clamp(start, end);
                }
                if understood < end {
                    self.not_expressible += 1;
                    self.push(understood, Rule::UNKNOWN);
                }
            }
            let (start, end) = (start - self.text.start, end - self.text.start);
            self.functions.push(Function { start, end, rows: first..self.rows.len() });
        }
    }

    fn push(&mut self, address: u64, rule: Rule) {
        self.rows.push(Row { start: (address - self.text.start) as u32, rule });
    }

    /// Puts the functions in order, without overlap, and merges neighbours that share a rule.
    fn finish(mut self, text_len: u32) -> Table {
        self.functions.sort_by_key(|function| function.start);
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len() + self.rows.len() / 8);
        let mut emit = |row: Row| match rows.last_mut() {
            Some(last) if last.rule == row.rule => {}
            Some(last) if last.start >= row.start => last.rule = row.rule,
            _ => rows.push(row),
        };
        let mut covered = 0;
        for function in &self.functions {
            // Two descriptions of one function: the first counts.
            if function.start < covered {
                continue;
            }
            if function.start - covered >= PADDING {
                emit(Row { start: covered as u32, rule: Rule::UNKNOWN });
            }
            for row in &self.rows[function.rows.clone()] {
                emit(*row);
            }
            covered = function.end;
        }
        emit(Row { start: covered as u32, rule: Rule::UNKNOWN });
        rows.shrink_to_fit();
        Table::new(rows, text_len, self.side, self.not_expressible)
    }

    fn rule(&mut self, row: &TableRow) -> Rule {
        self.express(row).unwrap_or_else(|| {
            self.not_expressible += 1;
            Rule::UNKNOWN
        })
    }

    fn express(&mut self, row: &TableRow) -> Option<Rule> {
        match row.register(X86_64::RA) {
            Some(RegisterRule::Offset(-8)) => {}
            Some(RegisterRule::Undefined) => return Some(Rule::ENTRY),
            _ => return None,
        }
        let saved_bp = match row.register(X86_64::RBP) {
            None | Some(RegisterRule::SameValue) => SavedBp::Unchanged,
            Some(RegisterRule::Offset(n)) => SavedBp::AtCfa(i32::try_from(n).ok()?),
            Some(RegisterRule::Expression(expression)) => match self.expression(&expression)? {
                [BREG_RBP, offset @ ..] => SavedBp::AtBp(whole(sleb(offset)?)?),
                _ => return None,
            },
            _ => return None,
        };
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                let base = base(*register)?;
                // Between `pop rbp` and `ret` compilers keep saying where rbp was saved: below the stack pointer by now.
                let popped = |n: i32| base == Base::Sp && offset.saturating_add(n.into()) < 0;
                let saved_bp = match saved_bp {
                    SavedBp::AtCfa(n) if popped(n) => SavedBp::Unchanged,
                    other => other,
                };
                let packed = match saved_bp {
                    SavedBp::Unchanged => Rule::frame(base, *offset, None),
                    SavedBp::AtCfa(n) => Rule::frame(base, *offset, Some(-i64::from(n))),
                    SavedBp::AtBp(_) => None,
                };
                let offset = i32::try_from(*offset).ok()?;
                packed.or_else(|| self.side_rule(SideRule { base, offset, indirect: false, saved_bp }))
            }
            CfaRule::Expression(expression) => match self.expression(expression)? {
                // rsp + 8 + ((((rip + 0) & 15) >= n) << 3): a procedure linkage table.
                [BREG_RSP, 8, BREG_RIP, 0, LIT15, AND, lit @ LIT0..=LIT15, GE, LIT3, SHL, PLUS] => {
                    (saved_bp == SavedBp::Unchanged).then(|| Rule::plt(lit - LIT0))
                }
                [register @ (BREG_RBP | BREG_RSP), rest @ ..] => {
                    let base = if *register == BREG_RBP { Base::Bp } else { Base::Sp };
                    let (offset, rest) = sleb(rest)?;
                    let indirect = match rest {
                        [] => false,
                        [DEREF] => true,
                        _ => return None,
                    };
                    let offset = i32::try_from(offset).ok()?;
                    self.side_rule(SideRule { base, offset, indirect, saved_bp })
                }
                _ => None,
            },
        }
    }

    fn expression(&self, expression: &UnwindExpression<usize>) -> Option<&[u8]> {
        expression.get(&self.section).ok().map(|expression| expression.0.slice())
    }

    fn side_rule(&mut self, rule: SideRule) -> Option<Rule> {
        let index = *self.side_index.entry(rule).or_insert_with(|| {
            self.side.push(rule);
            self.side.len() - 1
        });
        Rule::side(index)
    }
}

// DWARF expression operators.
const DEREF: u8 = 0x06;
const AND: u8 = 0x1a;
const PLUS: u8 = 0x22;
const SHL: u8 = 0x24;
const GE: u8 = 0x2a;
const LIT0: u8 = 0x30;
const LIT3: u8 = 0x33;
const LIT15: u8 = 0x3f;
const BREG_RBP: u8 = 0x76;
const BREG_RSP: u8 = 0x77;
const BREG_RIP: u8 = 0x80;

fn base(register: Register) -> Option<Base> {
    match register {
        X86_64::RSP => Some(Base::Sp),
        X86_64::RBP => Some(Base::Bp),
        _ => None,
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

/// The number alone, if nothing follows it.
fn whole((value, rest): (i64, &[u8])) -> Option<i32> {
    i32::try_from(value).ok().filter(|_| rest.is_empty())
}
