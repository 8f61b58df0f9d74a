// The top table: one row per function with its self and total value. It says in text what the canvas shows.

import type { Names } from "./texts.ts";
import { childrenEnd, type FlameTree } from "./tree.ts";

export interface TopRow {
  /** Index into the tree's names. */
  name: number;
  self: number;
  /** Value under the function; a recursive call counts once. */
  total: number;
}

export type TopColumn = "name" | "self" | "total";

export interface Sorting {
  column: TopColumn;
  descending: boolean;
}

/** Rows for every function below the root, in no particular order. */
export function topRows(tree: FlameTree): TopRow[] {
  const { firstChild, level, levelStart, name, parent } = tree;
  const self = new Float64Array(tree.names.length);
  const total = new Float64Array(tree.names.length);
  // How many calls of each function are on the way from the root to the bar that is looked at.
  const open = new Uint32Array(tree.names.length);
  // Depth first, from the root back to the root.
  let bar = firstChild[0]! < childrenEnd(tree, 0) ? firstChild[0]! : 0;
  while (bar > 0) {
    const entered = name[bar]!;
    self[entered]! += tree.self[bar]!;
    if (open[entered]!++ === 0) total[entered]! += tree.total[bar]!;
    if (firstChild[bar]! < childrenEnd(tree, bar)) {
      bar = firstChild[bar]!;
      continue;
    }
    // Up until there is a neighbour under the same caller.
    for (;;) {
      open[name[bar]!]!--;
      const next = bar + 1;
      const above = parent[bar]!;
      if (next < levelStart[level[bar]! + 1]! && parent[next] === above) {
        bar = next;
        break;
      }
      bar = above;
      if (bar === 0) break;
    }
  }
  const rows: TopRow[] = [];
  for (let index = 0; index < total.length; index++) {
    if (total[index]! > 0) rows.push({ name: index, self: self[index]!, total: total[index]! });
  }
  return rows;
}

/**
 * The first rows in an order, `count` at most. Among equal self values the larger total stands first, among equal totals the
 * larger self value. Of very many rows only those that come first are put in order.
 */
export function firstRows(
  rows: readonly TopRow[],
  names: Pick<Names, "at">,
  { column, descending }: Sorting,
  count = rows.length,
): TopRow[] {
  const sign = descending ? -1 : 1;
  if (column === "name") {
    return [...rows].sort((a, b) => (names.at(a.name) < names.at(b.name) ? -sign : sign)).slice(0, count);
  }
  const other = column === "self" ? "total" : "self";
  let candidates = rows;
  if (count < rows.length) {
    const values = Float64Array.from(rows, (row) => sign * row[column]).sort();
    const last = values[count]!;
    candidates = rows.filter((row) => sign * row[column] <= last);
  }
  return [...candidates]
    .sort((a, b) => sign * (a[column] - b[column]) || b[other] - a[other] || a.name - b.name)
    .slice(0, count);
}

/** The sorting that an address asks for: by self value, heaviest first, unless it says otherwise. */
export function sortOf(query: URLSearchParams): Sorting {
  const asked = query.get("sort");
  return {
    column: asked === "name" || asked === "total" ? asked : "self",
    descending: query.get("order") !== "asc",
  };
}
