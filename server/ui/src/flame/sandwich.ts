// One function between its callers and its callees. A recursive call counts once, at its outermost frame, so that both
// halves have the function's total.

import { Merge } from "./merge.ts";
import type { FlameTree } from "./tree.ts";

export interface Sandwich {
  /** The function at the root and what it called above it. */
  callees: FlameTree;
  /** The function at the root and, level by level, who called it; a bar's self value came from no further caller. */
  callers: FlameTree;
}

/** The sandwich of a function; undefined where the tree has no such function below its root. */
export function sandwich(tree: FlameTree, functionName: string): Sandwich | undefined {
  const name = tree.names.all().indexOf(functionName);
  const outermost = outermostBars(tree, name);
  if (outermost.length === 0) return undefined;
  return { callees: calleesOf(tree, name), callers: callersOf(tree, name, outermost) };
}

function outermostBars(tree: FlameTree, name: number): number[] {
  const inside = new Uint8Array(tree.size);
  const found: number[] = [];
  for (let bar = 1; bar < tree.size; bar++) {
    inside[bar] = inside[tree.parent[bar]!]!;
    if (tree.name[bar] !== name) continue;
    if (!inside[bar]) found.push(bar);
    inside[bar] = 1;
  }
  return found;
}

function calleesOf(tree: FlameTree, name: number): FlameTree {
  const merge = new Merge(tree.size, name);
  const nodes = new Int32Array(tree.size).fill(-1);
  for (let bar = 1; bar < tree.size; bar++) {
    const above = nodes[tree.parent[bar]!]!;
    const node = above >= 0 ? merge.child(above, tree.name[bar]!, bar) : tree.name[bar] === name ? 0 : -1;
    nodes[bar] = node;
    if (node < 0) continue;
    merge.total[node]! += tree.total[bar]!;
    merge.self[node]! += tree.self[bar]!;
  }
  return merge.arrange(tree.names.at(name), tree.names, tree.crates).tree;
}

function callersOf(tree: FlameTree, name: number, outermost: readonly number[]): FlameTree {
  const capacity = outermost.reduce((sum, bar) => sum + tree.level[bar]!, 1);
  const merge = new Merge(capacity, name);
  for (const bar of outermost) {
    const value = tree.total[bar]!;
    let node = 0;
    merge.total[0]! += value;
    for (let at = tree.parent[bar]!; at > 0; at = tree.parent[at]!) {
      node = merge.child(node, tree.name[at]!, at);
      merge.total[node]! += value;
    }
    merge.self[node]! += value;
  }
  return merge.arrange(tree.names.at(name), tree.names, tree.crates).tree;
}
