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
  const self = new Float64Array(tree.names.length);
  const total = new Float64Array(tree.names.length);
  // How many calls of each function are on the way from the root to the bar that is looked at.
  const open = new Uint32Array(tree.names.length);
  walk(tree, {
    enter(bar) {
      const name = tree.name[bar]!;
      self[name]! += tree.self[bar]!;
      if (open[name]!++ === 0) total[name]! += tree.total[bar]!;
    },
    leave(bar) {
      open[tree.name[bar]!]!--;
    },
  });
  const rows: TopRow[] = [];
  for (let name = 0; name < total.length; name++) {
    if (total[name]! > 0) rows.push({ name, self: self[name]!, total: total[name]! });
  }
  return rows;
}

/** Visits every bar below the root, depth first. */
function walk(tree: FlameTree, { enter, leave }: Record<"enter" | "leave", (bar: number) => void>): void {
  let bar = 0;
  let isNew = true;
  for (;;) {
    if (isNew && bar > 0) enter(bar);
    if (isNew && tree.firstChild[bar]! < childrenEnd(tree, bar)) {
      bar = tree.firstChild[bar]!;
      continue;
    }
    if (bar === 0) return;
    leave(bar);
    const parent = tree.parent[bar]!;
    isNew = bar + 1 < childrenEnd(tree, parent);
    bar = isNew ? bar + 1 : parent;
  }
}

/** The functions with most self value, heaviest first. */
export function heaviest(tree: FlameTree, count: number): { name: number; self: number }[] {
  const self = new Float64Array(tree.names.length);
  for (let bar = 1; bar < tree.size; bar++) self[tree.name[bar]!]! += tree.self[bar]!;
  const found: { name: number; self: number }[] = [];
  let least = 0;
  for (let name = 0; name < self.length; name++) {
    if (self[name]! <= least) continue;
    const at = found.findIndex((other) => other.self < self[name]!);
    found.splice(at < 0 ? found.length : at, 0, { name, self: self[name]! });
    found.length = Math.min(found.length, count);
    if (found.length === count) least = found.at(-1)!.self;
  }
  return found;
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
