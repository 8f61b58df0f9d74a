//! The forms in which merged samples are written, each read back as its readers do.

use std::collections::BTreeMap;

use spanflame_wire::google::v1 as wire;

use super::*;

/// Values by stack trace, the root first.
type Stacks = BTreeMap<Vec<String>, i64>;

/// Reads a flame graph as Grafana does: a bar belongs to the first bar of the level above that it lies within, and that
/// is never one before the last parent.
fn read_graph(graph: &FlameGraph) -> Stacks {
    assert_eq!(graph.levels[0].len(), 4, "one root");
    assert_eq!(
        (graph.levels[0][0], graph.names[0].as_str()),
        (0, "total"),
        "the offset is read as a name too"
    );
    let mut stacks = Stacks::new();
    let mut parents = vec![(0, graph.levels[0][1], Vec::new())];
    keep(&mut stacks, &[], graph.levels[0][2]);
    for level in &graph.levels[1..] {
        let mut bars = Vec::new();
        let (mut at, mut x) = (0, 0);
        for bar in level.chunks(4) {
            let [gap, total, own, name] = *bar else { panic!("bars have four numbers") };
            let (start, end) = (x + gap, x + gap + total);
            while !(parents[at].0 <= start && end <= parents[at].1) {
                at += 1;
                assert!(at < parents.len(), "a bar outside every bar above it");
            }
            let mut stack = parents[at].2.clone();
            stack.push(graph.names[name as usize].clone());
            keep(&mut stacks, &stack, own);
            bars.push((start, end, stack));
            x = end;
        }
        parents = bars;
    }
    stacks
}

