// Folds runtime frames: every connected run of them becomes one bar, and the frames called from that run hang below it,
// merged by name. No value moves: the folded bar keeps the self value of what it stands for.
//
// Programs built with line tables only name inlined functions without their path (`poll`, `catch_unwind`). Such a frame
// folds where it can only be the runtime's: called by a runtime frame, calling nothing but runtime frames, and without
// a value of its own.

import { withRuntime } from "./crates.ts";
import { Merge } from "./merge.ts";
import { childrenEnd, type FlameTree, type FoldedFrames } from "./tree.ts";

/** Name of a folded bar; no function is called so. */
export const FOLDED_NAME = "[runtime frames]";

export interface Collapsed {
  tree: FlameTree;
  /** For every bar of the full tree, the bar that shows it. */
  shownAs: Uint32Array;
  /** For every bar of the collapsed tree, the heaviest bar of the full tree that it shows. */
  origin: Uint32Array;
}

/** Folds the runtime frames of `full`. The root is never folded. */
export function collapse(full: FlameTree): Collapsed {
  const foldedName = full.names.length;
  const { merge, of } = fold(full, runtimeBars(full), foldedName);
  const names = [...full.names, FOLDED_NAME];
  const { tree, order, position } = merge.arrange(full.root, names, withRuntime(full.crates));
  return {
    tree: { ...tree, folded: foldedFrames(full, merge, of, foldedName, position) },
    shownAs: of.map((node) => position[node]!),
    origin: order.map((node) => merge.origin[node]!),
  };
}

const KEPT = 0;
const RUNTIME = 1;
const UNKNOWN = 2;

/** 1 for every bar that folds. */
function runtimeBars(full: FlameTree): Uint8Array {
  const { of, runtime } = full.crates;
  const kinds = runtime.map((isRuntime, name) => (isRuntime ? RUNTIME : of[name] === 0 ? UNKNOWN : KEPT));
  const bars = new Uint8Array(full.size);
  for (let bar = 1; bar < full.size; bar++) bars[bar] = kinds[full.name[bar]!]!;
  // From the leaves upwards: what is of its own or calls something that is not the runtime's stays.
  for (let bar = full.size - 1; bar > 0; bar--) {
    const isLeaf = full.firstChild[bar]! === childrenEnd(full, bar);
    if (bars[bar] === UNKNOWN && (isLeaf || full.self[bar]! > 0)) bars[bar] = KEPT;
    const parent = full.parent[bar]!;
    if (bars[bar] === KEPT && bars[parent] === UNKNOWN) bars[parent] = KEPT;
  }
  // From the root downwards: what is left unknown goes with its caller.
  for (let bar = 1; bar < full.size; bar++) {
    if (bars[bar] === UNKNOWN) bars[bar] = bars[full.parent[bar]!]!;
  }
  return bars;
}

function fold(
  full: FlameTree,
  runtime: Uint8Array,
  foldedName: number,
): {
  merge: Merge;
  /** The node of every bar of the full tree. */
  of: Uint32Array;
} {
  const merge = new Merge(full.size, full.name[0]!);
  const of = new Uint32Array(full.size);
  merge.total[0] = full.total[0]!;
  merge.self[0] = full.self[0]!;
  for (let bar = 1; bar < full.size; bar++) {
    const parent = of[full.parent[bar]!]!;
    const folds = runtime[bar] === RUNTIME;
    let node = parent;
    if (!folds || merge.name[parent] !== foldedName) {
      node = merge.child(parent, folds ? foldedName : full.name[bar]!, bar);
      merge.total[node]! += full.total[bar]!;
    }
    of[bar] = node;
    merge.self[node]! += full.self[bar]!;
    if (full.total[bar]! > full.total[merge.origin[node]!]!) merge.origin[node] = bar;
  }
  return { merge, of };
}

function foldedFrames(
  full: FlameTree,
  merge: Merge,
  of: Uint32Array,
  foldedName: number,
  position: Uint32Array,
): Map<number, FoldedFrames> {
  const functions = new Map<number, Set<number>>();
  const weights = new Map<number, Map<string, number>>();
  for (let bar = 1; bar < full.size; bar++) {
    const node = of[bar]!;
    if (merge.name[node] !== foldedName) continue;
    const crate = full.crates.list[full.crates.of[full.name[bar]!]!]!;
    const names = functions.get(node) ?? new Set();
    const weight = weights.get(node) ?? new Map<string, number>();
    names.add(full.name[bar]!);
    if (crate !== "") weight.set(crate, (weight.get(crate) ?? 0) + full.total[bar]!);
    functions.set(node, names);
    weights.set(node, weight);
  }
  const folded = new Map<number, FoldedFrames>();
  for (const [node, names] of functions) {
    const crates = [...weights.get(node)!]
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
      .map(([crate]) => crate);
    folded.set(position[node]!, { functions: names.size, crates });
  }
  return folded;
}
