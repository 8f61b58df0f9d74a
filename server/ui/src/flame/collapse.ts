// Folds runtime frames: every connected run of frames for which `isRuntime` holds becomes one bar, and the frames called
// from that run hang below it, merged by name. No value moves: the folded bar keeps the self value of what it stands for.

import { crateOf } from "./names.ts";
import { buildTree, childrenEnd, type FlameTree, type FoldedFrames } from "./tree.ts";

/** Name of a folded bar; brackets cannot begin a function's name. */
export const FOLDED_NAME = "[runtime frames]";

export interface Collapsed {
  tree: FlameTree;
  /** For every bar of the full tree, the bar that shows it. */
  shownAs: Uint32Array;
  /** For every bar of the collapsed tree, the heaviest bar of the full tree that it shows. */
  origin: Uint32Array;
}

interface Node {
  name: number;
  total: number;
  self: number;
  members: number[];
  children: Node[];
}

/** Folds the runtime frames of `full`. The root is never folded. */
export function collapse(full: FlameTree, isRuntime: (name: string) => boolean): Collapsed {
  const runtime = Uint8Array.from(full.names, (name) => (isRuntime(name) ? 1 : 0));
  const foldedName = full.names.length;
  const names = [...full.names, FOLDED_NAME];
  const shownAs = new Uint32Array(full.size);

  const name: number[] = [];
  const start: number[] = [];
  const total: number[] = [];
  const self: number[] = [];
  const parent: number[] = [];
  const origin: number[] = [];
  const levelStart: number[] = [0];
  const folded = new Map<number, FoldedFrames>();

  let level: { node: Node; start: number; parent: number }[] = [
    {
      node: { name: full.name[0]!, total: full.total[0]!, self: 0, members: [0], children: [] },
      start: 0,
      parent: -1,
    },
  ];
  while (level.length > 0) {
    const next: typeof level = [];
    for (const { node, start: x, parent: above } of level) {
      const bar = name.length;
      expand(full, node, runtime, foldedName);
      name.push(node.name);
      start.push(x);
      total.push(node.total);
      self.push(node.self);
      parent.push(above);
      let heaviest = node.members[0]!;
      for (const member of node.members) {
        shownAs[member] = bar;
        if (full.total[member]! > full.total[heaviest]!) heaviest = member;
      }
      origin.push(heaviest);
      if (node.name === foldedName) folded.set(bar, summary(full, node.members));
      let at = x + node.self;
      for (const child of node.children) {
        next.push({ node: child, start: at, parent: bar });
        at += child.total;
      }
    }
    levelStart.push(name.length);
    level = next;
  }

  const tree = buildTree({
    names,
    name: Uint32Array.from(name),
    start: Float64Array.from(start),
    total: Float64Array.from(total),
    self: Float64Array.from(self),
    parent: Int32Array.from(parent),
    levelStart: Uint32Array.from(levelStart),
    folded,
  });
  return { tree, shownAs, origin: Uint32Array.from(origin) };
}

/** Completes a node: takes in the rest of a runtime run, sums its self value and groups what it called by name. */
function expand(full: FlameTree, node: Node, runtime: Uint8Array, foldedName: number): void {
  const byName = new Map<number, Node>();
  const isFolded = node.name === foldedName;
  // `members` grows while it is walked: the run's deeper frames join it.
  for (let i = 0; i < node.members.length; i++) {
    const member = node.members[i]!;
    node.self += full.self[member]!;
    for (let child = full.firstChild[member]!; child < childrenEnd(full, member); child++) {
      const childName = runtime[full.name[child]!] ? foldedName : full.name[child]!;
      if (isFolded && childName === foldedName) {
        node.members.push(child);
        continue;
      }
      const known = byName.get(childName);
      if (known) {
        known.members.push(child);
        known.total += full.total[child]!;
      } else {
        byName.set(childName, {
          name: childName,
          total: full.total[child]!,
          self: 0,
          members: [child],
          children: [],
        });
      }
    }
  }
  node.children = [...byName.values()];
}

function summary(full: FlameTree, members: number[]): FoldedFrames {
  const functions = new Set<number>();
  const weight = new Map<string, number>();
  for (const member of members) {
    functions.add(full.name[member]!);
    const crate = crateOf(full.names[full.name[member]!]!);
    if (crate !== "") weight.set(crate, (weight.get(crate) ?? 0) + full.total[member]!);
  }
  const crates = [...weight].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([crate]) => crate);
  return { functions: functions.size, crates };
}
