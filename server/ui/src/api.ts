// The public REST API as the page uses it: typed answers, one error type, no other way to the network. `querier.ts` asks
// through it, too.

import { under } from "./base.ts";
import { authorization, refused } from "./token.ts";

export interface ProfileTypeSummary {
  /** `name:sample type:sample unit:period type:period unit`. */
  id: string;
  unit: string;
  total: number;
  samples: number;
}

export type SpanStatus = "unset" | "ok" | "error";

/** When a span ran and how it ended, where its trace was sent to the server. `start` is Unix milliseconds with fractions. */
export interface Ran {
  start: number;
  durationNanos: number;
  status: SpanStatus;
}

export type Attributes = Record<string, unknown>;

/** What a span says of itself. */
export interface Traced extends Ran {
  kind: string;
  statusMessage: string;
  attributes: Attributes;
  events: { at: number; name: string; attributes: Attributes }[];
  links: { traceId: string; spanId: string; attributes: Attributes }[];
  dropped: { attributes: number; events: number; links: number };
  /** With a single span. */
  resource?: Attributes;
}

/** What the server knows about a span. Times are Unix milliseconds, CPU time is nanoseconds. */
export interface SpanSummary {
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
  traced?: Traced;
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
export interface TraceSpan {
  spanId: string;
  parentSpanId: string | null;
  depth: number;
  service: string | null;
  name: string | null;
  samples: number;
  cpuNanos: number;
  totalSamples: number;
  totalCpuNanos: number;
  traced?: Traced;
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
  traced?: {
    start: number;
    durationNanos: number;
    spanCount: number;
    errorCount: number;
    /** Whether later spans are without attributes, events and links, for their size. */
    attributesLeftOut: boolean;
    /** Whether it has more spans than the server reads of one trace. */
    truncated: boolean;
  };
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

export interface SpanListEntry extends Partial<Ran> {
  spanId: string;
  traceId: string | null;
  service: string;
  name: string | null;
  samples: number;
  cpuNanos: number;
  from: number;
  until: number;
  /** Under the function that was asked for. */
  functionNanos?: number;
}

/** A trace that a search found. */
export interface FoundTrace {
  traceId: string;
  service: string;
  name: string;
  start: number;
  durationNanos: number;
  services: string[];
  spanCount: number;
  errorCount: number;
  matchCount: number;
  matched: Ran & { spanId: string; service: string; name: string };
  samples: number;
  cpuNanos: number;
}

/** What an operation cost, and how long its spans lasted where traces tell. */
export interface OperationSummary {
  service: string;
  name: string | null;
  cpuNanos: number;
  samples: number;
  sampledSpans: number;
  cpuNanosPerRequest: number | null;
  traced: {
    count: number;
    errorCount: number;
    p50Nanos: number;
    p95Nanos: number;
    p99Nanos: number;
    maxNanos: number;
  } | null;
}

export interface Operations {
  cpuNanos: number;
  services: {
    service: string;
    cpuNanos: number;
    samples: number;
    outsideCpuNanos: number;
    outsideSamples: number;
  }[];
  operations: OperationSummary[];
  operationCount: number;
  tracesKnown: boolean;
}

/** Spans counted by when they began and how long they lasted; rows from the shortest. */
export interface DurationsOverTime {
  from: number;
  until: number;
  edges: number[];
  columns: number[][];
  count: number;
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
  /** What a span without samples says of itself. */
  readonly traced: (Traced & { traceId: string; service: string; name: string }) | undefined;

  constructor(status: number, message: string, body: Partial<ErrorBody> = {}) {
    super(message);
    this.status = status;
    this.code = typeof body.code === "string" ? body.code : "unknown";
    this.reason = typeof body.reason === "string" ? body.reason : undefined;
    this.hints = Array.isArray(body.hints) ? body.hints.filter((hint) => typeof hint === "string") : [];
    this.store = body.store;
    const { traced, traceId = "", service = "", name = "" } = body;
    this.traced = traced && { ...traced, traceId, service, name };
  }
}

interface ErrorBody {
  code: string;
  message: string;
  reason: string;
  hints: string[];
  store: StoreSummary;
  traced: Traced;
  traceId: string;
  service: string;
  name: string;
}

/** How many nodes a flame graph may have; the server folds the lightest beyond that into `other`. */
export const MAX_NODES = 50_000;

export function fetchSpan(spanId: string, signal: AbortSignal): Promise<SpanSummary> {
  return get<SpanSummary>(`spans/${encodeURIComponent(spanId)}`, {}, signal);
}

export function fetchTrace(traceId: string, signal: AbortSignal): Promise<TraceSummary> {
  return get<TraceSummary>(`traces/${encodeURIComponent(traceId)}`, {}, signal);
}

interface RouteParams {
  /** Whether descendants' samples in the same process belong to spans; not for traces. */
  rollUp?: boolean;
  type: string | undefined;
}

/** The profile of a span or a trace. */
export type OwnRoute = RouteParams & { of: "spans" | "traces"; id: string };

/** A profile that the server writes in its formats: of a span, a trace, or any selection. */
export type ProfileRoute =
  | OwnRoute
  | (RouteParams & {
      of: "selection";
      selector?: string;
      spans?: string[];
      from?: number;
      until?: number;
    });

/** The address of a profile in one of the server's formats. */
export function profileAddress(route: ProfileRoute, format: string): string {
  const { of, rollUp, type } = route;
  const url = new URL(
    under(of === "selection" ? "api/v1/profile" : `api/v1/${of}/${encodeURIComponent(route.id)}/profile`),
  );
  const set = (name: string, value: string | number | undefined) =>
    value !== undefined && url.searchParams.set(name, String(value));
  set("format", format);
  set("type", type);
  if (rollUp === false) set("rollUp", "false");
  if (of === "selection") {
    set("selector", route.selector);
    set("spans", route.spans?.join(","));
    set("from", route.from);
    set("until", route.until);
  }
  return url.href;
}

/** The gzipped pprof of a span or a trace. */
export function fetchPprof(route: ProfileRoute, signal: AbortSignal): Promise<ArrayBuffer> {
  return bytesOf(profileAddress(route, "pprof"), { signal });
}

/** A file and the name that the server gives it. */
export async function fetchFile(
  address: string,
  signal: AbortSignal,
): Promise<{ bytes: ArrayBuffer; fileName: string | undefined }> {
  const response = await send(address, { signal });
  const named = /filename="([^"/\\]+)"/.exec(response.headers.get("content-disposition") ?? "");
  return { bytes: await response.arrayBuffer(), fileName: named?.[1] };
}

