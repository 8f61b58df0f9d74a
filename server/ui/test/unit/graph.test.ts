import assert from "node:assert/strict";
import { test } from "node:test";
import { collapse, FOLDED_NAME } from "../../src/flame/collapse.ts";
import { crateOf, isRuntime } from "../../src/flame/names.ts";
import { projectMatches, search } from "../../src/flame/search.ts";
import { firstRows, topRows } from "../../src/flame/top.ts";
import { childrenEnd, nameOf, pathTo, type FlameTree } from "../../src/flame/tree.ts";
import { treeOf } from "../support/answer.ts";
import { randomFrom } from "../support/random.ts";
import { randomStacks } from "../support/stacks.ts";

const SEEDS = Array.from({ length: 200 }, (_, i) => i + 1);

test("folding joins runtime frames and keeps what they call", () => {
  const full = treeOf([
    { frames: ["std::thread::start", "tokio::run", "app::a", "core::iter::fold", "app::b"], value: 5 },
    { frames: ["std::thread::start", "hyper::poll", "app::a"], value: 3 },
    { frames: ["std::thread::start"], value: 2 },
  ]);
  const { tree, shownAs } = collapse(full);
  assert.deepEqual(
    Array.from({ length: tree.size }, (_, bar) => [nameOf(tree, bar), tree.self[bar], tree.total[bar]]),
    [
      ["total", 0, 10],
      [FOLDED_NAME, 2, 10],
      ["app::a", 3, 8],
      [FOLDED_NAME, 0, 5],
      ["app::b", 5, 5],
    ],
  );
  assert.deepEqual(tree.folded.get(1), { functions: 3, crates: ["std", "tokio", "hyper"] });
  assert.equal(shownAs.length, full.size);
});

test("folding moves no value, whatever the graph", () => {
  for (const seed of SEEDS) {
    const full = treeOf(randomStacks(randomFrom(seed)));
    const { tree, shownAs, origin } = collapse(full);
    const self = new Float64Array(tree.size);
    const isFolded = (bar: number) => nameOf(tree, shownAs[bar]!) === FOLDED_NAME;
    for (let bar = 0; bar < full.size; bar++) {
      const shown = shownAs[bar]!;
      self[shown]! += full.self[bar]!;
      assert.ok(isFolded(bar) || nameOf(tree, shown) === nameOf(full, bar), `seed ${seed}`);
      // The path without folded frames is the same in both graphs.
      const names = (t: FlameTree, path: number[]) => path.map((at) => nameOf(t, at));
      assert.deepEqual(
        names(tree, pathTo(tree, shown)).filter((name) => name !== FOLDED_NAME),
        names(
          full,
          pathTo(full, bar).filter((at) => !isFolded(at)),
        ),
        `seed ${seed}`,
      );
    }
    assert.deepEqual(self, tree.self, `seed ${seed}`);
    assert.equal(tree.total[0], full.total[0]);
    for (let bar = 0; bar < tree.size; bar++) {
      assert.equal(shownAs[origin[bar]!], bar);
      let below = tree.self[bar]!;
      let end = tree.start[bar]! + tree.self[bar]!;
      for (let child = tree.firstChild[bar]!; child < childrenEnd(tree, bar); child++) {
        assert.ok(tree.start[child]! >= end);
        end = tree.start[child]! + tree.total[child]!;
        below += tree.total[child]!;
        const both = nameOf(tree, bar) === FOLDED_NAME && nameOf(tree, child) === FOLDED_NAME;
        assert.ok(!both, `seed ${seed}: a folded bar under a folded bar`);
      }
      assert.equal(below, tree.total[bar], `seed ${seed}`);
    }
  }
});

