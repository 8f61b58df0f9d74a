// The top table: one row per function with its self and total value. It says in text what the canvas shows.

import type { FlameTree } from "./tree.ts";

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
  const self = new Float64Array(tree.names.length);
  const total = new Float64Array(tree.names.length);
  for (let bar = 1; bar < tree.size; bar++) {
    const name = tree.name[bar]!;
    self[name]! += tree.self[bar]!;
    if (!isCalledByItself(tree, bar)) total[name]! += tree.total[bar]!;
  }
  const rows: TopRow[] = [];
  for (let name = 0; name < total.length; name++) {
    if (total[name]! > 0) rows.push({ name, self: self[name]!, total: total[name]! });
  }
  return rows;
}

/** Whether the same function stands further up on the bar's path, directly or not. */
function isCalledByItself(tree: FlameTree, bar: number): boolean {
  const name = tree.name[bar]!;
  for (let at = tree.parent[bar]!; at > 0; at = tree.parent[at]!) if (tree.name[at] === name) return true;
  return false;
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

/** The sorting that an address asks for: by self value, heaviest first, unless it says otherwise. */
export function sortOf(query: URLSearchParams): { column: TopColumn; descending: boolean } {
  const asked = query.get("sort");
  return {
    column: asked === "name" || asked === "total" ? asked : "self",
    descending: query.get("order") !== "asc",
  };
}
