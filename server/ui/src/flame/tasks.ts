// What turns the server's answers into what the page draws: pure functions that are run in a worker, so that a large graph
// holds nothing up, and the form in which their results come back from there. Arrays of numbers change hands without being
// copied; texts go as one, which is much cheaper than one by one.

import { collapse, type Collapsed } from "./collapse.ts";
import { decodeDiff, decodeFlameGraph, readFlameGraph, type DiffTree } from "./decode.ts";
import { readSources, type Source, type Sources } from "./source.ts";
import type { FlameTree } from "./tree.ts";

/** A graph, and the same with its runtime frames folded. */
export interface Graph {
  full: FlameTree;
  collapsed: Collapsed;
  /** The functions' names, as tasks take them. */
  names: Texts;
}

export type Task =
  /** Reads the answer to SelectMergeStacktraces. */
  | { what: "graph"; bytes: ArrayBuffer; root: string }
  /** Reads the answer to Diff. */
  | { what: "diff"; bytes: ArrayBuffer }
  /** Reads files and lines of a graph's functions out of a gzipped pprof. */
  | { what: "sources"; bytes: ArrayBuffer; names: Texts };

export interface Results {
  graph: Graph | undefined;
  diff: DiffTree | undefined;
  sources: Sources;
}

/** Texts in one. */
export interface Texts {
  text: string;
  /** Where each of them ends. */
  ends: Uint32Array;
}

type Nameless = Omit<FlameTree, "names">;

/** Results as they travel. */
export type Packed =
  | {
      what: "graph";
      names: Texts;
      full: Nameless;
      collapsed: Omit<Collapsed, "tree"> & { tree: Nameless };
      added: string[];
    }
  | { what: "diff"; names: Texts; diff: Omit<DiffTree, "tree"> & { tree: Nameless } }
  | { what: "sources"; sources: Sources }
  | { what: "nothing" };

/** Does a task. Throws what decoding throws. */
export async function perform(task: Task): Promise<Packed> {
  switch (task.what) {
    case "graph": {
      const full = decodeFlameGraph(readFlameGraph(new Uint8Array(task.bytes)), task.root);
      if (!full) return { what: "nothing" };
      const collapsed = collapse(full);
      return {
        what: "graph",
        names: packed(full.names),
        full: nameless(full),
        collapsed: { ...collapsed, tree: nameless(collapsed.tree) },
        added: collapsed.tree.names.slice(full.names.length),
      };
    }
    case "diff": {
      const diff = decodeDiff(readFlameGraph(new Uint8Array(task.bytes)));
      if (!diff) return { what: "nothing" };
      return { what: "diff", names: packed(diff.tree.names), diff: { ...diff, tree: nameless(diff.tree) } };
    }
    case "sources":
      return { what: "sources", sources: byFunction(await readSources(task.bytes), unpacked(task.names)) };
  }
}

/** The result in a packed one; undefined for nothing. */
export function unpack(result: Packed): Results[Task["what"]] {
  switch (result.what) {
    case "graph": {
      const names = unpacked(result.names);
      const { full, collapsed, added } = result;
      return {
        full: { ...full, names },
        names: result.names,
        collapsed: { ...collapsed, tree: { ...collapsed.tree, names: [...names, ...added] } },
      };
    }
    case "diff":
      return { ...result.diff, tree: { ...result.diff.tree, names: unpacked(result.names) } };
    case "sources":
      return result.sources;
    case "nothing":
      return undefined;
  }
}

function nameless({ names: _names, ...tree }: FlameTree): Nameless {
  return tree;
}

function packed(texts: readonly string[]): Texts {
  const ends = new Uint32Array(texts.length);
  let end = 0;
  texts.forEach((text, i) => (ends[i] = end += text.length));
  return { text: texts.join(""), ends };
}

function unpacked({ text, ends }: Texts): string[] {
  return Array.from(ends, (end, i) => text.slice(i === 0 ? 0 : ends[i - 1]!, end));
}

function byFunction(sources: ReadonlyMap<string, Source>, names: readonly string[]): Sources {
  const files = [""];
  const known = new Map([["", 0]]);
  const file = new Uint32Array(names.length);
  const line = new Uint32Array(names.length);
  const inlined = new Float64Array(names.length);
  names.forEach((name, i) => {
    const source = sources.get(name);
    if (!source) return;
    let index = known.get(source.file);
    if (index === undefined) known.set(source.file, (index = files.push(source.file) - 1));
    file[i] = index;
    line[i] = source.line;
    inlined[i] = source.inlined;
  });
  return { files, file, line, inlined };
}

/** The buffers of all arrays of numbers in a value, each once. */
export function buffersOf(value: unknown, found = new Set<ArrayBuffer>()): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer);
  else if (typeof value === "object" && value !== null && !Array.isArray(value))
    for (const part of Object.values(value)) buffersOf(part, found);
  return found;
}