/// Reads tree bytes as profilecli does.
fn read_tree(mut bytes: &[u8]) -> Stacks {
    fn number(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a number ends");
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut stacks = Stacks::new();
    // Of each open node its name and how many of its children are still to come.
    let mut open: Vec<(String, u64)> = Vec::new();
    while !bytes.is_empty() {
        let length = number(&mut bytes) as usize;
        let (name, rest) = bytes.split_at(length);
        bytes = rest;
        let (own, children) = (number(&mut bytes), number(&mut bytes));
        open.push((String::from_utf8(name.to_vec()).unwrap(), children));
        let stack: Vec<String> = open.iter().skip(1).map(|(name, _)| name.clone()).collect();
        keep(&mut stacks, &stack, own as i64);
        while open.last().is_some_and(|(_, left)| *left == 0) {
            open.pop();
            if let Some((_, left)) = open.last_mut() {
                *left -= 1;
            }
        }
    }
    assert!(open.is_empty(), "every child is there");
    stacks
}

fn keep(stacks: &mut Stacks, stack: &[String], value: i64) {
    if value > 0 {
        *stacks.entry(stack.to_vec()).or_default() += value;
    }
}

/// Reads a pprof message, checking its references.
fn read_pprof(profile: &wire::Profile) -> Stacks {
    let text = |number: i64| profile.string_table[number as usize].clone();
    let mut stacks = Stacks::new();
    for (at, location) in profile.location.iter().enumerate() {
        assert_eq!(location.id, at as u64 + 1);
        assert!(location.mapping_id as usize <= profile.mapping.len());
    }
    for sample in &profile.sample {
        let mut stack = Vec::new();
        for id in sample.location_id.iter().rev() {
            let location = &profile.location[*id as usize - 1];
            for line in location.line.iter().rev() {
                stack.push(text(profile.function[line.function_id as usize - 1].name));
            }
        }
        keep(&mut stacks, &stack, sample.value[0]);
    }
    stacks
}

fn folded(rows: &[(Vec<u8>, i64, u64)]) -> Stacks {
    let mut stacks = Stacks::new();
    for (stack, count, _) in rows {
        let stack: Vec<String> = stack.iter().map(|frame| format!("f{frame}")).collect();
        keep(&mut stacks, &stack, count * MS);
    }
    stacks
}

fn total(stacks: &Stacks) -> i64 {
    stacks.values().sum()
}

/// Bars lie within their parents beside those' selfs, none is zero, and selfs add up to the total.
pub(super) fn check_shape(graph: &FlameGraph) -> Result<(), TestCaseError> {
    prop_assert_eq!((graph.levels[0].len(), graph.levels[0][0], graph.levels[0][3]), (4, 0, 0));
    prop_assert_eq!(graph.names[0].as_str(), "total");
    prop_assert_eq!(&graph.levels[0][1..3], [graph.total, 0], "the root is the sum of its bars");
    let mut parents = vec![(0, i64::MAX)];
    let (mut selfs, mut max_self) = (0, 0);
    for (depth, level) in graph.levels.iter().enumerate() {
        let mut bars = Vec::new();
        let mut x = 0;
        for bar in level.chunks(4) {
            let [gap, total, own, name] = *bar else { panic!("bars have four numbers") };
            prop_assert!(gap >= 0 && own >= 0 && own <= total && (name as usize) < graph.names.len());
            prop_assert!(total > 0 || depth == 0, "a bar of nothing");
            let (start, end) = (x + gap, x + gap + total);
            prop_assert!(parents.iter().any(|(from, to)| *from <= start && end <= *to));
            bars.push((start + own, end));
            selfs += own;
            max_self = max_self.max(own);
            x = end;
        }
        parents = bars;
    }
    prop_assert_eq!((selfs, max_self), (graph.total, graph.max_self));
    Ok(())
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec((prop::collection::vec(0..4u8, 1..6), 1..50i64, 0..4u64), 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_form_reads_back_as_what_was_sent(rows in rows()) {
        let fixture = Fixture::of(&[(&builder(&rows), &[])]);
        let everything = Selection::of(cpu());
        let merged = fixture.merged(&everything);
        let graph = merged.flame_graph(0);
        check_shape(&graph)?;
        prop_assert_eq!(read_graph(&graph), folded(&rows));
        prop_assert_eq!(read_tree(&merged.tree_bytes(0)), folded(&rows));
        let profile = fixture.engine.merge_profile(&everything).unwrap().pprof(0);
        prop_assert_eq!(read_pprof(&profile), folded(&rows));
        prop_assert_eq!(merged.tree_bytes(0).is_empty(), rows.is_empty());
    }

    #[test]
    fn truncation_keeps_totals(rows in rows(), max_nodes in 1..12usize) {
        let fixture = Fixture::of(&[(&builder(&rows), &[])]);
        let everything = Selection::of(cpu());
        let merged = fixture.merged(&everything);
        let whole = total(&folded(&rows));
        let graph = merged.flame_graph(max_nodes);
        check_shape(&graph)?;
        prop_assert_eq!(graph.total, whole);
        prop_assert_eq!(read_tree(&merged.tree_bytes(max_nodes)), read_graph(&graph));
        let profile = fixture.engine.merge_profile(&everything).unwrap().pprof(max_nodes);
        prop_assert_eq!(total(&read_pprof(&profile)), whole);
    }

    #[test]
    fn merging_depends_on_neither_order_nor_grouping(
        rows in rows(),
        order in prop::collection::vec(any::<u32>(), 30),
        together in 1..8usize,
    ) {
        let mut shuffled: Vec<_> = rows.iter().cloned().zip(order).collect();
        shuffled.sort_by_key(|(_, place)| *place);
        let shuffled: Rows = shuffled.into_iter().map(|(row, _)| row).collect();
        let (one, other) = (Fixture::of(&[(&builder(&rows), &[])]), Fixture::new());
        for (at, some) in shuffled.chunks(together).enumerate() {
            other.append(builder(some).profiles(&[("pod", ["a", "b"][at % 2])]));
        }
        let everything = Selection::of(cpu());
        prop_assert_eq!(one.merged(&everything).flame_graph(5), other.merged(&everything).flame_graph(5));
        prop_assert_eq!(one.merged(&everything).tree_bytes(0), other.merged(&everything).tree_bytes(0));
        prop_assert_eq!(one.merged(&everything).dot(0), other.merged(&everything).dot(0));
        let pprof = |fixture: &Fixture| read_pprof(&fixture.engine.merge_profile(&everything).unwrap().pprof(0));
        prop_assert_eq!(pprof(&one), pprof(&other));
    }

    #[test]
    fn a_comparison_shows_what_either_side_shows(left in rows(), right in rows(), max_nodes in 0..12usize) {
        let fixture = Fixture::of(&[
            (&builder(&left), &[("side", "left")]),
            (&builder(&right), &[("side", "right")]),
        ]);
        let side = |side: &str| Selection {
            selector: LabelSelector::parse(&format!("{{side={side:?}}}")).unwrap(),
            ..Selection::of(cpu())
        };
        let diff = |a: &str, b: &str, nodes| fixture.engine.diff(&side(a), &side(b), nodes).unwrap();
        let same = diff("left", "left", max_nodes);
        for bar in same.levels.iter().flat_map(|level| level.chunks(7)) {
            prop_assert_eq!(&bar[..3], &bar[3..6], "equal sides differ nowhere");
        }
        prop_assert_eq!((same.left, same.total), (same.right, same.left * 2));

        let both = diff("left", "right", 0);
        prop_assert_eq!((both.left, both.right), (total(&folded(&left)), total(&folded(&right))));
        let truncated = diff("left", "right", max_nodes);
        prop_assert_eq!((truncated.left, truncated.right), (both.left, both.right));
        for offset in [0, 3] {
            let selfs: i64 = truncated.levels.iter().flat_map(|l| l.chunks(7)).map(|bar| bar[offset + 2]).sum();
            prop_assert_eq!(selfs, if offset == 0 { both.left } else { both.right });
        }
        let alone = diff("left", "nobody", max_nodes);
        let graph = fixture.merged(&side("left")).flame_graph(max_nodes);
        let left_side: Vec<Vec<i64>> = alone
            .levels
            .iter()
            .map(|level| level.chunks(7).flat_map(|bar| [bar[0], bar[1], bar[2], bar[6]]).collect())
            .collect();
        prop_assert_eq!((left_side, alone.names), (graph.levels, graph.names));
    }
}

#[test]
fn tree_bytes_are_as_clients_read_them() {
    let builder = PprofBuilder::new().sample(&["handler"], 1, &[]).sample(&["handler", "hash"], 2, &[]);
    let fixture = Fixture::of(&[(&builder, &[])]);
    let samples = Selection::of(SAMPLES.parse().unwrap());
    let expected = [&[0, 0, 1, 7][..], b"handler", &[1, 1, 4], b"hash", &[2, 0]].concat();
    assert_eq!(fixture.merged(&samples).tree_bytes(0), expected);
    assert_eq!(Fixture::new().merged(&samples).tree_bytes(0), b"");
}

#[test]
fn pprof_has_all_that_was_sent_of_a_location() {
    let mut builder = PprofBuilder::new().sample(&["main", "inlined", "leaf"], 3, &[]);
    let filename = builder.string("/usr/bin/checkout");
    let build_id = builder.string("abc123");
    let source = builder.string("src/leaf.rs");
    builder.pprof.mapping.push(wire::Mapping { id: 1, filename, build_id, ..Default::default() });
    // `leaf` was added first. Its caller is inlined into it; `main` is known by its address alone.
    builder.pprof.function[0].filename = source;
    builder.pprof.function[0].start_line = 40;
    let caller = builder.pprof.location[1].line[0].clone();
    builder.pprof.location[0].line[0].line = 42;
    builder.pprof.location[0].line.push(caller);
    builder.pprof.location[0].mapping_id = 1;
    builder.pprof.location[2].line.clear();
    builder.pprof.location[2].address = 0x1234;
    builder.pprof.sample[0].location_id = vec![1, 3];
    let fixture = Fixture::of(&[(&builder, &[])]);
    fixture.append(builder.at(START_MS + 20_000, 5_000).profiles(&[("pod", "b")]));
    let profile = fixture.engine.merge_profile(&Selection::of(cpu())).unwrap().pprof(0);
    let text = |number: i64| profile.string_table[number as usize].as_str();

    assert_eq!(profile.sample.len(), 1);
    assert_eq!(profile.sample[0].value, [6 * MS]);
    let [leaf, main] = profile.sample[0].location_id[..] else { panic!("two locations") };
    let leaf = &profile.location[leaf as usize - 1];
    let functions: Vec<&str> =
        leaf.line.iter().map(|line| text(profile.function[line.function_id as usize - 1].name)).collect();
    assert_eq!((functions.as_slice(), leaf.line[0].line), (&["leaf", "inlined"][..], 42));
    let function = &profile.function[leaf.line[0].function_id as usize - 1];
    assert_eq!((text(function.filename), function.start_line), ("src/leaf.rs", 40));
    let mapping = &profile.mapping[leaf.mapping_id as usize - 1];
    assert_eq!((text(mapping.filename), text(mapping.build_id)), ("/usr/bin/checkout", "abc123"));
    assert!(mapping.has_functions && mapping.has_line_numbers && mapping.has_inline_frames);
    let main = &profile.location[main as usize - 1];
    assert_eq!((main.address, main.line.len(), main.mapping_id), (0x1234, 0, 0));

    let of = |value: &wire::ValueType| (text(value.r#type).to_owned(), text(value.unit).to_owned());
    let cpu_nanos = ("cpu".to_owned(), "nanoseconds".to_owned());
    assert_eq!(profile.sample_type.iter().map(of).collect::<Vec<_>>(), std::slice::from_ref(&cpu_nanos));
    assert_eq!(profile.period_type.as_option().map(of), Some(cpu_nanos));
    assert_eq!((profile.period, profile.time_nanos), (10_000_000, START_MS * 1_000_000));
    assert_eq!(profile.duration_nanos, 25_000_000_000);
    assert_eq!(text(profile.default_sample_type), "cpu");

    let empty =
        fixture.engine.merge_profile(&Selection::of(SAMPLES.replace("samples", "none").parse().unwrap()));
    let empty = empty.unwrap().pprof(0);
    assert_eq!((empty.sample.len(), empty.sample_type.len(), empty.time_nanos), (0, 1, 0));
}

#[test]
fn samples_without_a_stack_trace_are_a_bar_of_their_own() {
    let builder = PprofBuilder::new().sample(&["main"], 2, &[]).sample(&[], 3, &[]);
    let fixture = Fixture::of(&[(&builder, &[])]);
    let merged = fixture.merged(&Selection::of(cpu()));
    let graph = merged.flame_graph(0);
    check_shape(&graph).unwrap();
    assert_eq!(graph.names, ["total", "[no stack trace]", "main"]);
    assert_eq!(graph.levels, [vec![0, 5 * MS, 0, 0], vec![0, 3 * MS, 3 * MS, 1, 0, 2 * MS, 2 * MS, 2]]);
    assert_eq!(read_tree(&merged.tree_bytes(0)), read_graph(&graph));
    let profile = fixture.engine.merge_profile(&Selection::of(cpu())).unwrap().pprof(0);
    let bare: Vec<i64> =
        profile.sample.iter().filter(|s| s.location_id.is_empty()).map(|s| s.value[0]).collect();
    assert_eq!(bare, [3 * MS], "a pprof says it as it came");
}

#[test]
fn a_pprof_has_nothing_that_its_samples_do_not_refer_to() {
    let mut builder = PprofBuilder::new().sample(&["main", "big"], 50, &[]);
    for at in 0..20 {
        builder = builder.sample(&["main", &format!("small{at}")], 1, &[]);
    }
    let filename = builder.string("/usr/lib/rare.so");
    builder.pprof.mapping.push(wire::Mapping { id: 1, filename, ..Default::default() });
    builder.pprof.location.last_mut().unwrap().mapping_id = 1;
    let fixture = Fixture::of(&[(&builder, &[])]);
    let merged = fixture.engine.merge_profile(&Selection::of(cpu())).unwrap();
    let whole = merged.pprof(0);
    assert_eq!((whole.location.len(), whole.function.len(), whole.mapping.len()), (22, 22, 1));
    let folded = merged.pprof(2);
    let names: Vec<&str> =
        folded.function.iter().map(|f| folded.string_table[f.name as usize].as_str()).collect();
    assert_eq!((folded.location.len(), folded.mapping.len()), (3, 0));
    assert_eq!(names, ["big", "main", "other"]);
    assert!(folded.string_table.iter().all(|text| !text.contains("small") && !text.contains("rare")));
    assert_eq!(total(&read_pprof(&folded)), 70 * MS);
}

#[test]
fn folded_locations_are_a_function_named_other() {
    let builder = PprofBuilder::new()
        .sample(&["main", "big"], 50, &[])
        .sample(&["main", "small"], 2, &[])
        .sample(&["main", "tiny"], 1, &[]);
    let fixture = Fixture::of(&[(&builder, &[])]);
    let profile = fixture.engine.merge_profile(&Selection::of(cpu())).unwrap().pprof(2);
    let expected = [(vec!["main", "big"], 50), (vec!["main", "other"], 3)];
    let expected: Stacks =
        expected.into_iter().map(|(s, v)| (s.into_iter().map(str::to_owned).collect(), v * MS)).collect();
    assert_eq!(read_pprof(&profile), expected);
}

#[test]
fn profiles_are_found_by_their_ids() {
    let fixture = Fixture::new();
    let mut first = PprofBuilder::new().sample(&["a"], 1, &[]).profiles(&[]);
    let second = PprofBuilder::new().sample(&["b"], 2, &[]).profiles(&[]);
    first[0].id = "7c9e6679-7425-40de-944b-e07fc1f90ae7".parse().unwrap();
    let ids = [first[0].id, second[0].id];
    fixture.append(first);
    fixture.append(second);
    let of = |ids: &[crate::model::ProfileId]| {
        let selection = Selection { profiles: ids.iter().copied().collect(), ..Selection::of(cpu()) };
        fixture.merged(&selection).total() / MS
    };
    assert_eq!((of(&ids[..1]), of(&ids[1..]), of(&ids), of(&[])), (1, 2, 3, 3));
    assert_eq!(of(&[crate::model::ProfileId::random()]), 0);
}

#[test]
fn stacks_are_selected_and_shortened() {
    let builder = PprofBuilder::new()
        .sample(&["main", "handler", "hash"], 1, &[("span_id", &hex(1))])
        .sample(&["main", "handler", "sleep"], 2, &[("span_id", &hex(1))])
        .sample(&["main", "idle"], 4, &[]);
    let fixture = Fixture::of(&[(&builder, &[])]);
    let total = |stacks: StackFilter, spans: SpanFilter| {
        fixture.merged(&Selection { stacks, spans, ..Selection::of(cpu()) }).total() / MS
    };
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let all = SpanFilter::default;
    assert_eq!(total(StackFilter { include: names(&["handler"]), ..Default::default() }, all()), 3);
    assert_eq!(total(StackFilter { exclude: names(&["sleep"]), ..Default::default() }, all()), 5);
    let under_span = SpanFilter::spans([id(1)]);
    assert_eq!(total(StackFilter { exclude: names(&["sleep"]), ..Default::default() }, under_span), 1);

    let leaves = StackFilter { keep_locations: 1, ..StackFilter::default() };
    let selection = Selection { stacks: leaves, ..Selection::of(cpu()) };
    let graph = fixture.merged(&selection).flame_graph(0);
    assert_eq!(graph.names, ["total", "hash", "idle", "sleep"]);
}

#[test]
fn leaf_lines_can_be_ignored() {
    let mut builder = PprofBuilder::new().sample(&["main", "leaf"], 1, &[]).sample(&["main", "leaf"], 2, &[]);
    let mut other = builder.pprof.location[0].clone();
    (other.id, other.line[0].line) = (9, 77);
    builder.pprof.location.push(other);
    builder.pprof.sample[1].location_id[0] = 9;
    let fixture = Fixture::of(&[(&builder, &[])]);
    let samples = |ignore_leaf_lines| {
        let stacks = StackFilter { ignore_leaf_lines, ..StackFilter::default() };
        let selection = Selection { stacks, ..Selection::of(cpu()) };
        fixture.engine.merge_profile(&selection).unwrap().pprof(0).sample.len()
    };
    assert_eq!((samples(false), samples(true)), (2, 1));
}

#[test]
fn analysis_counts_what_is_there() {
    let fixture = Fixture::of(&[(&family(), &[]), (&family(), &[("service_name", "other")])]);
    let analyze = |selector: &str, range| {
        fixture.engine.analyze(&LabelSelector::parse(selector).unwrap(), range).unwrap()
    };
    let all = analyze("{}", None);
    assert_eq!((all.parts, all.series, all.profiles, all.samples), (1, 4, 2, 12));
    assert!(all.profile_bytes > 0 && all.symbol_bytes > 0 && all.index_bytes > 0);
    let one = analyze(&format!(r#"{CPU}{{service_name="other"}}"#), None);
    assert_eq!((one.series, one.profiles, one.samples), (1, 1, 6));
    assert!(one.profile_bytes < all.profile_bytes);
    assert_eq!(analyze("{}", around(60_000, 70_000)), Analysis { series: 0, ..Analysis::default() });
}
