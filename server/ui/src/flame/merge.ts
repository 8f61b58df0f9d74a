// Builds a tree by adding nodes in any order, a parent before its children: nodes of one name below one parent are one
// node. The columns hold what the maker of a tree sums up; `arrange` brings them into the order in which they are drawn.

import type { Crates } from "./crates.ts";
import type { Names } from "./texts.ts";
import { buildTree, type FlameTree } from "./tree.ts";

export class Merge {
  size = 1;
  readonly name: Uint32Array;
  readonly parent: Uint32Array;
  readonly total: Float64Array;
  readonly self: Float64Array;
  /** A bar of the tree that is read which the node stands for: the first, unless its maker prefers another. */
  readonly origin: Uint32Array;
  /** A hash table with open addressing over the columns: node + 1, or 0 for a free slot. */
  readonly #slots: Uint32Array;

  /** At most `capacity` nodes; node 0 is the root, of that name. */
  constructor(capacity: number, rootName: number) {
    this.name = new Uint32Array(capacity);
    this.parent = new Uint32Array(capacity);
    this.total = new Float64Array(capacity);
    this.self = new Float64Array(capacity);
    this.origin = new Uint32Array(capacity);
    this.name[0] = rootName;
    // At most half full, so that a search ends soon.
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(capacity * 2 + 1)));
  }

  /** The node of that name below a parent, added for `bar` if there is none yet. */
  child(parent: number, name: number, bar: number): number {
    const mask = this.#slots.length - 1;
    const hash = Math.imul(Math.imul(parent, 0x9e3779b1) ^ name, 0x85ebca77);
    let slot = (hash ^ (hash >>> 15)) & mask;
    for (; ; slot = (slot + 1) & mask) {
      const node = this.#slots[slot]! - 1;
      if (node < 0) break;
      if (this.parent[node] === parent && this.name[node] === name) return node;
    }
    const node = this.size++;
    this.#slots[slot] = node + 1;
    this.name[node] = name;
    this.parent[node] = parent;
    this.origin[node] = bar;
    return node;
  }

  /** The tree, the node of each of its bars, and the bar of each node. */
  arrange(
    root: string,
    names: Names,
    crates: Crates,
  ): { tree: FlameTree; order: Uint32Array<ArrayBuffer>; position: Uint32Array<ArrayBuffer> } {
    const { order, start, levelStart, position } = this.#place();
    const { size } = this;
    const name = new Uint32Array(size);
    const total = new Float64Array(size);
    const self = new Float64Array(size);
    const parent = new Int32Array(size);
    for (let bar = 0; bar < size; bar++) {
      const node = order[bar]!;
      name[bar] = this.name[node]!;
      total[bar] = this.total[node]!;
      self[bar] = this.self[node]!;
      parent[bar] = position[this.parent[node]!]!;
    }
    parent[0] = -1;
    const tree = buildTree({ root, names, crates, name, start, total, self, parent, levelStart });
    return { tree, order, position };
  }

  #place() {
    const { size, parent } = this;
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
      let at = start[bar]! + this.self[node]!;
      for (let i = firstChild[node]!; i < firstChild[node + 1]!; i++) {
        const child = children[i]!;
        order[placed] = child;
        start[placed] = at;
        at += this.total[child]!;
        placed++;
      }
    }
    return { order, start, levelStart: Uint32Array.from(levelStart), position };
  }
}
