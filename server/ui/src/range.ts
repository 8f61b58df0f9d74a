// The time that a page is about: a preset that moves with the clock, everything, or two instants. It lives in the address.

import { storedTime } from "./querier.ts";

export interface TimeRange {
  /** Unix milliseconds. */
  from: number;
  until: number;
}

const MINUTE = 60_000;

/** Presets by their name in the address. */
export const PRESETS = [
  ["15m", "Last 15 minutes", 15 * MINUTE],
  ["1h", "Last hour", 60 * MINUTE],
  ["6h", "Last 6 hours", 360 * MINUTE],
  ["24h", "Last day", 1440 * MINUTE],
  ["7d", "Last 7 days", 10_080 * MINUTE],
  ["all", "All that is kept", Infinity],
] as const;

export type Preset = (typeof PRESETS)[number][0];

export const DEFAULT_PRESET: Preset = "1h";

export type RangeChoice = { preset: Preset } | { preset: undefined; range: TimeRange };

/** What an address asks for. */
export function readRange(query: URLSearchParams): RangeChoice {
  const [from, until] = [Number(query.get("from") ?? NaN), Number(query.get("until") ?? NaN)];
  if (Number.isSafeInteger(from) && Number.isSafeInteger(until) && from < until) {
    return { preset: undefined, range: { from, until } };
  }
  const asked = query.get("range");
  return { preset: PRESETS.find(([name]) => name === asked)?.[0] ?? DEFAULT_PRESET };
}

const AROUND = 30 * MINUTE;

/** Half an hour more at both ends, to see something in what surrounds it. */
export function around({ from, until }: TimeRange): TimeRange {
  return { from: from - AROUND, until: until + AROUND };
}

/** A choice as part of a link's query. */
export function rangeQuery(choice: RangeChoice): Record<string, string> {
  if (choice.preset === undefined)
    return { from: String(choice.range.from), until: String(choice.range.until) };
  return choice.preset === DEFAULT_PRESET ? {} : { range: choice.preset };
}

/** The instants of a choice now. */
export async function resolveRange(choice: RangeChoice, signal: AbortSignal): Promise<TimeRange> {
  if (choice.preset === undefined) return choice.range;
  const now = Date.now();
  const length = PRESETS.find(([name]) => name === choice.preset)![2];
  if (length !== Infinity) return { from: now - length, until: now };
  const stored = await storedTime(signal);
  // A time series needs two ends that differ.
  return stored
    ? { from: stored.from, until: Math.max(stored.until, stored.from + 1000) }
    : { from: now - MINUTE, until: now };
}

/**
 * A range cut into steps, as series and heat maps are asked for: a point at `t` is of what began in `(t - step, t]`, so
 * that the first point lies a step after the beginning. Times are Unix milliseconds, the step is in seconds.
 */
export function stepsOf(
  { from, until }: TimeRange,
  steps: number,
): { start: number; end: number; step: number } {
  const step = Math.max(1, Math.ceil((until - from + 1) / steps));
  const start = from - 1 + step;
  return { start, end: Math.max(start + 1, from - 1 + steps * step), step: step / 1000 };
}
