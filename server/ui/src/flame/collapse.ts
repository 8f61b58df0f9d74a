// Folds runtime frames: every connected run of frames for which `isRuntime` holds becomes one bar, and the frames called
// from that run hang below it, merged by name. No value moves: the folded bar keeps the self value of what it stands for.

import { crateOf } from "./names.ts";
import { buildTree, nameOf, type FlameTree, type FoldedFrames } from "./tree.ts";

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
export function collapse(full: FlameTree, isRuntime: (name: string) => boolean): Collapsed {
  const runtime = new Uint8Array(full.names.length).map((_none, name) =>
    isRuntime(full.names[name]!) ? 1 : 0,
  );
  const foldedName = full.names.length;
  const nodes = merge(full, runtime, foldedName);
  const { order, start, levelStart, position } = arrange(nodes);

  const integers = (column: Uint32Array) => order.map((node) => column[node]!);
  const values = (column: Float64Array) => start.map((_start, bar) => column[order[bar]!]!);
  const tree = buildTree({
    names: [...full.names, FOLDED_NAME],
    name: integers(nodes.name),
    start,
    total: values(nodes.total),
    self: values(nodes.self),
    parent: new Int32Array(order).map((node, bar) => (bar === 0 ? -1 : position[nodes.parent[node]!]!)),
    levelStart,
    folded: foldedFrames(full, nodes, foldedName, position),
  });
  return { tree, shownAs: nodes.of.map((node) => position[node]!), origin: integers(nodes.origin) };
}

/** The collapsed tree's nodes in the order of their discovery: a parent always before its children. */
interface Nodes {
  size: number;
  name: Uint32Array;
  parent: Uint32Array;
  total: Float64Array;
  self: Float64Array;
  origin: Uint32Array;
  /** The node of every bar of the full tree. */
  of: Uint32Array;
}

function merge(full: FlameTree, runtime: Uint8Array, foldedName: number): Nodes {
  const nodes: Nodes = {
    size: 1,
    name: new Uint32Array(full.size),
    parent: new Uint32Array(full.size),
    total: new Float64Array(full.size),
    self: new Float64Array(full.size),
    origin: new Uint32Array(full.size),
    of: new Uint32Array(full.size),
  };
  nodes.name[0] = full.name[0]!;
  nodes.total[0] = full.total[0]!;
  nodes.self[0] = full.self[0]!;
  const children = new ChildIndex(nodes, full.size);
  for (let bar = 1; bar < full.size; bar++) {
    const parent = nodes.of[full.parent[bar]!]!;
    const isRuntime = runtime[full.name[bar]!] === 1;
    let node = parent;
    if (!isRuntime || nodes.name[parent] !== foldedName) {
      node = children.findOrAdd(parent, isRuntime ? foldedName : full.name[bar]!, bar);
      nodes.total[node]! += full.total[bar]!;
    }
    nodes.of[bar] = node;
    nodes.self[node]! += full.self[bar]!;
    if (full.total[bar]! > full.total[nodes.origin[node]!]!) nodes.origin[node] = bar;
  }
  return nodes;
}

/** Finds a node by its parent and name: a hash table with open addressing over the nodes' own columns. */
class ChildIndex {
  readonly #nodes: Nodes;
  /** Node + 1, or 0 for a free slot. */
  readonly #slots: Uint32Array;

  constructor(nodes: Nodes, capacity: number) {
    this.#nodes = nodes;
    // At most half full, so that a search ends soon.
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(capacity * 2 + 1)));
  }

  findOrAdd(parent: number, name: number, bar: number): number {
    const nodes = this.#nodes;
    const mask = this.#slots.length - 1;
    const hash = Math.imul(Math.imul(parent, 0x9e3779b1) ^ name, 0x85ebca77);
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (; ; slot = (slot + 1) & mask) {
      const node = this.#slots[slot]! - 1;
      if (node < 0) break;
      if (nodes.parent[node] === parent && nodes.name[node] === name) return node;
    }
    const node = nodes.size++;
    this.#slots[slot] = node + 1;
    nodes.name[node] = name;
    nodes.parent[node] = parent;
    nodes.origin[node] = bar;
    return node;
  }
}

/** Brings nodes into level order and gives each its place. */
function arrange(nodes: Nodes): {
  order: Uint32Array;
  start: Float64Array;
  levelStart: Uint32Array;
  /** Bar of every node. */
  position: Uint32Array;
} {
  const { size, parent } = nodes;
  // Children by parent: a counting sort, which keeps the order of discovery.
  const firstChild = new Uint32Array(size + 1);
  for (let node = 1; node < size; node++) firstChild[parent[node]! + 1]!++;
  for (let node = 0; node < size; node++) firstChild[node + 1]! += firstChild[node]!;
  const next = firstChild.slice();
  const children = new Uint32Array(size);
  for (let node = 1; node < size; node++) children[next[parent[node]!]!++] = node;

  const order = new Uint32Array(size);
  const start = new Float64Array(size);
  const position = new Uint32Array(size);
  const levelStart = [0, 1];
  let placed = 1;
  for (let bar = 0; bar < size; bar++) {
    // The first bar of a level: all bars of this level are placed, none of the next.
    if (bar === levelStart.at(-1)) levelStart.push(placed);
    const node = order[bar]!;
    position[node] = bar;
    let at = start[bar]! + nodes.self[node]!;
    for (let i = firstChild[node]!; i < firstChild[node + 1]!; i++) {
      const child = children[i]!;
      order[placed] = child;
      start[placed] = at;
      at += nodes.total[child]!;
      placed++;
    }
  }
  return { order, start, levelStart: Uint32Array.from(levelStart), position };
}

function foldedFrames(
  full: FlameTree,
  nodes: Nodes,
  foldedName: number,
  position: Uint32Array,
): Map<number, FoldedFrames> {
  const functions = new Map<number, Set<number>>();
  const weights = new Map<number, Map<string, number>>();
  for (let bar = 1; bar < full.size; bar++) {
    const node = nodes.of[bar]!;
    if (nodes.name[node] !== foldedName) continue;
    const crate = crateOf(nameOf(full, bar));
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
