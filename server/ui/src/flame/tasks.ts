// What turns the server's answers into what the page draws: pure functions that are run in a worker, so that a large graph
// holds nothing up, and the form in which their results come back from there. Arrays of numbers change hands without being
// copied, the names as the bytes that came. Only the form that is shown, folded or not, is made there: the other one is made
// when somebody asks for it.

import { collapse, FOLDED_NAME, FoldedBars, type Collapsed } from "./collapse.ts";
import { decodeDiff, decodeFlameGraph, type DiffTree } from "./decode.ts";
import { compare, type Comparison } from "./diff.ts";
import { readSources, type Source, type Sources } from "./source.ts";
import { Names, type Texts } from "./texts.ts";
import { NOTHING_FOLDED, type FlameTree } from "./tree.ts";

/** A graph, and the same with its runtime frames folded. */
export class Graph {
  readonly full: FlameTree;
  #collapsed: Collapsed | undefined;

  constructor(full: FlameTree, collapsed?: Collapsed) {
    this.full = full;
    this.#collapsed = collapsed;
  }

  get collapsed(): Collapsed {
    return (this.#collapsed ??= collapse(this.full));
  }
}

/** A comparison, and the same with runtime frames folded. */
export class Diff {
  readonly #diff: DiffTree;
  #full: Comparison | undefined;
  #folded: Comparison | undefined;

  constructor(diff: DiffTree, isFolded: boolean, known: Comparison) {
    this.#diff = diff;
    if (isFolded) this.#folded = known;
    else this.#full = known;
  }

  shown(isFolded: boolean): Comparison {
    if (isFolded) return (this.#folded ??= compare(this.#diff, true));
    return (this.#full ??= compare(this.#diff, false));
  }
}

export type Task =
  /** Reads the answer to SelectMergeStacktraces. */
  | { what: "graph"; bytes: ArrayBuffer; root: string; isFolded: boolean }
  /** Reads the answer to Diff. */
  | { what: "diff"; bytes: ArrayBuffer; isFolded: boolean }
  /** Reads files and lines of a graph's functions out of a gzipped pprof. */
  | { what: "sources"; bytes: ArrayBuffer; names: Texts };

export interface Results {
  graph: Graph | undefined;
  diff: Diff | undefined;
  sources: Sources;
}

/** A tree without what has methods. */
type Bare = Omit<FlameTree, "names" | "folded">;

/** Results as they travel. */
export type Packed =
  | {
      what: "graph";
      names: Texts;
      full: Bare;
      collapsed: (Omit<Collapsed, "tree"> & { tree: Bare }) | undefined;
    }
  | {
      what: "diff";
      names: Texts;
      diff: Omit<DiffTree, "tree"> & { tree: Bare };
      isFolded: boolean;
      comparison: Omit<Comparison, "tree"> & { tree: Bare };
    }
  | { what: "sources"; sources: Sources }
  | { what: "nothing" };

/** Does a task. Throws what decoding throws. */
export async function perform(task: Task): Promise<Packed> {
  switch (task.what) {
    case "graph": {
      const full = decodeFlameGraph(new Uint8Array(task.bytes), task.root);
      if (!full) return { what: "nothing" };
      const collapsed = task.isFolded ? collapse(full) : undefined;
      return {
        what: "graph",
        names: full.names.texts,
        full: bare(full),
        collapsed: collapsed && { ...collapsed, tree: bare(collapsed.tree) },
      };
    }
    case "diff": {
      const diff = decodeDiff(new Uint8Array(task.bytes));
      if (!diff) return { what: "nothing" };
      const { isFolded } = task;
      const comparison = compare(diff, isFolded);
      return {
        what: "diff",
        names: diff.tree.names.texts,
        diff: { ...diff, tree: bare(diff.tree) },
        isFolded,
        comparison: { ...comparison, tree: bare(comparison.tree) },
      };
    }
    case "sources":
      return { what: "sources", sources: byFunction(await readSources(task.bytes), new Names(task.names)) };
  }
}

/** The result in a packed one; undefined for nothing. */
export function unpack(result: Packed): Results[Task["what"]] {
  switch (result.what) {
    case "graph": {
      const full = whole(result.full, new Names(result.names));
      const { collapsed } = result;
      return new Graph(
        full,
        collapsed && { ...collapsed, tree: foldedOf(full, collapsed.tree, collapsed.shownAs) },
      );
    }
    case "diff": {
      const tree = whole(result.diff.tree, new Names(result.names));
      const { comparison, isFolded } = result;
      const { shownAs } = comparison;
      const shown = shownAs ? foldedOf(tree, comparison.tree, shownAs) : whole(comparison.tree, tree.names);
      return new Diff({ ...result.diff, tree }, isFolded, { ...comparison, tree: shown });
    }
    case "sources":
      return result.sources;
    case "nothing":
      return undefined;
  }
}

function bare({ names: _names, folded: _folded, ...tree }: FlameTree): Bare {
  return tree;
}

function whole(tree: Bare, names: Names): FlameTree {
  return { ...tree, names, folded: NOTHING_FOLDED };
}

/** A tree with the runtime frames of another folded. */
function foldedOf(full: FlameTree, bareTree: Bare, shownAs: Uint32Array): FlameTree {
  const tree = whole(bareTree, full.names.and(FOLDED_NAME));
  return { ...tree, folded: new FoldedBars(full, tree, shownAs) };
}

function byFunction(sources: ReadonlyMap<string, Source>, names: Names): Sources {
  const files = [""];
  const known = new Map([["", 0]]);
  const file = new Uint32Array(names.length);
  const line = new Uint32Array(names.length);
  const inlined = new Float64Array(names.length);
  for (let i = 0; i < names.length; i++) {
    const source = sources.get(names.at(i));
    if (!source) continue;
    let index = known.get(source.file);
    if (index === undefined) known.set(source.file, (index = files.push(source.file) - 1));
    file[i] = index;
    line[i] = source.line;
    inlined[i] = source.inlined;
  }
  return { files, file, line, inlined };
}

/** The buffers of all arrays of numbers in a value, each once. */
export function buffersOf(value: unknown, found = new Set<ArrayBuffer>()): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer);
  else if (typeof value === "object" && value !== null && !Array.isArray(value))
    for (const part of Object.values(value)) buffersOf(part, found);
  return found;
}
