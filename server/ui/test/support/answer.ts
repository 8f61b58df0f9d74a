// The answer that holds a flame graph, in protobuf, as the server writes it.

import { decodeFlameGraph } from "../../src/flame/decode.ts";
import type { FlameTree } from "../../src/flame/tree.ts";
import { message } from "../../src/protobuf.ts";
import { encode, mergeStacks, type FlameGraphMessage, type Stack } from "./stacks.ts";

/** Encodes the answer to `SelectMergeStacktraces` or `Diff`. */
export function answerOf({ names = [], levels = [] }: FlameGraphMessage): Uint8Array<ArrayBuffer> {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const graph = message([
    ...names.map((name) => [1, bytes(name)] as const),
    ...levels.map(({ values = [] }) => [2, message([[1, packed(Array.from(values, Number))]])] as const),
  ]);
  return message([[1, graph]]);
}

function packed(values: number[]): Uint8Array {
  const bytes: number[] = [];
  for (const value of values) {
    if (value < 0) {
      // In two's complement, as protobuf has them.
      let rest = BigInt.asUintN(64, BigInt(value));
      for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
      bytes.push(Number(rest));
      continue;
    }
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
    bytes.push(rest);
  }
  return Uint8Array.from(bytes);
}

/** The tree of a graph's message. */
export function decoded(message: FlameGraphMessage, root?: string): FlameTree | undefined {
  return decodeFlameGraph(answerOf(message), root);
}

/** The tree of some stacks. */
export function treeOf(stacks: Stack[]): FlameTree {
  return decoded(encode(mergeStacks(stacks)))!;
}
