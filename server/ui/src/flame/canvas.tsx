// The canvas flame graph as a component: feeds a `FlameView`, shows its tooltip, and says aloud where the keyboard is.

import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Facts } from "./facts.ts";
import type { FlameTree } from "./tree.ts";
import { FlameView, type FlameModel } from "./view.ts";

interface Props {
  model: FlameModel;
  /** What is told of a bar. */
  facts: (bar: number) => Facts;
  /** What the graph shows, in words, for those who cannot see it. */
  description: string;
  onZoom: (bar: number) => void;
  onFocus: (bar: number) => void;
  onCopy: (bar: number) => void;
  /** Whether a choice leads to the frame's function instead of zooming. */
  goesOn?: boolean;
  /** The user asked for the callers and callees of a bar's function. */
  onAround?: (bar: number) => void;
}

interface Hover {
  tree: FlameTree;
  bar: number;
  x: number;
  y: number;
}

export function FlameCanvas(props: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const spacer = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const view = useRef<FlameView | undefined>(undefined);
  const latest = useRef(props);
  latest.current = props;
  const [hover, setHover] = useState<Hover>();
  const [spoken, setSpoken] = useState("");
  const keys = useId();
  const { model } = props;

  useLayoutEffect(() => {
    const elements = { scroller: scroller.current!, spacer: spacer.current!, canvas: canvas.current! };
    view.current = new FlameView(elements, {
      onZoom: (bar) => latest.current.onZoom(bar),
      onHover: (bar, x, y) => setHover(bar < 0 ? undefined : { tree: latest.current.model.tree, bar, x, y }),
      onFocus: (bar) => {
        latest.current.onFocus(bar);
        if (bar >= 0) setSpoken(latest.current.facts(bar).spoken);
      },
      onCopy: (bar) => latest.current.onCopy(bar),
      onAround: (bar) => latest.current.onAround?.(bar),
    });
    return () => view.current?.destroy();
  }, []);
  useLayoutEffect(
    () => view.current?.show(model),
    [model.tree, model.palette, model.fills, model.inlined, model.matches, model.zoomed, model.flipped],
  );

  return (
    <>
      <div class="flame-scroll" ref={scroller}>
        <div ref={spacer}>
          <canvas
            ref={canvas}
            class="flame-canvas"
            tabIndex={0}
            role="application"
            aria-roledescription="flame graph"
            aria-label={props.description}
            aria-describedby={keys}
          />
        </div>
      </div>
      <p id={keys} class="hint">
        <kbd>←</kbd> <kbd>↑</kbd> <kbd>→</kbd> <kbd>↓</kbd> move between frames,{" "}
        {props.goesOn ? (
          <>
            <kbd>Enter</kbd> goes on to that function,{" "}
          </>
        ) : (
          <>
            <kbd>Enter</kbd> zooms, <kbd>Backspace</kbd> zooms out, <kbd>Esc</kbd> resets,{" "}
          </>
        )}
        {props.onAround && (
          <>
            <kbd>S</kbd> shows callers and callees, <kbd>/</kbd> searches,{" "}
          </>
        )}
        <kbd>C</kbd> copies the name.
      </p>
      <div class="visually-hidden" aria-live="polite" data-testid="flame-live">
        {spoken}
      </div>
      {hover && hover.tree === model.tree && <Tooltip hover={hover} facts={props.facts(hover.bar)} />}
    </>
  );
}

function Tooltip({ hover: { x, y }, facts }: { hover: Hover; facts: Facts }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = box.current!;
    const { width, height } = element.getBoundingClientRect();
    const left = Math.max(8, Math.min(x + 14, innerWidth - width - 8));
    const top = y + 18 + height > innerHeight - 8 ? Math.max(8, y - height - 12) : y + 18;
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
  });
  return (
    <div class="tooltip" ref={box} aria-hidden="true">
      <div class="name">{facts.name}</div>
      {facts.notes.map((note) => (
        <div key={note} class="quiet name-plain">
          {note}
        </div>
      ))}
      <dl>
        {facts.rows.map(([term, value, share]) => (
          <>
            <dt>{term}</dt>
            <dd>{value}</dd>
            <dd>{share}</dd>
          </>
        ))}
      </dl>
      {facts.certainty !== "" && <div class="quiet">{facts.certainty}</div>}
    </div>
  );
}
