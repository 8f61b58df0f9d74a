use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

fn graph(names: &[&str], levels: &[&[i64]]) -> FlameGraph {
    FlameGraph {
        names: names.iter().map(|name| name.to_string()).collect(),
        levels: levels.iter().map(|level| level.to_vec()).collect(),
        total: levels[0][1],
        max_self: 0,
        samples: 3,
    }
}

/// `main` calls `b` twice by way of `a` and of itself; 2 are without a stack trace.
fn small() -> FlameGraph {
    graph(
        &["total", "main", "a", "b"],
        &[&[0, 100, 2, 0], &[2, 98, 8, 1], &[10, 50, 20, 2, 0, 40, 40, 3], &[30, 30, 30, 3]],
    )
}

fn written<T>(graph: &FlameGraph, write: impl Fn(&Drawn<'_>) -> Result<T, TooLong>) -> T {
    let kind = CPU.parse().unwrap();
    write(&Drawn { title: "span 00f067aa0ba902b7", kind: &kind, graph }).unwrap()
}

#[test]
fn folded_stacks_begin_with_the_root() {
    assert_eq!(written(&small(), folded), "main 8\nmain;a 20\nmain;a;b 30\nmain;b 40\ntotal 2\n");
    let odd = graph(&["total", "a;b\nc", " \u{0}"], &[&[0, 3, 0, 0], &[0, 2, 2, 1, 0, 1, 1, 2]]);
    assert_eq!(written(&odd, folded), "a:b c 2\nunknown 1\n");
    assert_eq!(written(&graph(&["total"], &[&[0, 0, 0, 0]]), folded), "");
}

#[test]
fn speedscope_files_hold_stacks_and_weights() {
    let file: Value = serde_json::from_slice(&written(&small(), speedscope)).unwrap();
    assert_eq!(
        file,
        json!({
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": "span 00f067aa0ba902b7",
            "activeProfileIndex": 0,
            "exporter": concat!("spanflame/", env!("CARGO_PKG_VERSION")),
            "shared": { "frames": [{ "name": "total" }, { "name": "main" }, { "name": "a" }, { "name": "b" }] },
            "profiles": [{
                "type": "sampled", "name": "span 00f067aa0ba902b7", "unit": "nanoseconds",
                "startValue": 0, "endValue": 100,
                "samples": [[], [1], [1, 2], [1, 3], [1, 2, 3]],
                "weights": [2, 8, 20, 40, 30],
            }],
        })
    );
}

#[test]
fn nodes_name_their_parents() {
    let table: Value = serde_json::from_slice(&written(&small(), nodes)).unwrap();
    assert_eq!((&table["type"], &table["unit"]), (&json!(CPU), &json!("nanoseconds")));
    assert_eq!((&table["total"], &table["samples"]), (&json!(100), &json!(3)));
    assert_eq!(table["nodes"].as_array().map(Vec::len), Some(5));
    assert_eq!(
        table["nodes"][0],
        json!({ "name": "total", "parent": null, "depth": 0, "self": 2, "total": 100 })
    );
    assert_eq!(table["nodes"][4], json!({ "name": "b", "parent": 2, "depth": 3, "self": 30, "total": 30 }));
}

#[test]
fn pictures_escape_names_and_run_nothing() {
    let hostile = "</text><script>alert(1)</script>";
    let picture = written(&graph(&["total", hostile], &[&[0, 9, 0, 0], &[0, 9, 9, 1]]), svg);
    assert!(picture.starts_with("<svg xmlns=") && picture.ends_with("</svg>\n"));
    assert!(
        !picture.contains("<script") && !picture.contains("href") && !picture.contains(" on"),
        "{picture}"
    );
    assert!(
        picture.contains("&lt;/text&gt;&lt;script&gt;alert(1)&lt;/script&gt;\n9 ns, 100.00% (self 9 ns)")
    );
    let small = written(&small(), svg);
    assert_eq!(small.matches("<rect x=").count(), 5);
    assert!(small.contains(">main</text>") && small.contains("100 ns in 3 samples"), "{small}");
    assert!(written(&graph(&["total"], &[&[0, 0, 0, 0]]), svg).contains("no samples"));
}

#[test]
fn what_would_be_too_long_is_refused() {
    let name = "x".repeat(1 << 20);
    let bars: Vec<i64> = (0..70).flat_map(|_| [0, 1, 1, 1]).collect();
    let graph = graph(&["total", &name], &[&[0, 70, 0, 0], &bars]);
    let kind = CPU.parse().unwrap();
    let drawn = Drawn { title: "span", kind: &kind, graph: &graph };
    assert_eq!(folded(&drawn), Err(TooLong));
    assert_eq!(nodes(&drawn), Err(TooLong));
    assert_eq!(svg(&drawn), Err(TooLong));
    assert!(speedscope(&drawn).is_ok(), "names are written once");
}

/// A graph of these stacks, by a second way than the server's own.
fn drawn_from(stacks: &BTreeMap<Vec<u8>, i64>) -> FlameGraph {
    let names: Vec<String> =
        ["total".to_owned()].into_iter().chain((0..4).map(|n| format!("f{n}"))).collect();
    let total_of = |prefix: &[u8]| -> i64 {
        stacks.iter().filter(|(stack, _)| stack.starts_with(prefix)).map(|(_, value)| value).sum()
    };
    let own_of = |prefix: &[u8]| stacks.get(prefix).copied().unwrap_or(0);
    let mut levels = vec![vec![0, total_of(&[]), own_of(&[]), 0]];
    let mut row: Vec<(Vec<u8>, i64)> = vec![(Vec::new(), 0)];
    loop {
        let (mut next, mut level, mut end) = (Vec::new(), Vec::new(), 0);
        for (prefix, x) in &row {
            let mut at = x + own_of(prefix);
            for name in 0..4 {
                let child = [&prefix[..], &[name]].concat();
                let total = total_of(&child);
                if total > 0 {
                    level.extend([at - end, total, own_of(&child), i64::from(name) + 1]);
                    end = at + total;
                    next.push((child, at));
                    at += total;
                }
            }
        }
        if next.is_empty() {
            let total = levels[0][1];
            return FlameGraph { names, levels, total, max_self: 0, samples: 0 };
        }
        levels.push(level);
        row = next;
    }
}

proptest! {
    #[test]
    fn every_format_tells_the_same_stacks(
        stacks in prop::collection::btree_map(prop::collection::vec(0..4u8, 1..7), 1..100i64, 1..30),
    ) {
        let graph = drawn_from(&stacks);
        let text = written(&graph, folded);
        let of_text: BTreeMap<Vec<u8>, i64> = text.lines().map(|line| {
            let (stack, value) = line.rsplit_once(' ').unwrap();
            (stack.split(';').map(|name| name[1..].parse().unwrap()).collect(), value.parse().unwrap())
        }).collect();
        prop_assert_eq!(&of_text, &stacks);

        let file: Value = serde_json::from_slice(&written(&graph, speedscope)).unwrap();
        let profile = &file["profiles"][0];
        let of_file: BTreeMap<Vec<u8>, i64> = profile["samples"].as_array().unwrap().iter()
            .zip(profile["weights"].as_array().unwrap())
            .map(|(stack, weight)| {
                let stack = stack.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u8 - 1).collect();
                (stack, weight.as_i64().unwrap())
            }).collect();
        prop_assert_eq!(&of_file, &stacks);

        let table: Value = serde_json::from_slice(&written(&graph, nodes)).unwrap();
        let rows = table["nodes"].as_array().unwrap();
        let own: i64 = rows.iter().map(|row| row["self"].as_i64().unwrap()).sum();
        prop_assert_eq!(own, graph.total);
        for (at, row) in rows.iter().enumerate().skip(1) {
            let parent = row["parent"].as_u64().unwrap() as usize;
            prop_assert!(parent < at && rows[parent]["depth"].as_u64().unwrap() + 1 == row["depth"].as_u64().unwrap());
        }
        let bars = written(&graph, svg).matches("<rect x=").count();
        prop_assert!(bars <= rows.len() && bars > 0);
    }

    #[test]
    fn no_graph_panics(
        levels in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..13), 0..6),
        total in any::<i64>(),
    ) {
        let levels = levels.into_iter().map(|mut level| {
            level.chunks_mut(4).for_each(|bar| if let [.., name] = bar { *name = name.rem_euclid(2) });
            level
        }).collect();
        let names = vec!["total".to_owned(), "f".to_owned()];
        let graph = FlameGraph { names, levels, total, max_self: 0, samples: 0 };
        written(&graph, folded);
        written(&graph, speedscope);
        written(&graph, nodes);
        written(&graph, svg);
    }
}
