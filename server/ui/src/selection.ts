// A set of samples: those of a span, a trace, an operation or a service, in some time. It has one text form, which links
// carry, and one form as a request.

import type { StackTraces } from "./querier.ts";

export interface Selection {
  span?: string;
  trace?: string;
  service?: string;
  /** A span name; "" selects samples of no span. */
  name?: string;
  /** The spans in the middle of the operation's distribution rather than its samples. */
  typical?: boolean;
  /** Unix milliseconds. */
  from?: number;
  until?: number;
}

export const CPU_TYPE = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";

/** Reads what `selectionText` wrote; unknown keys are left out. Undefined if nothing is selected. */
export function parseSelection(text: string | null): Selection | undefined {
  if (!text) return undefined;
  const params = new URLSearchParams(text);
  const selection: Selection = {};
  for (const key of ["span", "trace", "service", "name"] as const) {
    const value = params.get(key);
    if (value !== null) selection[key] = value;
  }
  for (const key of ["from", "until"] as const) {
    const value = Number(params.get(key) ?? NaN);
    if (Number.isSafeInteger(value)) selection[key] = value;
  }
  if (params.get("typical") === "1") selection.typical = true;
  const { span, trace, service, name } = selection;
  return (span ?? trace ?? service ?? name) === undefined ? undefined : selection;
}

/** The text form, as a query string. */
export function selectionText(selection: Selection): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(selection)) {
    if (value !== undefined && value !== false) params.set(key, value === true ? "1" : String(value));
  }
  return params.toString();
}

/** The label selector for a service and a span name. */
export function labelSelector({ service, name }: Selection): string {
  const matchers = [
    ...(service === undefined ? [] : [`service_name=${quoted(service)}`]),
    ...(name === undefined ? [] : [`span_name=${quoted(name)}`]),
  ];
  return `{${matchers.join(",")}}`;
}

/** The request for its merged stack traces. */
export function stackTraces(selection: Selection, type = CPU_TYPE): StackTraces {
  const { span, trace, from, until } = selection;
  return {
    profileTypeID: type,
    labelSelector: labelSelector(selection),
    start: from ?? 0,
    end: until ?? (from === undefined ? 0 : Number.MAX_SAFE_INTEGER),
    ...(span === undefined ? {} : { spanSelector: [span] }),
    ...(trace === undefined ? {} : { traceIdSelector: [trace] }),
  };
}

/** Where the page of a selection is. */
export function pathOf(selection: Selection): string {
  const { span, trace, service, name, from, until } = selection;
  if (span !== undefined) return `span/${span}`;
  if (trace !== undefined) return `trace/${trace}`;
  const params = new URLSearchParams();
  if (service !== undefined) params.set("service", service);
  if (name !== undefined) params.set("name", name);
  if (from !== undefined) params.set("from", String(from));
  if (until !== undefined) params.set("until", String(until));
  return `${name === undefined ? "services" : "operation"}?${params}`;
}

/** A text between double quotes as label selectors take it. */
function quoted(text: string): string {
  return JSON.stringify(text);
}
