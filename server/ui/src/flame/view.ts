// The canvas flame graph: owns the canvas, its size, its scrolling and its input, and reports what the user did. It keeps
// no state of its own that matters to a link: the zoomed bar comes in through `show` and goes out through `onZoom`.

import { levelTop, paint, type Scene } from "./draw.ts";
import { Labels } from "./labels.ts";
import { barAt, heaviestChild, neighbour, ROW, type Viewport } from "./layout.ts";
import type { Palette } from "./palette.ts";
import { depthOf, type FlameTree } from "./tree.ts";

/** What to show. */
export interface FlameModel {
  tree: FlameTree;
  palette: Palette;
  /** Fills by bar, where the palette's by name do not say it. */
  fills?: readonly string[];
  /** 1 for names of functions that are mostly inlined. */
  inlined?: Uint8Array | undefined;
  matches: Uint8Array | undefined;
  zoomed: number;
  flipped: boolean;
}

export interface FlameEvents {
  /** The user chose a bar to zoom to; 0 resets. */
  onZoom(bar: number): void;
  /** The pointer is over a bar, at that place in the window, or (-1) over none. */
  onHover(bar: number, x: number, y: number): void;
  /** The keyboard moved to a bar, or (-1) left the graph. */
  onFocus(bar: number): void;
  /** The user asked for a bar's name. */
  onCopy(bar: number): void;
  /** The user asked for a bar's callers and callees. */
  onAround(bar: number): void;
}

/** The elements the view works in: a scrolling box, in it a spacer as high as the graph, in it a sticky canvas. */
export interface FlameElements {
  scroller: HTMLElement;
  spacer: HTMLElement;
  canvas: HTMLCanvasElement;
}

const ZOOM_MS = 160;

export class FlameView {
  readonly #elements: FlameElements;
  readonly #events: FlameEvents;
  readonly #context: CanvasRenderingContext2D;
  readonly #resize: ResizeObserver;
  readonly #listeners = new AbortController();
  #model: FlameModel | undefined;
  #labels: Labels | undefined;
  #view: Viewport = { from: 0, to: 1, width: 0 };
  #animation: { from: Viewport; began: number } | undefined;
  #height = 0;
  /** Where in the window the pointer is, while it is over the canvas. */
  #pointer: { x: number; y: number } | undefined;
  #hovered = -1;
  #focused = -1;
  #frame = 0;

  constructor(elements: FlameElements, events: FlameEvents) {
    const context = elements.canvas.getContext("2d");
    if (!context) throw new Error("this browser draws no 2D canvas");
    this.#elements = elements;
    this.#events = events;
    this.#context = context;
    this.#resize = new ResizeObserver(() => this.#measure());
    this.#resize.observe(elements.scroller);
    this.#listen();
  }

  /** Shows a model; a change of the zoomed bar is animated. */
  show(model: FlameModel): void {
    const before = this.#model;
    this.#model = model;
    if (before?.tree !== model.tree) {
      this.#labels = new Labels(model.tree);
      this.#focused = -1;
    }
    this.#elements.spacer.style.height = `${depthOf(model.tree) * ROW}px`;
    this.#measure();
    const isMove = before?.tree === model.tree && before.zoomed !== model.zoomed;
    // What was under the pointer moves away; `#draw` tells what came to it.
    if (isMove || before?.tree !== model.tree || before.flipped !== model.flipped) this.#hover(-1);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.#animation = isMove && !calm ? { from: { ...this.#view }, began: performance.now() } : undefined;
    if (before?.tree !== model.tree || before.flipped !== model.flipped) {
      this.#elements.scroller.scrollTop = model.flipped ? this.#elements.scroller.scrollHeight : 0;
    }
    if (isMove) this.#reveal(model.zoomed);
    this.#schedule();
  }

