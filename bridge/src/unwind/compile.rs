//! From `.eh_frame` to a table. Runs on the collector's thread, never in the handler.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindContext, UnwindSection};

use super::arch::{Architecture, Bytes, Described, Expressed, InPlace};
use super::rule::{Rule, SideRule};
use super::table::{Row, Table};

/// Distance between one function's end and the next one's start that is padding, where no program counter falls.
const PADDING: u64 = 16;

/// Text longer than this is not compiled: offsets are 32 bits wide.
const MAX_TEXT: u64 = u32::MAX as u64 - 0x1000;

/// Compiles the `.eh_frame` section of `A`'s code found at `section_address`, for a module whose text is at `text`; addresses are
/// in the file's own numbering. `code` is asked for the bytes of the gaps between functions, as far as they can be had:
/// linkage stubs are found there. Functions that cannot be understood are left out and counted; nothing here fails.
pub(crate) fn compile<A: Architecture>(
    section: &[u8],
    section_address: u64,
    text: Range<u64>,
    code: impl FnOnce(Vec<Range<u64>>) -> Vec<Code>,
) -> Table {
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
    compiler.section.set_vendor(A::VENDOR);
    compiler.read_functions::<A>();
    compiler.functions.sort_by_key(|function| function.start);
    let code = code(compiler.gaps());
    compiler.finish::<A>(&code)
}

/// Bytes of a module's code and where they are, in the file's own numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
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
    fn read_functions<A: Architecture>(&mut self) {
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
                    let rule = self.rule(A::express(&Described { row, section: &section }));
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

    /// What lies between the functions, which are in order, other than padding.
    fn gaps(&self) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut covered = 0;
        let len = self.text.end - self.text.start;
        for (start, end) in
            self.functions.iter().map(|function| (function.start, function.end)).chain([(len, len)])
        {
            if start >= covered + PADDING {
                gaps.push(self.text.start + covered..self.text.start + start);
            }
            covered = covered.max(end);
        }
        gaps
    }

    /// Puts rows in order, without overlap, and merges neighbours that share a rule.
    fn finish<A: Architecture>(self, code: &[Code]) -> Table {
        let text_len = (self.text.end - self.text.start) as u32;
        let mut stubs = stubs::<A>(code, &self.text).into_iter().peekable();
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len() + self.rows.len() / 8);
        let mut emit = |row: Row| match rows.last_mut() {
            Some(last) if last.rule == row.rule => {}
            Some(last) if last.start >= row.start => last.rule = row.rule,
            _ => rows.push(row),
        };
        let mut covered = 0;
        let mut fill = |emit: &mut dyn FnMut(Row), from: u64, to: u64| {
            let mut unknown_from = from;
            while let Some((start, end, rule)) = stubs.next_if(|(_, end, _)| *end <= to) {
                if start < unknown_from {
                    continue;
                }
                if start > unknown_from {
                    emit(Row { start: unknown_from as u32, rule: Rule::UNKNOWN });
                }
                emit(Row { start: start as u32, rule });
                unknown_from = end;
            }
            emit(Row { start: unknown_from as u32, rule: Rule::UNKNOWN });
        };
        for function in &self.functions {
            // Two descriptions of one function: the first counts.
            if function.start < covered {
                continue;
            }
            if function.start - covered >= PADDING {
                fill(&mut emit, covered, function.start);
            }
            for row in &self.rows[function.rows.clone()] {
                emit(*row);
            }
            covered = function.end;
        }
        fill(&mut emit, covered, u64::from(text_len));
        rows.shrink_to_fit();
        Table::new(rows, text_len, self.side, self.not_expressible)
    }

    fn rule(&mut self, expressed: Option<Expressed>) -> Rule {
        let rule = match expressed {
            Some(Expressed::Packed(rule)) => Some(rule),
            Some(Expressed::Side(rule)) => self.side_rule(rule),
            None => None,
        };
        rule.unwrap_or_else(|| {
            self.not_expressible += 1;
            Rule::UNKNOWN
        })
    }

    fn side_rule(&mut self, rule: SideRule) -> Option<Rule> {
        let index = *self.side_index.entry(rule).or_insert_with(|| {
            self.side.push(rule);
            self.side.len() - 1
        });
        Rule::side(index)
    }
}

/// The linkage stubs in `code`: from where to where in the text, and their rule.
fn stubs<A: Architecture>(code: &[Code], text: &Range<u64>) -> Vec<(u64, u64, Rule)> {
    let mut stubs = Vec::new();
    for Code { address, bytes } in code {
        let mut at = address.next_multiple_of(A::STUB_ALIGNMENT) - address;
        while let Some(rest) =
            usize::try_from(at).ok().and_then(|at| bytes.get(at..)).filter(|rest| !rest.is_empty())
        {
            let start = address + at;
            at += match A::stub(start, rest) {
                Some((len, rule)) => {
                    if let Some(start) = start.checked_sub(text.start) {
                        stubs.push((start, start + len as u64, rule));
                    }
                    len as u64
                }
                None => A::STUB_ALIGNMENT,
            };
        }
    }
    stubs.sort_by_key(|(start, ..)| *start);
    stubs
}
