// What is told of a frame, in the tooltip and aloud.

import { formatShare, formatValue } from "../format.ts";
import { shareInterval } from "../stats.ts";
import { barLabel } from "./labels.ts";
import { displayName } from "./names.ts";
import { sourceOf, type Source, type Sources } from "./source.ts";
import { childrenEnd, depthOf, type FlameTree } from "./tree.ts";

export interface Facts {
  name: string;
  /** Under the name. */
  notes: string[];
  /** Term, value and share. */
  rows: [string, string, string][];
  /** How sure the numbers are. */
  certainty: string;
  /** All of it in a sentence. */
  spoken: string;
}

/** What a graph's numbers stand for. */
export interface Measure {
  /** "span", "trace", … */
  subject: string;
  unit: string;
  /** Value of the whole subject; a graph of a part of it has a smaller root. */
  whole: number;
  /** Samples behind the whole, 0 if unknown. */
  samples: number;
  sources: Sources | undefined;
}

/** What is told of a bar. */
export function factsOf(tree: FlameTree, bar: number, measure: Measure): Facts {
  const { subject, unit, whole, samples } = measure;
  const total = tree.total[bar]!;
  const self = tree.self[bar]!;
  const share = total / whole;
  const folded = tree.folded.get(bar);
  const source =
    folded || bar === 0 ? undefined : measure.sources && sourceOf(measure.sources, tree.name[bar]!);
  const notes: string[] = [];
  if (folded) notes.push(`${folded.functions} folded ${folded.functions === 1 ? "function" : "functions"}`);
  if (source) notes.push(sourceText(source));
  const callees = childrenEnd(tree, bar) - tree.firstChild[bar]!;
  return {
    name: barLabel(tree, bar),
    notes,
    rows: [
      ["Total", formatValue(total, unit), formatShare(share)],
      ["Self", formatValue(self, unit), formatShare(self / whole)],
    ],
    certainty: share < 1 && samples > 0 ? certainty(share, samples) : "",
    spoken:
      `${barLabel(tree, bar, 200)}: ${formatShare(share)} of the ${subject}, total ${formatValue(total, unit)}, ` +
      `self ${formatValue(self, unit)}, level ${tree.level[bar]! + 1} of ${depthOf(tree)}, ` +
      `${callees === 0 ? "calls nothing" : callees === 1 ? "1 callee" : `${callees} callees`}`,
  };
}

/** `src/pay.rs:42, inlined`. */
export function sourceText({ file, line, inlined }: Source): string {
  const place = file === "" ? "" : `${displayName(file, 160)}${line > 0 ? `:${line}` : ""}`;
  const how = inlined === 0 ? "" : inlined > 0.9995 ? "inlined" : `inlined in ${formatShare(inlined)}`;
  return [place, how].filter((part) => part !== "").join(", ");
}

/** The 95 % interval of a share as text, "" where there is nothing to say. */
export function intervalText(share: number, samples: number): string {
  if (samples <= 0 || share >= 1) return "";
  const { low, high } = shareInterval(share, samples);
  return `${formatShare(low).replace("%", "")}–${formatShare(high)}`;
}

function certainty(share: number, samples: number): string {
  const { low, high } = shareInterval(share, samples);
  const seen = Math.round(share * samples);
  return `about ${seen} of ${samples} samples; 95% sure of ${formatShare(low)} to ${formatShare(high)}`;
}
