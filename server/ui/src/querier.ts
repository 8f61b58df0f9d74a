// `querier.v1.QuerierService` as the page uses it: flame graphs in protobuf, which are large, everything else in Connect's
// JSON, where 64-bit integers are strings and absent lists are empty.

import { answerOf, bytesOf, MAX_NODES, type OwnRoute } from "./api.ts";
import { under } from "./base.ts";
import { message } from "./protobuf.ts";
import { CPU_TYPE } from "./selection.ts";

/** A request for merged stack traces, as `querier.v1` has it; times are Unix milliseconds, 0 and 0 all there is. */
export interface StackTraces {
  profileTypeID: string;
  labelSelector: string;
  start: number;
  end: number;
  spanSelector?: string[];
  traceIdSelector?: string[];
  /** Whether spans include their descendants in the same process, which they do unless it says false. */
  rollUp?: boolean;
}

/** A request for values over time; `step` is in seconds. */
export interface OverTime {
  profileTypeID: string;
  labelSelector: string;
  start: number;
  end: number;
  step: number;
  groupBy: string[];
  limit?: number;
}

export interface Exemplar {
  spanId?: string;
  traceId?: string;
  timestamp?: string;
  value?: string;
  labels?: { name: string; value?: string }[];
}

export interface Series {
  labels?: { name: string; value?: string }[];
  points?: { value?: number; timestamp?: string; exemplars?: Exemplar[] }[];
}

export interface HeatmapSlot {
  /** The end of the step, Unix milliseconds. */
  timestamp?: string;
  /** Where rows begin. */
  yMin?: number[];
  /** Where the last row ends, if rows are not all of one height. */
  yEnd?: number;
  counts?: number[];
  exemplars?: Exemplar[];
}

/** The merged flame graph of a selection, as it travels. */
export function selectStackTraces(request: StackTraces, signal: AbortSignal): Promise<ArrayBuffer> {
  const headers: Record<string, string> = request.rollUp === false ? { "x-spanflame-roll-up": "false" } : {};
  return askForGraph("SelectMergeStacktraces", encoded(request), signal, headers);
}

/** The flame graph of a span or a trace, of its CPU type when the route names none. */
export function selectRoute({ of, id, rollUp, type }: OwnRoute, signal: AbortSignal): Promise<ArrayBuffer> {
  const request: StackTraces = {
    profileTypeID: type ?? CPU_TYPE,
    labelSelector: "{}",
    start: 0,
    end: 0,
    ...(of === "spans" ? { spanSelector: [id] } : { traceIdSelector: [id] }),
    ...(rollUp === undefined ? {} : { rollUp }),
  };
  return selectStackTraces(request, signal);
}

/** Two selections in one graph, as it travels; spans include their descendants. */
export function selectDiff(left: StackTraces, right: StackTraces, signal: AbortSignal): Promise<ArrayBuffer> {
  const body = message([
    [1, encoded(left)],
    [2, encoded(right)],
  ]);
  return askForGraph("Diff", body, signal);
}

/** `querier.v1.SelectMergeStacktracesRequest`. */
function encoded({ profileTypeID, labelSelector, start, end, ...of }: StackTraces): Uint8Array<ArrayBuffer> {
  return message([
    [1, profileTypeID],
    [2, labelSelector],
    [3, start],
    [4, end],
    [5, MAX_NODES],
    ...(of.traceIdSelector ?? []).map((id) => [10, id] as const),
    ...(of.spanSelector ?? []).map((id) => [11, id] as const),
  ]);
}

function askForGraph(
  method: string,
  body: Uint8Array<ArrayBuffer>,
  signal: AbortSignal,
  headers: Record<string, string> = {},
): Promise<ArrayBuffer> {
  const address = under(`querier.v1.QuerierService/${method}`);
  return bytesOf(address, {
    signal,
    method: "POST",
    body,
    headers: { ...headers, "content-type": "application/proto" },
  });
}

/** Values over time; with `frames`, only of stacks that hold all these functions. */
export async function selectSeries(
  request: OverTime,
  signal: AbortSignal,
  exemplars?: { frames: string[] },
): Promise<Series[]> {
  const more = exemplars && {
    exemplarType: "EXEMPLAR_TYPE_SPAN",
    stackTraceSelector: { frameFilter: { includeFunctionNames: exemplars.frames } },
  };
  return (await ask<{ series?: Series[] }>("SelectSeries", { ...request, ...more }, signal)).series ?? [];
}

/** How many spans of which size there were over time, with the largest of each cell if asked for. */
export async function selectSpanHeatmap(
  request: OverTime,
  exemplars: boolean,
  signal: AbortSignal,
): Promise<{ labels?: { name: string; value?: string }[]; slots?: HeatmapSlot[] }[]> {
  const more = {
    queryType: "HEATMAP_QUERY_TYPE_SPAN",
    exemplarType: exemplars ? "EXEMPLAR_TYPE_SPAN" : "EXEMPLAR_TYPE_NONE",
  };
  const body = { ...request, ...more };
  return (await ask<{ series?: { slots?: HeatmapSlot[] }[] }>("SelectHeatmap", body, signal)).series ?? [];
}

/** A type of profile that is stored. */
export interface StoredType {
  id: string;
  unit: string;
}

/** The types of all profiles that are stored. */
export async function storedTypes(signal: AbortSignal): Promise<StoredType[]> {
  const { profileTypes = [] } = await ask<{ profileTypes?: { ID?: string; sampleUnit?: string }[] }>(
    "ProfileTypes",
    { start: 0, end: 0 },
    signal,
  );
  return profileTypes.map(({ ID = "", sampleUnit = "" }) => ({ id: ID, unit: sampleUnit }));
}

/** From when to when there are profiles; undefined without any. Unix milliseconds. */
export async function storedTime(signal: AbortSignal): Promise<{ from: number; until: number } | undefined> {
  const stats = await ask<{ oldestProfileTime?: string; newestProfileTime?: string }>(
    "GetProfileStats",
    {},
    signal,
  );
  const [from, until] = [Number(stats.oldestProfileTime ?? 0), Number(stats.newestProfileTime ?? 0)];
  return until === 0 ? undefined : { from, until };
}

/** The values of a label, `service_name` or `span_name`, of one service or of all. */
export async function labelValues(
  name: string,
  labelSelector: string,
  signal: AbortSignal,
): Promise<string[]> {
  const body = { name, matchers: [labelSelector], start: 0, end: 0 };
  return (await ask<{ names?: string[] }>("LabelValues", body, signal)).names ?? [];
}

function ask<Answer>(
  method: string,
  body: object,
  signal: AbortSignal,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const address = under(`querier.v1.QuerierService/${method}`);
  const request = { signal, method: "POST", body: JSON.stringify(body), headers };
  return answerOf(address, request) as Promise<Answer>;
}
