// The public REST API as the page uses it: typed answers, one error type, no other way to the network.

import { under } from "./base.ts";
import type { FlameGraphMessage } from "./flame/decode.ts";

export interface ProfileTypeSummary {
  /** `name:sample type:sample unit:period type:period unit`. */
  id: string;
  unit: string;
  total: number;
  samples: number;
}

/** How long a span took, where the server knows its trace. */
interface MayHaveDuration {
  durationNanos?: number | null;
}

/** What the server knows about a span. Times are Unix milliseconds, CPU time is nanoseconds. */
export interface SpanSummary extends MayHaveDuration {
  spanId: string;
  traceId: string | null;
  parentSpanId: string | null;
  localRootSpanId: string | null;
  service: string;
  name: string | null;
  labels: Record<string, string>;
  from: number;
  until: number;
  profileTypes: ProfileTypeSummary[];
  samples: number;
  cpuNanos: number;
  ownSamples: number;
  ownCpuNanos: number;
  children: SpanChild[];
  childCount: number;
}

/** A span directly below another, with all that lies below it. */
export interface SpanChild {
  spanId: string;
  service: string | null;
  name: string | null;
  samples: number;
  cpuNanos: number;
}

/** A span in its trace; the `own` values are without those of the spans below it. */
export interface TraceSpan extends MayHaveDuration {
  spanId: string;
  parentSpanId: string | null;
  depth: number;
  service: string | null;
  name: string | null;
  samples: number;
  cpuNanos: number;
  totalSamples: number;
  totalCpuNanos: number;
  /** When the span itself began (Unix milliseconds), where the server knows the trace. */
  start?: number | null;
}

export interface TraceSummary {
  traceId: string;
  services: string[];
  from: number;
  until: number;
  profileTypes: ProfileTypeSummary[];
  samples: number;
  cpuNanos: number;
  spans: TraceSpan[];
  spanCount: number;
}

/** Why a query is empty, or that it is not, and what its senders lost. */
export interface Explanation {
  empty: boolean;
  reason: string;
  message: string;
  advice: string | null;
  causes: { reason: string; message: string; advice: string }[];
  samples: { inWindow: number };
  losses: { cause: string; samples: number }[];
  store: StoreSummary;
}

export interface SpanListEntry extends MayHaveDuration {
  spanId: string;
  traceId: string | null;
  service: string;
  name: string | null;
  samples: number;
  cpuNanos: number;
  from: number;
  until: number;
}

export interface StoreSummary {
  profiles: number;
  spans: number;
  oldest: number | null;
  newest: number | null;
}

/** Why a request gave no answer. `status` is 0 when no answer came at all. */
export class ApiError extends Error {
  override name = "ApiError";
  readonly status: number;
  readonly code: string;
  readonly reason: string | undefined;
  readonly hints: readonly string[];
  readonly store: StoreSummary | undefined;

  constructor(status: number, message: string, body: Partial<ErrorBody> = {}) {
    super(message);
    this.status = status;
    this.code = typeof body.code === "string" ? body.code : "unknown";
    this.reason = typeof body.reason === "string" ? body.reason : undefined;
    this.hints = Array.isArray(body.hints) ? body.hints.filter((hint) => typeof hint === "string") : [];
    this.store = body.store;
  }
}

interface ErrorBody {
  code: string;
  message: string;
  reason: string;
  hints: string[];
  store: StoreSummary;
}

/** How many nodes a flame graph may have; the server folds the lightest beyond that into `other`. */
export const MAX_NODES = 50_000;

export function fetchSpan(spanId: string, signal: AbortSignal): Promise<SpanSummary> {
  return get<SpanSummary>(`spans/${encodeURIComponent(spanId)}`, {}, signal);
}

export function fetchTrace(traceId: string, signal: AbortSignal): Promise<TraceSummary> {
  return get<TraceSummary>(`traces/${encodeURIComponent(traceId)}`, {}, signal);
}

/** A profile that has a route of its own. */
export interface ProfileRoute {
  of: "spans" | "traces";
  id: string;
  /** Whether descendants' samples in the same process belong to the span; only for spans. */
  rollUp?: boolean;
  type: string | undefined;
}

/** The address of a profile in one of the server's formats. */
export function profileAddress({ of, id, rollUp, type }: ProfileRoute, format: string): string {
  const url = new URL(under(`api/v1/${of}/${encodeURIComponent(id)}/profile`));
  url.searchParams.set("format", format);
  if (type !== undefined) url.searchParams.set("type", type);
  if (rollUp === false) url.searchParams.set("rollUp", "false");
  return url.href;
}

/** The flame graph of a span or a trace, of its CPU type when the route names none. */
export async function fetchFlameGraph(route: ProfileRoute, signal: AbortSignal): Promise<FlameGraphMessage> {
  const address = `${profileAddress(route, "flamegraph")}&maxNodes=${MAX_NODES}`;
  return ((await answerOf(address, { signal })) as { flamegraph?: FlameGraphMessage }).flamegraph ?? {};
}

