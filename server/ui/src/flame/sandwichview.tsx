// A function between its callers, above, and its callees, below. Choosing a frame goes on to that frame's function.

import { useMemo } from "preact/hooks";
import { CopyButton } from "../components/copy.tsx";
import { Link } from "../components/link.tsx";
import { formatShare, formatValue } from "../format.ts";
import { FlameCanvas } from "./canvas.tsx";
import { FOLDED_NAME } from "./collapse.ts";
import { factsOf, intervalText, type Measure } from "./facts.ts";
import { barLabel } from "./labels.ts";
import { displayName } from "./names.ts";
import type { Palette } from "./palette.ts";
import { sandwich } from "./sandwich.ts";
import { nameOf, type FlameTree } from "./tree.ts";

interface Props {
  tree: FlameTree;
  name: string;
  palette: Palette;
  measure: Measure;
  inlined: Uint8Array | undefined;
  onAround: (name: string | undefined) => void;
  onCopy: (name: string, label: string) => void;
  requests: string | undefined;
}

export function SandwichView({ tree, name, palette, measure, inlined, onAround, onCopy, requests }: Props) {
  const halves = useMemo(() => sandwich(tree, name), [tree, name]);
  const shownName = displayName(name, 240);
  const total = halves?.callees.total[0] ?? 0;
  const share = total / measure.whole;
  const interval = intervalText(share, measure.samples);
  const half = (part: FlameTree, flipped: boolean, title: string) => (
    <section aria-label={title}>
      <h2>{title}</h2>
      <FlameCanvas
        model={{ tree: part, palette, inlined, matches: undefined, zoomed: 0, flipped }}
        facts={(bar) => factsOf(part, bar, measure)}
        goesOn
        description={`${title} of ${shownName}`}
        onZoom={(bar) => {
          const next = nameOf(part, bar);
          if (bar !== 0 && next !== FOLDED_NAME) onAround(next);
        }}
        onFocus={() => {}}
        onCopy={(bar) => onCopy(nameOf(part, bar), barLabel(part, bar, 80))}
      />
    </section>
  );
  return (
    <div class="sandwich" data-testid="sandwich">
      <div class="readout">
        <span class="name">{shownName}</span>
        <CopyButton text={name} what="function name" />
        {halves && (
          <span class="numbers">
            <b>{formatShare(share)}</b> of {measure.subject}
            {interval !== "" && ` (95%: ${interval})`} · total {formatValue(total, measure.unit)} · self{" "}
            {formatValue(halves.callees.self[0]!, measure.unit)}
          </span>
        )}
        <span class="spring" />
        {requests !== undefined && <Link to={requests}>Requests</Link>}
        <button type="button" onClick={() => onAround(undefined)}>
          Whole graph
        </button>
      </div>
      {halves ? (
        <>
          {half(halves.callers, true, "Callers")}
          {half(halves.callees, false, "Callees")}
        </>
      ) : (
        <p class="empty">
          This function does not occur here. It may be one of the runtime frames that are folded: unfold them
          to see it.
        </p>
      )}
    </div>
  );
}
