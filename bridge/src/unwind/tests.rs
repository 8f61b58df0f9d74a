//! The walk and the compiler on made-up tables, stacks and sections.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::rule::{Base, Rule, SavedBp, SideRule};
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
    let mut frames = Vec::new();
    let mut memory = Words(words.iter().copied().collect());
    let end = walk(map, registers, &mut memory, |frame| {
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
    let registers = Registers { ip: TEXT, sp: 0x8000, bp: 0 };
    assert_eq!(walked(&map, registers, &words), (vec![TEXT, TEXT + 0x20, TEXT + 0x31], End::Entry));
}

#[test]
fn above_a_signal_frame_the_address_is_exact() {
    let map = map(&[(0, Rule::SIGNAL), (0x10, Rule::ENTRY), (0x20, frame(Base::Bp, 16, Some(16)))], &[]);
    let context = 0x8000;
    let words = [
        (context + 120, 0x9000),
        (context + 160, 0x8800),
        (context + 168, TEXT + 0x20),
        (0x9000, 0x9100),
        (0x9008, TEXT + 0x12),
    ];
    let registers = Registers { ip: TEXT + 1, sp: context, bp: 1 };
    let expected = vec![TEXT + 1, TEXT + 0x20, TEXT + 0x12];
    assert_eq!(walked(&map, registers, &words), (expected, End::Entry));
}

#[test]
fn a_linkage_table_entry_has_pushed_a_word_from_its_eleventh_byte_on() {
    let map = map(&[(0, Rule::plt(11)), (0x100, Rule::ENTRY)], &[]);
    let words = [(0x8000, TEXT + 0x101), (0x8008, TEXT + 0x102)];
    let at = |ip| walked(&map, Registers { ip, sp: 0x8000, bp: 0 }, &words).0[1];
    assert_eq!(at(TEXT + 0x1a), TEXT + 0x101);
    assert_eq!(at(TEXT + 0x1b), TEXT + 0x102);
}

#[test]
fn a_realigned_stack_goes_through_memory() {
    let side = SideRule { base: Base::Bp, offset: -8, indirect: true, saved_bp: SavedBp::AtBp(0) };
    let map = map(
        &[(0, Rule::side(0).expect("fits")), (0x10, frame(Base::Bp, 16, Some(16))), (0x20, Rule::ENTRY)],
        &[side],
    );
    let words =
        [(0x8ff8, 0x9020), (0x9018, TEXT + 0x11), (0x9000, 0xa000), (0xa000, 0), (0xa008, TEXT + 0x21)];
    let registers = Registers { ip: TEXT, sp: 0x8000, bp: 0x9000 };
    assert_eq!(walked(&map, registers, &words), (vec![TEXT, TEXT + 0x11, TEXT + 0x21], End::Entry));
}

#[test]
fn every_way_to_end_is_told() {
    let map = map(
        &[(0, frame(Base::Sp, 8, None)), (0x10, frame(Base::Bp, 16, Some(16))), (0x20, Rule::UNKNOWN)],
        &[],
    );
    let end = |ip, bp, words: &[(u64, u64)]| walked(&map, Registers { ip, sp: 0x8000, bp }, words).1;
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
        6 => (0..64i64, proptest::option::of(1..64i64), any::<bool>()).prop_map(|(cfa, saved, bp)| {
            frame(if bp { Base::Bp } else { Base::Sp }, cfa * 8, saved.map(|saved| saved * 8))
        }),
        1 => (0..16u8).prop_map(Rule::plt),
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
        (ip, bp) in (0..0x1000u64, 0..0x200u64),
    ) {
        let rows: Vec<(u32, Rule)> = rules.into_iter().enumerate().map(|(i, rule)| (i as u32 * 0x100, rule)).collect();
        let words: Vec<(u64, u64)> = words
            .into_iter()
            .enumerate()
            .map(|(i, word)| (0x8000 + 8 * i as u64, if word % 3 == 0 { 0x8000 + word / 2 } else { TEXT + word }))
            .collect();
        let (frames, _) = walked(&map(&rows, &[]), Registers { ip: TEXT + ip, sp: 0x8000, bp: 0x8000 + bp }, &words);
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
        let table = compile(&section[..len], 0x1000, 0..0x10_0000);
        for offset in (0..0x10_0000).step_by(0x111) {
            table.rule(offset);
        }
    }
}
