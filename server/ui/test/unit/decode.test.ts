import assert from "node:assert/strict";
import { test } from "node:test";
import { DecodeError } from "../../src/flame/decode.ts";
import {
  barId,
  childrenEnd,
  depthOf,
  findBar,
  isWithin,
  nameOf,
  pathTo,
  type FlameTree,
} from "../../src/flame/tree.ts";
import { decoded, treeOf } from "../support/answer.ts";
import { below, randomFrom } from "../support/random.ts";
import {
  encode,
  mergeStacks,
  randomStacks,
  sortedChildren,
  type CallNode,
  type FlameGraphMessage,
} from "../support/stacks.ts";

/** Reads a tree back into nested nodes, from the arrays alone. */
function nested(tree: FlameTree, bar: number): CallNode {
  const children = new Map<string, CallNode>();
  for (let child = tree.firstChild[bar]!; child < childrenEnd(tree, bar); child++) {
    const node = nested(tree, child);
    children.set(node.name, node);
  }
  return { name: nameOf(tree, bar), self: tree.self[bar]!, total: tree.total[bar]!, children };
}

test("decodes the encoding's example", () => {
  const tree = decoded({
    names: ["total", "handler", "hash", "sort"],
    levels: [
      { values: ["0", "30", "0", "0"] },
      { values: ["0", "30", "10", "1"] },
      { values: ["10", "12", "12", "2", "3", "5", "5", "3"] },
    ],
    total: "30",
    maxSelf: "12",
  })!;
  assert.equal(tree.size, 4);
  assert.equal(depthOf(tree), 3);
  assert.deepEqual([...tree.start], [0, 0, 10, 25]);
  assert.deepEqual([...tree.total], [30, 30, 12, 5]);
  assert.deepEqual([...tree.self], [0, 10, 12, 5]);
  assert.deepEqual([...tree.parent], [-1, 0, 1, 1]);
  assert.deepEqual([...tree.level], [0, 1, 2, 2]);
  assert.deepEqual(pathTo(tree, 3), [0, 1, 3]);
});

test("what was encoded is what is decoded", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const root = mergeStacks(randomStacks(randomFrom(seed)));
    const tree = decoded(encode(root))!;
    const expected: CallNode = JSON.parse(JSON.stringify(root, mapsInOrder));
    assert.deepEqual(JSON.parse(JSON.stringify(nested(tree, 0), mapsInOrder)), expected, `seed ${seed}`);
  }
});

test("bars keep within their parents and apart from each other", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const tree = treeOf(randomStacks(randomFrom(seed)));
    for (let bar = 1; bar < tree.size; bar++) {
      const parent = tree.parent[bar]!;
      assert.equal(tree.level[bar], tree.level[parent]! + 1);
      assert.ok(tree.start[bar]! >= tree.start[parent]! + tree.self[parent]!, `seed ${seed}, bar ${bar}`);
      assert.ok(tree.start[bar]! + tree.total[bar]! <= tree.start[parent]! + tree.total[parent]!);
      if (tree.level[bar] === tree.level[bar - 1]) {
        assert.ok(tree.start[bar]! >= tree.start[bar - 1]! + tree.total[bar - 1]!);
      }
      assert.ok(isWithin(tree, bar, parent) && isWithin(tree, bar, 0) && !isWithin(tree, parent, bar));
    }
  }
});

test("a bar is found again by its id, also after the profile grew", () => {
  const random = randomFrom(7);
  for (let round = 0; round < 40; round++) {
    const stacks = randomStacks(random);
    const before = treeOf(stacks);
    const after = treeOf([...stacks, ...randomStacks(random)]);
    const bar = below(random, before.size);
    assert.equal(findBar(before, barId(before, bar)), bar);
    const again = findBar(after, barId(before, bar))!;
    const path = (tree: FlameTree, at: number) => pathTo(tree, at).map((each) => nameOf(tree, each));
    assert.deepEqual(path(after, again), path(before, bar));
  }
});

test("an id that names no bar finds none", () => {
  const tree = treeOf([{ frames: ["a"], value: 1 }]);
  for (const id of ["", "zz", "!", "__proto__", "9".repeat(400)])
    assert.equal(findBar(tree, id), undefined, id);
});

test("a graph without samples is none", () => {
  assert.equal(decoded({}), undefined);
  assert.equal(decoded({ names: ["total"], levels: [{ values: ["0", "0", "0", "0"] }] }), undefined);
  assert.equal(decoded({ names: ["total"], levels: [{ values: [] }] }), undefined);
});

test("bars without width are dropped", () => {
  const tree = decoded({
    names: ["total", "a", "b"],
    levels: [{ values: [0, 4, 0, 0] }, { values: [0, 0, 0, 1, 0, 4, 4, 2] }, { values: [0, 0, 0, 1] }],
  })!;
  assert.deepEqual([tree.size, depthOf(tree)], [2, 2]);
});

test("a message that breaks the encoding is refused with the place", () => {
  const good = [0, 10, 0, 0];
  const cases: [string, FlameGraphMessage, RegExp][] = [
    ["no names", { levels: [{ values: good }] }, /no names/],
    ["ragged", { names: ["total"], levels: [{ values: good }, { values: [0, 1, 1] }] }, /level 1: 3 numbers/],
    ["two roots", { names: ["total"], levels: [{ values: [...good, ...good] }] }, /exactly one bar/],
    ["name", { names: ["total"], levels: [{ values: good }, { values: [0, 1, 1, 7] }] }, /name index 7/],
    [
      "negative",
      { names: ["total"], levels: [{ values: good }, { values: [-1, 1, 1, 0] }] },
      /bar 0 has a number out of range/,
    ],
    ["self", { names: ["total"], levels: [{ values: good }, { values: [0, 1, 2, 0] }] }, /exceeds total/],
    ["outside", { names: ["total"], levels: [{ values: good }, { values: [9, 2, 2, 0] }] }, /under no bar/],
    [
      "between",
      { names: ["total"], levels: [{ values: good }, { values: [0, 4, 4, 0] }, { values: [3, 2, 2, 0] }] },
      /level 2: a bar at 3/,
    ],
  ];
  for (const [title, message, expected] of cases) {
    assert.throws(
      () => decoded(message),
      (error) => error instanceof DecodeError && expected.test(error.message),
      title,
    );
  }
});

test("random damage is refused or decoded, never misread", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = randomFrom(seed);
    const message = encode(mergeStacks(randomStacks(random)));
    const level = message.levels![below(random, message.levels!.length)]!.values!;
    level[below(random, level.length)] = String(below(random, 100) - 5);
    let tree: FlameTree | undefined;
    try {
      tree = decoded(message);
    } catch (error) {
      assert.ok(error instanceof DecodeError, `seed ${seed}: ${error}`);
      continue;
    }
    if (!tree) continue;
    for (let bar = 1; bar < tree.size; bar++) {
      assert.ok(tree.name[bar]! < tree.names.length && tree.parent[bar]! < bar && tree.parent[bar]! >= 0);
    }
  }
});

function mapsInOrder(_key: string, value: unknown): unknown {
  return value instanceof Map ? sortedChildren({ children: value } as CallNode) : value;
}
