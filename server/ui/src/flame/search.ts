// Finds functions by a part of their name and sums what they cost, without counting a value twice when one match calls another.

import type { FlameTree } from "./tree.ts";

export interface SearchResult {
  /** 1 for every bar whose name matches. */
  matches: Uint8Array;
  /** Distinct functions that match. */
  functions: number;
  /** Value under the matching bars; nested matches count once. */
  value: number;
}

/** Searches case-insensitively. A blank term matches nothing. */
export function search(tree: FlameTree, term: string): SearchResult {
  const matches = new Uint8Array(tree.size);
  const needle = term.trim().toLowerCase();
  if (needle === "") return { matches, functions: 0, value: 0 };
  const named = tree.names.all().map((name) => name.toLowerCase().includes(needle));
  const used = new Uint8Array(tree.names.length);
  const covered = new Uint8Array(tree.size);
  let functions = 0;
  let value = 0;
  // The root stands for the span, not for a function.
  for (let bar = 1; bar < tree.size; bar++) {
    const inside = covered[tree.parent[bar]!]!;
    covered[bar] = inside;
    const name = tree.name[bar]!;
    if (!named[name]) continue;
    matches[bar] = 1;
    covered[bar] = 1;
    if (!inside) value += tree.total[bar]!;
    if (!used[name]) {
      used[name] = 1;
      functions++;
    }
  }
  return { matches, functions, value };
}

/** Carries matches of the full tree over to the tree that is shown, where a folded bar matches if one of its frames does. */
export function projectMatches(matches: Uint8Array, shownAs: Uint32Array, size: number): Uint8Array {
  const shown = new Uint8Array(size);
  for (let bar = 0; bar < matches.length; bar++) if (matches[bar]) shown[shownAs[bar]!] = 1;
  return shown;
}
