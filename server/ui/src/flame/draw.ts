// Paints one frame of the flame graph on a 2D context. Names reach the canvas through `fillText` only, where no markup
// means anything.

import type { Labels } from "./labels.ts";
import { ROW, visitLevel, type Viewport } from "./layout.ts";
import type { Palette } from "./palette.ts";
import { depthOf, type FlameTree } from "./tree.ts";

/** Everything a frame depends on. */
export interface Scene {
  tree: FlameTree;
  palette: Palette;
  /** Fills by bar in place of the palette's. */
  fills: readonly string[] | undefined;
  /** 1 for names of functions that are mostly inlined: their bars have a line along the lower edge. */
  inlined: Uint8Array | undefined;
  labels: Labels;
  view: Viewport;
  /** CSS pixels of the canvas. */
  height: number;
  scrollTop: number;
  /** Root at the bottom. */
  flipped: boolean;
  /** Bars that a search found; undefined without a search. */
  matches: Uint8Array | undefined;
  zoomed: number;
  hovered: number;
  focused: number;
  ratio: number;
}

export const FONT = '12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace';
const PADDING = 5;

/** Top edge of a level in CSS pixels, before scrolling. */
export function levelTop(tree: FlameTree, level: number, flipped: boolean): number {
  return (flipped ? depthOf(tree) - 1 - level : level) * ROW;
}

/** Paints the scene. */
export function paint(context: CanvasRenderingContext2D, scene: Scene): void {
  const { tree, palette, view, ratio } = scene;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, view.width, scene.height);
  context.font = FONT;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.direction = "ltr";
  const character = context.measureText("M").width;
  const zoomLevel = tree.level[scene.zoomed]!;

  for (let level = 0; level < depthOf(tree); level++) {
    const top = levelTop(tree, level, scene.flipped) - scene.scrollTop;
    if (top + ROW <= 0 || top >= scene.height) continue;
    visitLevel(tree, level, view, {
      strip(x, width) {
        context.fillStyle = palette.strip;
        context.fillRect(x, top, width, ROW - 1);
      },
      bar(bar, x, width) {
        const name = tree.name[bar]!;
        const matches = scene.matches?.[bar] === 1;
        const faded = scene.matches !== undefined && !matches;
        context.globalAlpha = level < zoomLevel ? 0.6 : 1;
        context.fillStyle = matches
          ? palette.match
          : faded
            ? palette.faded
            : (scene.fills?.[bar] ?? palette.fills[name]!);
        // The gap between bars goes before the last pixel of a narrow one does.
        context.fillRect(x, top, width > 3 ? width - 1 : width, ROW - 1);
        if (scene.inlined?.[name] === 1) {
          context.fillStyle = palette.text;
          context.globalAlpha = 0.45;
          context.fillRect(x, top + ROW - 3, width > 3 ? width - 1 : width, 2);
        }
        context.globalAlpha = 1;
        const label = scene.labels.fit(bar, Math.floor((width - 2 * PADDING) / character));
        if (label !== "") {
          context.fillStyle = matches ? palette.matchText : faded ? palette.fadedText : palette.text;
          context.fillText(label, x + PADDING, top + ROW / 2, width - 2 * PADDING);
        }
      },
    });
  }
  if (scene.hovered >= 0) outline(context, scene, scene.hovered, 1);
  if (scene.focused >= 0) outline(context, scene, scene.focused, 2);
}

function outline(context: CanvasRenderingContext2D, scene: Scene, bar: number, line: number): void {
  const { tree, view } = scene;
  const scale = view.width / (view.to - view.from);
  const left = Math.max(0, (tree.start[bar]! - view.from) * scale);
  const right = Math.min(view.width, (tree.start[bar]! + tree.total[bar]! - view.from) * scale);
  if (right <= left) return;
  const top = levelTop(tree, tree.level[bar]!, scene.flipped) - scene.scrollTop;
  context.strokeStyle = scene.palette.outline;
  context.lineWidth = line;
  const width = Math.max(right - left - 1, 2);
  context.strokeRect(left + line / 2, top + line / 2, Math.max(width - line, 1), ROW - 1 - line);
}
