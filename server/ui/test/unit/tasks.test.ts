import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { collapse } from "../../src/flame/collapse.ts";
import { decodeDiff, DecodeError, decodeFlameGraph, readFlameGraph } from "../../src/flame/decode.ts";
import { sourceOf } from "../../src/flame/source.ts";
import { buffersOf, perform, unpack, type Graph, type Packed } from "../../src/flame/tasks.ts";
import { heaviest, topRows } from "../../src/flame/top.ts";
import { fields, message } from "../../src/protobuf.ts";
import { answerOf } from "../support/answer.ts";
import { encodeProfile } from "../support/pprof.ts";
import { below, randomFrom } from "../support/random.ts";
import { encode, mergeStacks, randomStacks } from "../support/stacks.ts";

/** What comes back from the worker. */
function carried(result: Packed) {
  return unpack(structuredClone(result, { transfer: [...buffersOf(result)] }));
}

test("a graph comes out of protobuf and the worker as it does out of JSON", async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const stacks = randomStacks(randomFrom(seed));
    stacks.push({ frames: ["dälä::حساب", "", "a\ud83d\ude00b"], value: 2 ** 52 });
    const json = encode(mergeStacks(stacks));
    const full = decodeFlameGraph(json, "whole test")!;
    const bytes = answerOf(json).buffer;
    const graph = carried(await perform({ what: "graph", bytes, root: "whole test" })) as Graph;
    assert.deepEqual(graph.full, full);
    assert.deepEqual(graph.collapsed, collapse(full));
    assert.deepEqual(
      heaviest(full, 3).map(({ self }) => self),
      topRows(full)
        .map(({ self }) => self)
        .filter((self) => self > 0)
        .sort((a, b) => b - a)
        .slice(0, 3),
    );
  }
});

test("a comparison comes back from the worker, and an empty answer as nothing", async () => {
  const json = {
    names: ["total", "f"],
    levels: [{ values: [0, 5, 0, 0, 7, 0, 0] }, { values: [0, 5, 5, 0, 7, 7, 1] }],
  };
  const bytes = () => answerOf(json).buffer;
  assert.deepEqual(carried(await perform({ what: "diff", bytes: bytes() })), decodeDiff(json));
  const empty = () => new ArrayBuffer(0);
  assert.equal(carried(await perform({ what: "diff", bytes: empty() })), undefined);
  assert.equal(carried(await perform({ what: "graph", bytes: empty(), root: "" })), undefined);
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
  const packed = { text: names.join(""), ends: Uint32Array.from([5, 9, 16, 21]) };
  const bytes = new Uint8Array(gzipSync(profile)).buffer;
  const sources = carried(await perform({ what: "sources", bytes, names: packed }));
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
      decodeFlameGraph(readFlameGraph(bytes));
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
