// Which crate each function of a graph belongs to, and whether it is the runtime's: found out once a graph.

import { crateOf, isRuntime } from "./names.ts";
import type { Names } from "./texts.ts";

export interface Crates {
  /** Every crate once; the first is "", for functions without a Rust path. */
  list: readonly string[];
  /** By function: index into the list. */
  of: Uint32Array<ArrayBuffer>;
  /** By function: 1 for the runtime's. */
  runtime: Uint8Array<ArrayBuffer>;
}

/** Classifies functions. */
export function cratesOf(names: Names): Crates {
  const list = [""];
  const known = new Map([["", 0]]);
  const of = new Uint32Array(names.length);
  const runtime = new Uint8Array(names.length);
  const segments = new Segments(names);
  for (let i = 0; i < names.length; i++) {
    const like = segments.firstLike(i);
    if (like < i) {
      of[i] = of[like]!;
      runtime[i] = runtime[like]!;
      continue;
    }
    const name = names.at(i);
    const crate = crateOf(name);
    let index = known.get(crate);
    if (index === undefined) known.set(crate, (index = list.push(crate) - 1));
    of[i] = index;
    runtime[i] = isRuntime(name, crate) ? 1 : 0;
  }
  return { list, of, runtime };
}

/** The same and one more function of the runtime, in no crate. */
export function withRuntime({ list, of, runtime }: Crates): Crates {
  const more = { list, of: new Uint32Array(of.length + 1), runtime: new Uint8Array(of.length + 1) };
  more.of.set(of);
  more.runtime.set(runtime);
  more.runtime[of.length] = 1;
  return more;
}

const COLON = 0x3a;
/** Slots of the table below: crates are few, and a segment that finds none free is looked at by itself. */
const SLOTS = 4096;
const MAX_TRIES = 8;

/**
 * Finds names of the same crate by their bytes: parsing each as text is much of what a large graph costs. Names that begin
 * with the same identifier and `::` are of one crate; of others it says nothing.
 */
class Segments {
  readonly #names: Names;
  /** The first name with a segment + 1, by the segment's hash. */
  readonly #slots = new Uint32Array(SLOTS);

  constructor(names: Names) {
    this.#names = names;
  }

  /** The first name with the segment that this one begins with: this one, if there is none before or no such segment. */
  firstLike(index: number): number {
    const { bytes, start, end } = this.#names.texts;
    const from = start[index];
    if (from === undefined) return index;
    let hash = 0;
    let at = from;
    const until = end[index]!;
    for (; at < until && IN_IDENTIFIER[bytes[at]!] === 1; at++)
      hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
    if (at === from || at + 1 >= until || bytes[at] !== COLON || bytes[at + 1] !== COLON) return index;
    const length = at + 2 - from;
    hash ^= hash >>> 15;
    for (
      let slot = hash & (SLOTS - 1), tries = 0;
      tries < MAX_TRIES;
      slot = (slot + 1) & (SLOTS - 1), tries++
    ) {
      const first = this.#slots[slot]! - 1;
      if (first < 0) {
        this.#slots[slot] = index + 1;
        return index;
      }
      let same = 0;
      while (same < length && bytes[start[first]! + same] === bytes[from + same]) same++;
      if (same === length) return first;
    }
    return index;
  }
}

/** 1 for letters, digits and the underscore. */
const IN_IDENTIFIER = Uint8Array.from({ length: 256 }, (_, byte) =>
  /\w/.test(String.fromCharCode(byte)) ? 1 : 0,
);