test("what folds: the runtime's crates, and frames without a crate that can only be the runtime's", () => {
  for (const seed of SEEDS) {
    const full = treeOf(randomStacks(randomFrom(seed)));
    const { tree, shownAs } = collapse(full);
    const isFolded = (bar: number) => nameOf(tree, shownAs[bar]!) === FOLDED_NAME;
    assert.ok(!isFolded(0));
    for (let bar = 1; bar < full.size; bar++) {
      const name = nameOf(full, bar);
      let expected = isRuntime(name);
      if (!expected && crateOf(name) === "") {
        const callees: number[] = [];
        for (let at = full.firstChild[bar]!; at < childrenEnd(full, bar); at++) callees.push(at);
        const callsRuntimeOnly = callees.length > 0 && callees.every(isFolded);
        expected = isFolded(full.parent[bar]!) && full.self[bar] === 0 && callsRuntimeOnly;
      }
      assert.equal(isFolded(bar), expected, `seed ${seed}, ${name}`);
    }
  }
  const { tree } = collapse(
    treeOf([{ frames: ["tokio::run", "poll", "do_call", "core::call", "work", "spend"], value: 3 }]),
  );
  assert.deepEqual(
    Array.from({ length: tree.size }, (_, bar) => nameOf(tree, bar)),
    ["total", FOLDED_NAME, "work", "spend"],
  );
});

test("a graph without runtime frames folds to itself", () => {
  const full = treeOf([
    { frames: ["app::a", "app::b"], value: 4 },
    { frames: ["app::a", "app::a"], value: 1 },
  ]);
  const { tree } = collapse(full);
  assert.deepEqual([...tree.total], [...full.total]);
  assert.deepEqual([...tree.start], [...full.start]);
  for (let bar = 0; bar < tree.size; bar++) assert.ok(!tree.folded.has(bar));
});

test("search counts nested matches once", () => {
  const tree = treeOf([
    { frames: ["app::Hash", "app::inner", "app::hash_one"], value: 6 },
    { frames: ["app::other"], value: 4 },
  ]);
  const found = search(tree, " HASH ");
  assert.deepEqual([found.functions, found.value], [2, 6]);
  assert.equal(
    found.matches.reduce((sum, each) => sum + each, 0),
    2,
  );
  assert.deepEqual([search(tree, "  ").functions, search(tree, "nothing").value], [0, 0]);
  assert.equal(search(tree, "total").functions, 0, "the root is no function");
});

test("a search's share is the value of the stacks that hold a match", () => {
  for (const seed of SEEDS) {
    const stacks = randomStacks(randomFrom(seed));
    const tree = treeOf(stacks);
    for (const term of ["app", "tokio", "serialize", "e", "{{closure}}"]) {
      const expected = stacks
        .filter(({ frames }) => frames.some((name) => name.toLowerCase().includes(term)))
        .reduce((sum, { value }) => sum + value, 0);
      assert.equal(search(tree, term).value, expected, `seed ${seed}, ${term}`);
    }
  }
});

test("a match inside of a folded bar marks that bar", () => {
  const full = treeOf([{ frames: ["tokio::run", "app::a"], value: 1 }]);
  const { tree, shownAs } = collapse(full);
  const shown = projectMatches(search(full, "tokio").matches, shownAs, tree.size);
  assert.deepEqual([...shown], [0, 1, 0]);
});

test("the top table agrees with the stacks, recursion included", () => {
  for (const seed of SEEDS) {
    const stacks = randomStacks(randomFrom(seed));
    const tree = treeOf(stacks);
    const expected = new Map<string, { self: number; total: number }>();
    for (const { frames, value } of stacks) {
      for (const name of new Set(frames)) {
        const row = expected.get(name) ?? { self: 0, total: 0 };
        row.total += value;
        if (frames.at(-1) === name) row.self += value;
        expected.set(name, row);
      }
    }
    const rows = topRows(tree);
    assert.equal(rows.length, expected.size);
    for (const { name, self, total } of rows) {
      assert.deepEqual({ self, total }, expected.get(tree.names.at(name)), `seed ${seed}`);
    }
  }
});

test("rows sort by every column both ways, ties by the other value", () => {
  const names = ["total", "b", "a", "c"];
  const rows = [
    { name: 1, self: 5, total: 5 },
    { name: 2, self: 5, total: 9 },
    { name: 3, self: 1, total: 7 },
  ];
  const order = (column: "name" | "self" | "total", descending: boolean, count = 3) =>
    firstRows(rows, { at: (name) => names[name]! }, { column, descending }, count)
      .map((row) => names[row.name])
      .join("");
  assert.equal(order("self", true), "abc");
  assert.equal(order("self", false), "cab");
  assert.equal(order("total", true), "acb");
  assert.equal(order("name", false), "abc");
  assert.equal(order("name", true), "cba");
  assert.deepEqual(
    [order("self", true, 1), order("total", true, 2), order("self", false, 2)],
    ["a", "ac", "ca"],
  );
});