  /** Frees the listeners; the view must not be used afterwards. */
  destroy(): void {
    this.#listeners.abort();
    this.#resize.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  #measure(): void {
    const { scroller, canvas } = this.#elements;
    const width = scroller.clientWidth;
    const height = scroller.clientHeight;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.#view.width = width;
    this.#height = height;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame((now) => {
      this.#frame = 0;
      this.#draw(now);
    });
  }

  #draw(now: number): void {
    const model = this.#model;
    if (!model || this.#view.width === 0) return;
    const target = this.#target(model);
    if (this.#animation) {
      const progress = Math.min(1, Math.max(0, now - this.#animation.began) / ZOOM_MS);
      const eased = 1 - (1 - progress) ** 3;
      const { from } = this.#animation;
      this.#view.from = from.from + (target.from - from.from) * eased;
      this.#view.to = from.to + (target.to - from.to) * eased;
      if (progress === 1) this.#animation = undefined;
      else this.#schedule();
    } else {
      this.#view = target;
    }
    if (!this.#animation && this.#pointer) this.#hover(this.#hit(this.#pointer));
    paint(this.#context, this.#scene(model));
  }

  #scene(model: FlameModel): Scene {
    return {
      tree: model.tree,
      palette: model.palette,
      fills: model.fills,
      inlined: model.inlined,
      labels: (this.#labels ??= new Labels(model.tree)),
      view: this.#view,
      height: this.#height,
      scrollTop: this.#elements.scroller.scrollTop,
      flipped: model.flipped,
      matches: model.matches,
      zoomed: model.zoomed,
      hovered: this.#hovered,
      focused: this.#focused,
      ratio: devicePixelRatio || 1,
    };
  }

  #target(model: FlameModel): Viewport {
    const from = model.tree.start[model.zoomed]!;
    return { from, to: from + model.tree.total[model.zoomed]!, width: this.#view.width };
  }

  #hit({ x, y }: { x: number; y: number }): number {
    const model = this.#model;
    if (!model) return -1;
    const box = this.#elements.canvas.getBoundingClientRect();
    const row = Math.floor((y - box.top + this.#elements.scroller.scrollTop) / ROW);
    const level = model.flipped ? depthOf(model.tree) - 1 - row : row;
    const share = (x - box.left) / this.#view.width;
    return barAt(model.tree, level, this.#view.from + share * (this.#view.to - this.#view.from));
  }

  #listen(): void {
    const { canvas, scroller } = this.#elements;
    const options = { signal: this.#listeners.signal };
    canvas.addEventListener(
      "pointermove",
      ({ clientX: x, clientY: y }) => {
        this.#pointer = { x, y };
        // While bars move, what is under the pointer is nothing that can be read.
        if (!this.#animation) this.#hover(this.#hit(this.#pointer), true);
      },
      options,
    );
    canvas.addEventListener(
      "pointerleave",
      () => {
        this.#pointer = undefined;
        this.#hover(-1);
      },
      options,
    );
    canvas.addEventListener(
      "click",
      (event) => {
        const bar = this.#hit({ x: event.clientX, y: event.clientY });
        if (bar < 0) return;
        this.#focused = -1;
        this.#events.onZoom(bar);
      },
      options,
    );
    canvas.addEventListener("keydown", (event) => this.#key(event), options);
    canvas.addEventListener(
      "focus",
      () => {
        // A click focuses too; only the keyboard needs to be told where it stands.
        if (canvas.matches(":focus-visible") && this.#model) this.#focus(this.#model.zoomed);
      },
      options,
    );
    canvas.addEventListener("blur", () => this.#focus(-1), options);
    scroller.addEventListener("scroll", () => this.#schedule(), { ...options, passive: true });
  }

  /** The pointer is over `bar` now; `moved` if it went there rather than the bar to it. */
  #hover(bar: number, moved = false): void {
    if (bar === this.#hovered && !moved) return;
    this.#hovered = bar;
    this.#elements.canvas.classList.toggle("over-bar", bar >= 0);
    this.#events.onHover(bar, this.#pointer?.x ?? 0, this.#pointer?.y ?? 0);
    this.#schedule();
  }

  #focus(bar: number): void {
    if (bar === this.#focused) return;
    this.#focused = bar;
    if (bar >= 0) this.#reveal(bar);
    this.#events.onFocus(bar);
    this.#schedule();
  }

  #key(event: KeyboardEvent): void {
    const model = this.#model;
    if (!model || event.ctrlKey || event.metaKey || event.altKey) return;
    const { tree, zoomed } = model;
    const at = this.#focused < 0 ? zoomed : this.#focused;
    const callee = heaviestChild(tree, at);
    const caller = Math.max(0, tree.parent[at]!);
    switch (event.key) {
      case "ArrowDown":
        this.#focus(model.flipped ? caller : callee);
        break;
      case "ArrowUp":
        this.#focus(model.flipped ? callee : caller);
        break;
      case "ArrowLeft":
        this.#focus(neighbour(tree, at, -1, this.#target(model)));
        break;
      case "ArrowRight":
        this.#focus(neighbour(tree, at, 1, this.#target(model)));
        break;
      case "Enter":
      case " ":
        this.#events.onZoom(at);
        break;
      case "Backspace":
        this.#events.onZoom(Math.max(0, tree.parent[zoomed]!));
        break;
      case "Home":
      case "Escape":
        this.#focus(0);
        this.#events.onZoom(0);
        break;
      case "c":
        this.#events.onCopy(at);
        break;
      case "s":
        this.#events.onAround(at);
        break;
      default:
        return;
    }
    event.preventDefault();
  }

  #reveal(bar: number): void {
    const model = this.#model;
    if (!model) return;
    const { scroller } = this.#elements;
    const top = levelTop(model.tree, model.tree.level[bar]!, model.flipped);
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW > scroller.scrollTop + scroller.clientHeight)
      scroller.scrollTop = top + ROW - scroller.clientHeight;
  }
}
