// One side of a comparison: what a selection stands for on the server, and how people name it.

import { costOfSpans, explain, fetchSpan, fetchSpans, type SpanSummary } from "./api.ts";
import { type StackTraces } from "./querier.ts";
import { displayName } from "./flame/names.ts";
import { formatInterval } from "./format.ts";
import { parseId } from "./ids.ts";
import { CPU_TYPE, labelSelector, parseSelection, pathOf, stackTraces, type Selection } from "./selection.ts";

export interface ResolvedSide {
  request: StackTraces;
  samples: number;
  title: string;
  detail: string;
  path: string;
}

/** Spans that stand for the typical one at most. */
const MAX_TYPICAL = 50;
/** Spans whose CPU time tells what is typical at most. */
const MAX_RANKED = 1000;

/** Asks the server what a side is; `other` is not compared with itself. */
export async function resolveSide(
  side: Selection,
  other: Selection,
  type: string,
  signal: AbortSignal,
): Promise<ResolvedSide> {
  const { span, trace, service, name, from, until } = side;
  const path = pathOf(side);
  const request = stackTraces(side, type);
  if (span !== undefined) {
    const found = await fetchSpan(span, signal);
    const samples = samplesOf(found, type);
    const title = found.name === null ? `span ${span}` : displayName(found.name, 120);
    return { request, samples, title, detail: `${displayName(found.service, 80)}, span ${span}`, path };
  }
  if (side.typical) return typicalSpans(side, other, type, signal);
  const found = await explain(
    {
      ...(trace === undefined ? { selector: labelSelector(side) } : { trace }),
      ...(from === undefined ? {} : { from }),
      ...(until === undefined ? {} : { until }),
      type,
    },
    signal,
  );
  const when = from !== undefined && until !== undefined ? formatInterval(from, until) : "all that is kept";
  const title =
    trace !== undefined
      ? `trace ${trace}`
      : name === undefined
        ? displayName(service ?? "everything", 120)
        : name === ""
          ? "in no span"
          : displayName(name, 120);
  const detail = trace === undefined ? `${displayName(service ?? "", 80)}, ${when}` : "all its spans";
  return { request, samples: found.samples.inWindow, title, detail, path };
}

function samplesOf({ profileTypes }: SpanSummary, type: string): number {
  return profileTypes.find(({ id }) => id === type)?.samples ?? 0;
}

/** The spans in the middle half of an operation by CPU time, those around the median first. */
async function typicalSpans(
  side: Selection,
  other: Selection,
  type: string,
  signal: AbortSignal,
): Promise<ResolvedSide> {
  const { service, name, from, until } = side;
  const spans = await fetchSpans({ service, name, from, until, limit: MAX_RANKED }, signal);
  const ids = middle(spans.map(({ spanId }) => spanId).filter((id) => id !== other.span));
  const counts =
    type === CPU_TYPE && ids.length > 0
      ? (await costOfSpans(ids, signal)).map((each) => each.samples)
      : await Promise.all(ids.map(async (id) => samplesOf(await fetchSpan(id, signal), type)));
  const samples = counts.reduce((sum, each) => sum + each, 0);
  return {
    // Without any id the request would select everything; an id of no span selects nothing.
    request: { ...stackTraces({}, type), spanSelector: ids.length === 0 ? ["ffffffffffffffff"] : ids },
    samples,
    title: `typical ${displayName(name ?? "spans", 100)}`,
    detail:
      ids.length === 0
        ? "there is no other span of this operation"
        : `${ids.length} ${ids.length === 1 ? "span" : "spans"} from the middle half by CPU time`,
    path: pathOf({ ...(service === undefined ? {} : { service }), ...(name === undefined ? {} : { name }) }),
  };
}

/** The middle half of a sorted list, cut to the most that count around its middle. */
export function middle<Item>(sorted: readonly Item[], most = MAX_TYPICAL): Item[] {
  const size = Math.min(most, Math.max(1, Math.ceil(sorted.length / 2)));
  const first = Math.floor((sorted.length - size) / 2);
  return sorted.slice(Math.max(0, first), Math.max(0, first) + size);
}

/** Reads what people paste for a side: an id, or the address of a page here. */
export function selectionFromText(text: string): Selection | string {
  const pasted = text.trim();
  const page = /(?:^|\/)(span|trace)\/([0-9a-fA-F]+)(?:[?#]|$)/.exec(pasted);
  const listed = /(?:^|\/)(?:operation|services)\?([^#]*)/.exec(pasted);
  if (listed) {
    const selection = parseSelection(listed[1]!);
    return selection ?? "This address names no service and no operation.";
  }
  const parsed = parseId(page ? page[2]! : pasted);
  if (parsed.kind === "invalid") {
    return pasted.includes("/") || pasted.includes("?")
      ? "This is no address of a span, a trace, a service or an operation."
      : parsed.message;
  }
  return parsed.kind === "span" ? { span: parsed.id } : { trace: parsed.id };
}
