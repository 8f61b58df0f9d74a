//! The walk and the compiler on made-up tables, stacks and sections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::rule::{Base, Rule, Saved, SideRule};
use super::table::{Row, Table};
use super::*;

const TEXT: u64 = 0x40_0000;

#[derive(Clone, Debug, Default)]
struct Words(HashMap<u64, u64>);

impl Memory for Words {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.0.get(&address).copied()
    }
}

fn map(rows: &[(u32, Rule)], side: &[SideRule]) -> CodeMap {
    let rows = rows.iter().map(|(start, rule)| Row { start: *start, rule: *rule }).collect();
    let table = Arc::new(Table::new(rows, 0x1000, side.to_vec(), 0));
    CodeMap::new(vec![LoadedTable { start: TEXT, len: 0x1000, table }])
}

fn frame(base: Base, cfa: i64, saved_bp: Option<i64>) -> Rule {
    Rule::frame(base, cfa, saved_bp).expect("fits")
}

fn walked(map: &CodeMap, registers: Registers, words: &[(u64, u64)]) -> (Vec<u64>, End) {
    walked_on::<X86_64>(map, registers, words)
}

fn walked_on<A: Architecture>(map: &CodeMap, registers: Registers, words: &[(u64, u64)]) -> (Vec<u64>, End) {
    let mut frames = Vec::new();
    let mut memory = Words(words.iter().copied().collect());
    let end = walk::<A>(map, registers, &mut memory, |frame| {
        frames.push(frame);
        frames.len() < 16
    });
    (frames, end)
}

#[test]
fn a_return_address_looks_up_the_call_before_it() {
    // The caller's call is its last instruction: the return address already belongs to the next function.
    let map = map(
        &[
            (0, frame(Base::Sp, 8, None)),
            (0x10, frame(Base::Sp, 24, None)),
            (0x20, Rule::UNKNOWN),
            (0x30, Rule::ENTRY),
        ],
        &[],
    );
    let words = [(0x8000, TEXT + 0x20), (0x8018, TEXT + 0x31)];
    let registers = Registers { ip: TEXT, sp: 0x8000, fp: 0, lr: 0 };
    assert_eq!(walked(&map, registers, &words), (vec![TEXT, TEXT + 0x20, TEXT + 0x31], End::Entry));
}

#[test]
fn above_a_signal_frame_the_address_is_exact_and_told_as_if_it_were_after_a_call() {
    let map = map(&[(0, Rule::SIGNAL), (0x10, Rule::ENTRY), (0x20, frame(Base::Fp, 16, Some(16)))], &[]);
    let context = 0x8000;
    let words = [
        (context + 120, 0x9000),
        (context + 160, 0x8800),
        (context + 168, TEXT + 0x20),
        (0x9000, 0x9100),
        (0x9008, TEXT + 0x12),
    ];
    let registers = Registers { ip: TEXT + 1, sp: context, fp: 1, lr: 0 };
    // The interrupted instruction is the first of its row: one byte back, another rule would hold.
    let expected = vec![TEXT + 1, TEXT + 0x21, TEXT + 0x12];
    assert_eq!(walked(&map, registers, &words), (expected, End::Entry));
}

#[test]
fn a_linkage_table_entry_has_pushed_a_word_from_its_eleventh_byte_on() {
    let map = map(&[(0, Rule::of(Rule::PLT, 11)), (0x100, Rule::ENTRY)], &[]);
    let words = [(0x8000, TEXT + 0x101), (0x8008, TEXT + 0x102)];
    let at = |ip| walked(&map, Registers { ip, sp: 0x8000, fp: 0, lr: 0 }, &words).0[1];
    assert_eq!(at(TEXT + 0x1a), TEXT + 0x101);
    assert_eq!(at(TEXT + 0x1b), TEXT + 0x102);
}

