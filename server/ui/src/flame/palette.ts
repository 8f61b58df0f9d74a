// Colours: one hue per crate, chosen by the crate's name so that a crate looks the same in every span; runtime crates and
// the root are grey, code without a crate is a bluish grey. Text on a bar keeps a contrast of at least 4.5:1 in both themes.

import type { FlameTree } from "./tree.ts";

/** Hues (degrees, OKLCH) far enough apart to be told from each other. */
const HUES = [47, 250, 155, 345, 85, 300, 200, 20, 125, 275, 175, 65, 225, 325];

export interface Palette {
  /** Fill of the bars of a function, by the index of its name. */
  fillOf: (name: number) => string;
  /** Fill of every bar that a search did not find. */
  faded: string;
  text: string;
  fadedText: string;
  match: string;
  matchText: string;
  strip: string;
  outline: string;
  /** Crates by self value, heaviest first. */
  legend: { crate: string; fill: string; self: number }[];
}

/** Name of the legend's entry for code outside of any Rust crate. */
export const NO_CRATE = "no crate";

/** Name of the legend's entry for the runtime, folded or not. */
export const RUNTIME = "runtime";

const STEPS = [-0.024, -0.012, 0, 0.012, 0.024];
const MIDDLE = 2;

/** Chooses colours for a tree. */
export function paletteFor(tree: FlameTree, dark: boolean): Palette {
  const { list, of, runtime } = tree.crates;
  // What the legend tells apart: code in no crate, each crate, the runtime.
  const entries = [NO_CRATE, ...list.slice(1), RUNTIME];
  const last = entries.length - 1;
  const self = new Float64Array(entries.length);
  const weight = new Float64Array(entries.length);
  for (let bar = 1; bar < tree.size; bar++) {
    const name = tree.name[bar]!;
    const entry = runtime[name] ? last : of[name]!;
    self[entry]! += tree.self[bar]!;
    weight[entry]! += tree.total[bar]!;
  }
  const used = entries.map((crate, entry): [string, number] => [crate, weight[entry]!]);
  const shades = shadesOf(
    used.filter(([, value]) => value > 0),
    dark,
  );
  const shadesByEntry = entries.map((crate) => shades.get(crate) ?? shades.get(RUNTIME)!);
  return {
    // A small change of lightness from function to function keeps neighbours of one crate apart.
    fillOf: (name) => {
      const entry = name === 0 || runtime[name] ? last : of[name]!;
      return shadesByEntry[entry]![tree.names.fingerprint(name) % STEPS.length]!;
    },
    faded: dark ? "oklch(0.3 0.008 250)" : "oklch(0.94 0.004 250)",
    text: dark ? "#f3f5f7" : "#16191d",
    fadedText: dark ? "#9aa3ad" : "#5c6570",
    match: dark ? "oklch(0.8 0.16 85)" : "oklch(0.85 0.17 88)",
    matchText: "#1a1400",
    strip: dark ? "oklch(0.42 0.02 250)" : "oklch(0.82 0.015 250)",
    outline: dark ? "#ffffff" : "#0b1320",
    legend: entries
      .map((crate, entry): [string, number] => [crate, self[entry]!])
      .filter(([, value]) => value > 0)
      .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
      .map(([crate, value]) => ({ crate, self: value, fill: shades.get(crate)![MIDDLE]! })),
  };
}

/** Five shades for every crate: of the hue its name picks or, where a heavier crate holds it, of the next free one. */
function shadesOf(weights: [string, number][], dark: boolean): Map<string, string[]> {
  const grey = STEPS.map((step) =>
    dark ? `oklch(${0.37 + step / 2} 0.012 250)` : `oklch(${0.9 + step / 2} 0.008 250)`,
  );
  const steel = STEPS.map((step) =>
    dark ? `oklch(${0.42 + step} 0.04 250)` : `oklch(${0.87 + step} 0.035 250)`,
  );
  const shades = new Map([
    [RUNTIME, grey],
    [NO_CRATE, steel],
  ]);
  const taken = new Set<number>();
  for (const [crate] of weights.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    if (shades.has(crate)) continue;
    let slot = checksum(crate) % HUES.length;
    for (let tries = 0; tries < HUES.length && taken.has(slot); tries++) slot = (slot + 1) % HUES.length;
    taken.add(slot);
    const hue = HUES[slot]!;
    shades.set(
      crate,
      STEPS.map((step) =>
        dark ? `oklch(${0.47 + step} 0.095 ${hue})` : `oklch(${0.84 + step} 0.09 ${hue})`,
      ),
    );
  }
  return shades;
}

function checksum(text: string): number {
  let hash = 5381;
  for (let i = 0; i < Math.min(text.length, 256); i++)
    hash = (Math.imul(hash, 33) ^ text.charCodeAt(i)) >>> 0;
  return hash;
}
