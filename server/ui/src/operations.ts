// What each operation of each service cost in some time: sums by service and span name.

import { selectSeries, selectSpanHeatmap, type OverTime } from "./querier.ts";
import { stepsOf, type TimeRange } from "./range.ts";
import { CPU_TYPE, labelSelector } from "./selection.ts";

export interface Operation {
  /** The span name; "" for what ran in no span. */
  name: string;
  cpuNanos: number;
  samples: number;
  spans: number;
}

export interface Service {
  service: string;
  cpuNanos: number;
  /** Heaviest first, what ran in no span left out. */
  operations: Operation[];
  /** What ran in no span; all zero if nothing did. */
  outside: Operation;
}

/** The most operations that are asked for. */
export const MAX_OPERATIONS = 2000;

export const SAMPLES_TYPE = "process_cpu:samples:count:cpu:nanoseconds";

/** The services, or one of them, heaviest first. */
export async function fetchServices(
  range: TimeRange,
  service: string | undefined,
  signal: AbortSignal,
): Promise<Service[]> {
  const request = (groupBy: string[], type = CPU_TYPE): OverTime => ({
    profileTypeID: type,
    labelSelector: labelSelector(service === undefined ? {} : { service }),
    ...stepsOf(range, 1),
    groupBy,
    ...(groupBy.length > 1 ? { limit: MAX_OPERATIONS } : {}),
  });
  const both = ["service_name", "span_name"];
  const [totals, cpu, samples, spans] = await Promise.all([
    selectSeries(request(["service_name"]), signal),
    selectSeries(request(both), signal),
    selectSeries(request(both, SAMPLES_TYPE), signal),
    selectSpanHeatmap(request(both), false, signal),
  ]);
  const services = new Map<string, Service>();
  for (const { labels, points = [] } of totals) {
    const name = labelOf(labels, "service_name");
    const cpuNanos = sum(points.map(({ value }) => value));
    services.set(name, { service: name, cpuNanos, operations: [], outside: operation("") });
  }
  const add = (labels: Labels, field: "cpuNanos" | "samples" | "spans", value: number) => {
    const of = services.get(labelOf(labels, "service_name"));
    if (!of) return;
    const name = labelOf(labels, "span_name");
    let found = name === "" ? of.outside : of.operations.find((each) => each.name === name);
    if (!found) of.operations.push((found = operation(name)));
    found[field] += value;
  };
  for (const { labels, points = [] } of cpu) add(labels, "cpuNanos", sum(points.map(({ value }) => value)));
  for (const { labels, points = [] } of samples)
    add(labels, "samples", sum(points.map(({ value }) => value)));
  for (const { labels, slots = [] } of spans) {
    add(labels, "spans", sum(slots.flatMap(({ counts = [] }) => counts)));
  }
  const heaviest = (a: { cpuNanos: number }, b: { cpuNanos: number }) => b.cpuNanos - a.cpuNanos;
  for (const each of services.values()) each.operations.sort(heaviest);
  return [...services.values()].sort(heaviest);
}

type Labels = { name: string; value?: string }[] | undefined;

function labelOf(labels: Labels, name: string): string {
  return labels?.find((label) => label.name === name)?.value ?? "";
}

function operation(name: string): Operation {
  return { name, cpuNanos: 0, samples: 0, spans: 0 };
}

function sum(values: (number | undefined)[]): number {
  return values.reduce<number>((total, value) => total + (value ?? 0), 0);
}
