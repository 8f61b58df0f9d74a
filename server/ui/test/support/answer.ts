// The answer that holds a flame graph, in protobuf, as the server writes it.

import type { FlameGraphMessage } from "../../src/flame/decode.ts";
import { message } from "../../src/protobuf.ts";

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
  for (let rest of values) {
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
    bytes.push(rest);
  }
  return Uint8Array.from(bytes);
}
