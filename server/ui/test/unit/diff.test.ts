import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeDiff, DecodeError } from "../../src/flame/decode.ts";
import { compare, functionChanges } from "../../src/flame/diff.ts";
import { sandwich } from "../../src/flame/sandwich.ts";
import { topRows } from "../../src/flame/top.ts";
import { nameOf, type FlameTree } from "../../src/flame/tree.ts";
import { middle, selectionFromText } from "../../src/sides.ts";
import { discoveries, proportionsPValue } from "../../src/stats.ts";
import { answerOf, treeOf } from "../support/answer.ts";
import { randomFrom } from "../support/random.ts";
import { mergeStacks, randomStacks, type FlameGraphMessage, type Stack } from "../support/stacks.ts";

const SEEDS = Array.from({ length: 100 }, (_, i) => i + 1);

/** Two graphs in one message, as the server compares them: bars in one order, values of each side beside another. */
function encodeDiff(left: Stack[], right: Stack[]): FlameGraphMessage {
  const both = mergeStacks([...left, ...right]);
  const names: string[] = [];
  const levels: { values: string[] }[] = [];
  const sides = [mergeStacks(left), mergeStacks(right)] as const;
  type At = { node: typeof both; sides: (typeof both | undefined)[]; starts: number[] };
  let level: At[] = [{ node: both, sides: [...sides], starts: [0, 0] }];
  while (level.length > 0) {
    const values: number[] = [];
    const next: At[] = [];
    const ends = [0, 0];
    for (const { node, sides, starts } of level) {
      const below = [0, 0];
      sides.forEach((side, i) => {
        const total = side?.total ?? 0;
        const self = side?.self ?? 0;
        values.push(starts[i]! - ends[i]!, total, self);
        ends[i] = starts[i]! + total;
        below[i] = starts[i]! + self;
      });
      if (!names.includes(node.name)) names.push(node.name);
      values.push(names.indexOf(node.name));
      for (const name of [...node.children.keys()].sort()) {
        const children = sides.map((side) => side?.children.get(name));
        next.push({ node: node.children.get(name)!, sides: children, starts: [...below] });
        children.forEach((child, i) => (below[i]! += child?.total ?? 0));
      }
    }
    levels.push({ values: values.map(String) });
    level = next;
  }
  return { names, levels };
}

test("a comparison holds both sides' values, whatever they are", () => {
  for (const seed of SEEDS) {
    const [left, right] = [randomStacks(randomFrom(seed)), randomStacks(randomFrom(seed + 1000))];
    const diff = decodeDiff(answerOf(encodeDiff(left, right)))!;
    const { tree, left: leftSide, right: rightSide } = compare(diff, false);
    const totals = (of: FlameTree) =>
      new Map(topRows(of).map(({ name, total }) => [of.names.at(name), total]));
    for (const [stacks, side] of [
      [left, leftSide],
      [right, rightSide],
    ] as const) {
      const found = totals({ ...tree, self: side.self, total: side.total });
      assert.deepEqual([...found].sort(), [...totals(treeOf(stacks))].sort(), `seed ${seed}`);
    }
    assert.ok(Math.abs(tree.total[0]! - 1) < 1e-9);
    const folded = compare(diff, true);
    assert.ok(Math.abs(folded.left.total[0]! - leftSide.total[0]!) < 1e-6, `seed ${seed}`);
  }
});

test("a comparison that breaks the encoding is refused with the place", () => {
  const message = { names: ["total"], levels: [{ values: [0, 1, 0, 0, 1, 0] }] };
  assert.throws(
    () => decodeDiff(answerOf(message)),
    new DecodeError("level 0: 6 numbers, expected a multiple of 7"),
  );
  assert.equal(
    decodeDiff(answerOf({ names: ["total"], levels: [{ values: [0, 0, 0, 0, 0, 0, 0] }] })),
    undefined,
  );
});

test("functions are ranked by change, findings before noise", () => {
  const left = [
    { frames: ["app::a"], value: 500 },
    { frames: ["app::b"], value: 498 },
    { frames: ["app::rare"], value: 2 },
  ];
  const right = [
    { frames: ["app::a"], value: 300 },
    { frames: ["app::b"], value: 695 },
    { frames: ["app::rare"], value: 5 },
  ];
  const comparison = compare(decodeDiff(answerOf(encodeDiff(left, right)))!, true);
  const changes = functionChanges(comparison, "self", { left: 1000, right: 1000 });
  const told = changes.map(({ name, left, right, isSignal }) => [
    comparison.tree.names.at(name),
    left,
    right,
    isSignal,
  ]);
  assert.deepEqual(told, [
    ["app::a", 0.5, 0.3, true],
    ["app::b", 0.498, 0.695, true],
    ["app::rare", 0.002, 0.005, false],
  ]);
  // The same shares of few samples prove nothing.
  const few = functionChanges(comparison, "self", { left: 10, right: 10 });
  assert.ok(few.every(({ isSignal }) => !isSignal));
});