#[test]
fn a_realigned_stack_goes_through_memory() {
    let side =
        SideRule { base: Base::Fp, offset: -8, indirect: true, fp: Saved::AtFp(0), ra: Saved::AtCfa(-8) };
    let map = map(
        &[(0, Rule::side(0).expect("fits")), (0x10, frame(Base::Fp, 16, Some(16))), (0x20, Rule::ENTRY)],
        &[side],
    );
    let words =
        [(0x8ff8, 0x9020), (0x9018, TEXT + 0x11), (0x9000, 0xa000), (0xa000, 0), (0xa008, TEXT + 0x21)];
    let registers = Registers { ip: TEXT, sp: 0x8000, fp: 0x9000, lr: 0 };
    assert_eq!(walked(&map, registers, &words), (vec![TEXT, TEXT + 0x11, TEXT + 0x21], End::Entry));
}

#[test]
fn with_a_link_register_a_leaf_has_no_frame_and_signed_return_addresses_are_stripped() {
    let map = map(
        &[
            (0, frame(Base::Sp, 0, None)),
            (0x10, frame(Base::Fp, 32, Some(32))),
            (0x20, Rule::side(0).expect("fits")),
            (0x30, Rule::ENTRY),
        ],
        &[SideRule {
            base: Base::Sp,
            offset: 16,
            indirect: false,
            fp: Saved::Unchanged,
            ra: Saved::AtCfa(-16),
        }],
    );
    let signed = |address: u64| address | 0x2b << 48;
    let words = [(0x8000, 0x9000), (0x8008, signed(TEXT + 0x21)), (0x8020, signed(TEXT + 0x31))];
    let registers = Registers { ip: TEXT, sp: 0x8000, fp: 0x8000, lr: signed(TEXT + 0x11) };
    let expected = vec![TEXT, TEXT + 0x11, TEXT + 0x21, TEXT + 0x31];
    assert_eq!(walked_on::<Aarch64>(&map, registers, &words), (expected, End::Entry));
    // Only the innermost function can have its return address in the register still.
    let registers = Registers { lr: TEXT + 1, ..registers };
    let expected = vec![TEXT, TEXT + 1];
    assert_eq!(walked_on::<Aarch64>(&map, registers, &words), (expected, End::NoProgress));
}

#[test]
fn above_a_signal_frame_the_link_register_counts_again() {
    let map = map(&[(0, Rule::SIGNAL), (0x10, Rule::ENTRY), (0x20, frame(Base::Sp, 0, None))], &[]);
    // Linux' `struct rt_sigframe`: siginfo_t, then a ucontext_t whose general registers come after the fault address.
    let general = 0x8000 + 128 + 176 + 8;
    let words = [
        (general + 29 * 8, 0x9000),
        (general + 30 * 8, TEXT + 0x11),
        (general + 31 * 8, 0x8800),
        (general + 32 * 8, TEXT + 0x20),
    ];
    let registers = Registers { ip: TEXT, sp: 0x8000, fp: 1, lr: 0 };
    let expected = vec![TEXT, TEXT + 0x21, TEXT + 0x11];
    assert_eq!(walked_on::<Aarch64>(&map, registers, &words), (expected, End::Entry));
}

#[test]
fn frame_pointers_lead_from_record_to_record_and_every_end_is_told() {
    const ROOM: usize = 15;
    let followed = |fp, words: &[(u64, u64)]| {
        let frames = [const { AtomicU64::new(0) }; ROOM];
        let records = Upwards { memory: Words(words.iter().copied().collect()), above: 0x8000 };
        let (len, end) = follow::<X86_64>(Registers { ip: 1, sp: 0x8000, fp, lr: 0 }, records, &frames);
        assert!(frames[len..].iter().all(|frame| frame.load(Ordering::Relaxed) == 0));
        let frames: Vec<u64> = frames[..len].iter().map(|frame| frame.load(Ordering::Relaxed)).collect();
        let (frames, end) = until_entry(&frames, end);
        (frames.to_vec(), end)
    };
    let chain = [(0x8010, 0x8040), (0x8018, 2), (0x8040, 0), (0x8048, 3)];
    assert_eq!(followed(0x8010, &chain), (vec![1, 2, 3], End::Entry));
    let null_caller = [(0x8010, 0x8040), (0x8018, 2), (0x8040, 0x9000), (0x8048, 0)];
    assert_eq!(followed(0x8010, &null_caller), (vec![1, 2], End::Entry));
    assert_eq!(followed(0x8010, &chain[..2]), (vec![1, 2], End::BadRead));
    assert_eq!(followed(0x7ff0, &chain), (vec![1], End::NoProgress), "below the stack pointer");
    let circle = [(0x8010, 0x8018), (0x8018, 2)];
    assert_eq!(followed(0x8010, &circle), (vec![1, 2], End::NoProgress), "records overlap");
    let forever: Vec<(u64, u64)> =
        (0..64).map(|i| (0x8000 + 8 * i, if i % 2 == 0 { 0x8000 + 8 * (i + 2) } else { 9 })).collect();
    assert_eq!(followed(0x8000, &forever), ([&[1][..], &[9; ROOM - 1]].concat(), End::TooDeep));
    for records in 0..ROOM as u64 {
        let end = 0x8000 + 16 * records;
        let chain: Vec<(u64, u64)> = (0..records)
            .flat_map(|i| [(0x8000 + 16 * i, 0x8010 + 16 * i), (0x8008 + 16 * i, 2 + i)])
            .chain([(end, 0x9000), (end + 8, 0)])
            .collect();
        // The frame that nothing called is seen only where there is room for its caller.
        let end = if records == ROOM as u64 - 1 { End::TooDeep } else { End::Entry };
        assert_eq!(followed(0x8000, &chain), ((1..records + 2).collect(), end), "{records} callers");
    }
}

