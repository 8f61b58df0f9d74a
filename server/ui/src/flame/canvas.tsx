// The canvas flame graph as a component: feeds a `FlameView`, shows its tooltip, and says aloud where the keyboard is.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { formatShare, formatValue } from "../format.ts";
import { shareInterval } from "../stats.ts";
import { barLabel } from "./labels.ts";
import { childrenEnd, depthOf, type FlameTree } from "./tree.ts";
import { FlameView, type FlameModel } from "./view.ts";

interface Props {
  model: FlameModel;
  unit: string;
  /** Samples behind the whole graph. */
  samples: number;
  /** What the graph shows, in words, for those who cannot see it. */
  description: string;
  onZoom: (bar: number) => void;
  onFocus: (bar: number) => void;
  onCopy: (bar: number) => void;
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
  const { model, unit, samples } = props;

  useLayoutEffect(() => {
    const elements = { scroller: scroller.current!, spacer: spacer.current!, canvas: canvas.current! };
    view.current = new FlameView(elements, {
      onZoom: (bar) => latest.current.onZoom(bar),
      onHover: (bar, x, y) => setHover(bar < 0 ? undefined : { tree: latest.current.model.tree, bar, x, y }),
      onFocus: (bar) => {
        latest.current.onFocus(bar);
        if (bar >= 0) setSpoken(speech(latest.current, bar));
      },
      onCopy: (bar) => latest.current.onCopy(bar),
    });
    return () => view.current?.destroy();
  }, []);
  useLayoutEffect(
    () => view.current?.show(model),
    [model.tree, model.palette, model.matches, model.zoomed, model.flipped],
  );
  // What was under the pointer may have moved away with the zoom.
  useEffect(() => setHover(undefined), [model.tree, model.zoomed, model.flipped]);

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
            aria-describedby="flame-keys"
          />
        </div>
      </div>
      <p id="flame-keys" class="hint">
        <kbd>←</kbd> <kbd>↑</kbd> <kbd>→</kbd> <kbd>↓</kbd> move between frames, <kbd>Enter</kbd> zooms,{" "}
        <kbd>Backspace</kbd> zooms out, <kbd>Esc</kbd> resets, <kbd>C</kbd> copies the name, <kbd>/</kbd>{" "}
        searches.
      </p>
      <div class="visually-hidden" aria-live="polite" data-testid="flame-live">
        {spoken}
      </div>
      {hover && hover.tree === model.tree && <Tooltip hover={hover} unit={unit} samples={samples} />}
    </>
  );
}

/** A frame in words: what it is, what it costs, where it stands. */
function speech({ model, unit }: Props, bar: number): string {
  const { tree } = model;
  const callees = childrenEnd(tree, bar) - tree.firstChild[bar]!;
  const share = formatShare(tree.total[bar]! / tree.total[0]!);
  return (
    `${barLabel(tree, bar, 200)}: ${share} of the span, total ${formatValue(tree.total[bar]!, unit)}, ` +
    `self ${formatValue(tree.self[bar]!, unit)}, level ${tree.level[bar]! + 1} of ${depthOf(tree)}, ` +
    `${callees === 0 ? "calls nothing" : callees === 1 ? "1 callee" : `${callees} callees`}`
  );
}

function Tooltip({ hover, unit, samples }: { hover: Hover; unit: string; samples: number }) {
  const box = useRef<HTMLDivElement>(null);
  const { tree, bar, x, y } = hover;
  useLayoutEffect(() => {
    const element = box.current!;
    const { width, height } = element.getBoundingClientRect();
    const left = Math.max(8, Math.min(x + 14, innerWidth - width - 8));
    const top = y + 18 + height > innerHeight - 8 ? Math.max(8, y - height - 12) : y + 18;
    element.style.left = `${left}px`;
    element.style.top = `${top}px`;
  });
  const share = tree.total[bar]! / tree.total[0]!;
  const folded = tree.folded.get(bar);
  return (
    <div class="tooltip" ref={box} aria-hidden="true">
      <div class="name">{barLabel(tree, bar)}</div>
      {folded && (
        <div class="quiet">
          {folded.functions} folded {folded.functions === 1 ? "function" : "functions"}
        </div>
      )}
      <dl>
        <dt>Total</dt>
        <dd>{formatValue(tree.total[bar]!, unit)}</dd>
        <dd>{formatShare(share)}</dd>
        <dt>Self</dt>
        <dd>{formatValue(tree.self[bar]!, unit)}</dd>
        <dd>{formatShare(tree.self[bar]! / tree.total[0]!)}</dd>
      </dl>
      {bar !== 0 && samples > 0 && <div class="quiet">{certainty(share, samples)}</div>}
    </div>
  );
}

function certainty(share: number, samples: number): string {
  const { low, high } = shareInterval(share, samples);
  const seen = Math.round(share * samples);
  return `about ${seen} of ${samples} samples; 95% sure of ${formatShare(low)} to ${formatShare(high)}`;
}
