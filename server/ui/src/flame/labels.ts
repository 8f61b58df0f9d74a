// What a bar is called: on the canvas as long as it fits, in tooltips, tables and speech in full.

import { displayName, shortName } from "./names.ts";
import { nameOf, type FlameTree } from "./tree.ts";

/** Crates that a folded bar names before it says "…". */
const NAMED_CRATES = 3;

/** A bar's name as text for display. */
export function barLabel(tree: FlameTree, bar: number, limit?: number): string {
  if (bar === 0) return displayName(tree.root, limit);
  const folded = tree.folded.get(bar);
  if (!folded) return displayName(nameOf(tree, bar), limit);
  const crates = folded.crates.slice(0, NAMED_CRATES).join(", ");
  const more = folded.crates.length > NAMED_CRATES ? ", …" : "";
  return crates === "" ? "runtime" : `runtime: ${crates}${more}`;
}

/** Texts for the bars of a tree, made when first needed: most of a large graph is never drawn with text. */
export class Labels {
  readonly #whole: (string | undefined)[] = [];
  readonly #short: (string | undefined)[] = [];
  readonly #tree: FlameTree;

  constructor(tree: FlameTree) {
    this.#tree = tree;
  }

  /** The longest form of a bar's name that fits in `room` characters, "" when none is worth drawing. */
  fit(bar: number, room: number): string {
    if (room < 3) return "";
    const tree = this.#tree;
    const name = tree.name[bar]!;
    if (bar === 0 || tree.folded.has(bar)) return cut(barLabel(tree, bar), room);
    const whole = (this.#whole[name] ??= displayName(tree.names.at(name)));
    if (whole.length <= room) return whole;
    return cut((this.#short[name] ??= displayName(shortName(tree.names.at(name)))), room);
  }
}

function cut(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
}