/** The gzipped pprof of a span or a trace. */
export async function fetchPprof(route: ProfileRoute, signal: AbortSignal): Promise<Blob> {
  return (await send(profileAddress(route, "pprof"), { signal })).blob();
}

/** Why the server finds what it finds for a span, a trace or a selector. */
export function explain(
  query: { span?: string; trace?: string; type?: string; selector?: string; from?: number; until?: number },
  signal: AbortSignal,
): Promise<Explanation> {
  const texts = Object.entries(query).map(([key, value]) => [key, value?.toString()] as const);
  return get<Explanation>("explain", Object.fromEntries(texts), signal);
}

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
  yMin?: number[];
  counts?: number[];
  exemplars?: Exemplar[];
}

/** The merged flame graph of a selection. */
export async function selectStackTraces(
  { rollUp, ...request }: StackTraces,
  signal: AbortSignal,
): Promise<FlameGraphMessage> {
  const body = { ...request, maxNodes: MAX_NODES };
  const headers: Record<string, string> = rollUp === false ? { "x-spanflame-roll-up": "false" } : {};
  const answer = await ask<{ flamegraph?: FlameGraphMessage }>(
    "SelectMergeStacktraces",
    body,
    signal,
    headers,
  );
  return answer.flamegraph ?? {};
}

/** Two selections in one graph; spans include their descendants. */
export async function selectDiff(
  left: StackTraces,
  right: StackTraces,
  signal: AbortSignal,
): Promise<FlameGraphMessage> {
  const body = { left: { ...left, maxNodes: MAX_NODES }, right: { ...right, maxNodes: MAX_NODES } };
  return (await ask<{ flamegraph?: FlameGraphMessage }>("Diff", body, signal)).flamegraph ?? {};
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

/** What spans cost, descendants in the same process included, in the order of the ids. */
export async function costOfSpans(
  spanIds: string[],
  signal: AbortSignal,
): Promise<{ samples: number; cpuNanos: number }[]> {
  const answer = (await answerOf(under("api/v1/spans:exists"), {
    signal,
    method: "POST",
    body: JSON.stringify({ spanIds }),
  })) as { spans?: { samples: number; cpuNanos: number }[] };
  return answer.spans ?? [];
}

/** Which spans to list, and in which order. */
export interface SpanFilter {
  service?: string | undefined;
  name?: string | undefined;
  traceId?: string | undefined;
  from?: number | undefined;
  until?: number | undefined;
  /** By CPU unless told. */
  sort?: "cpu" | "samples" | "newest";
  limit: number;
  /** Where the page before ended. */
  after?: string | undefined;
}

/** Spans with samples of their own, and where the next page begins if there is one. */
export async function fetchSpanPage(
  filter: SpanFilter,
  signal: AbortSignal,
): Promise<{ spans: SpanListEntry[]; next: string | undefined }> {
  const texts = Object.entries(filter).map(([key, value]) => [key, value?.toString()] as const);
  const answer = await get<{ spans?: SpanListEntry[]; next?: string | null }>(
    "spans",
    Object.fromEntries(texts),
    signal,
  );
  return { spans: answer.spans ?? [], next: answer.next ?? undefined };
}

/** The first page alone. */
export async function fetchSpans(filter: SpanFilter, signal: AbortSignal): Promise<SpanListEntry[]> {
  return (await fetchSpanPage(filter, signal)).spans;
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

function get<Answer>(
  path: string,
  query: Record<string, string | undefined>,
  signal: AbortSignal,
): Promise<Answer> {
  const url = new URL(under(`api/v1/${path}`));
  for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, value);
  return answerOf(url.href, { signal }) as Promise<Answer>;
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

interface Request {
  signal: AbortSignal;
  method?: string;
  body?: string;
  headers?: Record<string, string>;
}

async function answerOf(address: string, request: Request): Promise<object> {
  const response = await send(address, request);
  const body = await jsonOf(response, request.signal);
  if (typeof body !== "object" || body === null)
    throw new ApiError(response.status, "The server's answer is no JSON object.");
  return body;
}

/** Sends a request; anything but success is an `ApiError`. */
async function send(address: string, request: Request): Promise<Response> {
  const headers = {
    accept: "application/json",
    ...(request.body === undefined ? {} : { "content-type": "application/json" }),
    ...request.headers,
  };
  let response: Response;
  try {
    response = await fetch(address, { ...request, headers });
  } catch (cause) {
    if (request.signal.aborted) throw cause;
    throw new ApiError(0, "The server does not answer.");
  }
  if (response.ok) return response;
  const body = await jsonOf(response, request.signal);
  const error = (typeof body === "object" && body !== null ? body : {}) as Partial<ErrorBody>;
  const message =
    typeof error.message === "string" ? error.message : `The server answered ${response.status}.`;
  throw new ApiError(response.status, message, error);
}

async function jsonOf(response: Response, signal: AbortSignal): Promise<unknown> {
  try {
    return await response.json();
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(response.status, `The server answered ${response.status} without JSON.`);
  }
}
