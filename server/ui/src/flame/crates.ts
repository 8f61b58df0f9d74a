// Which crate each function of a graph belongs to, and whether it is the runtime's: found out once a graph, since parsing
// names is much of what a large one costs.

import { crateOf, isRuntime } from "./names.ts";

export interface Crates {
  /** Every crate once; the first is "", for functions without a Rust path. */
  list: readonly string[];
  /** By function: index into the list. */
  of: Uint32Array;
  /** By function: 1 for the runtime's. */
  runtime: Uint8Array;
}

/** Classifies functions. */
export function cratesOf(names: readonly string[]): Crates {
  const list = [""];
  const known = new Map([["", 0]]);
  const of = new Uint32Array(names.length);
  const runtime = new Uint8Array(names.length);
  names.forEach((name, i) => {
    const crate = crateOf(name);
    let index = known.get(crate);
    if (index === undefined) known.set(crate, (index = list.push(crate) - 1));
    of[i] = index;
    runtime[i] = isRuntime(name, crate) ? 1 : 0;
  });
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
