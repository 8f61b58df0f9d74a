import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { collapse } from "../../src/flame/collapse.ts";
import { decodeDiff, DecodeError, decodeFlameGraph } from "../../src/flame/decode.ts";
import { compare } from "../../src/flame/diff.ts";
import { crateOf, isRuntime } from "../../src/flame/names.ts";
import { sourceOf } from "../../src/flame/source.ts";
import { buffersOf, perform, unpack, type Diff, type Graph, type Packed } from "../../src/flame/tasks.ts";
import type { FlameTree } from "../../src/flame/tree.ts";
import { fields, message } from "../../src/protobuf.ts";
import { answerOf, decoded } from "../support/answer.ts";
import { encodeProfile } from "../support/pprof.ts";
import { below, randomFrom } from "../support/random.ts";
import { encode, mergeStacks, randomStacks } from "../support/stacks.ts";

/** What comes back from the worker. */
function carried(result: Packed) {
  return unpack(structuredClone(result, { transfer: [...buffersOf(result)] }));
}

/** A tree with its names as strings, to compare it by. */
function readable({ names, folded, ...tree }: FlameTree) {
  const bars = Array.from({ length: tree.size }, (_, bar) => folded.get(bar));
  return { ...tree, names: names.all(), folded: bars };
}

test("a graph comes back from the worker as it was read there", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const stacks = randomStacks(randomFrom(seed));
    const foreign = ["dälä::حساب", "", "a\ud83d\ude00b", "dälä::x", "9::x"];
    stacks.push({ frames: foreign, value: 2 ** 52 });
    const message = encode(mergeStacks(stacks));
    const full = decoded(message, "whole test")!;
    const folded = collapse(full);
    for (const name of foreign) assert.ok(full.names.all().includes(name), name);
    full.names.all().forEach((name, i) => {
      assert.equal(full.crates.list[full.crates.of[i]!], crateOf(name), name);
      assert.equal(full.crates.runtime[i], isRuntime(name) ? 1 : 0, name);
    });
    for (const isFolded of [true, false]) {
      const bytes = answerOf(message).buffer;
      const graph = carried(await perform({ what: "graph", bytes, root: "whole test", isFolded })) as Graph;
      assert.deepEqual(readable(graph.full), readable(full));
      assert.deepEqual(readable(graph.collapsed.tree), readable(folded.tree));
      assert.deepEqual(graph.collapsed.shownAs, folded.shownAs);
      assert.deepEqual(graph.collapsed.origin, folded.origin);
    }
  }
});

test("a comparison comes back from the worker, folded or not, and an empty answer as nothing", async () => {
  const message = {
    names: ["total", "std::f", "app::g"],
    levels: [
      { values: [0, 5, 0, 0, 7, 0, 0] },
      { values: [0, 5, 2, 0, 7, 3, 1] },
      { values: [2, 3, 3, 3, 4, 4, 2] },
    ],
  };
  const bytes = () => answerOf(message).buffer;
  const diff = decodeDiff(answerOf(message))!;
  for (const isFolded of [true, false]) {
    const came = carried(await perform({ what: "diff", bytes: bytes(), isFolded })) as Diff;
    for (const other of [true, false]) {
      const { tree, ...sides } = came.shown(other);
      const { tree: expected, ...expectedSides } = compare(diff, other);
      assert.deepEqual(readable(tree), readable(expected));
      assert.deepEqual(sides, expectedSides);
    }
  }
  const empty = () => new ArrayBuffer(0);
  assert.equal(carried(await perform({ what: "diff", bytes: empty(), isFolded: true })), undefined);
  assert.equal(
    carried(await perform({ what: "graph", bytes: empty(), root: "", isFolded: true })),
    undefined,
  );
});

test("sources lie beside the names of the graph", async () => {
  const names = ["total", "main", "no such", "outer"];
  const profile = encodeProfile({
    stacks: [{ frames: ["main", "outer"], value: 30, labels: {} }],
    period: 10,
    startMillis: 1,
    durationMillis: 1,
    places: { outer: { file: "src/outer.rs", line: 7 } },
  });
  const texts = {
    bytes: new TextEncoder().encode(names.join("")),
    start: Uint32Array.from([0, 5, 9, 16]),
    end: Uint32Array.from([5, 9, 16, 21]),
  };
  const bytes = new Uint8Array(gzipSync(profile)).buffer;
  const sources = carried(await perform({ what: "sources", bytes, names: texts }));
  assert.ok(sources && "files" in sources);
  assert.deepEqual(sourceOf(sources, 3), { file: "src/outer.rs", line: 7, inlined: 0 });
  for (const unknown of [0, 1, 2, 4]) assert.equal(sourceOf(sources, unknown), undefined);
});

test("a damaged answer is refused or decoded, never more than that", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = randomFrom(seed);
    const whole = answerOf(encode(mergeStacks(randomStacks(random))));
    const bytes = whole.slice(0, below(random, whole.length + 1));
    if (bytes.length > 0) bytes[below(random, bytes.length)] = below(random, 256);
    try {
      decodeFlameGraph(bytes);
    } catch (error) {
      assert.ok(error instanceof DecodeError, String(error));
    }
  }
});

test("messages are written as protobuf has them", () => {
  const written = message([
    [1, "ä"],
    [2, 300],
    [3, 0],
    [4, ""],
    [16, new Uint8Array([1, 2])],
    [5, Number.MAX_SAFE_INTEGER],
  ]);
  const expected = [10, 2, 0xc3, 0xa4, 16, 0xac, 2, 0x82, 1, 2, 1, 2];
  assert.deepEqual([...written], [...expected, 40, 255, 255, 255, 255, 255, 255, 255, 15]);
  const read = [...fields(written)].map(({ number, value, bytes }) => [number, bytes ? [...bytes] : value]);
  assert.deepEqual(read, [
    [1, [0xc3, 0xa4]],
    [2, 300],
    [16, [1, 2]],
    [5, Number.MAX_SAFE_INTEGER],
  ]);
});
