// Writes pprof's protobuf message (profile.proto of google/pprof), as far as the tests need it.

import type { Stack } from "./stacks.ts";

/** A stack with the labels that tie it to a span; its value is in nanoseconds of CPU. */
export interface LabelledStack extends Stack {
  labels: Record<string, string>;
}

export interface ProfileInput {
  stacks: LabelledStack[];
  /** CPU nanoseconds between two samples. */
  period: number;
  startMillis: number;
  durationMillis: number;
}

/** Encodes a CPU profile with the sample types `samples/count` and `cpu/nanoseconds`, uncompressed. */
export function encodeProfile({ stacks, period, startMillis, durationMillis }: ProfileInput): Uint8Array {
  const strings = new Table<string>();
  strings.index("");
  const functions = new Table<string>();
  const profile = new Message();

  const valueType = (type: string, unit: string) =>
    new Message().varint(1, strings.index(type)).varint(2, strings.index(unit));
  profile.message(1, valueType("samples", "count")).message(1, valueType("cpu", "nanoseconds"));
  for (const { frames, value, labels } of stacks) {
    // pprof lists the innermost frame first, and ids begin at 1.
    const locations = frames.map((name) => functions.index(name) + 1).reverse();
    const sample = new Message().packed(1, locations).packed(2, [Math.round(value / period), value]);
    for (const [key, text] of Object.entries(labels)) {
      sample.message(3, new Message().varint(1, strings.index(key)).varint(2, strings.index(text)));
    }
    profile.message(2, sample);
  }
  functions.entries.forEach((_name, i) => {
    const line = new Message().varint(1, i + 1).varint(2, 1);
    profile.message(4, new Message().varint(1, i + 1).message(4, line));
  });
  functions.entries.forEach((name, i) => {
    const index = strings.index(name);
    profile.message(
      5,
      new Message()
        .varint(1, i + 1)
        .varint(2, index)
        .varint(3, index),
    );
  });
  profile.message(11, valueType("cpu", "nanoseconds"));
  for (const text of strings.entries) profile.string(6, text);
  profile
    .varint(9, startMillis * 1e6)
    .varint(10, durationMillis * 1e6)
    .varint(12, period);
  return profile.bytes();
}

class Table<Entry> {
  readonly entries: Entry[] = [];
  readonly #known = new Map<Entry, number>();

  index(entry: Entry): number {
    let index = this.#known.get(entry);
    if (index === undefined) this.#known.set(entry, (index = this.entries.push(entry) - 1));
    return index;
  }
}

/** A protobuf message under construction: fields in the order they are added. */
class Message {
  readonly #parts: Uint8Array[] = [];

  varint(field: number, value: number): this {
    this.#parts.push(varint(field << 3), varint(value));
    return this;
  }

  packed(field: number, values: number[]): this {
    return this.#delimited(field, join(values.map(varint)));
  }

  string(field: number, text: string): this {
    return this.#delimited(field, new TextEncoder().encode(text));
  }

  message(field: number, message: Message): this {
    return this.#delimited(field, message.bytes());
  }

  bytes(): Uint8Array {
    return join(this.#parts);
  }

  #delimited(field: number, bytes: Uint8Array): this {
    this.#parts.push(varint((field << 3) | 2), varint(bytes.length), bytes);
    return this;
  }
}

function varint(value: number): Uint8Array {
  let rest = BigInt(value);
  const bytes: number[] = [];
  do {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 0x80 : low);
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}

function join(parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
