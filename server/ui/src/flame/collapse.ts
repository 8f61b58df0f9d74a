// Folds runtime frames: every connected run of them becomes one bar, and the frames called from that run hang below it,
// merged by name. No value moves: the folded bar keeps the self value of what it stands for.
//
// Programs built with line tables only name inlined functions without their path (`poll`, `catch_unwind`). Such a frame
// folds where it can only be the runtime's: called by a runtime frame, calling nothing but runtime frames, and without
// a value of its own.

import { withRuntime } from "./crates.ts";
import { Merge } from "./merge.ts";
import { childrenEnd, type FlameTree, type Folded, type FoldedFrames } from "./tree.ts";

/** Name of a folded bar; no function is called so. */
export const FOLDED_NAME = "runtime frames";

export interface Collapsed {
  tree: FlameTree;
  /** For every bar of the full tree, the bar that shows it. */
  shownAs: Uint32Array<ArrayBuffer>;
  /** For every bar of the collapsed tree, the heaviest bar of the full tree that it shows. */
  origin: Uint32Array<ArrayBuffer>;
}

/** Folds the runtime frames of `full`. The root is never folded. */
export function collapse(full: FlameTree): Collapsed {
  const { merge, of: shownAs } = fold(full, runtimeBars(full), full.names.length);
  const names = full.names.and(FOLDED_NAME);
  const { tree, order: origin, position } = merge.arrange(full.root, names, withRuntime(full.crates));
  for (let bar = 0; bar < shownAs.length; bar++) shownAs[bar] = position[shownAs[bar]!]!;
  for (let bar = 0; bar < origin.length; bar++) origin[bar] = merge.origin[origin[bar]!]!;
  return { tree: { ...tree, folded: new FoldedBars(full, tree, shownAs) }, shownAs, origin };
}

const KEPT = 0;
const RUNTIME = 1;
const UNKNOWN = 2;

/** 1 for every bar that folds. */
function runtimeBars(full: FlameTree): Uint8Array {
  const { of, runtime } = full.crates;
  const bars = new Uint8Array(full.size);
  for (let bar = 1; bar < full.size; bar++) {
    const name = full.name[bar]!;
    bars[bar] = runtime[name] ? RUNTIME : of[name] === 0 ? UNKNOWN : KEPT;
  }
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
  of: Uint32Array<ArrayBuffer>;
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

/** What the folded bars of a tree stand for: put together for those that are looked at. */
export class FoldedBars implements Folded {
  readonly #full: FlameTree;
  readonly #tree: FlameTree;
  readonly #shownAs: Uint32Array;
  readonly #known = new Map<number, FoldedFrames>();
  /** The full tree's bars by the bar that shows them: those of `bar` are `#bars[#first[bar]..#first[bar + 1]]`. */
  #first: Uint32Array | undefined;
  #bars = new Uint32Array();

  constructor(full: FlameTree, tree: FlameTree, shownAs: Uint32Array) {
    this.#full = full;
    this.#tree = tree;
    this.#shownAs = shownAs;
  }

  has(bar: number): boolean {
    // The folded bars' name is the one that the full tree does not have.
    return this.#tree.name[bar] === this.#full.names.length;
  }

  get(bar: number): FoldedFrames | undefined {
    if (!this.has(bar)) return undefined;
    let frames = this.#known.get(bar);
    if (!frames) this.#known.set(bar, (frames = this.#framesOf(bar)));
    return frames;
  }

  #framesOf(bar: number): FoldedFrames {
    const { crates, name, total } = this.#full;
    const functions = new Set<number>();
    const weights = new Map<string, number>();
    const first = (this.#first ??= this.#sort());
    for (let at = first[bar]!; at < first[bar + 1]!; at++) {
      const one = this.#bars[at]!;
      functions.add(name[one]!);
      const crate = crates.list[crates.of[name[one]!]!]!;
      if (crate !== "") weights.set(crate, (weights.get(crate) ?? 0) + total[one]!);
    }
    const heaviest = [...weights].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    return { functions: functions.size, crates: heaviest.map(([crate]) => crate) };
  }

  #sort(): Uint32Array {
    const shownAs = this.#shownAs;
    const first = new Uint32Array(this.#tree.size + 1);
    for (let bar = 0; bar < shownAs.length; bar++) first[shownAs[bar]! + 1]!++;
    for (let bar = 0; bar < this.#tree.size; bar++) first[bar + 1]! += first[bar]!;
    const next = first.slice();
    this.#bars = new Uint32Array(shownAs.length);
    for (let bar = 0; bar < shownAs.length; bar++) this.#bars[next[shownAs[bar]!]!++] = bar;
    return first;
  }
}
