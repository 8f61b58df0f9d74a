import assert from "node:assert/strict";
import { test } from "node:test";
import {
  barAt,
  heaviestChild,
  MIN_WIDTH,
  neighbour,
  visitLevel,
  type Viewport,
} from "../../src/flame/layout.ts";
import { depthOf, nameOf, type FlameTree } from "../../src/flame/tree.ts";
import { treeOf } from "../support/answer.ts";
import { below, randomFrom } from "../support/random.ts";
import { randomStacks } from "../support/stacks.ts";

interface Drawn {
  bar: number;
  x: number;
  width: number;
}

function draw(tree: FlameTree, level: number, view: Viewport): { bars: Drawn[]; strips: Drawn[] } {
  const bars: Drawn[] = [];
  const strips: Drawn[] = [];
  visitLevel(tree, level, view, {
    bar: (bar, x, width) => bars.push({ bar, x, width }),
    strip: (x, width, bar) => strips.push({ bar, x, width }),
  });
  return { bars, strips };
}

test("a point hits the bar that covers it, and nothing between bars", () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = randomFrom(seed);
    const tree = treeOf(randomStacks(random));
    for (let tries = 0; tries < 40; tries++) {
      const level = below(random, depthOf(tree));
      const value = random() * tree.total[0]!;
      let expected = -1;
      for (let bar = tree.levelStart[level]!; bar < tree.levelStart[level + 1]!; bar++) {
        if (tree.start[bar]! <= value && value < tree.start[bar]! + tree.total[bar]!) expected = bar;
      }
      assert.equal(barAt(tree, level, value), expected, `seed ${seed}`);
    }
    assert.equal(barAt(tree, -1, 0), -1);
    assert.equal(barAt(tree, depthOf(tree), 0), -1);
    assert.equal(barAt(tree, 0, tree.total[0]!), -1);
  }
});

test("every visible bar of half a pixel is drawn once, in its place", () => {
  for (let seed = 1; seed <= 150; seed++) {
    const random = randomFrom(seed);
    const tree = treeOf(randomStacks(random));
    const zoomed = below(random, tree.size);
    const from = tree.start[zoomed]!;
    const view = { from, to: from + tree.total[zoomed]!, width: 1 + below(random, 1500) };
    const scale = view.width / (view.to - view.from);
    for (let level = 0; level < depthOf(tree); level++) {
      const expected: Drawn[] = [];
      for (let bar = tree.levelStart[level]!; bar < tree.levelStart[level + 1]!; bar++) {
        const left = (tree.start[bar]! - view.from) * scale;
        const right = (tree.start[bar]! + tree.total[bar]! - view.from) * scale;
        if (right <= 0 || tree.start[bar]! >= view.to || right - left < MIN_WIDTH) continue;
        const x = Math.max(0, left);
        expected.push({ bar, x, width: Math.min(view.width, right) - x });
      }
      const { bars, strips } = draw(tree, level, view);
      assert.deepEqual(bars, expected, `seed ${seed}, level ${level}`);
      for (const strip of strips) {
        assert.ok(strip.width >= MIN_WIDTH);
        const overlaps = bars.some(
          ({ x, width }) => strip.x + strip.width > x + 0.01 && strip.x + 0.01 < x + width,
        );
        assert.ok(!overlaps, `seed ${seed}: a strip over a bar`);
      }
    }
  }
});

test("a level of very many bars costs by the pixel, not by the bar", () => {
  const count = 200_000;
  const stacks = Array.from({ length: count }, (_, i) => ({ frames: [`f${i}`], value: 1 }));
  const tree = treeOf(stacks);
  const { bars, strips } = draw(tree, 1, { from: 0, to: count, width: 1000 });
  assert.equal(bars.length, 0);
  assert.equal(strips.length, 1);
  assert.ok(Math.abs(strips[0]!.width - 1000) < 0.01);
  const near = draw(tree, 1, { from: 500, to: 600, width: 1000 });
  assert.equal(near.bars.length, 100);
});

test("the keyboard moves to neighbours in sight and to the heaviest callee", () => {
  const tree = treeOf([
    { frames: ["a", "x"], value: 2 },
    { frames: ["a", "y"], value: 5 },
    { frames: ["b"], value: 3 },
  ]);
  const whole = { from: 0, to: 10, width: 100 };
  const name = (bar: number) => nameOf(tree, bar);
  const a = barAt(tree, 1, 0);
  assert.equal(name(heaviestChild(tree, 0)), "a");
  assert.equal(name(heaviestChild(tree, a)), "y");
  const b = neighbour(tree, a, 1, whole);
  assert.equal(name(b), "b");
  assert.equal(heaviestChild(tree, b), b, "a leaf stays");
  assert.equal(neighbour(tree, b, 1, whole), b, "nothing further right");
  assert.equal(
    neighbour(tree, a, 1, { from: 0, to: 7, width: 100 }),
    a,
    "b is out of sight when a is zoomed",
  );
});
