// The spans of a trace as a table: who called whom, how much CPU each burned by itself and with those below it, and,
// where the server knows when spans ran, their place in time.

import { useState } from "preact/hooks";
import type { Ran, TraceSpan, TraceSummary } from "../api.ts";
import { displayName } from "../flame/names.ts";
import { formatCount, formatNanos } from "../format.ts";
import { SendTraces } from "./sendtraces.tsx";
import { ShowMore } from "./table.tsx";

interface Props {
  trace: TraceSummary;
  /** The span whose graph is shown; none for the whole trace. */
  chosen: string | undefined;
  onChoose: (spanId: string | undefined) => void;
}

/** Rows shown at first, and added by each "Show more". */
const PAGE = 200;
/** Deeper spans are not indented further. */
const MAX_INDENT = 16;

export function Waterfall({ trace, chosen, onChoose }: Props) {
  const at = trace.spans.findIndex(({ spanId }) => spanId === chosen);
  const [limit, setLimit] = useState(PAGE);
  const shown = trace.spans.slice(0, Math.max(limit, at + 1));
  const timed = trace.spans.flatMap(({ traced }) => (traced ? [traced] : []));
  const begin = Math.min(...timed.map(({ start }) => start));
  const end = Math.max(...timed.map(({ start, durationNanos }) => start + durationNanos / 1e6));
  const scale = { begin, length: Math.max(end - begin, 1e-6) };
  const most = Math.max(...trace.spans.map(({ totalCpuNanos }) => totalCpuNanos), 1);
  const hasTimes = timed.length > 0;
  const move = (event: KeyboardEvent) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const buttons = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("tbody button")];
    const next =
      buttons.indexOf(document.activeElement as HTMLElement) + (event.key === "ArrowDown" ? 1 : -1);
    if (!buttons[next]) return;
    event.preventDefault();
    buttons[next].focus();
  };
  return (
    <section class="waterfall" aria-labelledby="waterfall-title">
      <div class="section-head">
        <h2 id="waterfall-title">Spans</h2>
        <p class="quiet">
          {hasTimes
            ? `${formatNanos(scale.length * 1e6)} in all; the darker part of a bar is CPU time`
            : "Durations are not known here: bars show CPU time alone"}
        </p>
      </div>
      {!hasTimes && <SendTraces />}
      <div class="table-box">
        <table onKeyDown={move}>
          <thead>
            <tr>
              <th scope="col">Span</th>
              {hasTimes && (
                <th scope="col" class="number">
                  Duration
                </th>
              )}
              <th scope="col" class="number">
                Own CPU
              </th>
              <th scope="col" class="number">
                With children
              </th>
              <th scope="col" class="picture">
                <span class="visually-hidden">Picture</span>
              </th>
            </tr>
          </thead>
          <tbody>
            <tr aria-current={chosen === undefined ? "true" : undefined}>
              <td colSpan={hasTimes ? 5 : 4}>
                <button type="button" class="row-choice" onClick={() => onChoose(undefined)}>
                  Whole trace
                </button>
              </td>
            </tr>
            {shown.map((span) => (
              <tr key={span.spanId} aria-current={span.spanId === chosen ? "true" : undefined}>
                <td>
                  <button
                    type="button"
                    class="row-choice"
                    style={{ paddingLeft: `${Math.min(span.depth, MAX_INDENT) * 14}px` }}
                    onClick={() => onChoose(span.spanId)}
                  >
                    <span class="name">
                      {span.name === null ? `(unnamed) ${span.spanId}` : displayName(span.name, 160)}
                    </span>
                    {span.service !== null && (
                      <span class="name quiet small">{displayName(span.service, 60)}</span>
                    )}
                    {span.traced?.status === "error" && <span class="failed small">error</span>}
                    {span.depth > MAX_INDENT && <span class="quiet small">level {span.depth + 1}</span>}
                  </button>
                </td>
                {hasTimes && (
                  <td class="number">{span.traced ? formatNanos(span.traced.durationNanos) : "–"}</td>
                )}
                <td class="number">{formatNanos(span.cpuNanos)}</td>
                <td class="number">{formatNanos(span.totalCpuNanos)}</td>
                <td class="picture">
                  {!hasTimes && <CpuBar span={span} most={most} />}
                  {span.traced && <TimeBar ran={span.traced} cpuNanos={span.cpuNanos} scale={scale} />}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <ShowMore
        shown={shown.length}
        of={trace.spans.length}
        page={PAGE}
        onMore={() => setLimit(limit + PAGE)}
      />
      {trace.spanCount > trace.spans.length && (
        <p class="quiet">
          The server lists {formatCount(trace.spans.length)} of {formatCount(trace.spanCount)} spans.
        </p>
      )}
    </section>
  );
}

/** Own CPU and that of the spans below, as parts of the most that any span has. */
function CpuBar({ span, most }: { span: TraceSpan; most: number }) {
  const width = (nanos: number) => `${(100 * nanos) / most}%`;
  return (
    <div class="cpu-bar" aria-hidden="true">
      <div class="own" style={{ width: width(span.cpuNanos) }} />
      <div class="below" style={{ width: width(Math.max(0, span.totalCpuNanos - span.cpuNanos)) }} />
    </div>
  );
}

/** When a span ran; its own CPU time fills the bar from the left, more of it than time if it ran on several threads. */
function TimeBar(props: { ran: Ran; cpuNanos: number; scale: { begin: number; length: number } }) {
  const { ran, cpuNanos, scale } = props;
  const left = (100 * (ran.start - scale.begin)) / scale.length;
  const width = (100 * ran.durationNanos) / 1e6 / scale.length;
  const cpu = ran.durationNanos > 0 ? Math.min(1, cpuNanos / ran.durationNanos) : 0;
  return (
    <div class="time-bar" aria-hidden="true">
      <div
        class={ran.status === "error" ? "ran failed" : "ran"}
        style={{ left: `${left}%`, width: `${width}%` }}
      >
        <div class="own" style={{ width: `${100 * cpu}%` }} />
      </div>
    </div>
  );
}
