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
  const { tree, view, ratio } = scene;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, view.width, scene.height);
  context.font = FONT;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.direction = "ltr";
  const zoomLevel = tree.level[scene.zoomed]!;
  // The callers of what is zoomed stand back.
  paintLevels(context, scene, 0, zoomLevel, 0.6);
  paintLevels(context, scene, zoomLevel, depthOf(tree), 1);
  if (scene.hovered >= 0) outline(context, scene, scene.hovered, 1);
  if (scene.focused >= 0) outline(context, scene, scene.focused, 2);
}

/** Paints some levels, what has one colour together: the browser reads a colour anew whenever it changes. */
function paintLevels(
  context: CanvasRenderingContext2D,
  scene: Scene,
  first: number,
  end: number,
  alpha: number,
): void {
  const { tree, palette, view } = scene;
  const character = context.measureText("M").width;
  /** Left edge, top edge and width of boxes, by fill. */
  const boxes = new Map<string, number[]>();
  const inlined: number[] = [];
  /** By colour. */
  const texts = new Map<string, { label: string; x: number; top: number; width: number }[]>();

  for (let level = first; level < end; level++) {
    const top = levelTop(tree, level, scene.flipped) - scene.scrollTop;
    if (top + ROW <= 0 || top >= scene.height) continue;
    visitLevel(tree, level, view, {
      strip(x, width) {
        listOf(boxes, palette.strip).push(x, top, width);
      },
      bar(bar, x, width) {
        const name = tree.name[bar]!;
        const matches = scene.matches?.[bar] === 1;
        const faded = scene.matches !== undefined && !matches;
        const fill = matches
          ? palette.match
          : faded
            ? palette.faded
            : (scene.fills?.[bar] ?? palette.fillOf(name));
        // The gap between bars goes before the last pixel of a narrow one does.
        const filled = width > 3 ? width - 1 : width;
        listOf(boxes, fill).push(x, top, filled);
        if (scene.inlined?.[name] === 1) inlined.push(x, top, filled);
        const room = width - 2 * PADDING;
        const label = room < character ? "" : scene.labels.fit(bar, Math.floor(room / character));
        if (label === "") return;
        const colour = matches ? palette.matchText : faded ? palette.fadedText : palette.text;
        listOf(texts, colour).push({ label, x: x + PADDING, top, width: room });
      },
    });
  }

  context.globalAlpha = alpha;
  for (const [fill, list] of boxes) fillBoxes(context, fill, list, 0, ROW - 1);
  context.globalAlpha = 0.45;
  fillBoxes(context, palette.text, inlined, ROW - 3, 2);
  context.globalAlpha = 1;
  for (const [colour, labels] of texts) {
    context.fillStyle = colour;
    for (const { label, x, top, width } of labels) context.fillText(label, x, top + ROW / 2, width);
  }
}

function fillBoxes(
  context: CanvasRenderingContext2D,
  fill: string,
  boxes: readonly number[],
  down: number,
  height: number,
): void {
  context.fillStyle = fill;
  for (let at = 0; at < boxes.length; at += 3)
    context.fillRect(boxes[at]!, boxes[at + 1]! + down, boxes[at + 2]!, height);
}

function listOf<Item>(lists: Map<string, Item[]>, key: string): Item[] {
  let list = lists.get(key);
  if (!list) lists.set(key, (list = []));
  return list;
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
