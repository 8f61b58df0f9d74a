// The top table: one row per function with its self and total value. It says in text what the canvas shows.

import { childrenEnd, type FlameTree } from "./tree.ts";

export interface TopRow {
  /** Index into the tree's names. */
  name: number;
  self: number;
  /** Value under the function; a recursive call counts once. */
  total: number;
}

export type TopColumn = "name" | "self" | "total";

/** Rows for every function below the root, in no particular order. */
export function topRows(tree: FlameTree): TopRow[] {
  const rows = new Map<number, TopRow>();
  // Bars of the same name on the path down to the bar at hand; depth first, so that the counts undo on the way back.
  const open = new Uint32Array(tree.names.length);
  const path: number[] = [];
  for (const bar of depthFirst(tree)) {
    while (path.length > 0 && tree.level[path.at(-1)!]! >= tree.level[bar]!) open[tree.name[path.pop()!]!]!--;
    const name = tree.name[bar]!;
    if (bar !== 0) {
      let row = rows.get(name);
      if (!row) rows.set(name, (row = { name, self: 0, total: 0 }));
      row.self += tree.self[bar]!;
      if (open[name] === 0) row.total += tree.total[bar]!;
    }
    open[name]!++;
    path.push(bar);
  }
  return [...rows.values()];
}

/** Sorts rows. Among equal self values the larger total stands first, among equal totals the larger self value. */
export function sortRows(
  rows: readonly TopRow[],
  names: readonly string[],
  column: TopColumn,
  descending: boolean,
): TopRow[] {
  const sign = descending ? -1 : 1;
  if (column === "name") {
    return [...rows].sort((a, b) => (names[a.name]! < names[b.name]! ? -sign : sign));
  }
  const other = column === "self" ? "total" : "self";
  return [...rows].sort((a, b) => sign * (a[column] - b[column]) || b[other] - a[other] || a.name - b.name);
}

function* depthFirst(tree: FlameTree): Generator<number> {
  const stack = [0];
  while (stack.length > 0) {
    const bar = stack.pop()!;
    yield bar;
    const first = tree.firstChild[bar]!;
    for (let child = childrenEnd(tree, bar) - 1; child >= first; child--) stack.push(child);
  }
}