/** Why the server finds what it finds for a span, a trace or a selector. */
export function explain(
  query: { span?: string; trace?: string; type?: string; selector?: string; from?: number; until?: number },
  signal: AbortSignal,
): Promise<Explanation> {
  const texts = Object.entries(query).map(([key, value]) => [key, value?.toString()] as const);
  return get<Explanation>("explain", Object.fromEntries(texts), signal);
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
  /** Only those with CPU time under this function, by that. */
  function?: string | undefined;
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

/** Which traces to find; durations as people write them (`250ms`), attributes as `key=value`. */
export interface TraceFilter {
  service?: string | undefined;
  name?: string | undefined;
  minDuration?: string | undefined;
  maxDuration?: string | undefined;
  status?: string | undefined;
  attributes?: string[];
  from?: number | undefined;
  until?: number | undefined;
  limit: number;
  after?: string | undefined;
}

/** Traces by what their spans say, and where the next page begins if there is one. */
export async function fetchTraces(
  { attributes = [], ...filter }: TraceFilter,
  signal: AbortSignal,
): Promise<{ traces: FoundTrace[]; next: string | undefined; known: boolean }> {
  const url = new URL(under("api/v1/traces"));
  for (const [key, value] of Object.entries(filter))
    if (value !== undefined) url.searchParams.set(key, String(value));
  for (const attribute of attributes) url.searchParams.append("attribute", attribute);
  const answer = (await answerOf(url.href, { signal })) as {
    traces: FoundTrace[];
    next: string | null;
    known: boolean;
  };
  return { ...answer, next: answer.next ?? undefined };
}

/** What operations cost and how long they lasted, of one service or of all. */
export function fetchOperations(
  query: { service?: string | undefined; from: number; until: number; limit: number },
  signal: AbortSignal,
): Promise<Operations> {
  const { service, from, until, limit } = query;
  const texts = { service, from: String(from), until: String(until), limit: String(limit) };
  return get<Operations>("operations", texts, signal);
}

/** An operation's spans over time by how long they lasted. */
export function fetchDurations(
  query: { service: string; name: string; from: number; until: number; columns: number; rows: number },
  signal: AbortSignal,
): Promise<DurationsOverTime> {
  const texts = Object.entries(query).map(([key, value]) => [key, String(value)] as const);
  return get<DurationsOverTime>("operations/durations", Object.fromEntries(texts), signal);
}

/** The first page alone. */
export async function fetchSpans(filter: SpanFilter, signal: AbortSignal): Promise<SpanListEntry[]> {
  return (await fetchSpanPage(filter, signal)).spans;
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

interface Request {
  signal: AbortSignal;
  method?: string;
  body?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
}

/** Fails unless the server knows a token. */
export async function checkToken(token: string, signal: AbortSignal): Promise<void> {
  await send(under("api/v1/status/buildinfo"), { signal, headers: authorization(token) }, () => {});
}

/** The JSON object at an address. */
export async function answerOf(address: string, request: Request): Promise<object> {
  const response = await send(address, request);
  const body = await jsonOf(response, request.signal);
  if (typeof body !== "object" || body === null)
    throw new ApiError(response.status, "The server's answer is no JSON object.");
  return body;
}

/** The bytes at an address. */
export async function bytesOf(address: string, request: Request): Promise<ArrayBuffer> {
  const response = await send(address, request);
  try {
    return await response.arrayBuffer();
  } catch (cause) {
    if (request.signal.aborted) throw cause;
    throw new ApiError(0, "The server's answer broke off.");
  }
}

/** Sends a request; anything but success is an `ApiError`, and a want of a good token is told. */
async function send(address: string, request: Request, onRefused = refused): Promise<Response> {
  const sent = authorization();
  const headers = {
    accept: "application/json",
    // Whoever answers 401 is to leave the asking to the page rather than to the browser.
    "x-requested-with": "XMLHttpRequest",
    ...sent,
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
  // Meanwhile the reader may have entered another.
  if (response.status === 401 && sent["authorization"] === authorization()["authorization"])
    onRefused(message);
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