test("the test of two proportions gives the values of the books", () => {
  // Pooled 0.5 of 200 each: z = (0.1 - 0.005) / 0.05 = 1.9.
  assert.ok(Math.abs(proportionsPValue(110, 200, 90, 200) - 0.0574) < 2e-4);
  assert.equal(proportionsPValue(5, 10, 5, 10), 1);
  assert.equal(proportionsPValue(0, 10, 0, 10), 1);
  assert.equal(proportionsPValue(1, 0, 1, 10), 1);
  assert.ok(proportionsPValue(0, 1000, 500, 1000) < 1e-9);
});

test("of many tests only what stays a finding is one", () => {
  // The example of Benjamini and Hochberg's paper: four of fifteen.
  const p = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528,
    0.759, 1,
  ];
  assert.equal(discoveries(p).filter(Boolean).length, 4);
  assert.deepEqual(discoveries([]), []);
});

test("identical profiles are rarely told apart", () => {
  const random = randomFrom(7);
  let false_ = 0;
  for (let run = 0; run < 400; run++) {
    const draw = () => Array.from({ length: 300 }).filter(() => random() < 0.3).length;
    if (proportionsPValue(draw(), 300, draw(), 300) <= 0.05) false_++;
  }
  assert.ok(false_ <= 400 * 0.07, `${false_} of 400`);
});

test("a sandwich holds the function's total on both sides, recursion counted once", () => {
  const tree = treeOf([
    { frames: ["a", "f", "x", "f", "y"], value: 5 },
    { frames: ["b", "f", "x"], value: 3 },
    { frames: ["b", "g"], value: 2 },
  ]);
  const { callers, callees } = sandwich(tree, "f")!;
  const bars = (of: FlameTree) =>
    Array.from({ length: of.size }, (_, bar) => [nameOf(of, bar), of.self[bar], of.total[bar]]);
  assert.deepEqual(bars(callees), [
    ["f", 0, 8],
    ["x", 3, 8],
    ["f", 0, 5],
    ["y", 5, 5],
  ]);
  assert.deepEqual(bars(callers), [
    ["f", 0, 8],
    ["a", 5, 5],
    ["b", 3, 3],
  ]);
  assert.equal(sandwich(tree, "no"), undefined);
  assert.equal(sandwich(tree, "total"), undefined, "the root is no function");
  for (const seed of SEEDS) {
    const random = treeOf(randomStacks(randomFrom(seed)));
    for (const { name, total } of topRows(random)) {
      const both = sandwich(random, random.names.at(name))!;
      assert.equal(both.callers.total[0], total, `seed ${seed}`);
      assert.equal(both.callees.total[0], total, `seed ${seed}`);
    }
  }
});

test("the typical spans are those in the middle", () => {
  const sorted = Array.from({ length: 101 }, (_, i) => i);
  assert.deepEqual(
    middle(sorted),
    Array.from({ length: 50 }, (_, i) => i + 25),
  );
  assert.deepEqual(middle(sorted, 3), [49, 50, 51]);
  assert.deepEqual(middle([7]), [7]);
  assert.deepEqual(middle([]), []);
});

test("a side of a comparison is read as people paste it", () => {
  const [span, trace] = ["00f067aa0ba902b7", "4bf92f3577b34da6a3ce929d0e0e4736"];
  assert.deepEqual(selectionFromText(` ${span.toUpperCase()} `), { span });
  assert.deepEqual(selectionFromText(trace), { trace });
  assert.deepEqual(selectionFromText(`https://host/profiles/span/${span}?zoom=1`), { span });
  assert.deepEqual(selectionFromText(`/trace/${trace}`), { trace });
  assert.deepEqual(selectionFromText("http://host/operation?service=a%26b&name=GET+%2F&from=5&until=9&q=x"), {
    service: "a&b",
    name: "GET /",
    from: 5,
    until: 9,
  });
  assert.deepEqual(selectionFromText("services?service=a"), { service: "a" });
  for (const bad of ["", "abc", "https://host/other", "services?", "operation?x=1"]) {
    assert.equal(typeof selectionFromText(bad), "string", bad);
  }
});
