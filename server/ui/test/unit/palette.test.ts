import assert from "node:assert/strict";
import { test } from "node:test";
import { NO_CRATE, paletteFor, RUNTIME } from "../../src/flame/palette.ts";
import { treeOf } from "../support/answer.ts";
import { randomFrom } from "../support/random.ts";
import { randomStacks } from "../support/stacks.ts";

/** Relative luminance (WCAG) of `oklch(L C H)` or `#rrggbb`. */
function luminance(colour: string): number {
  let linear: number[];
  const oklch = /^oklch\(([\d.]+) ([\d.]+) ([\d.]+)\)$/.exec(colour);
  if (oklch) {
    const [lightness, chroma, hue] = oklch.slice(1).map(Number) as [number, number, number];
    const a = chroma * Math.cos((hue * Math.PI) / 180);
    const b = chroma * Math.sin((hue * Math.PI) / 180);
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    linear = [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ];
  } else {
    linear = [1, 3, 5].map((at) => {
      const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
  }
  const [red, green, blue] = linear.map((value) => Math.min(1, Math.max(0, value))) as [
    number,
    number,
    number,
  ];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const manyCrates = Array.from({ length: 400 }, (_, i) => ({
  frames: [`crate${i % 60}::f${i}`, "memcpy"],
  value: 1,
}));

for (const dark of [false, true]) {
  test(`text on every bar is readable, ${dark ? "dark" : "light"}`, () => {
    const tree = treeOf(manyCrates);
    const palette = paletteFor(tree, dark);
    const fills = new Set(Array.from({ length: tree.names.length }, (_, name) => palette.fillOf(name)));
    for (const fill of fills) {
      assert.ok(contrast(fill, palette.text) >= 4.5, `${fill}: ${contrast(fill, palette.text)}`);
    }
    assert.ok(contrast(palette.faded, palette.fadedText) >= 4.5);
    assert.ok(contrast(palette.match, palette.matchText) >= 4.5);
    assert.equal(fills.size > 20, true, "crates differ");
  });
}

test("the legend sums to all self values, and a crate keeps its hue when others join", () => {
  for (let seed = 1; seed <= 50; seed++) {
    const tree = treeOf(randomStacks(randomFrom(seed)));
    const { legend } = paletteFor(tree, false);
    assert.equal(
      legend.reduce((sum, entry) => sum + entry.self, 0),
      tree.total[0],
    );
    for (const { crate } of legend)
      assert.ok(["app", "serde_json", RUNTIME, NO_CRATE].includes(crate), crate);
  }
  const hue = (frames: string[]) => {
    const tree = treeOf([{ frames, value: 10 }]);
    return paletteFor(tree, false).legend[0]!.fill;
  };
  assert.equal(hue(["tokio::run", "app::a"]), hue(["std::start", "serde_json::b", "app::a"]));
});
