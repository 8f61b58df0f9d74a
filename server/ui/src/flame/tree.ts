// The one in-memory form of a flame graph: typed arrays, one entry per bar, in level order and from left to right
// within a level. It holds no drawing state; layouts, tables and searches read it and never change it.

import { cratesOf, type Crates } from "./crates.ts";
import type { Names } from "./texts.ts";

/** What a bar stands for when runtime frames are folded together; see `collapse.ts`. */
export interface FoldedFrames {
  /** Distinct functions that the bar stands for. */
  functions: number;
  /** Crates of those functions, heaviest first. */
  crates: string[];
}

export interface FlameTree {
  /** What the root is called: `whole span`, or the function that a sandwich is about. */
  readonly root: string;
  /** Function names; bars refer to them by index. The first is the root's. */
  readonly names: Names;
  /** What is known of those functions. */
  readonly crates: Crates;
  /** Number of bars, the root included. At least 1. */
  readonly size: number;
  /** Index into `names`. */
  readonly name: Uint32Array;
  /** Left edge, in the profile type's unit, from the root's left edge. */
  readonly start: Float64Array;
  /** Value of the function and all it called. */
  readonly total: Float64Array;
  /** Value of the function alone. */
  readonly self: Float64Array;
  /** Bar index of the caller; -1 for the root. */
  readonly parent: Int32Array;
  /** Level of the bar; the root's is 0. */
  readonly level: Uint32Array;
  /** `levelStart[l]..levelStart[l + 1]` are the bars of level `l`; its length is the number of levels + 1. */
  readonly levelStart: Uint32Array;
  /** First bar in the next level whose parent is this bar or one to its right: children are `firstChild[i]..firstChild[i + 1]`. */
  readonly firstChild: Uint32Array;
  /** Which bars stand for several folded functions. */
  readonly folded: Folded;
}

/** Bars that stand for folded functions, and for which. */
export interface Folded {
  has(bar: number): boolean;
  get(bar: number): FoldedFrames | undefined;
}

export const NOTHING_FOLDED: Folded = { has: () => false, get: () => undefined };

/** A level by level list from which `buildTree` derives the rest. */
export interface TreeColumns {
  root: string;
  names: Names;
  name: Uint32Array;
  start: Float64Array;
  total: Float64Array;
  self: Float64Array;
  parent: Int32Array;
  levelStart: Uint32Array;
  folded?: Folded;
  /** Of the names, where it is known already. */
  crates?: Crates;
}

/** Completes columns into a tree. The columns must already be in level order with every parent one level up. */
export function buildTree(columns: TreeColumns): FlameTree {
  const size = columns.name.length;
  const level = new Uint32Array(size);
  const firstChild = new Uint32Array(size + 1);
  const depth = columns.levelStart.length - 1;
  for (let l = 0; l < depth; l++) {
    const end = columns.levelStart[l + 1]!;
    level.fill(l, columns.levelStart[l]!, end);
    const below = l + 2 <= depth ? columns.levelStart[l + 2]! : end;
    let child = end;
    for (let bar = columns.levelStart[l]!; bar < end; bar++) {
      firstChild[bar] = child;
      while (child < below && columns.parent[child] === bar) child++;
    }
  }
  firstChild[size] = size;
  const { folded = NOTHING_FOLDED, crates = cratesOf(columns.names) } = columns;
  return { ...columns, size, level, firstChild, folded, crates };
}

/** Number of levels, the root's included. */
export function depthOf(tree: FlameTree): number {
  return tree.levelStart.length - 1;
}

/** End of the children of a bar; they are `tree.firstChild[bar]..childrenEnd(tree, bar)`. */
export function childrenEnd(tree: FlameTree, bar: number): number {
  // The last bar of a level has no right neighbour in it: its children reach to the end of the next level.
  const level = tree.level[bar]!;
  if (bar + 1 < tree.levelStart[level + 1]!) return tree.firstChild[bar + 1]!;
  return level + 2 < tree.levelStart.length ? tree.levelStart[level + 2]! : tree.firstChild[bar]!;
}

/** Bars from the root down to `bar`, both included. */
export function pathTo(tree: FlameTree, bar: number): number[] {
  const path: number[] = [];
  for (let at = bar; at >= 0; at = tree.parent[at]!) path.push(at);
  return path.reverse();
}

/** Whether `bar` lies in the subtree of `ancestor` (a bar is in its own subtree). */
export function isWithin(tree: FlameTree, bar: number, ancestor: number): boolean {
  let at = bar;
  while (at >= 0 && tree.level[at]! > tree.level[ancestor]!) at = tree.parent[at]!;
  return at === ancestor;
}

/**
 * An id for a bar, derived from the names on its path alone, so that a link to a bar stays valid when the same span's
 * profile grows. 53 bits: bars of one graph do not collide in practice.
 */
export function barId(tree: FlameTree, bar: number): string {
  const id = idOf(pathTo(tree, bar).reduce((above, at) => step(above, hashName(nameOf(tree, at))), ROOT));
  knownIds(tree).set(id, bar);
  return id;
}

/** The bar with that id, or undefined when the graph has none such. */
export function findBar(tree: FlameTree, id: string): number | undefined {
  if (!/^[0-9a-z]{1,11}$/.test(id)) return undefined;
  // An id that `barId` gave out a moment ago needs no search.
  const known = knownIds(tree).get(id);
  if (known !== undefined) return known;
  const names = tree.names.all().map(hashName);
  const hashes: Hash[] = [];
  for (let bar = 0; bar < tree.size; bar++) {
    const parent = tree.parent[bar]!;
    const hash = step(parent < 0 ? ROOT : hashes[parent]!, names[tree.name[bar]!]!);
    if (idOf(hash) === id) return bar;
    hashes.push(hash);
  }
  return undefined;
}

/** The name of a bar's function. */
export function nameOf(tree: FlameTree, bar: number): string {
  return tree.names.at(tree.name[bar]!);
}

/** Longer names do not fit in an address that every server and proxy takes. */
export const MAX_LINKED_NAME = 1000;

/** What stands for a function in a link: its name, or an id where that is too long. */
export function linkName(name: string): string {
  return name.length <= MAX_LINKED_NAME ? name : `#${idOf(hashName(name))}`;
}

interface Hash {
  high: number;
  low: number;
}

const ROOT: Hash = { high: 0, low: 1 };

const given = new WeakMap<FlameTree, Map<string, number>>();

function knownIds(tree: FlameTree): Map<string, number> {
  let ids = given.get(tree);
  if (!ids) given.set(tree, (ids = new Map()));
  return ids;
}

function hashName(name: string): Hash {
  return { high: fnv(name, 0x811c9dc5), low: fnv(name, 0x9747b28c) };
}

function step(above: Hash, name: Hash): Hash {
  return { high: mix(above.high, name.high), low: mix(above.low, name.low) };
}

function idOf(hash: Hash): string {
  return ((hash.high & 0x1fffff) * 0x100000000 + hash.low).toString(36);
}

function fnv(text: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ (b + 0x9e3779b9 + (a << 6) + (a >>> 2)), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
