// Two profiles in one graph: widths are shares of either side's total, in the mean, so that sides of different size can
// be compared; and the functions whose share changed, with noise told from signal.

import { discoveries, proportionsPValue } from "../stats.ts";
import { collapse, FoldedBars } from "./collapse.ts";
import type { DiffTree } from "./decode.ts";
import { topRows } from "./top.ts";
import { buildTree, childrenEnd, type FlameTree } from "./tree.ts";

/** One side's values by bar. */
export interface Side {
  self: Float64Array;
  total: Float64Array;
}

export interface Comparison {
  /** The graph that is drawn; its root's total is 1. */
  tree: FlameTree;
  left: Side;
  right: Side;
  /** With runtime frames folded, the bar that shows each bar of the whole graph. */
  shownAs: Uint32Array<ArrayBuffer> | undefined;
}

/** Prepares a comparison, with runtime frames folded or not. */
export function compare(diff: DiffTree, isFolded: boolean): Comparison {
  const { tree, shownAs }: { tree: FlameTree; shownAs?: Uint32Array<ArrayBuffer> } = isFolded
    ? collapse(diff.tree)
    : diff;
  const side = (full: Float64Array<ArrayBuffer>): Side => {
    const self = shownAs ? new Float64Array(tree.size) : full.slice();
    if (shownAs) for (let bar = 0; bar < full.length; bar++) self[shownAs[bar]!]! += full[bar]!;
    return { self, total: totalsOf(tree, self) };
  };
  const [left, right] = [side(diff.leftSelf), side(diff.rightSelf)];
  const shares = inShares(tree, left, right);
  // What folded bars stand for is told of the graph that is drawn.
  const folded = shownAs ? new FoldedBars(diff.tree, shares, shownAs) : shares.folded;
  return { tree: { ...shares, folded }, left, right, shownAs };
}

/** What each bar and those below it are worth: callees stand after their callers. */
function totalsOf(tree: FlameTree, self: Float64Array): Float64Array {
  const totals = self.slice();
  for (let bar = tree.size - 1; bar > 0; bar--) totals[tree.parent[bar]!]! += totals[bar]!;
  return totals;
}

function inShares(tree: FlameTree, left: Side, right: Side): FlameTree {
  const sides = [left, right].filter(({ total }) => total[0]! > 0);
  const mean = (of: "self" | "total") => {
    const values = new Float64Array(tree.size);
    for (const side of sides) {
      const scale = 1 / (side.total[0]! * sides.length);
      const part = side[of];
      for (let bar = 0; bar < tree.size; bar++) values[bar]! += part[bar]! * scale;
    }
    return values;
  };
  const [self, total] = [mean("self"), mean("total")];
  const start = new Float64Array(tree.size);
  for (let bar = 0; bar < tree.size; bar++) {
    let at = start[bar]! + self[bar]!;
    for (let child = tree.firstChild[bar]!; child < childrenEnd(tree, bar); child++) {
      start[child] = at;
      at += total[child]!;
    }
  }
  const { root, names, crates, name, parent, levelStart } = tree;
  return buildTree({ root, names, crates, name, start, total, self, parent, levelStart });
}

/** How a share changed from left to right, and whether more than chance explains it. */
export interface Change {
  left: number;
  right: number;
  /** Of the two-proportion z-test; 1 where samples are not known. */
  p: number;
}

/** Samples behind each side. */
export interface SampleCounts {
  left: number;
  right: number;
}

/** The change of a bar. */
export function changeOf(comparison: Comparison, bar: number, samples: SampleCounts): Change {
  const { left, right } = comparison;
  return changed(share(left.total, bar), share(right.total, bar), samples);
}

export interface FunctionChange extends Change {
  /** Index into the tree's names. */
  name: number;
  /** Whether it stays a finding when so many functions are looked at at once (false discovery rate 5 %). */
  isSignal: boolean;
}

/** Every function's change in self time or in all its time, the largest first, findings before noise. */
export function functionChanges(
  comparison: Comparison,
  by: "self" | "total",
  samples: SampleCounts,
): FunctionChange[] {
  const { tree } = comparison;
  const shares = (side: Side) => {
    const whole = side.total[0]!;
    const rows = topRows({ ...tree, self: side.self, total: side.total });
    return new Map(rows.map((row) => [row.name, whole === 0 ? 0 : row[by] / whole]));
  };
  const [left, right] = [shares(comparison.left), shares(comparison.right)];
  const names = [...new Set([...left.keys(), ...right.keys()])];
  const changes = names
    .map((name) => ({ name, ...changed(left.get(name) ?? 0, right.get(name) ?? 0, samples) }))
    .filter((change) => change.left > 0 || change.right > 0);
  const signals = discoveries(changes.map(({ p }) => p));
  return changes
    .map((change, i) => ({ ...change, isSignal: signals[i]! }))
    .sort(
      (a, b) =>
        Number(b.isSignal) - Number(a.isSignal) ||
        Math.abs(b.right - b.left) - Math.abs(a.right - a.left) ||
        a.p - b.p,
    );
}

function changed(left: number, right: number, samples: SampleCounts): Change {
  const p = proportionsPValue(left * samples.left, samples.left, right * samples.right, samples.right);
  return { left, right, p };
}

function share(total: Float64Array, bar: number): number {
  return total[0]! === 0 ? 0 : total[bar]! / total[0]!;
}

/** A bar counts as changed in the picture below this; the table corrects for looking at many functions. */
export const PICTURE_P = 0.05;

/** Fills by bar: orange for more, blue for less, stronger for a larger part of it, grey for noise. */
export function diffFills(comparison: Comparison, samples: SampleCounts, dark: boolean): string[] {
  const { size } = comparison.tree;
  return Array.from({ length: size }, (_, bar) => {
    const { left, right, p } = changeOf(comparison, bar, samples);
    if (bar === 0 || p > PICTURE_P || left === right)
      return dark ? "oklch(0.37 0.012 250)" : "oklch(0.9 0.008 250)";
    // From 0.25 for a small change to 1 for what one side does not have at all, in four steps.
    const strength = Math.ceil((4 * Math.abs(right - left)) / (right + left)) / 4;
    const hue = right > left ? 45 : 250;
    const lightness = dark ? 0.43 + 0.05 * strength : 0.9 - 0.12 * strength;
    return `oklch(${lightness.toFixed(3)} ${(0.03 + 0.1 * strength).toFixed(3)} ${hue})`;
  });
}
