// Finds frames on the canvas from outside: decodes the answer that the page got and computes where a frame has to lie.

import type { Page } from "playwright-core";
import { collapse } from "../../src/flame/collapse.ts";
import { ROW } from "../../src/flame/layout.ts";
import { nameOf, type FlameTree } from "../../src/flame/tree.ts";
import { decoded } from "./answer.ts";

/** The graph as the page shows it: folded or not. */
export async function graphOf(server: string, spanId: string, isFolded = true): Promise<FlameTree> {
  const response = await fetch(`${server}/api/v1/spans/${spanId}/profile?maxNodes=50000`);
  const full = decoded(((await response.json()) as { flamegraph: object }).flamegraph);
  if (!full) throw new Error(`no graph for ${spanId}`);
  return isFolded ? collapse(full).tree : full;
}

/** The widest bar of a function. */
export function barOf(tree: FlameTree, name: string): number {
  let best = -1;
  for (let bar = 0; bar < tree.size; bar++) {
    if (nameOf(tree, bar) === name && (best < 0 || tree.total[bar]! > tree.total[best]!)) best = bar;
  }
  if (best < 0) throw new Error(`no bar of ${name}`);
  return best;
}

/** The middle of a bar on the canvas, in CSS pixels from its corner, for an icicle that is not zoomed or scrolled. */
export async function pointOf(page: Page, tree: FlameTree, bar: number): Promise<{ x: number; y: number }> {
  const box = await canvas(page).boundingBox();
  const middle = (tree.start[bar]! + tree.total[bar]! / 2) / tree.total[0]!;
  return { x: middle * (box?.width ?? 0), y: tree.level[bar]! * ROW + ROW / 2 };
}

export function canvas(page: Page) {
  return page.locator("canvas");
}

/** The fill of a bar as [red, green, blue], read beside its text. */
export async function fillOf(page: Page, tree: FlameTree, bar: number): Promise<number[]> {
  const share = tree.start[bar]! / tree.total[0]!;
  const top = tree.level[bar]! * ROW + 2;
  return canvas(page).evaluate(
    (element, { share, top }) => {
      const canvas = element as HTMLCanvasElement;
      const x = Math.round(share * canvas.width + 2 * devicePixelRatio);
      const { data } = canvas.getContext("2d")!.getImageData(x, Math.round(top * devicePixelRatio), 1, 1);
      return [...data].slice(0, 3);
    },
    { share, top },
  );
}
