// Writes pprof's protobuf message (profile.proto of google/pprof), as far as the tests need it.

import type { Stack } from "./stacks.ts";

/** A stack with the labels that tie it to a span, ids of other spans as numbers; its value is in nanoseconds of CPU. */
export interface LabelledStack extends Stack {
  labels: Record<string, string | bigint>;
}

/** Where a function is written. */
export interface Place {
  file: string;
  line: number;
  /** Whether it is inlined into whatever calls it. */
  inlined?: boolean;
}

export interface ProfileInput {
  stacks: LabelledStack[];
  /** CPU nanoseconds between two samples. */
  period: number;
  startMillis: number;
  durationMillis: number;
  /** By function; the others have no file. */
  places?: Record<string, Place>;
  comments?: string[];
}

/** Encodes a CPU profile with the sample types `samples/count` and `cpu/nanoseconds`, uncompressed. */
export function encodeProfile(input: ProfileInput): Uint8Array {
  const { stacks, period, startMillis, durationMillis, places = {}, comments = [] } = input;
  const strings = new Table<string>();
  strings.index("");
  const functions = new Table<string>();
  // A location holds the functions that are inlined there, the innermost first, and the one that they are inlined into.
  const locations = new Table<string>();
  const profile = new Message();

  const valueType = (type: string, unit: string) =>
    new Message().varint(1, strings.index(type)).varint(2, strings.index(unit));
  profile.message(1, valueType("samples", "count")).message(1, valueType("cpu", "nanoseconds"));
  for (const { frames, value, labels } of stacks) {
    const calls: string[][] = [];
    for (const name of frames) {
      if (places[name]?.inlined && calls.length > 0) calls.at(-1)!.unshift(name);
      else calls.push([name]);
    }
    // pprof lists the innermost frame first, and ids begin at 1.
    const ids = calls.map((names) => locations.index(JSON.stringify(names)) + 1).reverse();
    const sample = new Message().packed(1, ids).packed(2, [Math.round(value / period), value]);
    for (const [key, label] of Object.entries(labels)) {
      const message = new Message().varint(1, strings.index(key));
      sample.message(
        3,
        typeof label === "string" ? message.varint(2, strings.index(label)) : message.varint(3, label),
      );
    }
    profile.message(2, sample);
  }
  locations.entries.forEach((names, i) => {
    const location = new Message().varint(1, i + 1);
    for (const name of JSON.parse(names) as string[]) {
      const line = new Message().varint(1, functions.index(name) + 1).varint(2, places[name]?.line ?? 1);
      location.message(4, line);
    }
    profile.message(4, location);
  });
  functions.entries.forEach((name, i) => {
    const index = strings.index(name);
    const message = new Message()
      .varint(1, i + 1)
      .varint(2, index)
      .varint(3, index);
    const file = places[name]?.file;
    profile.message(5, file === undefined ? message : message.varint(4, strings.index(file)));
  });
  profile.message(11, valueType("cpu", "nanoseconds"));
  profile.packed(
    13,
    comments.map((comment) => strings.index(comment)),
  );
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

  varint(field: number, value: number | bigint): this {
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

function varint(value: number | bigint): Uint8Array {
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
