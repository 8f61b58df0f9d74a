// Colours: one hue per crate, chosen by the crate's name so that a crate looks the same in every span; runtime crates,
// code without a crate and the root are grey. Text on a bar keeps a contrast of at least 4.5:1 in both themes.

import { FOLDED_NAME } from "./collapse.ts";
import { crateOf, isRuntime } from "./names.ts";
import type { FlameTree } from "./tree.ts";

/** Hues (degrees, OKLCH) far enough apart to be told from each other. */
const HUES = [47, 250, 155, 345, 85, 300, 200, 20, 125, 275, 175, 65, 225, 325];

export interface Palette {
  /** Fill of a bar, by name index. */
  fills: string[];
  /** Fill by name index while a search does not match. */
  faded: string[];
  text: string;
  fadedText: string;
  match: string;
  matchText: string;
  strip: string;
  outline: string;
  /** Crates by self value, heaviest first. */
  legend: { crate: string; fill: string; self: number }[];
}

/** Label of the legend's entry for code outside of any Rust crate. */
export const NO_CRATE = "native";

/** Chooses colours for a tree. */
export function paletteFor(tree: FlameTree, dark: boolean): Palette {
  const crates = tree.names.map((name, i) =>
    i === 0 ? "" : name === FOLDED_NAME ? FOLDED_NAME : crateOf(name),
  );
  const isGrey = tree.names.map(
    (name, i) => i === 0 || crates[i] === "" || name === FOLDED_NAME || isRuntime(name),
  );
  const self = new Map<string, number>();
  const weight = new Map<string, number>();
  for (let bar = 1; bar < tree.size; bar++) {
    const name = tree.name[bar]!;
    const crate = isGrey[name] ? (crates[name] === "" ? NO_CRATE : "runtime") : crates[name]!;
    self.set(crate, (self.get(crate) ?? 0) + tree.self[bar]!);
    weight.set(crate, (weight.get(crate) ?? 0) + tree.total[bar]!);
  }
  const hueOf = assignHues([...weight].filter(([crate]) => crate !== "runtime" && crate !== NO_CRATE));
  const grey = (step: number) =>
    dark ? `oklch(${0.37 + step} 0.012 250)` : `oklch(${0.9 + step} 0.008 250)`;
  const fill = (hue: number, step: number) =>
    dark ? `oklch(${0.47 + step} 0.095 ${hue})` : `oklch(${0.84 + step} 0.09 ${hue})`;
  // A small change of lightness from function to function keeps neighbours of one crate apart.
  const step = (name: string) => ((checksum(name) % 5) - 2) * 0.012;
  return {
    fills: tree.names.map((name, i) =>
      isGrey[i] ? grey(step(name) / 2) : fill(hueOf.get(crates[i]!) ?? 250, step(name)),
    ),
    faded: tree.names.map(() => (dark ? "oklch(0.3 0.008 250)" : "oklch(0.94 0.004 250)")),
    text: dark ? "#f3f5f7" : "#16191d",
    fadedText: dark ? "#9aa3ad" : "#5c6570",
    match: dark ? "oklch(0.8 0.16 85)" : "oklch(0.85 0.17 88)",
    matchText: "#1a1400",
    strip: dark ? "oklch(0.42 0.02 250)" : "oklch(0.82 0.015 250)",
    outline: dark ? "#ffffff" : "#0b1320",
    legend: [...self]
      .filter(([, value]) => value > 0)
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
      .map(([crate, value]) => ({
        crate,
        self: value,
        fill: crate === "runtime" || crate === NO_CRATE ? grey(0) : fill(hueOf.get(crate) ?? 250, 0),
      })),
  };
}

/** A hue per crate: the one its name picks or, where a heavier crate holds it, the next free one. */
function assignHues(weights: [string, number][]): Map<string, number> {
  const hues = new Map<string, number>();
  const taken = new Set<number>();
  for (const [crate] of weights.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    let slot = checksum(crate) % HUES.length;
    for (let tries = 0; tries < HUES.length && taken.has(slot); tries++) slot = (slot + 1) % HUES.length;
    taken.add(slot);
    hues.set(crate, HUES[slot]!);
  }
  return hues;
}

function checksum(text: string): number {
  let hash = 5381;
  for (let i = 0; i < Math.min(text.length, 256); i++)
    hash = (Math.imul(hash, 33) ^ text.charCodeAt(i)) >>> 0;
  return hash;
}
