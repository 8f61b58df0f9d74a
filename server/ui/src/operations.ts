// What each operation of each service cost in some time, and how long its spans lasted where traces tell.

import { fetchOperations, type OperationSummary } from "./api.ts";
import type { TimeRange } from "./range.ts";

export interface Service {
  service: string;
  cpuNanos: number;
  samples: number;
  /** Heaviest first; those of which traces alone tell come last. */
  operations: OperationSummary[];
  /** What ran in no span. */
  outsideCpuNanos: number;
  outsideSamples: number;
}

/** The most operations that are asked for. */
export const MAX_OPERATIONS = 2000;

/** The services, or one of them, heaviest first, and whether the server knows any traces. */
export async function fetchServices(
  { from, until }: TimeRange,
  service: string | undefined,
  signal: AbortSignal,
): Promise<{ services: Service[]; tracesKnown: boolean }> {
  const answer = await fetchOperations({ service, from, until, limit: MAX_OPERATIONS }, signal);
  const services = answer.services.map((each) => ({
    ...each,
    operations: answer.operations.filter((operation) => operation.service === each.service),
  }));
  return { services, tracesKnown: answer.tracesKnown };
}