#[test]
fn linkage_stubs_are_found_where_no_function_is() {
    fn rules<A: Architecture>(bytes: &[u8]) -> Vec<(u32, Rule)> {
        let mut gaps = Vec::new();
        let table = compile::<A>(&[], 0, 0x1000..0x1100, |found| {
            gaps = found;
            vec![Code { address: 0x1010, bytes: bytes.to_vec() }]
        });
        assert_eq!(gaps, std::iter::once(0x1000..0x1100).collect::<Vec<_>>());
        table.rows().map(|row| (row.start, row.rule)).collect()
    }
    let lazy = [
        [0xff, 0x35, 1, 2, 3, 4, 0xff, 0x25, 1, 2, 3, 4, 0x0f, 0x1f, 0x40, 0],
        [0xff, 0x25, 1, 2, 3, 4, 0x68, 0, 0, 0, 0, 0xe9, 1, 2, 3, 4],
        [0xff, 0x25, 1, 2, 3, 4, 0x68, 1, 0, 0, 0, 0xe9, 1, 2, 3, 4],
    ];
    let plt = Rule::of(Rule::PLT, 11);
    assert_eq!(
        rules::<X86_64>(lazy.as_flattened()),
        [(0, Rule::UNKNOWN), (0x20, plt), (0x40, Rule::UNKNOWN)]
    );
    let eager = [0xff, 0x25, 1, 2, 3, 4, 0x66, 0x90];
    let returns = frame(Base::Sp, 8, None);
    assert_eq!(rules::<X86_64>(&eager), [(0, Rule::UNKNOWN), (0x10, returns), (0x18, Rule::UNKNOWN)]);
    assert_eq!(rules::<X86_64>(&eager[..7]), [(0, Rule::UNKNOWN)]);
    let arm: [u32; 5] = [0xd503_245f, 0xd000_0190, 0xf946_a611, 0x9135_2210, 0xd61f_0220];
    let arm: Vec<u8> = arm.iter().flat_map(|instruction| instruction.to_le_bytes()).collect();
    let leaf = frame(Base::Sp, 0, None);
    assert_eq!(rules::<Aarch64>(&arm), [(0, Rule::UNKNOWN), (0x10, leaf), (0x24, Rule::UNKNOWN)]);
    assert_eq!(rules::<Aarch64>(&arm[4..]), [(0, Rule::UNKNOWN), (0x10, leaf), (0x20, Rule::UNKNOWN)]);
    assert_eq!(rules::<Aarch64>(&arm[..16]), [(0, Rule::UNKNOWN)]);
}

