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
}

export interface SpanListEntry {
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

/** The flame graph of a span, of its CPU type when `type` is undefined. */
export async function fetchFlameGraph(
  spanId: string,
  type: string | undefined,
  signal: AbortSignal,
): Promise<FlameGraphMessage> {
  const query = { type, maxNodes: String(MAX_NODES), format: "flamegraph" };
  const path = `spans/${encodeURIComponent(spanId)}/profile`;
  return (await get<{ flamegraph?: FlameGraphMessage }>(path, query, signal)).flamegraph ?? {};
}

/** Spans with most CPU, heaviest first. */
export async function fetchSpans(
  filter: { service: string | undefined; traceId: string | undefined; limit: number },
  signal: AbortSignal,
): Promise<SpanListEntry[]> {
  const query = { service: filter.service, traceId: filter.traceId, limit: String(filter.limit) };
  return (await get<{ spans?: SpanListEntry[] }>("spans", query, signal)).spans ?? [];
}

async function get<Answer>(
  path: string,
  query: Record<string, string | undefined>,
  signal: AbortSignal,
): Promise<Answer> {
  const url = new URL(under(`api/v1/${path}`));
  for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, value);
  let response: Response;
  try {
    response = await fetch(url, { signal, headers: { accept: "application/json" } });
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(0, "The server does not answer.");
  }
  let body: unknown;
  try {
    body = await response.json();
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(response.status, `The server answered ${response.status} without JSON.`);
  }
  const isObject = typeof body === "object" && body !== null;
  if (!response.ok) {
    const error = (isObject ? body : {}) as Partial<ErrorBody>;
    const message =
      typeof error.message === "string" ? error.message : `The server answered ${response.status}.`;
    throw new ApiError(response.status, message, error);
  }
  if (!isObject) throw new ApiError(response.status, "The server's answer is no JSON object.");
  return body as Answer;
}