#[test]
fn every_way_to_end_is_told() {
    let map = map(
        &[(0, frame(Base::Sp, 8, None)), (0x10, frame(Base::Fp, 16, Some(16))), (0x20, Rule::UNKNOWN)],
        &[],
    );
    let end = |ip, fp, words: &[(u64, u64)]| walked(&map, Registers { ip, sp: 0x8000, fp, lr: 0 }, words).1;
    assert_eq!(end(TEXT, 0, &[]), End::BadRead);
    assert_eq!(end(TEXT, 0, &[(0x8000, 0)]), End::Entry, "a null return address");
    assert_eq!(end(TEXT, 0, &[(0x8000, 0x10)]), End::NoModule);
    assert_eq!(end(TEXT - 1, 0, &[]), End::NoModule);
    assert_eq!(end(TEXT + 0x1000, 0, &[]), End::NoModule);
    assert_eq!(end(TEXT + 0x20, 0, &[]), End::NoRule);
    assert_eq!(end(TEXT + 0x10, 0x7000, &[]), End::NoProgress);
    let forever: Vec<(u64, u64)> = (0..20).map(|i| (0x8000 + 8 * i, TEXT + 1)).collect();
    assert_eq!(end(TEXT, 0, &forever), End::TooDeep);
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        6 => (0..64i64, proptest::option::of(1..64i64), any::<bool>()).prop_map(|(cfa, saved, fp)| {
            frame(if fp { Base::Fp } else { Base::Sp }, cfa * 8, saved.map(|saved| saved * 8))
        }),
        1 => (0..16u8).prop_map(|at| Rule::of(Rule::PLT, at)),
        1 => (0..4usize).prop_map(|index| Rule::side(index).expect("fits")),
        1 => Just(Rule::SIGNAL),
        1 => Just(Rule::UNKNOWN),
    ]
}

proptest! {
    #[test]
    fn the_index_finds_the_row_that_a_plain_search_finds(
        mut starts in proptest::collection::btree_set(0..0x1000u32, 1..200),
        rules in proptest::collection::vec(rule(), 200),
    ) {
        starts.insert(0xfff);
        let rows: Vec<(u32, Rule)> = starts.into_iter().zip(rules).collect();
        let table = Table::new(
            rows.iter().map(|(start, rule)| Row { start: *start, rule: *rule }).collect(), 0x1000, Vec::new(), 0,
        );
        for offset in 0..0x1000 {
            let expected = rows.iter().rev().find(|(start, _)| *start <= offset).map_or(Rule::UNKNOWN, |(_, rule)| *rule);
            prop_assert_eq!(table.rule(offset), expected);
        }
        prop_assert_eq!(table.rule(u32::MAX), Rule::UNKNOWN);
    }

    #[test]
    fn any_walk_ends(
        rules in proptest::collection::vec(rule(), 16),
        words in proptest::collection::vec(0..0x1000u64, 64),
        (ip, fp) in (0..0x1000u64, 0..0x200u64),
    ) {
        let rows: Vec<(u32, Rule)> = rules.into_iter().enumerate().map(|(i, rule)| (i as u32 * 0x100, rule)).collect();
        let words: Vec<(u64, u64)> = words
            .into_iter()
            .enumerate()
            .map(|(i, word)| (0x8000 + 8 * i as u64, if word % 3 == 0 { 0x8000 + word / 2 } else { TEXT + word }))
            .collect();
        let (frames, _) = walked(&map(&rows, &[]), Registers { ip: TEXT + ip, sp: 0x8000, fp: 0x8000 + fp, lr: 0 }, &words);
        prop_assert!(!frames.is_empty() && frames.len() <= 16);
    }

    #[test]
    fn damaged_sections_compile_to_something(
        mut section in proptest::collection::vec(any::<u8>(), 0..300),
        plausible: bool,
    ) {
        if plausible && section.len() > 24 {
            // A length, the mark of a CIE, its version and augmentation: the rest stays random.
            section.splice(0..8, [20, 0, 0, 0, 0, 0, 0, 0]);
            section.splice(8..13, [1, b'z', b'R', b'S', 0]);
        }
        let len = section_len(&section);
        prop_assert!(len <= section.len());
        for table in [compile::<X86_64>(&section[..len], 0x1000, 0..0x10_0000, |_| Vec::new()), compile::<Aarch64>(&section[..len], 0x1000, 0..0x10_0000, |_| Vec::new())] {
        for offset in (0..0x10_0000).step_by(0x111) {
            table.rule(offset);
        }
        }
    }
}
